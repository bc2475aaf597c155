"""Replay: runs that ended wait again, because somebody asked for it.

They are due one event after the other, at the rate that was asked for, and the workers take them like any others. Under
the lock of its event a run is sent back only if it has ended, so neither a worker nor another replay at the same time
makes two of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, and_, bindparam, delete, exists, false, func, or_, select, union, update
from sqlalchemy.sql.elements import ColumnElement

from handlers.registry import Handler
from workers import database, ids, planning, seeks, stale
from workers.dispatcher import Reading
from workers.errands import Count, Done, Errand, carry_out, nobody, pages
from workers.metrics import REPLAYED
from workers.models import RUNNING, WAITING, AnyRow, EventRow, HandlerRun, Step, Utc
from workers.reconciled import known_by_reconciliation
from workers.selection import Selection, wanted_by

_ENDED = ("succeeded", "discarded", "dead")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants to be replayed, and how fast."""

    selection: Selection
    handler: str | None = None
    """Only the runs of this one."""
    loaded: Handler | None = None
    """The same, where this process has loaded it: then events that it wants and never had get a run."""
    rate: float = 50.0
    """Events a second."""
    limit: int | None = None
    """Events at most, oldest first."""

    @property
    def ended(self) -> tuple[str, ...]:
        """The statuses of the runs that are replayed."""
        return ("dead",) if self.selection.status == "dead" else _ENDED

    def met_by(self, count: Count) -> bool:
        """Whether so much is as much as is wanted."""
        return self.limit is not None and count.events >= self.limit

    def described(self) -> dict[str, Any]:
        """As JSON, for the audit log."""
        given = {"handler": self.handler, "rate": self.rate, "limit": self.limit}
        return self.selection.described() | {name: value for name, value in given.items() if value is not None}


def preview(engine: Engine, wish: Wish) -> Count:
    """How much a replay would change now; changes nothing. `new` is an upper bound: no handler's `when` is asked."""
    meant = wish.selection.conditions()
    ended = _runs(wish, wish.ended)
    changed = union(
        select(HandlerRun.event_id).join(EventRow, EventRow.id == HandlerRun.event_id).where(*meant, *ended),
        select(EventRow.id).where(*meant, _planned_anew(wish)),
    ).subquery()
    event_id = next(iter(changed.c))
    first = select(event_id).order_by(event_id).limit(wish.limit) if wish.limit else select(event_id)
    statements = (
        select(func.count()).select_from(first.subquery()),
        select(func.count(HandlerRun.id)).where(HandlerRun.event_id.in_(first), *ended),
        select(func.count(EventRow.id)).where(EventRow.id.in_(first), _lacks_run(wish)),
    )
    with database.read(engine) as connection:
        return Count(*(connection.execute(statement).scalar_one() for statement in statements))


def waiting(engine: Engine, wish: Wish) -> int:
    """How many of the runs that are meant have not ended, and so are left alone."""
    meant = exists().where(EventRow.id == HandlerRun.event_id, *wish.selection.conditions())
    statement = select(func.count(HandlerRun.id)).where(*_runs(wish, (WAITING, RUNNING)), meant)
    with database.read(engine) as connection:
        return connection.execute(statement).scalar_one()


def handlers_with_runs(engine: Engine) -> list[str]:
    """The names of all handlers that ever got a run which is still stored."""
    with database.read(engine) as connection:
        return [name for (name,) in seeks.every(connection, (HandlerRun.handler,))]


def runs_of(engine: Engine, wish: Wish) -> dict[str, int]:
    """How many of the runs that are meant each handler has, whatever the limit; by the handler's name."""
    meant = (HandlerRun.status.in_(wish.ended), *wish.selection.conditions())
    runs = (
        select(HandlerRun.handler, func.count().label("runs"))
        .join(EventRow, EventRow.id == HandlerRun.event_id)
        .where(*meant)
    )
    with database.read(engine) as connection:
        found = connection.execute(runs.group_by(HandlerRun.handler).order_by(HandlerRun.handler))
        return {row.handler: row.runs for row in found}


def replay(engine: Engine, wish: Wish, *, actor: str, now: datetime, done: Done[Count] = nobody) -> Count:
    """Send what has ended back to wait, `rate` events a second from `now` on, as `actor`'s doing; how much.

    Events that come in meanwhile are not meant.
    """
    errand = Errand(actor=actor, action="replay", asked=wish.described(), now=now)
    batches = pages(engine, wish.selection.conditions())
    total = carry_out(engine, errand, batches, partial(_replay, wish, now), done, Count(), enough=wish.met_by)
    REPLAYED.inc(total.runs + total.new)
    return total


def _runs(wish: Wish, statuses: Sequence[str]) -> list[ColumnElement[bool]]:
    """What a run has to fulfil that is meant and has one of these statuses."""
    mine = [] if wish.handler is None else [HandlerRun.handler == wish.handler]
    return [*mine, HandlerRun.status.in_(statuses)]


def _planned_anew(wish: Wish) -> ColumnElement[bool]:
    """Whether an event has something to gain that has no run which could be sent back."""
    return EventRow.status == "ignored" if wish.handler is None else _lacks_run(wish)


def _lacks_run(wish: Wish) -> ColumnElement[bool]:
    """Whether an event gets its first run of the handler."""
    if wish.loaded is None or wish.selection.status == "dead":
        return false()
    has_one = exists().where(HandlerRun.event_id == EventRow.id, HandlerRun.handler == wish.loaded.name)
    planned = or_(EventRow.status != WAITING, EventRow.ring_at.is_(None))  # else it is about to get its runs anyway
    return and_(*wanted_by(wish.loaded), ~has_one, planned)


