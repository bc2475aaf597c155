"""Dispatch: which handlers an event gets, running them, and what their outcome changes.

Planning an event writes one `waiting` run for each handler. A run is leased before it starts and settled under
that lease, so at every moment a dying process leaves either a waiting run, or a leased one that becomes due
when its lease ends. What a handler emitted commits with its success.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, exists, select, update

from handlers.context import Context
from handlers.errors import ParseError
from handlers.event import Event, from_json
from handlers.providers import PROVIDERS
from handlers.registry import REGISTRY, Handler, Registry
from workers import database, ids, leases, retry
from workers.app import DELIVER, PROCESS, STOPPING, Runtime, app, ring, ringing, runtime
from workers.clients import Clients
from workers.delivery.messages import Outgoing, publish
from workers.execution import Discarded, Failed, Result, Succeeded, execute
from workers.leases import Clock, utcnow
from workers.logs import log
from workers.metrics import HANDLER_SECONDS, RUNG_AGAIN, RUNS
from workers.models import RUNNING, WAITING, AnyRow, EventRow, HandlerRun
from workers.settings import Settings

_KEPT = 8_000
"""Characters of a traceback that are stored."""

INTERNAL = "billhook"
"""The provider of events that Billhook itself reports, such as a generated invoice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatcher:
    """What running handlers needs in one process."""

    engine: Engine
    settings: Settings
    registry: Registry
    clients: Clients
    clock: Clock = utcnow
    chance: Callable[[], float] = field(default=random.random)
    stopping: Callable[[], bool] = lambda: bool(STOPPING[0])
    """Whether to begin nothing more."""


def process(dispatcher: Dispatcher, event_ids: Sequence[str]) -> list[str]:
    """Plan these events and run what of them is due; the deliveries that came of it, to be rung."""
    with database.write(dispatcher.engine) as connection:
        _plan(dispatcher, connection, event_ids)
    with database.read(dispatcher.engine) as connection:
        due = _due_runs(dispatcher, connection, event_ids)
        stored = _stored(connection, sorted({run.event_id for run in due}))
    deliveries: list[str] = []
    for position, run in enumerate(due):
        if dispatcher.stopping():
            _hand_back(dispatcher, [run.id for run in due[position:]])
            break
        deliveries += _run(dispatcher, run, stored[run.event_id])
    return deliveries


def _hand_back(dispatcher: Dispatcher, run_ids: Sequence[str]) -> None:
    """Have the sweep ring at once for runs that this process will not begin any more."""
    statement = update(HandlerRun).where(HandlerRun.id.in_(run_ids), HandlerRun.status == WAITING)
    with database.write(dispatcher.engine) as connection:
        connection.execute(statement.values(ring_at=dispatcher.clock()))


def _plan(dispatcher: Dispatcher, connection: Connection, event_ids: Sequence[str]) -> None:
    now = dispatcher.clock()
    fresh = connection.execute(
        select(EventRow)
        .with_only_columns(*_HEAD)
        .where(EventRow.id.in_(event_ids), EventRow.status == WAITING, EventRow.ring_at.is_not(None))
        .with_for_update(skip_locked=True)
    ).all()
    runs: list[dict[str, Any]] = []
    ignored: list[str] = []
    for row in fresh:
        handlers = dispatcher.registry.wanting(_head(row))
        runs += [_new_run(row.id, handler, now) for handler in handlers]
        if not handlers:
            ignored.append(row.id)
    if runs:
        connection.execute(database.insert(connection, HandlerRun).on_conflict_do_nothing(), runs)
    if fresh:
        connection.execute(update(EventRow).where(EventRow.id.in_([row.id for row in fresh])).values(ring_at=None))
    if ignored:
        connection.execute(update(EventRow).where(EventRow.id.in_(ignored)).values(status="ignored"))
        log.info("no handler wants these events", action="events_ignored", event_ids=ignored)


_HEAD = (EventRow.id, EventRow.type, EventRow.source, EventRow.provider, EventRow.occurred_at)


