"""Forwarding: what a provider sent goes on to the endpoints that ask for it, as it was received.

It is published with the first planning of its event, in that transaction, under an id that follows from the event:
planned again, replayed or planned by two at once, it is one message. It needs no handler.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, select

from workers import database, ids
from workers.delivery.headers import VALUE
from workers.delivery.messages import WANTS, Outgoing, publish, wants
from workers.models import JSON_TYPE, AnyRow, Endpoint, EventRow

_BYTES = "application/octet-stream"
_LONGEST_TYPE = 200


def forward(connection: Connection, events: Sequence[AnyRow], *, now: datetime) -> list[str]:
    """Publish these events to the endpoints that forward and want them; the deliveries' ids.

    The rows have `id`, `type`, `source`, `received_at`, `traceparent` and `body`. One short statement where nobody
    forwards.
    """
    if not events:
        return []
    forwarding = connection.execute(select(*WANTS).where(Endpoint.status == "enabled", Endpoint.forward)).all()
    if not forwarding:
        return []
    wanted = [one for one in map(_outgoing, events) if any(wants(endpoint, one) for endpoint in forwarding)]
    types = _content_types(connection, wanted)
    return publish(connection, [replace(one, content_type=types[one.id]) for one in wanted], now=now)


def _outgoing(event: AnyRow) -> Outgoing:
    return Outgoing(
        ids.derived("msg", event.received_at, event.id, "forwarded"),
        event.id,
        event.type,
        event.body,
        source=event.source,
        forwarded=True,
        received_at=event.received_at,
        traceparent=event.traceparent,
    )


def _content_types(connection: Connection, messages: Sequence[Outgoing]) -> dict[str, str]:
    """By message: what its event came with, or what its body looks like where that said nothing that can be sent."""
    mine = database.among(connection.dialect.name, EventRow.id, [str(one.event_id) for one in messages])
    headers = {row.id: row.headers for row in connection.execute(select(EventRow.id, EventRow.headers).where(mine))}
    return {one.id: _content_type(json.loads(headers[str(one.event_id)]), one.data) for one in messages}


def _content_type(headers: Mapping[str, str], body: bytes) -> str:
    received = headers.get("content-type", "").strip()
    if received and len(received) <= _LONGEST_TYPE and VALUE.fullmatch(received):
        return received
    return JSON_TYPE if body.lstrip()[:1] in (b"{", b"[") else _BYTES
