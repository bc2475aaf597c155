"""The inbox: every delivery is stored exactly once, many in one transaction.

`accept` commits a batch and tells for each delivery whether it is new, a duplicate, or a conflict. `announce`
follows the answer: it remembers the new ones in Redis and rings the workers. If the process dies in between, the
rows are there, the sweep rings, and the unique indexes recognise a repeat.

Redis keys: `{prefix}seen:{source}:{event key}`, holding the event id and a digest of body and delivery id, for three
days; written only after the commit. A repeat that differs in either is left to the database, which knows both keys.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

import orjson
from redis import Redis, RedisError
from sqlalchemy import Connection, Engine, or_, select, tuple_, update
from sqlalchemy.exc import DBAPIError

from handlers.event import AT_RECEIPT, Event, to_json
from workers import database, tracing
from workers.app import PROCESS, ring
from workers.database import Held
from workers.leases import utcnow
from workers.logs import log
from workers.metrics import REDIS_ERRORS
from workers.models import WAITING, EventRow

RING_AFTER = timedelta(seconds=5)
"""How long the receiver's own ring may take before the sweep rings instead."""
REMEMBERED = 3 * 24 * 3600
_TRIES = 3
_SET_ALL = "for i, key in ipairs(KEYS) do redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[1]) end"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A verified delivery: what it says, what it was given on its way in, and the two keys it is known by.

    `event` may lack what stands beside it here.
    """

    id: str
    """The event's id: `evt_` and a ULID."""
    source: str
    received_at: datetime
    event: Event
    delivery_id: str
    event_key: str
    body_hash: bytes
    """SHA-256 of the body."""
    headers: dict[str, str]
    reconciled: bool = False
    """Whether no delivery of it came: it was found at the provider's API."""
    traceparent: str | None = None
    """The span that it came by, for those that follow; None where it is not traced."""


