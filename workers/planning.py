"""Planning: which handlers an event gets, and which endpoints it is forwarded to.

Each wanting handler gets a run, once: the unique index of event and handler decides. A run that nothing can hold back
is written as leased already, by the process that will start it, which saves taking it in a second statement. All
others wait, and are taken by `workers.claims`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import accumulate
from typing import Any

from sqlalchemy import Connection, bindparam, exists, func, select, update

from handlers.errors import ParseError
from handlers.event import Event, Views, from_json
from handlers.providers import PROVIDERS
from handlers.registry import Handler, Registry
from handlers.vocabulary import INTERNAL
from workers import database, ids, leases, stale
from workers.delivery.forwarding import forward
from workers.dispatcher import Dispatcher, Lease, Reading, Taken
from workers.execution import time_limit
from workers.logs import log
from workers.models import RUNNING, WAITING, AnyRow, EventRow, HandlerRun
from workers.reconciled import known_by_reconciliation

_HEAD = (
    EventRow.id,
    EventRow.type,
    EventRow.source,
    EventRow.provider,
    EventRow.organization,
    EventRow.object_kind,
    EventRow.object_id,
    EventRow.occurred_at,
    EventRow.received_at,
    EventRow.reconciled,
    EventRow.ring_at,
    EventRow.traceparent,
    EventRow.body,
)


_IN_HAND = 8_388_608
"""Bytes of bodies that one process has in hand at most; parsed, they take up to twenty times as much."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What came of planning: the events that are open, the runs taken on the way, and where others may be due."""

    readings: Mapping[str, Reading]
    taken: Sequence[Taken]
    others: Sequence[str]
    """Events that have, or may have, runs beside the taken ones."""
    deliveries: Sequence[str]
    """Of events that are forwarded, to be rung."""


def read(connection: Connection, event_ids: Sequence[str], *, waiting: bool = False) -> dict[str, Reading]:
    """Events by their ids, oldest first: all, or only those that have not ended."""
    if not event_ids:
        return {}
    statement = _reads(connection.dialect.name, waiting)
    return {row.id: _reading(row) for row in connection.execute(statement, {"ids": list(event_ids)})}


def in_hand(connection: Connection, event_ids: Sequence[str]) -> tuple[list[str], list[str]]:
    """As many of these events, oldest first, as one process should hold by the size of their bodies; and the others."""
    sizes = connection.execute(_sizes(connection.dialect.name), {"ids": list(event_ids)}).all()
    count = max(1, sum(so_far <= _IN_HAND for so_far in accumulate(one.size for one in sizes)))
    return [one.id for one in sizes[:count]], [one.id for one in sizes[count:]]


@cache
def _sizes(dialect: str) -> Any:
    mine = database.among(dialect, EventRow.id, bindparam("ids"))
    return select(EventRow.id, func.length(EventRow.body).label("size")).where(mine).order_by(EventRow.id)


@cache
def _reads(dialect: str, waiting: bool) -> Any:
    statement = select(*_HEAD).where(database.among(dialect, EventRow.id, bindparam("ids"))).order_by(EventRow.id)
    return statement.where(EventRow.status == WAITING) if waiting else statement


def plan(dispatcher: Dispatcher, connection: Connection, event_ids: Sequence[str]) -> Plan:
    """Give the events that nobody planned yet their runs; those that can start now are taken with it.

    What providers sent is forwarded with that, in the same transaction.
    """
    readings = read(connection, event_ids, waiting=True)
    fresh = [reading for reading in readings.values() if reading.row.ring_at is not None]
    late = known_by_reconciliation(connection, [reading.row for reading in fresh])
    wanted = {
        reading.row.id: [] if reading.row.id in late else wanting(dispatcher.registry, reading) for reading in fresh
    }
    taken = _insert(dispatcher, connection, readings, wanted)
    theirs = [one.row for one in fresh if one.row.id not in late and one.row.provider != INTERNAL]
    deliveries = forward(connection, theirs, now=dispatcher.clock())
    whole = _ignore(connection, [event_id for event_id, handlers in wanted.items() if not handlers])
    stale.mark(connection, list(wanted), dispatcher.clock())
    whole |= {event_id for event_id, runs in taken.items() if len(runs) == len(wanted[event_id])}
    # What was taken ends the event in its own time. The others' runs are announced by themselves from here on.
    partly = [reading.row.id for reading in fresh if reading.row.id not in whole]
    if partly:
        planned = update(EventRow).where(database.among(connection.dialect.name, EventRow.id, partly))
        connection.execute(planned.values(ring_at=None))
    return Plan(
        readings=readings,
        taken=[one for runs in taken.values() for one in runs],
        # Also those that have ended: a worker with other handlers may have ended one just as it got a run.
        others=[event_id for event_id in dict.fromkeys(event_ids) if event_id not in whole],
        deliveries=deliveries,
    )


