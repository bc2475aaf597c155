"""Errands: what a person has done to many rows, a few hundred in a transaction, with an entry in the audit log.

The entry is changed with each batch, in its transaction: whatever ends an errand early, the log says how far it came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.elements import ColumnElement

from workers import audit_log, database
from workers.logs import log
from workers.models import EventRow

BATCH = 500
"""Rows in one transaction."""
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is changed, in fields that are numbers."""

    def __add__(self, other: Self) -> Self:
        names = [field.name for field in fields(self)]
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True, slots=True)
class Count(Amount):
    """How much is changed of events and their runs."""

    events: int = 0
    runs: int = 0
    """Runs that had ended and wait again."""
    new: int = 0
    """Runs of a handler on events that it had none for."""


A = TypeVar("A", bound=Amount)
Done = Callable[[A], object]
"""Is told of each batch that was committed."""


def nobody(_amount: Amount) -> None:
    """The `Done` of who does not want to know."""


Change = Callable[[Connection, Sequence[str], A], A]
"""Changes these rows, given how much was changed before them; how much it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """Who has what done, and when; `asked` is JSON without a secret."""

    actor: str
    action: str
    asked: Mapping[str, Any]
    now: datetime


def pages(
    engine: Engine, conditions: Sequence[ColumnElement[bool]], key: InstrumentedAttribute[str] = EventRow.id
) -> Iterator[Sequence[str]]:
    """The ids of these rows, oldest first, `BATCH` at a time; only of those that are there at the beginning."""
    with database.read(engine) as connection:
        last = connection.execute(select(func.max(key))).scalar_one() or ""
    after = ""
    while True:
        page = select(key).where(*conditions, key > after, key <= last)
        with database.read(engine) as connection:
            found = connection.execute(page.order_by(key).limit(BATCH)).scalars().all()
        if not found:
            return
        yield found
        after = found[-1]


def part(
    engine: Engine,
    conditions: Sequence[ColumnElement[bool]],
    key: InstrumentedAttribute[str],
    *,
    after: str | None,
    most: int,
) -> tuple[list[Sequence[str]], str | None]:
    """As `pages`, of at most so many rows behind the id `after`; and the last of them where there may be more."""
    rows = select(key).where(*conditions, key > (after or "")).order_by(key).limit(most)
    with database.read(engine) as connection:
        found = connection.execute(rows).scalars().all()
    return [found[at : at + BATCH] for at in range(0, len(found), BATCH)], found[-1] if len(found) == most else None


def carry_out(
    engine: Engine,
    errand: Errand,
    batches: Iterable[Sequence[str]],
    change: Change[A],
    done: Done[A],
    nothing: A,
    *,
    enough: Callable[[A], bool] = lambda _total: False,
) -> A:
    """Change batch after batch, until it is enough; how much in all. `nothing` is the amount before the first."""
    total = nothing
    with database.write(engine) as connection:
        detail = _detail(errand, total, finished=False)
        entry = audit_log.note(connection, errand.actor, errand.action, detail, errand.now)
    for row_ids in batches:

        def batch(connection: Connection, row_ids: Sequence[str] = row_ids, before: A = total) -> A:
            amount = change(connection, row_ids, before)
            audit_log.amend(connection, entry, _detail(errand, before + amount, finished=False))
            return amount

        amount = insistently(engine, batch)
        total += amount
        done(amount)
        if enough(total):
            break
    with database.write(engine) as connection:
        audit_log.amend(connection, entry, _detail(errand, total, finished=True))
    log.info("an errand was carried out", action=errand.action, actor=errand.actor, **asdict(total))
    return total


def _detail(errand: Errand, amount: Amount, *, finished: bool) -> dict[str, Any]:
    return {"asked": dict(errand.asked), **asdict(amount), "finished": finished}


T = TypeVar("T")


def insistently(engine: Engine, batch: Callable[[Connection], T]) -> T:
    """Do something in a transaction, again where it and another got in each other's way."""
    for _ in range(_TRIES - 1):
        try:
            with database.write(engine) as connection:
                return batch(connection)
        except DBAPIError as error:
            if not database.collided(error):
                raise
    with database.write(engine) as connection:
        return batch(connection)