def _head(row: AnyRow) -> Event:
    """As much of an event as decides who handles it, without reading its body."""
    return Event(
        id=row.id, type=row.type, source=row.source, provider=row.provider, occurred_at=row.occurred_at, data={}
    )


def _new_run(event_id: str, handler: Handler, now: Any) -> dict[str, Any]:
    return {
        "id": ids.new("run"),
        "event_id": event_id,
        "handler": handler.name,
        "status": WAITING,
        "starts": 0,
        "fence": 0,
        "attempts": 0,
        "next_attempt_at": now,
        "ring_at": now + leases.RING_AGAIN,
        "created_at": now,
    }


def _due_runs(dispatcher: Dispatcher, connection: Connection, event_ids: Sequence[str]) -> Sequence[AnyRow]:
    return connection.execute(
        select(HandlerRun.id, HandlerRun.event_id, HandlerRun.handler)
        .where(
            HandlerRun.event_id.in_(event_ids),
            HandlerRun.status.in_((WAITING, RUNNING)),
            HandlerRun.next_attempt_at <= dispatcher.clock(),
        )
        .order_by(HandlerRun.id)
    ).all()


def _stored(connection: Connection, event_ids: Sequence[str]) -> dict[str, AnyRow]:
    statement = select(*_HEAD, EventRow.headers, EventRow.body, EventRow.received_at).where(EventRow.id.in_(event_ids))
    return {row.id: row for row in connection.execute(statement)}


def _event(stored: AnyRow) -> Event:
    """The event as its handlers see it, read again from the exact bytes that were signed. Raises ParseError."""
    if stored.provider == INTERNAL:
        event = from_json(stored.body)
    else:
        headers = [(name.encode(), value.encode()) for name, value in orjson.loads(stored.headers).items()]
        event = PROVIDERS[stored.provider].parse(headers, stored.body)
    return replace(
        event,
        id=stored.id,
        source=stored.source,
        provider=stored.provider,
        received_at=stored.received_at,
        body=stored.body,
    )


def _run(dispatcher: Dispatcher, run: AnyRow, stored: AnyRow) -> list[str]:
    """Claim one run, run its handler, settle; the deliveries that its emits caused."""
    handler = dispatcher.registry.get(run.handler)
    seconds = (handler.timeout if handler else 0.0) + dispatcher.settings.lease_grace
    with database.write(dispatcher.engine) as connection:
        claimed = leases.claim(
            connection, HandlerRun, [run.id], now=dispatcher.clock(), lease=timedelta(seconds=seconds)
        )
    if not claimed:
        return []
    row = claimed[0]
    context = Context(
        attempt=row.attempts + 1,
        first_seen=stored.received_at,
        logger=log.bind(event_id=stored.id, handler=row.handler),
        clients=lambda source: dispatcher.clients.get(source or stored.source),
    )
    result = _masked(dispatcher.settings, _execute(dispatcher, row, handler, stored, context))
    return _settle(dispatcher, row, handler, stored, context, result)


def _execute(dispatcher: Dispatcher, row: AnyRow, handler: Handler | None, stored: AnyRow, context: Context) -> Result:
    if handler is None:
        return Failed(f"handler {row.handler} is not loaded in this worker: see BILLHOOK_HANDLERS", 0.0)
    if row.starts - row.attempts > dispatcher.settings.max_starts:
        return Failed(f"its process died {dispatcher.settings.max_starts} times while it ran", 0.0, final=True)
    try:
        event = _event(stored)
    except ParseError as error:
        return Failed(f"the stored body is no longer understood: {error}", 0.0, final=True)
    # Before the lease ends, so that no second start runs beside one that cannot be interrupted.
    return execute(handler, event, context, patience=dispatcher.settings.lease_grace / 2)


