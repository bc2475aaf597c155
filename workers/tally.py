"""The tally: how many events, runs and attempts there were in each minute and hour, and what became of them.

It is what statistics are read from: to count a million rows anew for each look would take seconds. Only a time that is
over is tallied, up to the moments in `tallied_to`; what is younger is counted where it stands, by the same statements
(`counted`). A minute is tallied once it is over for `_MINUTES_AFTER`; an hour once it is for `_HOURS_AFTER`, with its
minutes anew, so that what was committed late is in it; an hour of which something has changed since (`stale`) again.

Each time is deleted and counted in one transaction, with the moment up to which it is tallied: a tally that dies has
done nothing, and one that is made twice says the same. Where two are at it, the second leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    String,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    select,
    type_coerce,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute

from workers import database, ids
from workers.app import STOPPING, app, runtime
from workers.leases import utcnow
from workers.models import RUNNING, WAITING, Attempt, EventRow, HandlerRun, StaleHour, Tally, Utc
from workers.selection import LEEWAY
from workers.settings import Settings
from workers.stale import hour_of

What = Literal["events", "runs", "attempts"]
Step = Literal["minute", "hour"]

HOUR = timedelta(hours=1)
KEPT = timedelta(days=64)
"""How long a tally is kept, whatever became of what it counted."""
_MINUTES_AFTER = timedelta(minutes=3)
_HOURS_AFTER = timedelta(minutes=15)
_TOGETHER = 6
"""Hours that are tallied in one transaction."""
_LONGEST_ATTEMPT = timedelta(minutes=10)
"""An attempt's id is made when it has ended; it began at most so long before."""
BUDGET = 20.0
"""Seconds that the task takes at most: it holds one of the processes that run handlers."""
_MARK = "over"
"""The `what` of the two rows that say up to which moment minutes and hours are tallied."""
CLASSES = (2, 5, 10, 20, 30, 40, 50, 75, 100, 150, 200, 250, 300, 400, 500, 750,
           1_000, 1_500, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000, 20_000, 30_000,
           60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000, 7_200_000, 14_400_000,
           28_800_000, 86_400_000)  # fmt: skip
"""Milliseconds: an attempt or run is of the first class that its duration is not above, else of the last."""


@dataclass(frozen=True, slots=True)
class Tallied:
    """Before which moments all minutes and hours are tallied."""

    minutes: datetime
    hours: datetime


def tallied_to(connection: Connection) -> Tallied | None:
    """How far the tally has come; None where it has never run."""
    rows = connection.execute(select(Tally.step, Tally.at).where(Tally.what == _MARK)).all()
    moments = {row.step: row.at for row in rows}
    return Tallied(moments["minute"], moments["hour"]) if moments else None


def counted(connection: Connection, what: What, step: Step, since: datetime, until: datetime) -> Select[Any]:
    """The statement that counts what there is of a time, by minutes or hours: the columns of `Tally` from `at` on."""
    dialect = connection.dialect.name
    match what:
        case "events":
            received = _within(EventRow.received_at, EventRow.id, "evt", since, until)
            columns = (EventRow.source, EventRow.type, EventRow.status)
            return _by(begun(dialect, step, EventRow.received_at), *columns, received)
        case "runs":
            received = _within(EventRow.received_at, EventRow.id, "evt", since, until)
            its = and_(HandlerRun.event_id == EventRow.id, _between(HandlerRun.event_id, "evt", since, until, LEEWAY))
            status = case((HandlerRun.status == RUNNING, WAITING), else_=HandlerRun.status)
            at, name = begun(dialect, step, EventRow.received_at), HandlerRun.handler
            return _by(at, name, _class(HandlerRun.duration_ms), status, received, its)
        case "attempts":
            began = and_(Attempt.started_at >= since, Attempt.started_at < until)
            made = _between(Attempt.id, "att", since, until, _LONGEST_ATTEMPT)
            succeeded = case((Attempt.status.between(200, 299), "succeeded"), else_="failed")
            return _by(
                begun(dialect, step, Attempt.started_at),
                literal(""),
                _class(Attempt.duration_ms),
                succeeded,
                began,
                made,
            )


