"""Events that have ended, many at a time, as they stand in the tables then."""

from __future__ import annotations

import hashlib
import itertools
import json
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from tests.workers.given import NOW
from workers import database, ids
from workers.models import Attempt, Delivery, Endpoint, EventRow, HandlerRun, Message, Step

_number = itertools.count(1)
STATUS = {"succeeded": "processed", "discarded": "processed", "dead": "dead"}


def ended(
    engine: Engine,
    count: int = 1,
    *,
    run: str | None = "dead",
    handler: str = "shop.receipt",
    type: str = "invoice.paid",  # noqa: A002 - the column's name
    source: str = "shop",
    at: datetime = NOW,
    **event: Any,
) -> list[str]:
    """Events received then, one a millisecond, each with one run that ended so, or (None) ignored; their ids."""
    events = [_event(type, source, at + timedelta(milliseconds=number), run, event) for number in range(count)]
    with database.write(engine) as connection:
        database.insert_new(connection, EventRow, events)
        if run is not None:
            database.insert_new(connection, HandlerRun, [_run(row, handler, run) for row in events])
    return [row["id"] for row in events]


def _event(event_type: str, source: str, at: datetime, run: str | None, values: dict[str, Any]) -> dict[str, Any]:
    number = next(_number)
    body = json.dumps(
        {"event": event_type, "data": {"id": f"inv_{number}"}, "created_at": "2026-06-05T14:00:00Z"}
    ).encode()
    return {
        "id": ids.derived("evt", at, str(number)),
        "source": source,
        "provider": "hisab",
        "delivery_id": f"past_{number}",
        "event_key": hashlib.sha256(body).hexdigest(),
        "type": event_type,
        "organization": None,
        "object_kind": "invoice",
        "object_id": f"inv_{number}",
        "occurred_at": at,
        "received_at": at,
        "headers": "{}",
        "body": body,
        "body_hash": hashlib.sha256(body).digest(),
        "status": "ignored" if run is None else STATUS[run],
        "reconciled": False,
        "ring_at": None,
        **values,
    }


def _run(event: dict[str, Any], handler: str, status: str) -> dict[str, Any]:
    return {
        "id": ids.new("run"),
        "event_id": event["id"],
        "handler": handler,
        "status": status,
        "starts": 9,
        "fence": 9,
        "attempts": 9,
        "next_attempt_at": event["received_at"],
        "ring_at": None,
        "created_at": event["received_at"],
        "ended_at": event["received_at"],
        "error": None if status == "succeeded" else "ValueError: no such customer",
        "lane": f"{event['source']}/invoice/{event['object_id']}",
        "ordered": False,
        "occurred_at": event["occurred_at"],
    }


def followed(engine: Engine, event_ids: list[str], *, delivery: str = "succeeded") -> None:
    """Give each event's run a step, and each event a message with one delivery of that status and its attempt."""
    with database.read(engine) as connection:
        runs = {run.event_id: run for run in connection.execute(HandlerRun.__table__.select())}
    endpoint: dict[str, Any] = {
        "id": ids.new("ep"),
        "url": "https://example.com/",
        "event_types": ["*"],
        "created_at": NOW,
    }
    steps, messages, deliveries, attempts = [], [], [], []
    for event_id in event_ids:
        at = runs[event_id].created_at
        message_id, delivery_id = ids.new("msg"), ids.new("dlv")
        waits = at if delivery in {"waiting", "running"} else None
        steps.append({"run_id": runs[event_id].id, "name": "pdf", "value": b"j1", "created_at": at})
        messages.append(
            {"id": message_id, "event_id": event_id, "type": "receipt.issued", "body": b"{}", "created_at": at}
        )
        deliveries.append(
            {"id": delivery_id, "message_id": message_id, "endpoint_id": endpoint["id"], "status": delivery}
            | {"starts": 1, "fence": 1, "attempts": 1, "next_attempt_at": at, "ring_at": waits, "created_at": at}
        )
        attempts.append(
            {"id": ids.new("att"), "delivery_id": delivery_id, "number": 1, "started_at": at, "duration_ms": 5}
            | {"status": 200, "error": None, "response": b""}
        )
    with database.write(engine) as connection:
        connection.execute(database.insert(connection, Endpoint), [endpoint])
        for table, rows in ((Step, steps), (Message, messages), (Delivery, deliveries), (Attempt, attempts)):
            connection.execute(database.insert(connection, table), rows)