def internal(event: Event, delivery_id: str) -> Arrival:
    """The arrival of an event that Billhook itself reports; `delivery_id` is what it reports on."""
    body = to_json(event)
    return Arrival(
        id=event.id,
        source=event.source,
        received_at=event.received_at or utcnow(),
        event=replace(event, body=body),
        delivery_id=delivery_id,
        event_key=delivery_id,
        body_hash=hashlib.sha256(body).digest(),
        headers={},
        traceparent=tracing.here(),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an arrival; `event_id` is that of the event it is, or is a repeat of."""

    kind: Literal["accepted", "duplicate", "conflict"]
    event_id: str


def accept(engine: Engine | Held, arrivals: Sequence[Arrival], window: Window | None = None) -> list[Outcome]:
    """Store what is new in one commit; one outcome for each arrival, in order.

    Raises SQLAlchemy's errors when something could not be stored. What of it was stored all the same is found by
    whoever sends it again.
    """
    known = _confirmed(engine, window.known(arrivals)) if window else [None] * len(arrivals)
    unknown = [arrival for arrival, outcome in zip(arrivals, known, strict=True) if outcome is None]
    stored = iter(_commit(engine, unknown) if unknown else [])
    return [outcome or next(stored) for outcome in known]


def _confirmed(engine: Engine | Held, known: list[Outcome | None]) -> list[Outcome | None]:
    """Only those of the window's duplicates whose event this database has.

    It may have been restored from a backup, or share its Redis with another: then the window knows too much, and a
    200 would lose the event.
    """
    hits = {outcome.event_id for outcome in known if outcome is not None}
    if not hits:
        return known
    with _write(engine)() as connection:
        there = set(connection.execute(select(EventRow.id).where(EventRow.id.in_(hits))).scalars())
    return [outcome if outcome is not None and outcome.event_id in there else None for outcome in known]


def _write(engine: Engine | Held) -> Callable[[], AbstractContextManager[Connection]]:
    return engine.write if isinstance(engine, Held) else partial(database.write, engine)


def _commit(engine: Engine | Held, arrivals: Sequence[Arrival]) -> list[Outcome]:
    write = _write(engine)
    for _ in range(_TRIES - 1):
        try:
            with write() as connection:
                return store(connection, arrivals)
        except DBAPIError as error:
            # Two receivers with the same deliveries in another order, or a connection that was cut: nothing
            # is stored, or all of it is, which the next try recognises by our own ids.
            if not (database.collided(error) or error.connection_invalidated):
                raise
    with write() as connection:
        return store(connection, arrivals)


def store(connection: Connection, arrivals: Sequence[Arrival]) -> list[Outcome]:
    """`accept` inside the caller's transaction, for events that must commit with their cause."""
    # One order for all receivers, so that they wait for each other in line rather than in a circle.
    rows = sorted((_row(arrival) for arrival in arrivals), key=lambda row: (row["source"], row["delivery_id"]))
    if any(arrival.traceparent for arrival in arrivals):  # else the column costs nothing
        traces = {arrival.id: arrival.traceparent for arrival in arrivals}
        rows = [row | {"traceparent": traces[row["id"]]} for row in rows]
    stored = database.insert_new(connection, EventRow, rows)
    if len(stored) == len(arrivals):
        return [Outcome("accepted", arrival.id) for arrival in arrivals]
    known = _known(connection, [arrival for arrival in arrivals if arrival.id not in stored])
    outcomes = [
        Outcome("accepted", arrival.id) if arrival.id in stored else _compare(arrival, known) for arrival in arrivals
    ]
    conflicts = [outcome.event_id for outcome in outcomes if outcome.kind == "conflict"]
    for event_id in conflicts:
        connection.execute(update(EventRow).where(EventRow.id == event_id).values(conflicts=EventRow.conflicts + 1))
    return outcomes


def _row(arrival: Arrival) -> dict[str, Any]:
    event = arrival.event
    return {
        "id": arrival.id,
        "source": arrival.source,
        "provider": event.provider,
        "delivery_id": arrival.delivery_id,
        "event_key": arrival.event_key,
        "type": event.type,
        "organization": event.organization,
        "object_kind": event.object_kind,
        "object_id": event.object_id,
        "occurred_at": arrival.received_at if event.occurred_at is AT_RECEIPT else event.occurred_at,
        "received_at": arrival.received_at,
        "headers": orjson.dumps(arrival.headers).decode(),
        "body": event.body,
        "body_hash": arrival.body_hash,
        "status": WAITING,
        "reconciled": arrival.reconciled,
        "ring_at": arrival.received_at + RING_AFTER,
    }


Key = tuple[str, str, str]


def _known(connection: Connection, arrivals: Sequence[Arrival]) -> dict[Key, Any]:
    """The stored rows that stand in the way of these, under both of their keys."""
    deliveries = [(arrival.source, arrival.delivery_id) for arrival in arrivals]
    keys = [(arrival.source, arrival.event_key) for arrival in arrivals]
    statement = select(
        EventRow.id, EventRow.source, EventRow.delivery_id, EventRow.event_key, EventRow.body_hash
    ).where(
        or_(
            tuple_(EventRow.source, EventRow.delivery_id).in_(deliveries),
            tuple_(EventRow.source, EventRow.event_key).in_(keys),
        )
    )
    known: dict[Key, Any] = {}
    for row in connection.execute(statement):
        known["d", row.source, row.delivery_id] = row
        known["k", row.source, row.event_key] = row
    return known


def _compare(arrival: Arrival, known: dict[Key, Any]) -> Outcome:
    # The delivery id decides first: the body of one event under the id of another is a conflict.
    row = known.get(("d", arrival.source, arrival.delivery_id))
    row = row or known["k", arrival.source, arrival.event_key]
    if row.id == arrival.id:
        return Outcome("accepted", row.id)
    return Outcome("duplicate" if row.body_hash == arrival.body_hash else "conflict", row.id)


class Window:
    """The Redis window of known deliveries. Without Redis it knows nothing, and says so at once."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._set_all = redis.register_script(_SET_ALL)
        self._silent_until = 0.0

    def known(self, arrivals: Sequence[Arrival]) -> list[Outcome | None]:
        """For each arrival the event it seems to repeat, or None where nothing is remembered."""
        keys = [self._key(arrival) for arrival in arrivals]
        values = self._call("known", lambda: self._redis.mget(keys)) or [None] * len(keys)
        return [_remembered(arrival, value) for arrival, value in zip(arrivals, values, strict=True)]

    def remember(self, arrivals: Sequence[Arrival]) -> None:
        """Note committed arrivals, so that their repeats need no database."""
        keys = [self._key(arrival) for arrival in arrivals]
        values = [arrival.id.encode() + _digest(arrival) for arrival in arrivals]
        self._call("remember", lambda: self._set_all(keys=keys, args=[REMEMBERED, *values]))

    def _key(self, arrival: Arrival) -> str:
        return f"{self._prefix}seen:{arrival.source}:{arrival.event_key}"

    def _call(self, name: str, call: Any) -> Any:
        # After a failure Redis is left alone for a moment: a batch must not wait for a timeout each time.
        if time.monotonic() < self._silent_until:
            return None
        try:
            return call()
        except (RedisError, OSError) as error:
            self._silent_until = time.monotonic() + 5.0
            REDIS_ERRORS.labels(name).inc()
            log.warning(
                "Redis did not answer; doing without", action="redis_failed", call=name, error=type(error).__name__
            )
            return None


def _remembered(arrival: Arrival, value: bytes | None) -> Outcome | None:
    if value is None or value[-32:] != _digest(arrival):
        return None
    return Outcome("duplicate", value[:-32].decode())


def _digest(arrival: Arrival) -> bytes:
    return hashlib.sha256(arrival.body_hash + arrival.delivery_id.encode()).digest()


def announce(window: Window, arrivals: Sequence[Arrival]) -> None:
    """Remember newly committed arrivals and ring the workers for them. Never raises: both have a second way."""
    window.remember(arrivals)
    ring(PROCESS, [arrival.id for arrival in arrivals])
