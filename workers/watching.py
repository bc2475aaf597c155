"""Watching what happens: events that come and how they end, runs that fail, attempts at endpoints; from the database.

A look costs what has come since the one before, and what is open of that, however much is stored. It goes by ids, which
begin with their time. What was committed late has an id from before: so a look begins `LATE` before the last id, and
leaves out what was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Select, select
from sqlalchemy.orm import InstrumentedAttribute

from workers import database, ids
from workers.models import WAITING, AnyRow, Attempt, Delivery, EventRow, HandlerRun, Message

What = Literal["received", "processed", "ignored", "dead", "failed", "delivered", "undelivered"]
WHATS: tuple[What, ...] = ("received", "processed", "ignored", "dead", "failed", "delivered", "undelivered")
LATE = timedelta(seconds=5)
"""How long after its id was made a row may be committed, and still be seen."""
PAGE = 500
"""Rows of one kind that one look reads at most; the next look goes on there."""
OPEN = 1_000
"""Events whose end is waited for; beyond that the oldest are let go."""
_LONGEST = 300
"""Characters of an error's last line."""

_EVENT = (
    EventRow.id, EventRow.source, EventRow.type, EventRow.object_id, EventRow.received_at, EventRow.status,
)  # fmt: skip
_RUN = (
    HandlerRun.id, HandlerRun.event_id, HandlerRun.handler, HandlerRun.status, HandlerRun.attempts,
    HandlerRun.ended_at, HandlerRun.next_attempt_at,
)  # fmt: skip
_ATTEMPT = (
    Attempt.id, Attempt.delivery_id, Attempt.number, Attempt.started_at, Attempt.duration_ms, Attempt.status,
    Attempt.error, Delivery.endpoint_id, Message.type, Message.source,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """Something that happened. `id` is an event's, or the delivery's that an attempt was made for."""

    what: What
    at: datetime
    id: str
    type: str
    source: str | None
    object_id: str | None = None
    handler: str | None = None
    runs: int | None = None
    """Of an event that has ended."""
    attempt: int | None = None
    next_attempt_at: datetime | None = None
    error: str | None = None
    """The last line."""
    endpoint: str | None = None
    status: int | None = None
    """What the endpoint answered."""
    duration_ms: int | None = None


class Watch:
    """What was seen so far. `wants` is asked of each type and source."""

    def __init__(
        self, engine: Engine, since: datetime, wants: Callable[[str, str | None], bool] = lambda _type, _source: True
    ) -> None:
        self._engine, self._wants = engine, wants
        self._events, self._attempts = _Cursor("evt", since), _Cursor("att", since)
        self._open: dict[str, AnyRow] = {}
        self._told: dict[str, dict[str, int]] = {}
        """Of each open event: the attempts of its runs that were told of, or made before we looked."""

    @property
    def behind(self) -> bool:
        """Whether there was more than one look reads."""
        return self._events.full or self._attempts.full

    def look(self, at: datetime) -> list[Happening]:
        """What has happened since the last look, in its order. Raises DBAPIError; the next look misses nothing."""
        with database.read(self._engine, snapshot=True) as connection:
            events = self._events.read(connection, select(*_EVENT), EventRow.id)
            came = [row for row in events.rows if self._wants(row.type, row.source)]
            attempts = self._attempts.read(connection, _attempts(), Attempt.id)
            waiting = [row for row in _waiting(connection) if self._wants(row.type, row.source)]
            older = [row for row in waiting if row.id not in self._open and not events.knows(row.id)]
            now = {row.id: row for row in [*_rows(connection, list(self._open)), *older, *came]}
            runs = _runs(connection, list(now))
            baseline = {row.id: {run.id: run.attempts for run in runs.get(row.id, ())} for row in older}
            told = {**self._told, **baseline, **{row.id: {} for row in came}}
            failed = [run for row in now.values() for run in _failed(row, runs.get(row.id, ()), told[row.id])]
            dead = [run for row in now.values() if row.status == "dead" for run in runs.get(row.id, ()) if _dead(run)]
            errors = _errors(connection, [run.id for run in [*failed, *dead]])
        self._events.take(events)
        self._attempts.take(attempts)
        self._remember(now, runs, told)
        return sorted(
            [
                *map(_received, came),
                *(_failure(now[run.event_id], run, errors, at) for run in failed),
                *(_ended(row, runs.get(row.id, ()), errors) for row in now.values() if row.status != WAITING),
                *(_attempted(row) for row in attempts.rows if self._wants(row.type, row.source)),
            ],
            key=lambda one: (one.at, WHATS.index(one.what)),
        )

    def _remember(self, now: dict[str, AnyRow], runs: dict[str, list[AnyRow]], told: dict[str, dict[str, int]]) -> None:
        kept = sorted(event_id for event_id, row in now.items() if row.status == WAITING)[-OPEN:]
        self._open = {event_id: now[event_id] for event_id in kept}
        self._told = {
            event_id: {**told[event_id], **{run.id: run.attempts for run in runs.get(event_id, ())}}
            for event_id in kept
        }


@dataclass(frozen=True, slots=True)
class _Read:
    """Rows that were not seen before, and all ids that were seen of late."""

    rows: Sequence[AnyRow]
    seen: frozenset[str]
    full: bool

    def knows(self, row_id: str) -> bool:
        return row_id in self.seen


class _Cursor:
    """How far a table was read. It moves only with `take`, so that a look that fails is made again."""

    def __init__(self, prefix: str, since: datetime) -> None:
        self.full = False
        self._prefix = prefix
        self._low = ids.first(prefix, since)
        self._seen: frozenset[str] = frozenset()

    def read(self, connection: Connection, rows: Select[*tuple[Any, ...]], key: InstrumentedAttribute[str]) -> _Read:
        limit = PAGE + len(self._seen)
        found = connection.execute(rows.where(key > self._low).order_by(key).limit(limit)).all()
        fresh = [row for row in found if row.id not in self._seen]
        return _Read(fresh, self._seen | {row.id for row in fresh}, len(found) == limit)

    def take(self, read: _Read) -> None:
        self.full = read.full
        if read.rows:
            self._low = max(self._low, ids.first(self._prefix, ids.moment(read.rows[-1].id), -LATE))
        self._seen = frozenset(row_id for row_id in read.seen if row_id > self._low)


def _waiting(connection: Connection) -> Sequence[AnyRow]:
    """Some of the events that wait, among them such as were replayed; all, unless there are many."""
    some = select(EventRow.id).where(EventRow.status == WAITING).limit(PAGE)
    return connection.execute(select(*_EVENT).where(EventRow.id.in_(some))).all()


def _rows(connection: Connection, event_ids: Sequence[str]) -> Sequence[AnyRow]:
    return connection.execute(select(*_EVENT).where(EventRow.id.in_(event_ids))).all()


def _runs(connection: Connection, event_ids: Sequence[str]) -> dict[str, list[AnyRow]]:
    found: dict[str, list[AnyRow]] = {}
    for run in connection.execute(select(*_RUN).where(HandlerRun.event_id.in_(event_ids))):
        found.setdefault(run.event_id, []).append(run)
    return found


def _attempts() -> Select[*tuple[Any, ...]]:
    joined = select(*_ATTEMPT).join(Delivery, Delivery.id == Attempt.delivery_id)
    return joined.join(Message, Message.id == Delivery.message_id)


def _errors(connection: Connection, run_ids: Sequence[str]) -> dict[str, str]:
    """The last lines of their errors: the exceptions without their tracebacks."""
    asked = select(HandlerRun.id, HandlerRun.error).where(HandlerRun.id.in_(run_ids), HandlerRun.error.is_not(None))
    return {run.id: run.error.rstrip().rpartition("\n")[2].strip()[:_LONGEST] for run in connection.execute(asked)}


def _failed(event: AnyRow, runs: Sequence[AnyRow], told: dict[str, int]) -> Iterator[AnyRow]:
    """Those with an attempt that failed since it was last told of; of an event that has ended, its end says it."""
    for run in runs if event.status == WAITING else ():
        if run.attempts > told.get(run.id, 0) and run.status not in {"succeeded", "discarded"}:
            yield run


def _dead(run: AnyRow) -> bool:
    return bool(run.status == "dead")


def _received(row: AnyRow) -> Happening:
    return _of_event(row, what="received", at=row.received_at)


def _failure(row: AnyRow, run: AnyRow, errors: dict[str, str], at: datetime) -> Happening:
    # When an attempt failed is written down only where it was the last.
    again = run.next_attempt_at if run.status == WAITING else None
    told = {"handler": run.handler, "attempt": run.attempts, "next_attempt_at": again, "error": errors.get(run.id)}
    return _of_event(row, what="failed", at=run.ended_at or at, **told)


def _ended(row: AnyRow, runs: Sequence[AnyRow], errors: dict[str, str]) -> Happening:
    at = max((run.ended_at for run in runs if run.ended_at is not None), default=row.received_at)
    dead = next((run for run in runs if _dead(run)), None) if row.status == "dead" else None
    told = {} if dead is None else {"handler": dead.handler, "attempt": dead.attempts, "error": errors.get(dead.id)}
    return _of_event(row, what=row.status, at=at, runs=len(runs), **told)


def _of_event(row: AnyRow, **told: Any) -> Happening:
    return Happening(id=row.id, type=row.type, source=row.source, object_id=row.object_id, **told)


def _attempted(row: AnyRow) -> Happening:
    good = row.status is not None and 200 <= row.status < 300
    return Happening(
        what="delivered" if good else "undelivered",
        at=row.started_at + timedelta(milliseconds=row.duration_ms),
        id=row.delivery_id,
        type=row.type,
        source=row.source,
        attempt=row.number,
        endpoint=row.endpoint_id,
        status=row.status,
        error=row.error,
        duration_ms=row.duration_ms,
    )