def _settle(
    dispatcher: Dispatcher, row: AnyRow, handler: Handler | None, stored: AnyRow, context: Context, result: Result
) -> list[str]:
    """Write a run's result, its effects and what they mean for the event, in one transaction."""
    now = dispatcher.clock()
    deliveries: list[str] = []
    with database.write(dispatcher.engine) as connection:
        # Two runs of one event that end at once must not each take the other for unfinished.
        connection.execute(select(EventRow.id).where(EventRow.id == stored.id).with_for_update())
        outcome, held = _write_result(dispatcher, connection, row, handler, result)
        if held and isinstance(result, Succeeded):
            outgoing = [
                Outgoing(_message_id(stored, row.handler, emit.key), stored.id, emit.type, emit.data)
                for emit in context.emitted
            ]
            deliveries = publish(connection, outgoing, now=now)
        if held and outcome != WAITING:
            _end_event(connection, stored.id)
    _report(row, outcome if held else "lost", result)
    return deliveries


def _write_result(
    dispatcher: Dispatcher, connection: Connection, row: AnyRow, handler: Handler | None, result: Result
) -> tuple[str, bool]:
    now = dispatcher.clock()
    ended = {"attempts": row.attempts + 1, "ended_at": now}
    if isinstance(result, Succeeded):
        return "succeeded", leases.finish(connection, HandlerRun, row, status="succeeded", error=None, **ended)
    if isinstance(result, Discarded):
        held = leases.finish(connection, HandlerRun, row, status="discarded", error=result.reason, **ended)
        return "discarded", held
    error = result.error
    retries, first = (handler.retries, handler.backoff) if handler else (8, 30.0)
    if result.final or row.attempts >= retries:
        return "dead", leases.finish(connection, HandlerRun, row, status="dead", error=error, **ended)
    wait = retry.backoff(row.attempts + 1, first=first, chance=dispatcher.chance())
    if result.after is not None:
        wait = timedelta(seconds=min(max(0.0, result.after), retry.MAX_WISH))
    if result.at_least is not None:
        wait = max(wait, timedelta(seconds=min(result.at_least, retry.MAX_RETRY_AFTER)))
    held = leases.wait(connection, HandlerRun, row, until=now + wait, attempts=row.attempts + 1, error=error)
    return WAITING, held


def _message_id(stored: AnyRow, handler: str, key: str) -> str:
    return ids.derived("msg", stored.received_at, stored.id, handler, key)


def _end_event(connection: Connection, event_id: str) -> None:
    """End the event when this was its last run: dead if any run is, else processed."""
    open_runs = exists().where(HandlerRun.event_id == event_id, HandlerRun.status.in_((WAITING, RUNNING)))
    dead_runs = exists().where(HandlerRun.event_id == event_id, HandlerRun.status == "dead")
    dead = connection.execute(select(dead_runs)).scalar_one()
    connection.execute(
        update(EventRow).where(EventRow.id == event_id, ~open_runs).values(status="dead" if dead else "processed")
    )


def _masked(settings: Settings, result: Result) -> Result:
    """The result, fit to be stored, logged and shown: no secret of ours in it, and only then cut."""
    if isinstance(result, Succeeded):
        return result
    text = str(result.reason) if isinstance(result, Discarded) else result.error
    for source in settings.sources.values():
        for secret in (*source.secrets, *filter(None, [source.api_key])):
            text = text.replace(secret.get_secret_value(), "********")
    if isinstance(result, Discarded):
        return replace(result, reason=text)
    return replace(result, error=text[-_KEPT:])


def _report(row: AnyRow, outcome: str, result: Result) -> None:
    RUNS.labels(row.handler, outcome).inc()
    HANDLER_SECONDS.labels(row.handler).observe(result.seconds)
    level = {"dead": "error", "waiting": "warning", "lost": "warning"}.get(outcome, "info")
    getattr(log, level)(
        "a handler ended",
        action="run_ended",
        event_id=row.event_id,
        handler=row.handler,
        attempt=row.attempts + 1,
        outcome=outcome,
        seconds=round(result.seconds, 4),
        error=result.summary,
    )


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
