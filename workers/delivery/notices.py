"""Operational events: what happens to endpoints and deliveries, told to handlers and to endpoints that ask for it.

An endpoint asks with a pattern that begins with `billhook.`; `*` does not. Nothing is told of what such a message
itself comes to, nor to an endpoint about itself, so that no event can be the cause of another like it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection

from handlers.event import Event, to_json
from handlers.vocabulary import INTERNAL
from workers import database, ids
from workers.delivery.messages import Outgoing, publish
from workers.models import WAITING, EventRow


@dataclass(frozen=True, slots=True)
class Told:
    """What is to be rung for once the transaction has committed."""

    event_ids: Sequence[str] = ()
    delivery_ids: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that happened to an endpoint, or to a delivery of it."""

    type: str
    """Such as `billhook.endpoint.disabled`."""
    endpoint_id: str
    data: dict[str, Any]
    delivery_id: str | None = None


def tell(connection: Connection, notices: Sequence[Notice], *, now: datetime) -> Told:
    """Store these as events, and as messages to the endpoints that ask for them, in the caller's transaction."""
    if not notices:
        return Told()
    events = [_event(notice, now) for notice in notices]
    database.insert_new(connection, EventRow, [_row(event, now) for event in events])
    about: dict[str, list[Outgoing]] = {}
    for event, notice in zip(events, notices, strict=True):
        about.setdefault(notice.endpoint_id, []).append(_outgoing(event, now))
    deliveries = [
        delivery_id
        for endpoint_id, outgoing in about.items()
        for delivery_id in publish(connection, outgoing, now=now, never_to=endpoint_id)
    ]
    return Told([event.id for event in events], deliveries)


def _outgoing(event: Event, now: datetime) -> Outgoing:
    message_id = ids.derived("msg", now, event.id, INTERNAL, "0")
    return Outgoing(message_id, event.id, event.type, orjson.dumps(event.data), source=INTERNAL)


def _event(notice: Notice, now: datetime) -> Event:
    kind, about = ("endpoint", notice.endpoint_id) if notice.delivery_id is None else ("delivery", notice.delivery_id)
    return Event(
        id=ids.new("evt"),
        type=notice.type,
        data=notice.data,
        occurred_at=now,
        object_kind=kind,
        object_id=about,
        source=INTERNAL,
        provider=INTERNAL,
        received_at=now,
    )


def _row(event: Event, now: datetime) -> dict[str, Any]:
    body = to_json(event)
    return {
        "id": event.id,
        "source": INTERNAL,
        "provider": INTERNAL,
        "delivery_id": event.id,
        "event_key": event.id,
        "type": event.type,
        "organization": None,
        "object_kind": event.object_kind,
        "object_id": event.object_id,
        "occurred_at": event.occurred_at,
        "received_at": now,
        "headers": "{}",
        "body": body,
        "body_hash": hashlib.sha256(body).digest(),
        "status": WAITING,
        "ring_at": now,
    }
