"""What is stored, as people look through it: pages of events, runs and the audit log, newest first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, func, select
from sqlalchemy.orm import InstrumentedAttribute

from handlers.registry import matches
from workers import database, ids, seeks
from workers.listing import Page, page
from workers.models import AnyRow, AuditEntry, EventRow, HandlerRun, Step
from workers.seeks import Columns, Combination
from workers.selection import LEEWAY, Selection

_OF_EVENTS = (
    EventRow.id, EventRow.source, EventRow.provider, EventRow.delivery_id, EventRow.type, EventRow.organization,
    EventRow.object_kind, EventRow.object_id, EventRow.occurred_at, EventRow.received_at, EventRow.status,
    EventRow.conflicts, EventRow.reconciled, EventRow.acknowledged_at,
)  # fmt: skip
OF_EVENTS = (EventRow.status, EventRow.source, EventRow.type)
"""The columns of `ix_events_seek`."""
OF_RUNS = (HandlerRun.handler, HandlerRun.status)
"""The columns of `ix_handler_runs_seek`."""


def events(engine: Engine, meant: Selection, *, after: str | None = None, limit: int = 50) -> Page:
    """The events that are meant, without their bodies; `runs` counts the handlers of each."""
    runs = select(func.count()).where(HandlerRun.event_id == EventRow.id).correlate(EventRow).scalar_subquery()
    rows: Select[*tuple[Any, ...]] = select(*_OF_EVENTS, runs.label("runs"))
    narrow = bool(meant.events or meant.object_id is not None)
    with database.read(engine) as connection:
        if not narrow and (meant.status or meant.source or meant.type):
            sought = _sought(connection, OF_EVENTS, EventRow.id, _fits(meant), meant.in_time(), after, limit)
            if sought is not None:
                return _page_of(connection, rows, EventRow.id, sought, limit)
        return page(connection, rows.where(*meant.conditions()), EventRow.id, after=after, limit=limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """The runs that fit all of what is given."""

    handler: str | None = None
    status: str | None = None
    event_id: str | None = None
    since: datetime | None = None
    """Made then or later."""
    until: datetime | None = None
    """Made earlier."""

    def conditions(self) -> list[ColumnElement[bool]]:
        """What a row of `handler_runs` has to fulfil."""
        given = (
            (HandlerRun.handler, self.handler),
            (HandlerRun.status, self.status),
            (HandlerRun.event_id, self.event_id),
        )
        return [*(column == value for column, value in given if value is not None), *self.in_time()]

    def in_time(self) -> list[ColumnElement[bool]]:
        """The same of the time alone."""
        conditions: list[ColumnElement[bool]] = []
        if self.since is not None:
            conditions += [HandlerRun.created_at >= self.since, HandlerRun.id >= ids.first("run", self.since, -LEEWAY)]
        if self.until is not None:
            conditions += [HandlerRun.created_at < self.until, HandlerRun.id < ids.first("run", self.until, LEEWAY)]
        return conditions


def runs(engine: Engine, meant: Runs, *, after: str | None = None, limit: int = 50) -> Page:
    """The runs that are meant."""
    rows = select(*HandlerRun.__table__.columns)
    with database.read(engine) as connection:
        if meant.event_id is None and (meant.handler or meant.status):

            def fits(one: Combination) -> bool:
                return meant.handler in (None, one[0]) and meant.status in (None, one[1])

            sought = _sought(connection, OF_RUNS, HandlerRun.id, fits, meant.in_time(), after, limit)
            if sought is not None:
                return _page_of(connection, rows, HandlerRun.id, sought, limit)
        return page(connection, rows.where(*meant.conditions()), HandlerRun.id, after=after, limit=limit)


def run(engine: Engine, run_id: str) -> tuple[AnyRow, list[AnyRow]] | None:
    """One run and its steps, oldest first, with their `size` in bytes; None where there is no such run."""
    with database.read(engine) as connection:
        row = connection.execute(select(*HandlerRun.__table__.columns).where(HandlerRun.id == run_id)).first()
        if row is None:
            return None
        steps = select(Step.name, func.length(Step.value).label("size"), Step.created_at).where(Step.run_id == run_id)
        return row, list(connection.execute(steps.order_by(Step.created_at, Step.name)))


def audit_entries(
    engine: Engine,
    *,
    actor: str | None = None,
    action: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Page:
    """What people had done."""
    rows = select(*AuditEntry.__table__.columns)
    if actor is not None:
        rows = rows.where(AuditEntry.actor == actor)
    if action is not None:
        rows = rows.where(AuditEntry.action == action)
    if since is not None:
        rows = rows.where(AuditEntry.at >= since, AuditEntry.id >= ids.first("log", since, -LEEWAY))
    if until is not None:
        rows = rows.where(AuditEntry.at < until, AuditEntry.id < ids.first("log", until, LEEWAY))
    with database.read(engine) as connection:
        return page(connection, rows, AuditEntry.id, after=after, limit=limit)


def _fits(meant: Selection) -> Callable[[Combination], bool]:
    def fits(one: Combination) -> bool:
        status, source, of_type = one
        return (
            meant.status in (None, status)
            and meant.source in (None, source)
            and (meant.type is None or matches(meant.type, of_type))
        )

    return fits


def _sought(
    connection: Connection,
    columns: Columns,
    key: InstrumentedAttribute[str],
    fits: Callable[[Combination], bool],
    conditions: list[ColumnElement[bool]],
    after: str | None,
    limit: int,
) -> list[str] | None:
    """The ids of a page and of the row behind it, newest first; None where it is better read in the plain way."""
    if connection.dialect.name != "postgresql":
        return None
    there = seeks.combinations(connection, columns)
    if there is None:
        return None
    meant = [one for one in there if fits(one)]
    if meant == there:
        return None
    behind = conditions if after is None else [*conditions, key < after]
    return sorted(seeks.newest(connection, columns, key, meant, limit + 1, *behind), reverse=True)[: limit + 1]


def _page_of(
    connection: Connection,
    rows: Select[*tuple[Any, ...]],
    key: InstrumentedAttribute[str],
    sought: list[str],
    limit: int,
) -> Page:
    mine = rows.where(database.among(connection.dialect.name, key, sought[:limit])).order_by(key.desc())
    return Page(connection.execute(mine).all(), sought[limit - 1] if len(sought) > limit else None)
