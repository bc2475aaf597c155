"""Errands: what a person has done to many events, a few hundred in a transaction, with an entry in the audit log.

The entry is changed with each batch, in its transaction: whatever ends an errand early, the log says how far it came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import ColumnElement

from workers import audit_log, database
from workers.logs import log
from workers.models import EventRow

BATCH = 500
"""Events in one transaction."""
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Count:
    """How much is changed."""

    events: int = 0
    runs: int = 0
    """Runs that had ended and wait again."""
    new: int = 0
    """Runs of a handler on events that it had none for."""

    def __add__(self, other: Count) -> Count:
        return Count(self.events + other.events, self.runs + other.runs, self.new + other.new)


Done = Callable[[Count], object]
"""Is told of each batch that was committed."""


def nobody(_count: Count) -> None:
    """The `Done` of who does not want to know."""


Change = Callable[[Connection, Sequence[str], Count], Count]
"""Changes these events, given how much was changed before them; how much it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """Who has what done, and when; `asked` is JSON without a secret."""

    actor: str
    action: str
    asked: Mapping[str, Any]
    now: datetime


def pages(engine: Engine, conditions: Sequence[ColumnElement[bool]]) -> Iterator[Sequence[str]]:
    """The ids of these events, oldest first, `BATCH` at a time; only of those that are there at the beginning."""
    with database.read(engine) as connection:
        last = connection.execute(select(func.max(EventRow.id))).scalar_one() or ""
    after = ""
    while True:
        page = select(EventRow.id).where(*conditions, EventRow.id > after, EventRow.id <= last)
        with database.read(engine) as connection:
            event_ids = connection.execute(page.order_by(EventRow.id).limit(BATCH)).scalars().all()
        if not event_ids:
            return
        yield event_ids
        after = event_ids[-1]


def carry_out(
    engine: Engine,
    errand: Errand,
    batches: Iterator[Sequence[str]],
    change: Change,
    done: Done,
    *,
    limit: int | None = None,
) -> Count:
    """Change batch after batch, until `limit` events are; how much in all."""
    total = Count()
    with database.write(engine) as connection:
        detail = _detail(errand, total, finished=False)
        entry = audit_log.note(connection, errand.actor, errand.action, detail, errand.now)
    for event_ids in batches:

        def batch(connection: Connection, event_ids: Sequence[str] = event_ids, before: Count = total) -> Count:
            count = change(connection, event_ids, before)
            audit_log.amend(connection, entry, _detail(errand, before + count, finished=False))
            return count

        count = _insistently(engine, batch)
        total += count
        done(count)
        if limit is not None and total.events >= limit:
            break
    with database.write(engine) as connection:
        audit_log.amend(connection, entry, _detail(errand, total, finished=True))
    log.info("an errand was carried out", action=errand.action, actor=errand.actor, **asdict(total))
    return total


def _detail(errand: Errand, count: Count, *, finished: bool) -> dict[str, Any]:
    return {"asked": dict(errand.asked), **asdict(count), "finished": finished}


def _insistently(engine: Engine, batch: Callable[[Connection], Count]) -> Count:
    """Do a batch, again where it and another transaction got in each other's way."""
    for _ in range(_TRIES - 1):
        try:
            with database.write(engine) as connection:
                return batch(connection)
        except DBAPIError as error:
            if not database.collided(error):
                raise
    with database.write(engine) as connection:
        return batch(connection)