def _replay(wish: Wish, now: datetime, connection: Connection, event_ids: Sequence[str], before: Count) -> Count:
    # In one order, so that whoever locks several events waits in line rather than in a circle.
    lock = select(EventRow.id, EventRow.status).where(EventRow.id.in_(_changed(connection, wish, event_ids)))
    events = connection.execute(lock.order_by(EventRow.id).with_for_update()).all()
    locked = [event.id for event in events]
    runs = _ended(connection, wish, locked)
    new = _wanting(connection, wish, locked)
    ignored = {event.id for event in events if event.status == "ignored" and wish.handler is None}
    turns = sorted({run.event_id for run in runs} | {reading.row.id for reading in new} | ignored)
    if wish.limit is not None:
        turns = turns[: wish.limit - before.events]
    due = {event_id: now + timedelta(seconds=turn / wish.rate) for turn, event_id in enumerate(turns, before.events)}
    runs = [run for run in runs if run.event_id in due]
    filled = _fill(connection, wish.loaded, [reading for reading in new if reading.row.id in due], due, now)
    opened = {run.event_id for run in runs} | filled | (ignored & due.keys())
    _forget_steps(connection, [run.id for run in runs if run.status == "succeeded"])
    _send_back(connection, {run.id: due[run.event_id] for run in runs})
    _open(connection, wish, {event_id: due[event_id] for event_id in turns if event_id in opened})
    stale.mark(connection, sorted(opened), now)
    return Count(events=len(opened), runs=len(runs), new=len(filled))


def _ended(connection: Connection, wish: Wish, event_ids: Sequence[str]) -> Sequence[AnyRow]:
    statement = select(HandlerRun.id, HandlerRun.event_id, HandlerRun.status)
    mine = (HandlerRun.event_id.in_(event_ids), *_runs(wish, wish.ended))
    return connection.execute(statement.where(*mine).with_for_update()).all()


def _changed(connection: Connection, wish: Wish, event_ids: Sequence[str]) -> list[str]:
    """Those of the events that a replay changes, as it looks before they are locked."""
    ended = select(HandlerRun.event_id).where(HandlerRun.event_id.in_(event_ids), *_runs(wish, wish.ended))
    others = select(EventRow.id).where(EventRow.id.in_(event_ids), _planned_anew(wish))
    return sorted({event_id for found in (ended, others) for event_id in connection.execute(found).scalars()})


def _wanting(connection: Connection, wish: Wish, event_ids: Sequence[str]) -> list[Reading]:
    """Those of the events that the handler wants, seen whole, and has no run for."""
    if wish.loaded is None:
        return []
    lacking = select(EventRow.id).where(EventRow.id.in_(event_ids), _lacks_run(wish))
    readings = planning.read(connection, connection.execute(lacking).scalars().all())
    late = known_by_reconciliation(connection, [reading.row for reading in readings.values()])
    return [one for one in readings.values() if one.row.id not in late and wish.loaded.wants(one.event)]


def _fill(
    connection: Connection,
    handler: Handler | None,
    readings: Sequence[Reading],
    due: Mapping[str, datetime],
    now: datetime,
) -> set[str]:
    """Give these events a run of the handler; the ids of those that had none to this moment."""
    if handler is None or not readings:
        return set()
    rows = [_new_run(handler, reading.row, due[reading.row.id], now) for reading in readings]
    written = database.insert_new(connection, HandlerRun, rows)
    return {row["event_id"] for row in rows if row["id"] in written}


def _new_run(handler: Handler, event: AnyRow, due: datetime, now: datetime) -> dict[str, Any]:
    lane = planning.lane_of(event)
    return {
        "id": ids.new("run"),
        "event_id": event.id,
        "handler": handler.name,
        "status": WAITING,
        "starts": 0,
        "fence": 0,
        "attempts": 0,
        "next_attempt_at": due,
        "ring_at": due,
        "created_at": now,
        "lane": lane,
        "ordered": handler.ordered and lane is not None,
        "occurred_at": event.occurred_at,
    }


def _forget_steps(connection: Connection, run_ids: Sequence[str]) -> None:
    """A run that succeeded runs anew; one that failed goes on where it was."""
    if run_ids:
        mine = Step.run_id == bindparam("run")
        connection.execute(delete(Step).where(mine), [{"run": run_id} for run_id in run_ids])


def _send_back(connection: Connection, due: Mapping[str, datetime]) -> None:
    """Have runs wait as if they were new; what became of them last is shown until they end again."""
    if not due:
        return
    at = bindparam("due", type_=Utc)
    connection.execute(
        update(HandlerRun)
        .where(HandlerRun.id == bindparam("run"))
        .values(
            status=WAITING,
            starts=0,
            attempts=0,
            pauses=0,
            slot=None,
            fence=HandlerRun.fence + 1,
            replays=HandlerRun.replays + 1,
            next_attempt_at=at,
            ring_at=at,
            ended_at=None,
        ),
        [{"run": run_id, "due": moment} for run_id, moment in due.items()],
    )


def _open(connection: Connection, wish: Wish, due: Mapping[str, datetime]) -> None:
    """Have events wait; without a handler named they are planned again, for handlers that are new."""
    if not due:
        return
    opened = update(EventRow).values(status=WAITING, acknowledged_at=None)
    if wish.handler is not None:
        connection.execute(opened.where(EventRow.id.in_(due)))
        return
    planned_again = opened.values(ring_at=func.coalesce(EventRow.ring_at, bindparam("due", type_=Utc)))
    connection.execute(
        planned_again.where(EventRow.id == bindparam("event")),
        [{"event": event_id, "due": moment} for event_id, moment in due.items()],
    )
