"""How everything does at the moment, at a glance: what came, what waits and since when, what failed, what is next.

A look costs little whatever is stored: what is counted is found by indexes of what is open, and counted up to `MOST`;
what came is tallied by the minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Select, func, literal, select

from workers import database, stats
from workers.delivery import endpoints
from workers.delivery.endpoints import State
from workers.gauges import Backlog, backlogs, due_at_sources
from workers.models import RUNNING, WAITING, AnyRow, Delivery, EventRow, HandlerRun, Schedule

MOST = 10_000
"""Counted at most; as many stand for as many or more."""
MINUTES = 60
"""That the chart goes back."""
ENDPOINTS = 6


@dataclass(frozen=True, slots=True)
class Minute:
    """The events that were received in a minute, by what became of them."""

    began: datetime
    processed: int
    ignored: int
    waiting: int
    dead: int

    @property
    def received(self) -> int:
        """All of them."""
        return self.processed + self.ignored + self.waiting + self.dead


@dataclass(frozen=True, slots=True)
class Overview:
    """A look."""

    minutes: Sequence[Minute]
    """The last `MINUTES`, oldest first."""
    waiting: int
    """Events that have not ended."""
    failing: int
    """Runs that failed and wait for another attempt."""
    dead: int
    """Dead events that nobody has acknowledged."""
    underway: int
    """Deliveries that have not ended."""
    backlogs: Sequence[Backlog]
    """What is due and not taken."""
    endpoints: Sequence[tuple[AnyRow, State]]
    """At most `ENDPOINTS`, each with its state, those that ail first."""
    coming: Sequence[AnyRow]
    """The schedules that are due next."""

    @property
    def received(self) -> int:
        """Events of the last `MINUTES`."""
        return sum(minute.received for minute in self.minutes)

    @property
    def processed(self) -> int:
        """Those of them that every handler has done."""
        return sum(minute.processed for minute in self.minutes)


def overview(engine: Engine, now: datetime) -> Overview:
    """How everything does at `now`."""
    dead = select(literal(1)).where(EventRow.status == "dead", EventRow.acknowledged_at.is_(None))
    failing = select(literal(1)).where(HandlerRun.status == WAITING, HandlerRun.attempts > 0)
    underway = select(literal(1)).where(Delivery.status.in_((WAITING, RUNNING)))
    coming = select(*Schedule.__table__.columns).where(Schedule.next_run_at.is_not(None))
    with database.read(engine) as connection:
        return Overview(
            minutes=_minutes(engine, now),
            waiting=_counted(connection, select(literal(1)).where(EventRow.status == WAITING)),
            failing=_counted(connection, failing),
            dead=_counted(connection, dead),
            underway=_counted(connection, underway),
            backlogs=backlogs(connection, now, due_at_sources(connection, now)),
            endpoints=_ailing_first(engine, now),
            coming=connection.execute(coming.order_by(Schedule.next_run_at).limit(5)).all(),
        )


def _counted(connection: Connection, rows: Select[Any]) -> int:
    return connection.execute(select(func.count()).select_from(rows.limit(MOST).subquery())).scalar_one()


def _minutes(engine: Engine, now: datetime) -> list[Minute]:
    last = stats.floor(now, "minute")
    began = [last - timedelta(minutes=before) for before in range(MINUTES - 1, -1, -1)]
    counts = stats.counts(engine, "events", "minute", began[0], last + timedelta(minutes=1), ("at", "outcome"))
    statuses = ("processed", "ignored", WAITING, "dead")
    return [Minute(at, *(counts[at, status] for status in statuses)) for at in began]


def _ailing_first(engine: Engine, now: datetime) -> list[tuple[AnyRow, State]]:
    order: tuple[State, ...] = ("failing", "held", "disabled", "sound")
    return [
        (row, state) for state in order for row in endpoints.listed(engine, now, state=state, limit=ENDPOINTS).rows
    ][:ENDPOINTS]
