"""Which of the stored events somebody means: by id, type, source, time of receipt and status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, func, or_, select
from sqlalchemy.sql.elements import ColumnElement

from handlers.registry import Handler
from workers import database, ids
from workers.models import EventRow

LEEWAY = timedelta(minutes=1)
"""How far the time in an id may be from the moment that stands beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The events that fit all of what is given."""

    events: tuple[str, ...] = ()
    """Ids."""
    type: str | None = None
    """A pattern as handlers have them: `invoice.paid`, `invoice.*`, `*`."""
    source: str | None = None
    object_id: str | None = None
    """Of the invoice or customer that it is about."""
    since: datetime | None = None
    """Received then or later."""
    until: datetime | None = None
    """Received earlier."""
    status: str | None = None

    def __bool__(self) -> bool:
        return any(asdict(self).values())

    def conditions(self) -> list[ColumnElement[bool]]:
        """What a row of `events` has to fulfil."""
        conditions: list[ColumnElement[bool]] = []
        if self.events:
            conditions.append(EventRow.id.in_(self.events))
        if self.type is not None:
            conditions.append(fits(self.type))
        if self.source is not None:
            conditions.append(EventRow.source == self.source)
        if self.object_id is not None:
            conditions.append(EventRow.object_id == self.object_id)
        if self.status is not None:
            conditions.append(EventRow.status == self.status)
        return [*conditions, *self.in_time()]

    def in_time(self) -> list[ColumnElement[bool]]:
        """The same of the time alone. Ids begin with the time of receipt, so that the primary key finds it."""
        conditions: list[ColumnElement[bool]] = []
        if self.since is not None:
            conditions += [EventRow.received_at >= self.since, EventRow.id >= ids.first("evt", self.since, -LEEWAY)]
        if self.until is not None:
            conditions += [EventRow.received_at < self.until, EventRow.id < ids.first("evt", self.until, LEEWAY)]
        return conditions

    def described(self) -> dict[str, Any]:
        """What is given, as JSON."""
        given = {name: value for name, value in asdict(self).items() if value}
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in given.items()}


def wanted_by(handler: Handler) -> list[ColumnElement[bool]]:
    """What a row of `events` has to fulfil for a handler to want it, as far as that stands in its columns."""
    conditions: list[ColumnElement[bool]] = [or_(*(fits(pattern) for pattern in handler.patterns))]
    if handler.provider is not None:
        conditions.append(EventRow.provider == handler.provider)
    if handler.source is not None:
        conditions.append(EventRow.source == handler.source)
    return conditions


def fits(pattern: str) -> ColumnElement[bool]:
    """`handlers.registry.matches` in SQL. Not LIKE, which is blind to case on SQLite."""
    if pattern.endswith("*"):
        prefix = pattern[:-1]
        return func.substr(EventRow.type, 1, len(prefix)) == prefix
    return EventRow.type == pattern


def unknown(engine: Engine, event_ids: Sequence[str]) -> list[str]:
    """Those of the ids that no stored event has."""
    with database.read(engine) as connection:
        found = set(connection.execute(select(EventRow.id).where(EventRow.id.in_(event_ids))).scalars())
    return [event_id for event_id in event_ids if event_id not in found]


def is_any(engine: Engine, meant: Selection) -> bool:
    """Whether any event is meant."""
    with database.read(engine) as connection:
        return connection.execute(select(EventRow.id).where(*meant.conditions()).limit(1)).first() is not None
