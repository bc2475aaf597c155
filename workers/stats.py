"""Statistics: counts by minute or hour, of what is tallied and of what came since. What is shown is never estimated.

A latency is: of an attempt or run only the class of its duration is kept, so a percentile lies within the right class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Connection, Engine, cast, func, select

from workers import database, gauges
from workers.gauges import Backlog
from workers.models import AnyRow, Schedule, Tally
from workers.tally import CLASSES, HOUR, Step, Tallied, What, begun, counted, tallied_to

DAY = timedelta(days=1)
STEPS: Mapping[Step, timedelta] = {"minute": timedelta(minutes=1), "hour": HOUR}
LONGEST: Mapping[Step, timedelta] = {"minute": DAY, "hour": timedelta(days=62)}
"""The longest time that may be asked for by each step."""
_SOON = 5
"""Schedules that are shown as due next."""

Key = tuple[Any, ...]


def floor(moment: datetime, step: Step) -> datetime:
    """When the minute or hour of a moment began."""
    return (
        moment.replace(minute=0, second=0, microsecond=0) if step == "hour" else moment.replace(second=0, microsecond=0)
    )


def counts(
    engine: Engine,
    what: What,
    step: Step,
    since: datetime,
    until: datetime,
    by: Sequence[str],
    *,
    name: str | None = None,
    kind: str | None = None,
) -> Counter[Key]:
    """How many there were from the step of `since` on and before `until`, by some of at, name, kind and outcome."""
    found: Counter[Key] = Counter()
    by_minutes = step == "minute" and "at" in by
    with database.read(engine) as connection:
        for part in _parts(connection, what, step, floor(since, step), until, by_minutes=by_minutes):
            each = part.subquery()
            conditions = [each.c[key] == value for key, value in (("name", name), ("kind", kind)) if value is not None]
            grouped = [each.c[key] for key in by]
            amount = cast(func.sum(each.c.amount), BigInteger)
            for row in connection.execute(select(*grouped, amount).where(*conditions).group_by(*grouped)):
                found[tuple(row[:-1])] += row[-1]
    return found


def _parts(
    connection: Connection, what: What, step: Step, since: datetime, until: datetime, *, by_minutes: bool
) -> Iterator[Any]:
    """What is tallied of a time, whole hours of it at once, and what is counted where it stands."""
    reached = tallied_to(connection) or Tallied(since, since)
    minutes = min(max(reached.minutes, since), floor(until, "minute"))
    first = last = since  # of the whole hours
    if not by_minutes and (over := floor(min(reached.hours, until), "hour")) > since:
        first, last = floor(since + HOUR - STEPS["minute"], "hour"), over
    parts: Sequence[tuple[Step, datetime, datetime]] = (
        ("minute", since, first),
        ("hour", first, last),
        ("minute", last, minutes),
    )
    for tallied, begins, ends in parts:
        if begins < ends:
            yield _tallied(connection, what, tallied, step, begins, ends)
    if minutes < until:
        yield counted(connection, what, step, minutes, until)


def _tallied(connection: Connection, what: What, tallied: Step, step: Step, since: datetime, until: datetime) -> Any:
    at = Tally.at if tallied == step else begun(connection.dialect.name, step, Tally.at)
    mine = (Tally.what == what, Tally.step == tallied, Tally.at >= since, Tally.at < until)
    return select(at.label("at"), Tally.name, Tally.kind, Tally.outcome, Tally.amount).where(*mine)


@dataclass(frozen=True, slots=True)
class Now:
    """How things are at the moment, and how they were of late."""

    backlogs: Sequence[Backlog]
    dead: int
    endpoints: Mapping[str, int]
    schedules: Sequence[AnyRow]
    """The next that are due: `id`, `name`, `source`, `next_run_at`."""
    last_hour: Mapping[str, int]
    """Events by status."""
    last_day: Mapping[str, int]


def current(engine: Engine, now: datetime) -> Now:
    """What waits and since when, what is dead, the state of endpoints, what is due next, and the last hour and day."""
    due = select(Schedule.id, Schedule.name, Schedule.source, Schedule.next_run_at)
    due = due.where(Schedule.next_run_at.is_not(None)).order_by(Schedule.next_run_at, Schedule.id).limit(_SOON)
    with database.read(engine) as connection:
        backlogs = gauges.backlogs(connection, now, gauges.due_at_sources(connection, now))
        dead = gauges.dead_events(connection)
        endpoints = gauges.endpoint_states(connection, now)
        schedules = connection.execute(due).all()
    hour, day = (by_status(engine, now - HOUR, now), by_status(engine, now - DAY, now))
    return Now(backlogs, dead, endpoints, schedules, hour, day)


def by_status(engine: Engine, since: datetime, until: datetime) -> dict[str, int]:
    """How many events were received, to the minute, and what became of them."""
    return {key: amount for (key,), amount in counts(engine, "events", "minute", since, until, ("outcome",)).items()}


def percentile(classes: Mapping[str, int], share: float) -> float | None:
    """The duration in milliseconds that this share was not above, by the kinds of a tally: classes of `tally.CLASSES`.

    What has not ended yet, and has no class, is left out.
    """
    wanted = share * sum(amount for kind, amount in classes.items() if kind)
    below, so_far = 0, 0
    for bound in CLASSES:
        amount = classes.get(str(bound), 0)
        if amount and so_far + amount >= wanted:
            return round(below + (bound - below) * (wanted - so_far) / amount, 1)
        so_far += amount
        below = bound
    return None
