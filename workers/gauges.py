"""Gauges of what the database says at the moment: what waits and since when, endpoints by state, dead events.

They are the same whoever asks, so the beat serves them, and takes their maximum who has two beats. A scrape costs a few
looks into indexes of what is open; what was looked up is good for some seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine, Select, func, literal, or_, select
from sqlalchemy.exc import SQLAlchemyError

from workers import database
from workers.leases import Clock, utcnow
from workers.metrics import DATABASE_ERRORS
from workers.models import WAITING, Delivery, Endpoint, EventRow, HandlerRun, Occurrence, Schedule

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


def backlogs(connection: Connection, now: datetime) -> list[Backlog]:
    """What is due and not taken, by queue."""
    unplanned = select(EventRow.received_at.label("since")).where(
        EventRow.ring_at.is_not(None), EventRow.received_at <= now - _FRESH
    )
    runs = select(HandlerRun.next_attempt_at.label("since")).where(
        HandlerRun.status == WAITING, HandlerRun.next_attempt_at <= now
    )
    reachable = or_(Endpoint.held_until.is_(None), Endpoint.held_until <= now)
    deliveries = (
        select(Delivery.next_attempt_at.label("since"))
        .join(Endpoint, Endpoint.id == Delivery.endpoint_id)
        .where(Delivery.status == WAITING, Delivery.next_attempt_at <= now, Endpoint.status == "enabled", reachable)
    )
    occurrences = select(Occurrence.next_attempt_at.label("since")).where(
        Occurrence.status == WAITING, Occurrence.next_attempt_at <= now
    )
    due = select(Schedule.next_run_at.label("since")).where(Schedule.next_run_at <= now)
    return [
        _backlog(connection, "events", now, unplanned, runs),
        _backlog(connection, "deliveries", now, deliveries),
        _backlog(connection, "schedules", now, occurrences, due),
    ]


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
    for backlog in backlogs(connection, now):
        waiting.add_metric([backlog.queue], backlog.waiting)
        oldest.add_metric([backlog.queue], backlog.oldest)
    yield waiting
    yield oldest
    yield _endpoints(connection, now)
    dead = select(literal(1)).where(EventRow.status == "dead", EventRow.acknowledged_at.is_(None)).limit(MOST)
    count = connection.execute(select(func.count()).select_from(dead.subquery())).scalar_one()
    yield GaugeMetricFamily("billhook_dead_events", "Dead events that nobody has acknowledged.", value=count)


def _endpoints(connection: Connection, now: datetime) -> Metric:
    gauge = GaugeMetricFamily(
        "billhook_endpoints", "Endpoints: enabled, held off for a while, or disabled.", labels=["state"]
    )
    states = {"enabled": 0, "held": 0, "disabled": 0}
    for status, held_until in connection.execute(select(Endpoint.status, Endpoint.held_until)):
        held = held_until is not None and held_until > now
        states["disabled" if status == "disabled" else "held" if held else "enabled"] += 1
    for state, count in states.items():
        gauge.add_metric([state], count)
    return gauge