def tally(
    engine: Engine,
    now: datetime,
    settings: Settings,
    budget: float = float("inf"),
    *,
    stopping: Callable[[], bool] = lambda: False,
    seconds: Callable[[], float] = time.monotonic,
) -> bool:
    """Tally what is over, until all of it is, `budget` seconds are over or `stopping()`; whether all of it is."""
    ends = seconds() + budget
    kept_since = hour_of(now - timedelta(days=settings.retention_days)) + HOUR
    for part in (_hours, _minutes, _stale):
        while True:
            with database.write(engine) as connection:
                if not _alone(connection):
                    return False
                if not part(connection, now, kept_since):
                    break
            if stopping() or seconds() >= ends:
                return False
    with database.write(engine) as connection:
        old = and_(Tally.what != _MARK, Tally.step.in_(("minute", "hour")), Tally.at < now - KEPT)
        connection.execute(delete(Tally).where(old))
    return True


def _alone(connection: Connection) -> bool:
    """Whether nobody else is at it; whoever is finishes first on SQLite."""
    if connection.dialect.name != "postgresql":
        return True
    lock = "SELECT pg_try_advisory_xact_lock(hashtext('billhook.tally'))"
    return bool(connection.exec_driver_sql(lock).scalar_one())


def _hours(connection: Connection, now: datetime, _kept_since: datetime) -> bool:
    """Tally the next hours that are over, with their minutes; whether there were any."""
    over = hour_of(now - _HOURS_AFTER)
    reached = tallied_to(connection) or _begin(connection, over)
    if reached.hours >= over:
        return False
    until = min(over, reached.hours + _TOGETHER * HOUR)
    _write_hours(connection, reached.hours, until)
    _reach(connection, "hour", until)
    _reach(connection, "minute", max(until, reached.minutes))
    return True


def _begin(connection: Connection, over: datetime) -> Tallied:
    """Begin with the hour of what is oldest."""
    oldest = [connection.execute(select(func.min(key))).scalar_one_or_none() for key in (EventRow.id, Attempt.id)]
    began = min([hour_of(ids.moment(key) - _LONGEST_ATTEMPT) for key in oldest if key is not None] + [over])
    rows = [{"what": _MARK, "step": step, "at": began} for step in ("minute", "hour")]
    connection.execute(insert(Tally), [{**row, "name": "", "kind": "", "outcome": "", "amount": 0} for row in rows])
    return Tallied(began, began)


def _minutes(connection: Connection, now: datetime, _kept_since: datetime) -> bool:
    """Tally the next minutes that are over; whether there were any."""
    over = (now - _MINUTES_AFTER).replace(second=0, microsecond=0)
    reached = tallied_to(connection)
    if reached is None or reached.minutes >= over:
        return False
    until = min(over, reached.minutes + _TOGETHER * HOUR)
    _write_minutes(connection, reached.minutes, until)
    _reach(connection, "minute", until)
    return True


def _stale(connection: Connection, _now: datetime, kept_since: datetime) -> bool:
    """Tally again a few hours of which something has changed since; whether there were any.

    The notes that were read are deleted with that. One that is committed meanwhile is read the next time.
    """
    hour = connection.execute(select(StaleHour.at).order_by(StaleHour.id).limit(1)).scalar_one_or_none()
    reached = tallied_to(connection)
    if hour is None or reached is None:
        return False
    notes = connection.execute(select(StaleHour.id).where(StaleHour.at == hour).limit(5_000)).scalars().all()
    # Of what is about to be deleted with its retention time, a part would be counted.
    if kept_since <= hour < reached.hours:
        _write_hours(connection, hour, hour + HOUR)
    elif kept_since <= hour < reached.minutes:
        _write_minutes(connection, hour, min(hour + HOUR, reached.minutes))
    connection.execute(delete(StaleHour).where(database.among(connection.dialect.name, StaleHour.id, notes)))
    return True


