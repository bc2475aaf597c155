"""Retention: what ended long ago is deleted, a few hundred events in a transaction.

An event goes with all that hangs on it: runs, steps, messages, deliveries, attempts. It goes when it was received
before the retention time and has ended; a dead one only once somebody has acknowledged it; none while a message of it
is still to be delivered. A once key goes in its own time, and never before its run; an idempotency key of the API after
a day, and a session that was signed out of once it would be over anyway. The audit log stays.

Events are walked in the order of their ids, which is that of their receipt, until none is old enough; so the cost
follows what is deleted or kept for longer, not what is stored. A process that dies leaves whole events.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

from sqlalchemy import Connection, Engine, and_, delete, exists, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.elements import ColumnElement

from workers import database, idempotency, sessions
from workers.app import STOPPING, app, runtime
from workers.leases import utcnow
from workers.logs import log
from workers.metrics import PRUNED
from workers.models import (
    RUNNING,
    WAITING,
    AnyRow,
    Attempt,
    Delivery,
    EventRow,
    HandlerRun,
    IdempotencyKey,
    Message,
    OnceKey,
    Step,
)
from workers.settings import Settings

BATCH = 500
"""Events, messages or keys that go in one transaction."""
BUDGET = 60.0
"""Seconds that the task takes at most: it holds one of the processes that run handlers."""
_AT_ONCE = 5_000
"""Ids in one statement."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows of each table were deleted, and whether that was all there is to delete."""

    rows: Counter[str]
    complete: bool


def prune(
    engine: Engine,
    now: datetime,
    settings: Settings,
    budget: float = float("inf"),
    *,
    stopping: Callable[[], bool] = lambda: False,
    seconds: Callable[[], float] = time.monotonic,
) -> Pruned:
    """Delete what is older than its retention time, until nothing is, `budget` seconds are over, or `stopping()`."""
    ends = seconds() + budget
    rows: Counter[str] = Counter()
    complete = True
    for batch in _batches(engine, now, settings):
        rows += batch
        for table, count in batch.items():
            PRUNED.labels(table).inc(count)
        if stopping() or seconds() >= ends:
            complete = False
            break
    if rows:
        log.info("deleted what is beyond its retention time", action="pruned", complete=complete, **rows)
    return Pruned(rows, complete)


def prunable(engine: Engine, now: datetime, settings: Settings) -> Counter[str]:
    """How many events, messages without an event, and keys `prune` would delete; changes nothing."""
    kept_since, keys_since = _cutoffs(now, settings)
    undelivered = exists().where(Message.event_id == EventRow.id, Delivery.message_id == Message.id, _OPEN)
    with database.read(engine) as connection:
        counts = {
            "events": select(func.count(EventRow.id)).where(*_ended_before(kept_since), ~undelivered),
            "messages": select(func.count(Message.id)).where(*_unowned_before(kept_since)),
            "once_keys": select(func.count()).select_from(OnceKey).where(*_free_before(keys_since)),
            "idempotency_keys": select(func.count()).where(IdempotencyKey.created_at < now - idempotency.KEPT),
            "ended_sessions": select(func.count()).where(sessions.over(now)),
        }
        return Counter({table: connection.execute(statement).scalar_one() for table, statement in counts.items()})


def _cutoffs(now: datetime, settings: Settings) -> tuple[datetime, datetime]:
    days = settings.retention_days
    return now - timedelta(days=days), now - timedelta(days=max(days, settings.once_retention_days))


_OPEN = Delivery.status.in_((WAITING, RUNNING))
_ENDED = or_(
    EventRow.status.in_(("processed", "ignored")),
    and_(EventRow.status == "dead", EventRow.acknowledged_at.is_not(None)),
)


def _ended_before(cutoff: datetime) -> tuple[ColumnElement[bool], ...]:
    return EventRow.received_at < cutoff, _ENDED


def _unowned_before(cutoff: datetime) -> tuple[ColumnElement[bool], ...]:
    undelivered = exists().where(Delivery.message_id == Message.id, _OPEN)
    return Message.event_id.is_(None), Message.created_at < cutoff, ~undelivered


def _free_before(cutoff: datetime) -> tuple[ColumnElement[bool], ...]:
    """Of keys that no run can ask for any more as its own: one that is still stored may be replayed."""
    return OnceKey.created_at < cutoff, ~exists().where(HandlerRun.id == OnceKey.run_id)


