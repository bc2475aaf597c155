"""Settling: what the starts of runs came to, with their effects, in one transaction.

A run's success, what it emitted, the fan-out of that and the end of its event commit together or not at all. A result
is written only under the lease that its start had: a run that was given to another process changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, Update, bindparam, case, exists, select, update

from workers import database, faults, ids, retry, stale, tracing
from workers.delivery.messages import Outgoing, publish
from workers.dispatcher import Dispatcher, Done
from workers.execution import Discarded, Failed, Paused, Result, Succeeded
from workers.logs import hidden, log, masked
from workers.metrics import EVENT_AGE, HANDLER_SECONDS, RUNS
from workers.models import RUNNING, WAITING, EventRow, HandlerRun, OnceKey, prose
from workers.settings import Settings

_KEPT = 8_000
"""Characters of a traceback that are stored."""
_UNKNOWN_RETRIES, _UNKNOWN_BACKOFF = 8, 30.0
"""For a handler that this worker has not loaded."""


def settle(dispatcher: Dispatcher, group: Sequence[Done]) -> list[str]:
    """Write these results; the deliveries that their emits caused."""
    if not group:
        return []
    now = dispatcher.clock()
    group = _masked(dispatcher.settings, group)
    rows = [_row(dispatcher, done, now) for done in group]
    with database.write(dispatcher.engine) as connection:
        _lock_events(connection, group)
        held = _write(connection, rows)
        succeeded = [done for done in group if done.taken.lease.id in held and isinstance(done.result, Succeeded)]
        deliveries = publish(connection, _outgoing(succeeded), now=now)
        _close_once_keys(connection, succeeded)
        ended = sorted({done.taken.lease.event_id for done in group if done.taken.lease.id in held})
        _end_events(connection, ended)
        stale.mark(connection, ended, now)
    for done, row in zip(group, rows, strict=True):
        if not done.taken.lease.attempts:
            EVENT_AGE.observe(max(0.0, (now - done.taken.reading.received_at).total_seconds()))
        _report(done, _outcome(done.result, row["status"]) if done.taken.lease.id in held else "lost")
    return deliveries


def _write(connection: Connection, rows: Sequence[dict[str, Any]]) -> set[str]:
    """Write these rows; the ids of those that were ours. What was not started keeps how long its last start took."""
    parts: list[list[dict[str, Any]]] = [[], []]
    for row in rows:
        parts["duration_ms" in row].append(row)
    return {held for part in parts if part for held in database.update_held(connection, HandlerRun, part)}


def _lock_events(connection: Connection, group: Sequence[Done]) -> None:
    """Two runs of one event that end at once must not each take the other for unfinished."""
    if connection.dialect.name == "postgresql":
        connection.execute(_locking(), {"ids": [done.taken.lease.event_id for done in group]}).all()


@cache
def _locking() -> Select[Any]:
    mine = database.among("postgresql", EventRow.id, bindparam("ids"))
    # In one order, so that two groups wait for each other in line rather than in a circle.
    return select(EventRow.id).where(mine).order_by(EventRow.id).with_for_update()


def _row(dispatcher: Dispatcher, done: Done, now: datetime) -> dict[str, Any]:
    """What a run becomes; `id` and `fence` say under which lease."""
    lease, result = done.taken.lease, done.result
    row = {
        "id": lease.id,
        "fence": lease.fence,
        "status": "succeeded",
        "attempts": lease.attempts + 1,
        "pauses": lease.pauses,
        "slot": None,
        "next_attempt_at": now,
        "ring_at": None,
        "ended_at": now,
        "error": None,
    }
    if result.seconds is not None:
        row["duration_ms"] = round(result.seconds * 1000)
    if isinstance(result, Succeeded):
        return row
    if isinstance(result, Discarded):
        return row | {"status": "discarded", "error": prose(result.reason)}
    if isinstance(result, Paused):
        paused = {"attempts": lease.attempts, "pauses": lease.pauses + 1}
        return row | paused | _waiting(result.until)
    wait = _wait(dispatcher, done, result)
    if wait is None:
        return row | {"status": "dead", "error": prose(result.error)}
    return row | {"error": prose(result.error)} | _waiting(now + wait)


def _waiting(until: datetime) -> dict[str, Any]:
    return {"status": WAITING, "next_attempt_at": until, "ring_at": until, "ended_at": None}


def _wait(dispatcher: Dispatcher, done: Done, failed: Failed) -> timedelta | None:
    """How long a failed run waits; None when it is not tried again."""
    handler, attempts = done.taken.handler, done.taken.lease.attempts
    retries, first = (handler.retries, handler.backoff) if handler else (_UNKNOWN_RETRIES, _UNKNOWN_BACKOFF)
    if failed.final or attempts >= retries:
        return None
    wait = retry.backoff(attempts + 1, first=first, chance=dispatcher.chance())
    if failed.after is not None:
        wait = timedelta(seconds=min(max(0.0, failed.after), retry.MAX_WISH))
    if failed.at_least is not None:
        wait = max(wait, timedelta(seconds=min(failed.at_least, retry.MAX_RETRY_AFTER)))
    return wait


def _outgoing(succeeded: Sequence[Done]) -> list[Outgoing]:
    return [
        Outgoing(
            _message_id(done, emit.key),
            done.taken.lease.event_id,
            emit.type,
            emit.data,
            source=done.taken.reading.row.source,
            traceparent=done.traceparent,
        )
        for done in succeeded
        for emit in done.context.emitted
    ]


def _message_id(done: Done, key: str) -> str:
    lease = done.taken.lease
    return ids.derived("msg", done.taken.reading.received_at, lease.event_id, lease.handler, key)


def _close_once_keys(connection: Connection, succeeded: Sequence[Done]) -> None:
    """The effects of these runs are had: not even a replay of theirs may have them again."""
    # Of a first start it is known whether it asked; an earlier one may have.
    asked = [done.taken.lease.id for done in succeeded if done.asked_once or not done.taken.lease.first]
    if asked:
        connection.execute(
            update(OnceKey).where(database.among(connection.dialect.name, OnceKey.run_id, asked)).values(done=True)
        )


def _end_events(connection: Connection, event_ids: Sequence[str]) -> None:
    """End the events whose last run this was: dead if any run is, else processed."""
    if event_ids:
        connection.execute(_ending(connection.dialect.name), {"ids": list(event_ids)})


@cache
def _ending(dialect: str) -> Update:
    its = HandlerRun.event_id == EventRow.id
    waits = exists().where(its, HandlerRun.status.in_((WAITING, RUNNING)))
    dead = exists().where(its, HandlerRun.status == "dead")
    status = case((waits, WAITING), (dead, "dead"), else_="processed")
    mine = database.among(dialect, EventRow.id, bindparam("ids"))
    return update(EventRow).where(mine).values(status=status, ring_at=None)


def _masked(settings: Settings, group: Sequence[Done]) -> Sequence[Done]:
    """With results fit to be stored, logged and shown: no secret of ours in them, and only then cut."""
    if all(isinstance(done.result, Succeeded | Paused) for done in group):
        return group
    secrets = hidden(settings)
    return [replace(done, result=_fit(done.result, secrets)) for done in group]


def _fit(result: Result, secrets: Sequence[str]) -> Result:
    match result:
        case Discarded():
            return replace(result, reason=masked(str(result.reason), secrets)[:_KEPT])
        case Failed():
            return replace(result, error=masked(result.error, secrets)[-_KEPT:])
    return result


def _outcome(result: Result, status: str) -> str:
    return "paused" if isinstance(result, Paused) else status


def _report(done: Done, outcome: str) -> None:
    lease, result = done.taken.lease, done.result
    trace = tracing.trace_id(done.traceparent)
    _runs(lease.handler, outcome).inc()
    if result.seconds is not None:
        _seconds(lease.handler).observe(result.seconds)
    level = {"dead": "error", "waiting": "warning", "lost": "warning"}.get(outcome, "info")
    getattr(log, level)(
        "a handler ended",
        action="run_ended",
        event_id=lease.event_id,
        handler=lease.handler,
        attempt=lease.attempts + 1,
        outcome=outcome,
        seconds=None if result.seconds is None else round(result.seconds, 4),
        error=result.summary,
        **trace,
    )
    if outcome == "dead":
        _tell_of_death(done, trace)


def _tell_of_death(done: Done, trace: Mapping[str, str]) -> None:
    lease, row, result = done.taken.lease, done.taken.reading.row, done.result
    about = {"event_id": lease.event_id, "event_type": row.type, "source": row.source, "handler": lease.handler}
    faults.dead(result.error if isinstance(result, Failed) else "", {**about, **trace})


# To find a metric of these labels takes as long as to count.
_runs = cache(RUNS.labels)
_seconds = cache(HANDLER_SECONDS.labels)
