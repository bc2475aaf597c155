"""Messages: what is sent on, and its fan-out to the endpoints that want it.

Both are rows of the caller's transaction, so that an effect commits with its cause. Emitted messages are wrapped as
Standard Webhooks recommends; forwarded ones are a provider's event byte for byte, for those endpoints only that ask
for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, select

from handlers.registry import matches
from handlers.vocabulary import INTERNAL
from workers import database, ids
from workers.models import JSON_TYPE, WAITING, AnyRow, Delivery, Endpoint, Message

OWN = f"{INTERNAL}."
"""What the types of Billhook's own messages begin with; only patterns that begin so ask for them."""
WANTS = (Endpoint.id, Endpoint.event_types, Endpoint.sources, Endpoint.forward, Endpoint.created_at)
"""What says which messages an endpoint gets."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to be published; `data` is JSON, of a forwarded one the exact body."""

    id: str
    event_id: str | None
    type: str
    data: bytes = field(repr=False)
    source: str | None = None
    """Of its event."""
    forwarded: bool = False
    content_type: str = JSON_TYPE
    received_at: datetime | None = None
    """When the event of a forwarded one came: it is not for endpoints that were added later, by a replay perhaps."""
    traceparent: str | None = None
    """The span that it came of."""


def publish(
    connection: Connection, outgoing: Sequence[Outgoing], *, now: datetime, never_to: str | None = None
) -> list[str]:
    """Store messages with one delivery for every enabled endpoint that wants them.

    Returned is what to ring for: one delivery of each endpoint, because whoever looks there finds the others.
    A message whose id is stored already is left as it is: it was published by an earlier start of the same run.
    `never_to` is an endpoint that gets none of them, whatever it wants.
    """
    if not outgoing:
        return []
    fresh = _store(connection, outgoing, now)
    endpoints = connection.execute(select(*WANTS, Endpoint.schedule).where(Endpoint.status == "enabled")).all()
    return _deliver(
        connection,
        [
            new_delivery(one.id, endpoint.id, now, wait=endpoint.schedule[0] if endpoint.schedule else 0)
            for one in outgoing
            if one.id in fresh
            for endpoint in endpoints
            if endpoint.id != never_to and wants(endpoint, one)
        ],
    )


def publish_to(connection: Connection, endpoint_id: str, message: Outgoing, *, now: datetime) -> str:
    """Store a message for one endpoint, whatever that wants; the delivery's id."""
    _store(connection, [message], now)
    (delivery_id,) = _deliver(connection, [new_delivery(message.id, endpoint_id, now)])
    return delivery_id


def wants(endpoint: AnyRow, one: Outgoing) -> bool:
    """Whether a message is for an endpoint, of which the row has `WANTS`."""
    if one.forwarded and not (endpoint.forward and (one.received_at is None or endpoint.created_at <= one.received_at)):
        return False
    own = one.type.startswith(OWN)
    # Billhook's own messages come of no source, so who asks for them by name gets them whatever sources it wants.
    if endpoint.sources and not own and one.source not in endpoint.sources:
        return False
    return any(matches(pattern, one.type) for pattern in endpoint.event_types if pattern.startswith(OWN) or not own)


def _store(connection: Connection, outgoing: Sequence[Outgoing], now: datetime) -> set[str]:
    rows: list[dict[str, Any]] = [
        {
            "id": one.id,
            "event_id": one.event_id,
            "source": one.source,
            "type": one.type,
            "forwarded": one.forwarded,
            "content_type": one.content_type,
            "body": one.data if one.forwarded else _wrapped(one, now),
            "created_at": now,
        }
        for one in outgoing
    ]
    if any(one.traceparent for one in outgoing):
        rows = [row | {"traceparent": one.traceparent} for row, one in zip(rows, outgoing, strict=True)]
    return database.insert_new(connection, Message, rows)


def _deliver(connection: Connection, deliveries: Sequence[dict[str, Any]]) -> list[str]:
    if deliveries:
        database.insert_new(connection, Delivery, deliveries)
    return list({delivery["endpoint_id"]: delivery["id"] for delivery in reversed(deliveries)}.values())


def _wrapped(one: Outgoing, now: datetime) -> bytes:
    """The payload that Standard Webhooks recommends: type, timestamp, data."""
    return orjson.dumps({"type": one.type, "timestamp": now, "data": orjson.Fragment(one.data)})


def new_delivery(
    message_id: str, endpoint_id: str, now: datetime, *, wait: float = 0, again: bool = False
) -> dict[str, Any]:
    """The row of a delivery whose first attempt is due after so many seconds; `again`: behind first attempts."""
    due = now + timedelta(seconds=wait)
    return {
        "id": ids.new("dlv"),
        "message_id": message_id,
        "endpoint_id": endpoint_id,
        "status": WAITING,
        "starts": 0,
        "fence": 0,
        "attempts": 0,
        "again": again,
        "next_attempt_at": due,
        "ring_at": due,
        "created_at": now,
    }