def _batches(engine: Engine, now: datetime, settings: Settings) -> Iterator[Counter[str]]:
    """Delete batch after batch; what went with each, after its commit."""
    kept_since, keys_since = _cutoffs(now, settings)
    return chain(
        _events(engine, kept_since),
        _until_none(engine, lambda connection: _unowned_messages(connection, kept_since)),
        _until_none(engine, lambda connection: _once_keys(connection, keys_since)),
        _until_none(engine, lambda connection: Counter(idempotency_keys=idempotency.forget(connection, now, BATCH))),
        _until_none(engine, lambda connection: Counter(ended_sessions=sessions.forget(connection, now, BATCH))),
    )


def _events(engine: Engine, cutoff: datetime) -> Iterator[Counter[str]]:
    after = ""
    while True:
        window = (
            select(EventRow.id, EventRow.received_at, _ENDED.label("ended"))
            .where(EventRow.id > after)
            .order_by(EventRow.id)
            .limit(BATCH)
        )
        with database.read(engine) as connection:
            rows = connection.execute(window).all()
        old = [row for row in rows if row.received_at < cutoff]
        if not old:
            return
        after = rows[-1].id
        ended = [row.id for row in old if row.ended]
        with database.write(engine) as connection:
            gone = _delete_events(connection, ended, cutoff)
        yield gone


def _delete_events(connection: Connection, event_ids: Sequence[str], cutoff: datetime) -> Counter[str]:
    """Delete those of these events that may go, and that nobody else is at."""
    lock = select(EventRow.id).where(EventRow.id.in_(event_ids), *_ended_before(cutoff))
    free = connection.execute(lock.with_for_update(skip_locked=True)).scalars().all()
    # Asked once they are locked: a message can only come to an event of which a run is open.
    messages = {row.id: row.event_id for row in _on(connection, Message.event_id, free, Message.id)}
    deliveries = _on(connection, Delivery.message_id, list(messages), Delivery.id, Delivery.status)
    kept = {messages[row.message_id] for row in deliveries if row.status in (WAITING, RUNNING)}
    gone = [event_id for event_id in free if event_id not in kept]
    rows = _delete_messages(connection, [message for message, event_id in messages.items() if event_id not in kept])
    rows["steps"] = _delete(connection, Step.run_id, _ids(_on(connection, HandlerRun.event_id, gone, HandlerRun.id)))
    rows["handler_runs"] = _delete(connection, HandlerRun.event_id, gone)
    rows["events"] = _delete(connection, EventRow.id, gone)
    return rows


def _delete_messages(connection: Connection, message_ids: Sequence[str]) -> Counter[str]:
    deliveries = _ids(_on(connection, Delivery.message_id, message_ids, Delivery.id))
    return Counter(
        attempts=_delete(connection, Attempt.delivery_id, deliveries),
        deliveries=_delete(connection, Delivery.id, deliveries),
        messages=_delete(connection, Message.id, message_ids),
    )


def _until_none(engine: Engine, delete_some: Callable[[Connection], Counter[str]]) -> Iterator[Counter[str]]:
    while True:
        with database.write(engine) as connection:
            gone = delete_some(connection)
        if not gone.total():
            return
        yield gone


def _unowned_messages(connection: Connection, cutoff: datetime) -> Counter[str]:
    some = select(Message.id).where(*_unowned_before(cutoff)).limit(BATCH).with_for_update(skip_locked=True)
    return _delete_messages(connection, connection.execute(some).scalars().all())


def _once_keys(connection: Connection, cutoff: datetime) -> Counter[str]:
    """Delete the oldest keys, by time, so that it is one range of an index; a few more where times are equal."""
    oldest = select(OnceKey.created_at).where(*_free_before(cutoff)).order_by(OnceKey.created_at).limit(BATCH)
    last = select(func.max(oldest.subquery().c.created_at)).scalar_subquery()
    gone = delete(OnceKey).where(OnceKey.created_at <= last, *_free_before(cutoff))
    return Counter(once_keys=connection.execute(gone).rowcount)


Column = InstrumentedAttribute[str] | InstrumentedAttribute[str | None]


def _on(connection: Connection, parent: Column, parents: Sequence[str], *columns: Column) -> list[AnyRow]:
    """What hangs on these. By lists of ids, not by joins: so no plan can come out as a scan of a large table."""
    statement = select(parent, *columns)
    return [row for chunk in _chunks(parents) for row in connection.execute(statement.where(parent.in_(chunk)))]


def _ids(rows: Sequence[AnyRow]) -> list[str]:
    return [row.id for row in rows]


def _delete(connection: Connection, column: Column, values: Sequence[str]) -> int:
    return sum(connection.execute(delete(column.class_).where(column.in_(chunk))).rowcount for chunk in _chunks(values))


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))


@app.task(name="billhook.events.prune")
def prune_task() -> None:
    prune(runtime().engine, utcnow(), runtime().settings, BUDGET, stopping=lambda: bool(STOPPING[0]))
