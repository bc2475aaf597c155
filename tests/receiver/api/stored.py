"""What is stored for tests of the API, written as the engine leaves it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, update

from workers import database, ids
from workers.models import EventRow, HandlerRun


def ended(
    engine: Engine, event_id: str, handler: str = "receipts.send", status: str = "succeeded", **fields: Any
) -> str:
    """Give an event that was received a run that has ended; the run's id."""
    now = datetime.now(UTC)
    row = {
        "id": ids.new("run"),
        "event_id": event_id,
        "handler": handler,
        "status": status,
        "starts": 1,
        "fence": 1,
        "attempts": 1,
        "next_attempt_at": now,
        "ring_at": None,
        "created_at": now,
        "ended_at": now,
        "occurred_at": now,
    }
    became = "dead" if status == "dead" else "processed"
    with database.write(engine) as connection:
        connection.execute(database.insert(connection, HandlerRun), [row | fields])
        connection.execute(update(EventRow).where(EventRow.id == event_id).values(status=became, ring_at=None))
    return str(row["id"])


def ignored(engine: Engine, event_id: str) -> None:
    """Have an event end because no handler wanted it."""
    with database.write(engine) as connection:
        connection.execute(update(EventRow).where(EventRow.id == event_id).values(status="ignored", ring_at=None))
