"""Dispatch: the events that were rung for are planned, their runs taken, started and settled.

At every moment a dying process leaves either a run that waits, or a leased one that becomes due when its lease ends.
What a handler emitted commits with its success. The parts: `planning` (which handlers an event gets), `claims` (which
runs may start now), `batch` (starting them in turn), `settling` (writing what came of it).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from handlers.registry import REGISTRY, Handler
from workers import claims, database, leases, planning
from workers.app import DELIVER, PROCESS, Runtime, app, ring, ringing, runtime
from workers.batch import Batch
from workers.clients import Clients
from workers.dispatcher import Dispatcher, Taken
from workers.leases import Clock, utcnow
from workers.lines import line_up
from workers.metrics import RUNG_AGAIN
from workers.models import EventRow, HandlerRun

_FEW = 8
"""Events of which it is not asked how large they are, so that a quiet system starts them sooner."""

__all__ = ["Dispatcher", "process", "sweep"]


def process(dispatcher: Dispatcher, event_ids: Sequence[str]) -> list[str]:
    """Plan these events and run what of them is due; the deliveries that came of it, to be rung."""
    event_ids = _in_hand(dispatcher, event_ids)
    batch = Batch(dispatcher)
    line_up(dispatcher, event_ids)
    with database.write(dispatcher.engine) as connection:
        plan = planning.plan(dispatcher, connection, event_ids)
    batch.deliveries += plan.deliveries
    batch.run(plan.taken)
    if plan.others:
        _run_others(dispatcher, batch, plan.others)
    return batch.deliveries


def _in_hand(dispatcher: Dispatcher, event_ids: Sequence[str]) -> Sequence[str]:
    """As many of these events as one process should hold; for the others the workers are rung again."""
    if len(event_ids) <= _FEW:
        return event_ids
    with database.read(dispatcher.engine) as connection:
        mine, others = planning.in_hand(connection, event_ids)
    if others:
        ring(PROCESS, others)
    return mine


def _run_others(dispatcher: Dispatcher, batch: Batch, event_ids: Sequence[str]) -> None:
    """Run what planning did not take. For what there is no time for, the workers are rung again."""
    with database.write(dispatcher.engine) as connection:
        due = claims.due(dispatcher, connection, event_ids)
        waiting = claims.take(dispatcher, connection, [] if batch.over else due.waiting)
    batch.run(waiting)
    ended: set[str] = set()
    for run_id in due.lapsed:
        lapsed = [] if batch.over else claims.heads(dispatcher, [run_id])
        batch.run(lapsed)
        ended |= _ordered(lapsed)
    left = _run_lines(dispatcher, batch, due.ordered, ended)
    for handler, run_ids in due.limited.items():
        left += _run_limited(dispatcher, batch, handler, run_ids)
    if batch.over:
        ring(PROCESS, sorted({*event_ids, *left}))


def _run_lines(dispatcher: Dispatcher, batch: Batch, run_ids: Sequence[str], ended: set[str]) -> list[str]:
    """Run the first of each line, then the next ones of these and where others have `ended`, until none is due.

    The events of those that there was no time for.
    """
    blocked, held = set(run_ids), False
    while (run_ids or ended) and not batch.over:
        taken = claims.heads(dispatcher, run_ids)
        batch.run(taken)
        blocked -= {one.lease.id for one in taken}
        # After the commit of the results, so that of two processes one sees the other's.
        run_ids, ended = _next_in_line(dispatcher, ended | _ordered(taken)), set()
        if blocked and not run_ids and not held:
            # And then once more: whoever freed a line while we held this back could not take it.
            _hold_back(dispatcher, blocked)
            run_ids, held = sorted(blocked), True
    if not held:
        _hold_back(dispatcher, blocked)
    with database.read(dispatcher.engine) as connection:
        return claims.events_of(connection, [*run_ids, *claims.next_in_line(dispatcher, connection, ended)])


def _run_limited(dispatcher: Dispatcher, batch: Batch, handler: Handler, run_ids: Sequence[str]) -> list[str]:
    """Run these one by one, and then others of that handler, while it has a place free for this process.

    The events of some that there was no time for.
    """
    blocked, held = set(run_ids), False
    mine: Sequence[str] | None = run_ids
    while not batch.over:
        taken = claims.one_of(dispatcher, handler, mine)
        if taken:
            blocked -= {one.lease.id for one in taken}
            batch.run(taken)
        elif mine is not None:
            mine = None  # a place that these do not need is free for whoever waits longest
        elif blocked and not held:
            _hold_back(dispatcher, blocked)  # and once more, as above
            held = True
        else:
            return []
    if not held:
        _hold_back(dispatcher, blocked)
    with database.read(dispatcher.engine) as connection:
        return claims.longest_due(dispatcher, connection, handler)


def _next_in_line(dispatcher: Dispatcher, run_ids: set[str]) -> list[str]:
    with database.read(dispatcher.engine) as connection:
        return claims.next_in_line(dispatcher, connection, run_ids)


def _hold_back(dispatcher: Dispatcher, run_ids: set[str]) -> None:
    if run_ids:
        with database.write(dispatcher.engine) as connection:
            claims.hold_back(dispatcher, connection, sorted(run_ids))


def _ordered(taken: Sequence[Taken]) -> set[str]:
    return {one.lease.id for one in taken if one.lease.ordered}


def sweep(process: Runtime, now: Clock = utcnow) -> int:
    """Ring for events and runs that are due and that nobody took; how many events."""
    if ringing(process.redis, process.settings, "events"):
        return 0
    with database.write(process.engine) as connection:
        found = set(leases.due(connection, EventRow, EventRow.id, now=now()))
        found |= set(leases.due(connection, HandlerRun, HandlerRun.event_id, now=now()))
    ring(PROCESS, sorted(found))
    RUNG_AGAIN.labels("events").inc(len(found))
    return len(found)


@cache
def _dispatcher() -> Dispatcher:
    settings = runtime().settings
    return Dispatcher(engine=runtime().engine, settings=settings, registry=REGISTRY, clients=Clients(settings))


@app.task(name=PROCESS)
def process_task(event_ids: list[str]) -> None:
    ring(DELIVER, process(_dispatcher(), event_ids))


@app.task(name="billhook.events.sweep")
def sweep_task() -> None:
    sweep(runtime())
