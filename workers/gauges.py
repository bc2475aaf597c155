"""Gauges of what the database says at the moment: what waits and since when, endpoints by state, dead events.

They are the same whoever asks, so the beat serves them, and takes their maximum who has two beats. A scrape costs a few
looks into indexes of what is open; what was looked up is good for some seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine, Select, exists, func, literal, or_, select, union_all
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import aliased

from workers import database
from workers.leases import Clock, utcnow
from workers.metrics import DATABASE_ERRORS
from workers.models import (
    OPEN,
    OPEN_AND_ORDERED,
    RUNNING,
    WAITING,
    AnyRow,
    Delivery,
    Endpoint,
    EventRow,
    HandlerRun,
    Occurrence,
    Schedule,
)

MOST = 100_000
"""Rows that are counted at most: beyond that the number says nothing new."""
_GOOD_FOR = 5.0
"""Seconds for which a look is good."""
_FRESH = timedelta(seconds=1)
"""What was received in this time is on its way."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What of one queue is due and not taken: how much, and for how many seconds the oldest of it."""

    queue: str
    waiting: int
    oldest: float


class Gauges(Collector):
    """Asks the database when it is scraped. Where that does not answer, nothing is told."""

    def __init__(self, engine: Engine, clock: Clock = utcnow) -> None:
        self._engine, self._clock = engine, clock
        self._looked = 0.0
        self._found: list[Metric] = []

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that to register it asks no database."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        if time.monotonic() - self._looked > _GOOD_FOR:
            try:
                with database.read(self._engine) as connection:
                    self._found = list(_metrics(connection, self._clock()))
            except SQLAlchemyError:
                DATABASE_ERRORS.labels("gauges").inc()
                self._found = []
            self._looked = time.monotonic()
        yield from self._found


def backlogs(connection: Connection, now: datetime, dates: Sequence[AnyRow]) -> list[Backlog]:
    """What is due and not taken, by queue, without what merely waits its turn. `dates`: those of `due_at_sources`."""
    unplanned = select(EventRow.received_at.label("since")).where(
        EventRow.ring_at.is_not(None), EventRow.received_at <= now - _FRESH
    )
    reachable = or_(Endpoint.held_until.is_(None), Endpoint.held_until <= now)
    deliveries = (
        select(Delivery.next_attempt_at.label("since"))
        .join(Endpoint, Endpoint.id == Delivery.endpoint_id)
        .where(Delivery.status == WAITING, Delivery.next_attempt_at <= now, Endpoint.status == "enabled", reachable)
    )
    return [
        _backlog(connection, "events", now, unplanned, _in_no_line(now), _first_in_line(now)),
        _backlog(connection, "deliveries", now, deliveries),
        Backlog(
            "schedules",
            min(sum(one.waiting for one in dates), MOST),
            (now - min((one.since for one in dates), default=now)).total_seconds(),
        ),
    ]


def _in_no_line(now: datetime) -> Select[Any]:
    """The runs that wait for nothing but a process."""
    # In the words of the partial index, here as below: SQLite takes none for anything else.
    waits = (HandlerRun.status == literal(WAITING, literal_execute=True), HandlerRun.next_attempt_at <= now)
    return select(HandlerRun.next_attempt_at.label("since")).where(*waits, HandlerRun.ordered.is_(False))


def _first_in_line(now: datetime) -> Select[Any]:
    """The ordered runs that may be taken: first in their line, where no other of it runs.

    Those behind it are not late. They wait for the first, which is due later where it failed and is to be tried again.
    """
    line = (HandlerRun.lane, HandlerRun.handler)
    place = func.row_number().over(partition_by=line, order_by=(HandlerRun.occurred_at, HandlerRun.event_id))
    # The partial index has them in this order: one walk through what is open, and no sorting.
    standing = (
        select(*line, HandlerRun.status, HandlerRun.next_attempt_at.label("since"), place.label("place"))
        .where(OPEN_AND_ORDERED)
        .subquery()
    )
    at_work = aliased(HandlerRun)
    runs = exists().where(
        at_work.lane == standing.c.lane,
        at_work.handler == standing.c.handler,
        at_work.ordered,
        at_work.status == literal(RUNNING, literal_execute=True),
    )
    waits = (standing.c.place == 1, standing.c.status == WAITING, standing.c.since <= now)
    return select(standing.c.since).where(*waits, ~runs)


