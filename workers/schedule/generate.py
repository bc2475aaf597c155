"""Generating: each occurrence becomes exactly one invoice, the oldest of a source first, under the limit of its API.

A message says only at which sources something is due. Whoever gets it takes one occurrence after the other, as the
budget of the API key allows; what is left when that is spent is rung for again by the sweep. Of one schedule only the
oldest due date is ever taken, so that its invoices are made in their order.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from sqlalchemy import Engine, select
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import ColumnElement

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.invoicing import NOT_AGREED
from handlers.providers.http import RateLimit
from workers import database, leases, tracing
from workers.app import GENERATE, PROCESS, STOPPING, app, ring, ringing, runtime
from workers.clients import Clients
from workers.logs import log
from workers.metrics import BUDGET_WAITS, RUNG_AGAIN
from workers.models import RUNNING, WAITING, AnyRow, Occurrence, Schedule
from workers.schedule import issuing
from workers.schedule.errors import ScheduleError
from workers.schedule.generator import DEADLINE, LEASE, Generator, billing, budget, client
from workers.schedule.outcomes import Outcome, end, postpone, wait_for_customer
from workers.schedule.tick import tick

SLICE = 10.0
"""Seconds that one message keeps a process; less than a worker may take to stop."""
SETBACKS = 3
"""Times in a row that an API fails before it is left alone until the next look."""
_REFUSED = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class _Taken:
    """A leased occurrence, or why there is none: the source has to wait, or has nothing due."""

    row: AnyRow | None
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Shift:
    """What a process did for a source: the events that report it, and whether it could have gone on."""

    events: list[str]
    more: bool


def work_off(generator: Generator, source: str) -> Shift:
    """Generate what is due at a source, oldest first, while its budget and the process's time last."""
    events: list[str] = []
    ends = time.monotonic() + SLICE
    setbacks = 0
    while time.monotonic() < ends and not STOPPING[0]:
        taken = _take(generator, source)
        if taken.waits:
            BUDGET_WAITS.labels(source).inc()
        if taken.row is None:
            return Shift(events, more=False)
        ended, failed = _generate(generator, taken.row)
        events += ended
        setbacks = setbacks + 1 if failed else 0
        if setbacks == SETBACKS:
            return Shift(events, more=False)
    return Shift(events, more=True)


def generate(generator: Generator, occurrence_ids: Sequence[str]) -> list[str]:
    """Make the invoice of each of these that is due and free, whatever the budget; the ids of the events on it."""
    events: list[str] = []
    for occurrence_id in occurrence_ids:
        with database.write(generator.engine) as connection:
            claimed = leases.claim(connection, Occurrence, [occurrence_id], now=generator.clock(), lease=LEASE)
        for row in claimed:
            events += _generate(generator, row)[0]
    return events


def _take(generator: Generator, source: str) -> _Taken:
    """Lease the oldest occurrence that is due at a source, if its calls may be made now."""
    now = generator.clock()
    oldest = (
        select(Occurrence.id, Schedule.auto_finalize, Schedule.auto_send)
        .join(Schedule, Schedule.id == Occurrence.schedule_id)
        .where(Occurrence.source == source, *_due(now), ~_behind_another())
        .order_by(Occurrence.next_attempt_at)  # and no more: all that is due on a day would be sorted each time
        .limit(1)
    )
    with database.read(generator.engine) as connection:
        seen = connection.execute(oldest).one_or_none()
    if seen is None:
        return _Taken(None)
    # Before the transaction: nobody shall wait for what we hold while we wait for Redis.
    if not _may_call(generator, source, finalize=seen.auto_finalize, send=seen.auto_send):
        return _Taken(None, waits=True)
    with database.write(generator.engine) as connection:
        free = oldest.with_for_update(of=Occurrence, skip_locked=True)
        found = connection.execute(free).one_or_none()
        if found is None:
            return _Taken(None)
        return _Taken(next(iter(leases.claim(connection, Occurrence, [found.id], now=now, lease=LEASE)), None))


def _may_call(generator: Generator, source: str, *, finalize: bool, send: bool) -> bool:
    """Whether the calls that an invoice takes may be made now."""
    try:
        calls = billing(generator, source).calls(finalize, send)
    except ProviderUnavailable:
        return True  # without settings there is nothing to call
    allowed = budget(generator, source)
    return allowed is None or allowed.take(calls) == 0


def _due(now: datetime) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return Occurrence.status.in_((WAITING, RUNNING)), Occurrence.next_attempt_at <= now