def _write_hours(connection: Connection, since: datetime, until: datetime) -> None:
    _write_minutes(connection, since, until)
    minutes = (Tally.step == "minute", Tally.at >= since, Tally.at < until)
    for what in _COUNTED:
        connection.execute(delete(Tally).where(*_of(what, "hour", since, until)))
        hour = begun(connection.dialect.name, "hour", Tally.at).label("at")
        found = select(hour, Tally.name, Tally.kind, Tally.outcome, Tally.amount).where(Tally.what == what, *minutes)
        each = found.subquery()
        keys = (each.c.at, each.c.name, each.c.kind, each.c.outcome)
        summed = select(literal(what), literal("hour"), *keys, func.sum(each.c.amount)).group_by(*keys)
        connection.execute(insert(Tally).from_select(_COLUMNS, summed))


def _write_minutes(connection: Connection, since: datetime, until: datetime) -> None:
    for what in _COUNTED:
        connection.execute(delete(Tally).where(*_of(what, "minute", since, until)))
        found = counted(connection, what, "minute", since, until).subquery()
        rows = select(literal(what), literal("minute"), *found.c)
        connection.execute(insert(Tally).from_select(_COLUMNS, rows))


_COUNTED: tuple[What, ...] = ("events", "runs", "attempts")
_COLUMNS = ["what", "step", "at", "name", "kind", "outcome", "amount"]


def _of(what: What, step: Step, since: datetime, until: datetime) -> tuple[ColumnElement[bool], ...]:
    return Tally.what == what, Tally.step == step, Tally.at >= since, Tally.at < until


def _reach(connection: Connection, step: Step, moment: datetime) -> None:
    connection.execute(update(Tally).where(Tally.what == _MARK, Tally.step == step).values(at=moment))


def _by(at: Any, name: Any, kind: Any, outcome: Any, *conditions: ColumnElement[bool]) -> Select[Any]:
    labels = (at.label("at"), name.label("name"), kind.label("kind"), outcome.label("outcome"))
    found = select(*labels).where(*conditions).subquery()
    return select(*found.c, func.count().label("amount")).group_by(*found.c)


def begun(dialect: str, step: Step, moment: Any) -> ColumnElement[datetime]:
    """When the minute or hour of a moment began."""
    if dialect == "postgresql":
        return func.date_trunc(step, moment, type_=Utc)
    minutes = "%M" if step == "minute" else "00"
    return func.strftime(f"%Y-%m-%d %H:{minutes}:00.000000", moment, type_=Utc)


def _class(duration: InstrumentedAttribute[int] | InstrumentedAttribute[int | None]) -> ColumnElement[str]:
    """The class of a duration; empty where there is none yet."""
    bounds = [(duration <= bound, str(bound)) for bound in CLASSES]
    return type_coerce(case((duration.is_(None), ""), *bounds, else_=str(CLASSES[-1])), String)


def _within(moment: Any, key: Any, prefix: str, since: datetime, until: datetime) -> ColumnElement[bool]:
    return and_(moment >= since, moment < until, _between(key, prefix, since, until, LEEWAY))


def _between(key: Any, prefix: str, since: datetime, until: datetime, after: timedelta) -> ColumnElement[bool]:
    """Whether something was made in that time, by its id; `after` is how long after its moment its id may be made."""
    return and_(key >= ids.first(prefix, since, -LEEWAY), key < ids.first(prefix, until, after))


@app.task(name="billhook.events.tally")
def tally_task() -> None:
    tally(runtime().engine, utcnow(), runtime().settings, BUDGET, stopping=lambda: bool(STOPPING[0]))
