"""Handlers as their runs show them: which have ever had one that is still stored, and how they do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, func, literal, select

from workers import database, seeks
from workers.browsing import OF_RUNS
from workers.gauges import MOST
from workers.models import RUNNING, WAITING, HandlerRun
from workers.stats import DAY, counts


@dataclass(frozen=True, slots=True)
class Handled:
    """One handler, by its runs."""

    name: str
    waiting: int
    """Runs that have not ended, up to `MOST`; so are the dead ones."""
    dead: int
    last_run_at: datetime
    """When its newest run was made."""
    last_day: Mapping[str, int]
    """Runs of the events received in the last 24 hours, by status."""


def handlers(engine: Engine, now: datetime) -> list[Handled]:
    """All of them, by name."""
    recent: dict[str, dict[str, int]] = defaultdict(dict)
    for (name, outcome), amount in counts(engine, "runs", "minute", now - DAY, now, ("name", "outcome")).items():
        recent[name][outcome] = amount
    with database.read(engine) as connection:
        statuses: dict[str, list[str]] = defaultdict(list)
        for name, status in seeks.every(connection, OF_RUNS):
            statuses[name].append(status)
        return [_handled(connection, name, found, recent[name]) for name, found in sorted(statuses.items())]


def _handled(connection: Connection, name: str, statuses: list[str], recent: Mapping[str, int]) -> Handled:
    open_runs = sum(_count(connection, name, status) for status in (WAITING, RUNNING) if status in statuses)
    dead = _count(connection, name, "dead") if "dead" in statuses else 0
    newest = [
        select(func.max(HandlerRun.id)).where(HandlerRun.handler == name, HandlerRun.status == status).scalar_subquery()
        for status in statuses
    ]
    made = select(func.max(HandlerRun.created_at)).where(HandlerRun.id.in_(newest))
    return Handled(name, min(open_runs, MOST), dead, connection.execute(made).scalar_one(), recent)


def _count(connection: Connection, name: str, status: str) -> int:
    some = select(literal(1)).where(HandlerRun.handler == name, HandlerRun.status == status).limit(MOST).subquery()
    return connection.execute(select(func.count()).select_from(some)).scalar_one()
