"""Endpoints: the subscribers' URLs, what they want, and the secret that signs for them."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from datetime import datetime

from cryptography.fernet import MultiFernet
from sqlalchemy import Connection, Engine, select, update

from handlers.errors import BillhookError
from handlers.registry import valid_pattern
from handlers.signing import STANDARD, hmac_key
from workers import database, ids
from workers.models import AnyRow, Endpoint

SECRET_BYTES = 32


class EndpointError(BillhookError):
    """An endpoint cannot be as asked; the message says what to change."""


def add(
    engine: Engine,
    vault: MultiFernet,
    url: str,
    *,
    event_types: Sequence[str] = ("*",),
    description: str = "",
    secret: str | None = None,
    allow_private: bool,
    now: datetime,
) -> tuple[str, str]:
    """Store an endpoint; (id, secret). The secret (`whsec_…`, made here unless given) is readable only now.

    Raises EndpointError.
    """
    from workers.delivery import egress  # it needs the HTTP client, which listing endpoints does not

    try:
        egress.check_url(url, private=allow_private)
    except egress.Refused as error:
        raise EndpointError(str(error)) from None
    if not event_types:
        raise EndpointError("an endpoint that wants no event type gets nothing: name some, or * for all")
    for pattern in event_types:
        if not valid_pattern(pattern):
            raise EndpointError(f"{pattern!r} is not an event type, a prefix with .* or *")
    secret = secret or "whsec_" + base64.b64encode(os.urandom(SECRET_BYTES)).decode()
    try:
        key = hmac_key(STANDARD, secret)
    except ValueError as error:
        raise EndpointError(str(error)) from None
    if not 24 <= len(key) <= 64:
        raise EndpointError("a secret holds 24 to 64 bytes (Standard Webhooks)")
    endpoint_id = ids.new("ep")
    with database.write(engine) as connection:
        connection.execute(
            database.insert(connection, Endpoint),
            [
                {
                    "id": endpoint_id,
                    "url": url,
                    "description": description,
                    "event_types": list(event_types),
                    "secret": vault.encrypt(secret.encode()),
                    "status": "enabled",
                    "created_at": now,
                }
            ],
        )
    return endpoint_id, secret


def everyone(engine: Engine) -> Sequence[AnyRow]:
    """All endpoints, oldest first, without their secrets."""
    statement = select(
        Endpoint.id,
        Endpoint.url,
        Endpoint.event_types,
        Endpoint.status,
        Endpoint.disabled_reason,
        Endpoint.description,
        Endpoint.created_at,
    ).order_by(Endpoint.id)
    with database.read(engine) as connection:
        return connection.execute(statement).all()


def disable(connection: Connection, endpoint_id: str, reason: str) -> None:
    """Stop sending to an endpoint; what waits for it is cancelled when its turn comes."""
    connection.execute(
        update(Endpoint)
        .where(Endpoint.id == endpoint_id, Endpoint.status == "enabled")
        .values(status="disabled", disabled_reason=reason)
    )