def _behind_another() -> ColumnElement[bool]:
    """Whether an earlier due date of the same schedule is not done yet."""
    earlier = aliased(Occurrence)
    return (
        select(earlier.id)
        .where(
            earlier.schedule_id == Occurrence.schedule_id,
            earlier.due_on < Occurrence.due_on,
            earlier.status.in_((WAITING, RUNNING)),
        )
        .exists()
    )


def _generate(generator: Generator, row: AnyRow) -> tuple[list[str], bool]:
    """Do one occurrence: the ids of the events that report it, and whether its API failed."""
    about = {
        "billhook.occurrence.id": row.id,
        "billhook.schedule.id": row.schedule_id,
        "billhook.source": row.source,
        "billhook.attempt": row.attempts + 1,
    }
    with tracing.continued(f"generate {row.source}", "internal", None, about) as span:
        try:
            return _issue(generator, row, span)
        except ScheduleError:  # it was deleted meanwhile, and its occurrences with it
            return [], False


def _issue(generator: Generator, row: AnyRow, span: tracing.Span) -> tuple[list[str], bool]:
    if row.starts - row.attempts > generator.settings.max_starts:
        died = f"its process died {generator.settings.max_starts} times while it was generated"
        return end(generator, row, Outcome(error=ProviderUnavailable("DIED", died))), False
    try:
        outcome = issuing.issue(generator, row)
    except ProviderError as error:
        span.fail(error.code, str(error))
        _learn(generator, row.source, error)
        return _failed(generator, row, error)
    except ScheduleError:
        raise
    except Exception as error:  # a fault of ours: it must not keep other occurrences waiting
        span.fail(type(error).__name__, str(error))
        log.exception("generating failed", action="generation_failed", occurrence_id=row.id)
        return postpone(generator, row, ProviderError("UNEXPECTED", type(error).__name__)), False
    _learn(generator, row.source, None)
    return ([] if outcome is None else end(generator, row, outcome)), False


def _failed(generator: Generator, row: AnyRow, error: ProviderError) -> tuple[list[str], bool]:
    if error.code == NOT_AGREED:
        return wait_for_customer(generator, row, error), False
    # A key that was revoked is replaced by a person; the invoice must not be lost meanwhile.
    if isinstance(error, ProviderUnavailable) or error.status in _REFUSED:
        return postpone(generator, row, error), True
    return end(generator, row, Outcome(error=error)), False


def _learn(generator: Generator, source: str, error: ProviderError | None) -> None:
    """Tell the budget what the API said of its limit."""
    allowed = budget(generator, source)
    if allowed is None:
        return
    limited = error is not None and error.status == issuing.TOO_MANY
    try:
        said: RateLimit | None = getattr(client(generator, source), "rate_limit", None)
    except ProviderUnavailable:
        return
    if said is not None or limited:
        allowed.told(
            limit=None if said is None else said.limit,
            left=None if said is None else said.remaining,
            leave_alone=(error.retry_after or 1.0) if limited and error is not None else None,
        )


def waiting_at(engine: Engine, now: datetime) -> list[str]:
    """The sources at which something is due."""
    with database.read(engine) as connection:
        return sorted(connection.execute(select(Occurrence.source).where(*_due(now)).distinct()).scalars())


def sweep(generator: Generator) -> int:
    """Plan what has come due, and ring for each source where something is; how many sources."""
    planned = tick(generator.engine, now=generator.clock())
    if planned:
        log.info("schedules are due", action="occurrences_planned", count=len(planned), occurrence_ids=planned[:20])
    if ringing(generator.redis, generator.settings, "schedules"):
        return 0
    sources = waiting_at(generator.engine, generator.clock())
    if not planned:
        RUNG_AGAIN.labels("schedules").inc(len(sources))
    for source in sources:  # one message each, so that several processes share the work
        ring(GENERATE, [source])
    return len(sources)


@cache
def _generator() -> Generator:
    process = runtime()
    clients = Clients(process.settings, deadline=DEADLINE)
    return Generator(engine=process.engine, settings=process.settings, clients=clients, redis=process.redis)


@app.task(name=GENERATE)
def generate_task(sources: list[str]) -> None:
    for source in sources:
        shift = work_off(_generator(), source)
        ring(PROCESS, shift.events)
        if shift.more:
            ring(GENERATE, [source])


@app.task(name="billhook.schedules.sweep")
def sweep_task() -> None:
    sweep(_generator())
