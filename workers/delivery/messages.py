"""Messages: what is sent on, and its fan-out to the endpoints that want it.

Both are rows of the caller's transaction, so that an effect commits with its cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, select

from handlers.registry import matches
from workers import database, ids
from workers.models import WAITING, AnyRow, Delivery, Endpoint, Message


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to be published; `data` is JSON."""

    id: str
    event_id: str | None
    type: str
    data: bytes


def publish(connection: Connection, outgoing: Sequence[Outgoing], *, now: datetime) -> list[str]:
    """Store messages with one delivery for every enabled endpoint that wants them; the deliveries' ids.

    A message whose id is stored already is left as it is: it was published by an earlier start of the same run.
    """
    if not outgoing:
        return []
    rows = [
        {"id": one.id, "event_id": one.event_id, "type": one.type, "body": _body(one, now), "created_at": now}
        for one in outgoing
    ]
    fresh = database.insert_new(connection, Message, rows)
    endpoints = connection.execute(select(Endpoint.id, Endpoint.event_types).where(Endpoint.status == "enabled")).all()
    deliveries = [
        _delivery(one.id, endpoint.id, now)
        for one in outgoing
        if one.id in fresh
        for endpoint in endpoints
        if _wants(endpoint, one.type)
    ]
    if deliveries:
        database.insert_new(connection, Delivery, deliveries)
    return [delivery["id"] for delivery in deliveries]


def _body(one: Outgoing, now: datetime) -> bytes:
    """The payload that Standard Webhooks recommends: type, timestamp, data."""
    return orjson.dumps({"type": one.type, "timestamp": now, "data": orjson.Fragment(one.data)})


def _wants(endpoint: AnyRow, event_type: str) -> bool:
    return any(matches(pattern, event_type) for pattern in endpoint.event_types)


def _delivery(message_id: str, endpoint_id: str, now: datetime) -> dict[str, Any]:
    return {
        "id": ids.new("dlv"),
        "message_id": message_id,
        "endpoint_id": endpoint_id,
        "status": WAITING,
        "starts": 0,
        "fence": 0,
        "attempts": 0,
        "next_attempt_at": now,
        "ring_at": now,
        "created_at": now,
    }