def due_at_sources(connection: Connection, now: datetime) -> Sequence[AnyRow]:
    """Due dates that are not taken, by source: `source`, `waiting` of them, and `since` when the oldest is due.

    Of a schedule only the oldest counts, because the next invoice is not made before it.
    """
    earlier = aliased(Occurrence)
    behind = exists().where(
        earlier.schedule_id == Occurrence.schedule_id,
        earlier.due_on < Occurrence.due_on,
        earlier.status.in_((WAITING, RUNNING)),
    )
    waits = (OPEN, Occurrence.status == WAITING, Occurrence.next_attempt_at <= now)
    planned = select(Occurrence.source, Occurrence.next_attempt_at.label("since")).where(*waits, ~behind)
    unplanned = select(Schedule.source, Schedule.next_run_at.label("since")).where(Schedule.next_run_at <= now)
    parts = [part.limit(MOST).subquery() for part in (planned, unplanned)]
    both = union_all(*(select(part.c.source, part.c.since) for part in parts)).subquery()
    counted = select(both.c.source, func.count().label("waiting"), func.min(both.c.since).label("since"))
    return connection.execute(counted.group_by(both.c.source).order_by(both.c.source)).all()


def _backlog(connection: Connection, queue: str, now: datetime, *parts: Select[Any]) -> Backlog:
    waiting, oldest = 0, now
    for part in parts:
        some = part.limit(MOST).subquery()
        count, since = connection.execute(select(func.count(), func.min(some.c.since))).one()
        waiting += count
        oldest = min(oldest, since or now)
    return Backlog(queue, min(waiting, MOST), (now - oldest).total_seconds())


def _metrics(connection: Connection, now: datetime) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("billhook_waiting", "Work that is due and not taken, by queue.", labels=["queue"])
    oldest = GaugeMetricFamily(
        "billhook_oldest_waiting_seconds", "For how long the oldest of it has been due.", labels=["queue"]
    )
    dates = due_at_sources(connection, now)
    for backlog in backlogs(connection, now, dates):
        waiting.add_metric([backlog.queue], backlog.waiting)
        oldest.add_metric([backlog.queue], backlog.oldest)
    yield waiting
    yield oldest
    due = GaugeMetricFamily("billhook_occurrences_due", "Due dates that are due and not taken.", labels=["source"])
    for row in dates:
        due.add_metric([row.source], row.waiting)
    yield due
    gauge = GaugeMetricFamily(
        "billhook_endpoints", "Endpoints: enabled, held off for a while, or disabled.", labels=["state"]
    )
    for state, count in endpoint_states(connection, now).items():
        gauge.add_metric([state], count)
    yield gauge
    dead = dead_events(connection)
    yield GaugeMetricFamily("billhook_dead_events", "Dead events that nobody has acknowledged.", value=dead)


def dead_events(connection: Connection) -> int:
    """How many dead events nobody has acknowledged, up to `MOST`."""
    dead = select(literal(1)).where(EventRow.status == "dead", EventRow.acknowledged_at.is_(None)).limit(MOST)
    return connection.execute(select(func.count()).select_from(dead.subquery())).scalar_one()


def endpoint_states(connection: Connection, now: datetime) -> dict[str, int]:
    """How many endpoints are enabled, held off for a while, disabled."""
    states = {"enabled": 0, "held": 0, "disabled": 0}
    for status, held_until in connection.execute(select(Endpoint.status, Endpoint.held_until)):
        held = held_until is not None and held_until > now
        states["disabled" if status == "disabled" else "held" if held else "enabled"] += 1
    return states
