"""What is stored, as people look through it: pages of events, newest first."""

from __future__ import annotations

from sqlalchemy import Engine, func, select

from workers import database
from workers.listing import Page, page
from workers.models import EventRow, HandlerRun
from workers.selection import Selection

_OF_EVENTS = (
    EventRow.id, EventRow.source, EventRow.provider, EventRow.delivery_id, EventRow.type, EventRow.organization,
    EventRow.object_kind, EventRow.object_id, EventRow.occurred_at, EventRow.received_at, EventRow.status,
    EventRow.conflicts, EventRow.reconciled, EventRow.acknowledged_at,
)  # fmt: skip


def events(engine: Engine, meant: Selection, *, after: str | None = None, limit: int = 50) -> Page:
    """The events that are meant, without their bodies; `runs` counts the handlers of each."""
    runs = select(func.count()).where(HandlerRun.event_id == EventRow.id).correlate(EventRow).scalar_subquery()
    rows = select(*_OF_EVENTS, runs.label("runs")).where(*meant.conditions())
    with database.read(engine) as connection:
        return page(connection, rows, EventRow.id, after=after, limit=limit)
