"""Schedules and their history as people look through them: page after page, or any page by its number.

A page by its number comes with how many there are. To count a million takes a tenth of a second, so that is done once a
minute; up to `COUNTED` they are counted each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, select

from workers import database
from workers.listing import Page, page
from workers.models import AnyRow, Occurrence, Schedule
from workers.schedule.schedules import Filter, read

COUNTED = 10_000
KEPT = 60.0
"""Seconds for which a count of more than that is kept."""
_MOST_KEPT = 1_000


@dataclass(frozen=True, slots=True)
class Numbered:
    """A page by its number, and how many rows all pages have."""

    rows: Sequence[AnyRow]
    total: int


class Counts:
    """How many schedules are meant by what; kept for each process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[Filter, tuple[float, int]] = {}

    def of(self, connection: Connection, meant: Filter) -> int:
        """How many; of more than `COUNTED`, how many there were within the last minute."""
        rows = select(Schedule.id).where(*meant.conditions())
        few = connection.execute(select(func.count()).select_from(rows.limit(COUNTED + 1).subquery())).scalar_one()
        if few <= COUNTED:
            return few
        until, total = self._known.get(meant, (0.0, 0))
        if self._clock() >= until:
            total = connection.execute(select(func.count()).select_from(rows.subquery())).scalar_one()
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            self._known[meant] = (self._clock() + KEPT, total)
        return total


def schedules(
    engine: Engine, meant: Filter, *, after: str | None = None, limit: int = 50, oldest_first: bool = False
) -> Page:
    """The schedules that are meant, behind the id `after`."""
    rows = select(*Schedule.__table__.columns).where(*meant.conditions())
    with database.read(engine) as connection:
        return page(connection, rows, Schedule.id, after=after, limit=limit, oldest_first=oldest_first)


def numbered(
    engine: Engine, counts: Counts, meant: Filter, *, number: int = 1, size: int = 20, oldest_first: bool = False
) -> Numbered:
    """The page of that number, from 1, of the schedules that are meant."""
    order = Schedule.id if oldest_first else Schedule.id.desc()
    # By the index alone as far as the page; only its own rows are read.
    ids = select(Schedule.id).where(*meant.conditions()).order_by(order).offset((number - 1) * size).limit(size)
    rows = select(*Schedule.__table__.columns).where(Schedule.id.in_(ids)).order_by(order)
    with database.read(engine) as connection:
        found = connection.execute(rows).all()
        if len(found) < size and (found or number == 1):  # it is the last one
            return Numbered(found, (number - 1) * size + len(found))
        return Numbered(found, counts.of(connection, meant))


def history(engine: Engine, schedule_id: str, *, after: str | None = None, limit: int = 20) -> Page:
    """What became of the due dates of a schedule, the latest first. Raises ScheduleError (NOT_FOUND).

    The ids of its occurrences begin with their due dates, and so are in their order.
    """
    rows = select(*Occurrence.__table__.columns).where(Occurrence.schedule_id == schedule_id)
    with database.read(engine) as connection:
        read(connection, schedule_id)
        return page(connection, rows, Occurrence.id, after=after, limit=limit)