def wanting(registry: Registry, reading: Reading) -> list[Handler]:
    """The handlers for an event; where it cannot be read, no `when` is asked, for it would see nothing of it."""
    if reading.error is None:
        return registry.wanting(reading.event, _briefly)
    event = reading.event
    return [one for one in registry if one.hears(event.type, provider=event.provider, source=event.source)]


def _insert(
    dispatcher: Dispatcher,
    connection: Connection,
    readings: Mapping[str, Reading],
    wanted: Mapping[str, Sequence[Handler]],
) -> dict[str, list[Taken]]:
    """Write the runs; by event, those that are leased to this process."""
    pairs = [(readings[event_id], handler) for event_id, handlers in wanted.items() for handler in handlers]
    if not pairs:
        return {}
    now = dispatcher.clock()
    ends = now + dispatcher.lease(max(handler.timeout for _, handler in pairs))
    rows = [new_run(reading.row, handler, now, ends) for reading, handler in pairs]
    written = database.insert_new(connection, HandlerRun, rows)
    taken: dict[str, list[Taken]] = {}
    for (reading, handler), row in zip(pairs, rows, strict=True):
        if row["id"] in written and row["status"] == RUNNING:
            lease = Lease(pauses=0, replays=0, **{name: row[name] for name in _LEASED})
            taken.setdefault(reading.row.id, []).append(Taken(lease, handler, reading))
    return taken


def _briefly() -> AbstractContextManager[None]:
    """While a `when` is asked a transaction is open; one that takes too long is asked again in its run."""
    return time_limit(_ASKING)


_ASKING = 0.25
_LEASED = ("id", "event_id", "handler", "fence", "starts", "attempts", "lane", "ordered", "occurred_at")


def new_run(event: AnyRow, handler: Handler, now: datetime, ends: datetime) -> dict[str, Any]:
    """A run as it is written first: leased until `ends`, or waiting where its line or its limit decides when."""
    lane = lane_of(event)
    ordered = handler.ordered and lane is not None
    waits = ordered or handler.concurrency is not None
    return {
        "id": ids.new("run"),
        "event_id": event.id,
        "handler": handler.name,
        "status": WAITING if waits else RUNNING,
        "starts": 0 if waits else 1,
        "fence": 0 if waits else 1,
        "attempts": 0,
        "next_attempt_at": now if waits else ends,
        "ring_at": now + leases.RING_AGAIN if waits else ends,
        "created_at": now,
        "lane": lane,
        "ordered": ordered,
        "occurred_at": event.occurred_at,
    }


def lane_of(event: AnyRow) -> str | None:
    """The object that an event is about, as runs name it; None where it is about none."""
    if event.object_id is None:
        return None
    return f"{event.source}/{event.object_kind or ''}/{event.object_id}"


def _ignore(connection: Connection, event_ids: Sequence[str]) -> set[str]:
    """End the events that nobody wants, but not those for which a worker with other handlers found somebody."""
    if not event_ids:
        return set()
    has_run = exists().where(HandlerRun.event_id == EventRow.id)
    unwanted = update(EventRow).where(
        database.among(connection.dialect.name, EventRow.id, event_ids), EventRow.status == WAITING, ~has_run
    )
    ended = unwanted.values(status="ignored", ring_at=None).returning(EventRow.id)
    ignored = sorted(connection.execute(ended).scalars())
    if ignored:
        log.info("no handler wants these events", action="events_ignored", event_ids=ignored)
    return set(ignored)


def _reading(row: AnyRow) -> Reading:
    data: Mapping[str, Any] = {}
    views: Views | None = None
    error, final = None, False
    try:
        if row.provider == INTERNAL:
            data = from_json(row.body).data
        else:
            provider = PROVIDERS[row.provider]
            data, views = provider.data(row.body), provider.views
    except ParseError as reason:
        error, final = f"the stored body is no longer understood: {reason}", True
    except KeyError:
        error = f"this worker knows no provider {row.provider!r}, which another Billhook had"
    event = Event(
        id=row.id,
        type=row.type,
        source=row.source,
        provider=row.provider,
        organization=row.organization,
        object_kind=row.object_kind,
        object_id=row.object_id,
        occurred_at=row.occurred_at,
        received_at=row.received_at,
        data=data,
        body=row.body,
        views=views,
    )
    return Reading(row, event, error, final)
