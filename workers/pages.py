"""Pages of runs, deliveries, schedules and the audit log, as people look through them; newest first."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, Select, Text, cast, func, select
from sqlalchemy.orm import InstrumentedAttribute

from workers import database
from workers.listing import Page, page
from workers.models import Attempt, AuditEntry, Delivery, EventRow, HandlerRun, Message, Schedule
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


def deliveries(
    engine: Engine,
    *,
    endpoint_id: str | None = None,
    status: str | None = None,
    message_id: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Page:
    """The deliveries that fit all of what is given.

    With `type` of the message, and `last`: the status of the last answer, or why none came.
    """
    given = ((Delivery.endpoint_id, endpoint_id), (Delivery.status, status), (Delivery.message_id, message_id))
    outcome = func.coalesce(cast(Attempt.status, Text), Attempt.error)
    last = select(outcome).where(Attempt.delivery_id == Delivery.id, Attempt.number == Delivery.attempts)
    rows = select(*Delivery.__table__.columns, Message.type, last.scalar_subquery().label("last")).join(Message)
    return _page(engine, rows, Delivery.id, given, after, limit)


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
