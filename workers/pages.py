"""Pages of runs, schedules and the audit log, as people look through them; newest first."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, Select, select
from sqlalchemy.orm import InstrumentedAttribute

from workers import database
from workers.listing import Page, page
from workers.models import AuditEntry, EventRow, HandlerRun, Schedule
from workers.schedule.schedules import Filter


def runs(
    engine: Engine,
    *,
    handler: str | None = None,
    status: str | None = None,
    event_id: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Page:
    """The runs that fit all of what is given, with `type` and `object_id` of their event."""
    given = ((HandlerRun.handler, handler), (HandlerRun.status, status), (HandlerRun.event_id, event_id))
    rows = select(*HandlerRun.__table__.columns, EventRow.type, EventRow.object_id).join(EventRow)
    return _page(engine, rows, HandlerRun.id, given, after, limit)


def schedules(engine: Engine, meant: Filter, *, after: str | None = None, limit: int = 50) -> Page:
    """The schedules that are meant."""
    rows = select(*Schedule.__table__.columns).where(*meant.conditions())
    return _page(engine, rows, Schedule.id, (), after, limit)


def audit_entries(
    engine: Engine,
    *,
    actor: str | None = None,
    action: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Page:
    """What people had done."""
    given = ((AuditEntry.actor, actor), (AuditEntry.action, action))
    return _page(engine, select(*AuditEntry.__table__.columns), AuditEntry.id, given, after, limit)


def _page(
    engine: Engine,
    rows: Select[*tuple[Any, ...]],
    key: InstrumentedAttribute[str],
    given: tuple[tuple[InstrumentedAttribute[str], str | None], ...],
    after: str | None,
    limit: int,
) -> Page:
    meant = [column == value for column, value in given if value is not None]
    with database.read(engine) as connection:
        return page(connection, rows.where(*meant), key, after=after, limit=limit)
