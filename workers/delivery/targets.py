"""Targets: endpoints as a sender needs them, with their secrets opened."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Any

from cryptography.fernet import MultiFernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Select, bindparam, select

from workers import database, retry
from workers.delivery import headers, keys
from workers.delivery.health import Health
from workers.logs import log
from workers.models import AnyRow, Endpoint
from workers.vault import VaultError, decrypt

_SAID_AGAIN = 60.0
"""Seconds between two log lines about one endpoint whose secrets cannot be read."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """The limits of an endpoint that has none of its own."""

    places: int = 20
    rate: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint: where it is, what goes with each request, its limits, and how it was last."""

    id: str
    url: str = field(repr=False)
    keys: tuple[bytes | Ed25519PrivateKey, ...] = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    ca: str | None = field(repr=False)
    certificate: str | None = field(repr=False)
    schedule: Sequence[timedelta]
    places: int
    rate: int
    health: Health
    readable: bool = True
    """False where its secrets were encrypted with a key that we do not have."""


def look_up(
    connection: Connection, vault: MultiFernet, endpoint_ids: Sequence[str], *, defaults: Defaults, now: datetime
) -> dict[str, Target]:
    """These endpoints, by id."""
    if not endpoint_ids:
        return {}
    rows = connection.execute(_by_ids(connection.dialect.name), {"ids": list(endpoint_ids)}).all()
    signing = keys.load(connection, [row.id for row in rows], now)
    return {row.id: _target(vault, row, signing.get(row.id, ()), defaults) for row in rows}


@cache
def _by_ids(dialect: str) -> Select[Any]:
    """Written once, because it takes longer to write than to run."""
    return select(*Endpoint.__table__.columns).where(database.among(dialect, Endpoint.id, bindparam("ids")))


def health_of(row: AnyRow) -> Health:
    """How an endpoint is, by its row."""
    return Health(
        enabled=row.status == "enabled",
        failures=row.failures,
        failing_since=row.failing_since,
        warned_at=row.warned_at,
        held_until=row.held_until,
        disabled_reason=row.disabled_reason,
    )


@lru_cache(maxsize=1_000)
def _say(error: str, endpoint_id: str, _period: int) -> None:
    log.error(error, action="secret_unreadable", endpoint_id=endpoint_id)


def _target(vault: MultiFernet, row: AnyRow, signing: Sequence[AnyRow], defaults: Defaults) -> Target:
    try:
        opened: Mapping[str, Any] = {
            "keys": keys.opened(vault, signing),
            "headers": headers.opened(vault, row.headers),
            "certificate": None if row.client_certificate is None else decrypt(vault, row.client_certificate),
        }
    except VaultError as error:
        # A matter of the settings, not of the endpoint: no attempt is spent, and the others go out.
        _say(str(error), row.id, int(time.monotonic() / _SAID_AGAIN))
        opened = {"keys": (), "headers": (), "certificate": None, "readable": False}
    return Target(
        id=row.id,
        url=row.url,
        ca=row.ca,
        schedule=retry.DELIVERY_SCHEDULE if row.schedule is None else [timedelta(seconds=one) for one in row.schedule],
        places=defaults.places if row.concurrency is None else row.concurrency,
        rate=defaults.rate if row.rate is None else row.rate,
        health=health_of(row),
        **opened,
    )
