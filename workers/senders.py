"""Sources as they do: what is configured, what came of each last, and a word for how that looks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, Engine, func, select

from handlers.vocabulary import INTERNAL
from workers import database, seeks
from workers.browsing import OF_EVENTS
from workers.models import EventRow
from workers.settings import Settings, Source
from workers.stats import DAY, counts

Health = Literal["ok", "new", "quiet", "troubled", "failing", "unconfigured"]
_FAILING = 0.1
"""The share of dead events among those that ended from which a source is called failing."""


@dataclass(frozen=True, slots=True)
class Sender:
    """A source: as it is configured, and what came of it."""

    name: str
    configured: Source | None
    """None where only events of it are stored."""
    provider: str
    last_received_at: datetime | None
    """When the newest of its events that are stored was received."""
    last_day: Mapping[str, int]
    """Events received in the last 24 hours, by status."""
    health: Health
    reason: str


def senders(engine: Engine, settings: Settings, now: datetime) -> list[Sender]:
    """Those that are configured, by name, then those that only have events. Billhook's own events have none."""
    recent: dict[str, dict[str, int]] = defaultdict(dict)
    for (name, outcome), amount in counts(engine, "events", "minute", now - DAY, now, ("name", "outcome")).items():
        recent[name][outcome] = amount
    with database.read(engine) as connection:
        last = _last(connection)
    names = [*sorted(settings.sources), *sorted(set(last) - set(settings.sources) - {INTERNAL})]
    return [_sender(name, settings.sources.get(name), last.get(name), recent[name]) for name in names]


def _last(connection: Connection) -> dict[str, tuple[str, datetime]]:
    """By source, the provider of its newest event and when that was received."""
    if connection.dialect.name == "postgresql":
        newest = seeks.newest(connection, OF_EVENTS, EventRow.id, seeks.every(connection, OF_EVENTS), 1)
    else:
        newest = list(connection.execute(select(func.max(EventRow.id)).group_by(EventRow.source)).scalars())
    statement = select(EventRow.source, EventRow.provider, EventRow.received_at)
    mine = database.among(connection.dialect.name, EventRow.id, newest)
    rows = connection.execute(statement.where(mine).order_by(EventRow.id))
    return {row.source: (row.provider, row.received_at) for row in rows}


def _sender(
    name: str, configured: Source | None, last: tuple[str, datetime] | None, recent: Mapping[str, int]
) -> Sender:
    provider = configured.provider if configured is not None else last[0] if last is not None else ""
    health, reason = _health(configured, last, recent)
    return Sender(name, configured, provider, last[1] if last else None, recent, health, reason)


def _health(
    configured: Source | None, last: tuple[str, datetime] | None, recent: Mapping[str, int]
) -> tuple[Health, str]:
    if configured is None:
        return "unconfigured", "it is not configured any more: what it sends is refused"
    if last is None:
        return "new", "no event of it is stored"
    if not recent:
        return "quiet", "it has sent nothing for 24 hours"
    dead, ended = recent.get("dead", 0), sum(recent.get(status, 0) for status in ("processed", "ignored", "dead"))
    if not dead:
        return "ok", "it sends, and no event of the last 24 hours is dead"
    told = f"{dead} of {ended} events of the last 24 hours that have ended are dead"
    return ("failing" if dead >= ended * _FAILING else "troubled"), told
