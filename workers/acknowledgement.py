"""Acknowledgement: somebody has seen that events are dead, and lets them go with their retention time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial

from sqlalchemy import Connection, Engine, func, select, update
from sqlalchemy.sql.elements import ColumnElement

from workers import database
from workers.errands import Count, Done, Errand, carry_out, nobody, pages
from workers.models import EventRow
from workers.selection import Selection


def unacknowledged(engine: Engine, selection: Selection) -> int:
    """How many dead events `acknowledge` would mark; changes nothing."""
    with database.read(engine) as connection:
        return connection.execute(select(func.count(EventRow.id)).where(*_unseen(selection))).scalar_one()


def acknowledge(
    engine: Engine,
    selection: Selection,
    *,
    actor: str,
    now: datetime,
    limit: int | None = None,
    done: Done[Count] = nobody,
) -> int:
    """Mark dead events as seen, the oldest first and `limit` at most, as `actor`'s doing; how many."""
    asked = selection.described() | ({} if limit is None else {"limit": limit})
    errand = Errand(actor=actor, action="acknowledge", asked=asked, now=now)
    batches, mark = pages(engine, _unseen(selection)), partial(_mark, now, limit)
    enough = partial(_enough, limit)
    return carry_out(engine, errand, batches, mark, done, Count(), enough=enough).events


def _enough(limit: int | None, total: Count) -> bool:
    return limit is not None and total.events >= limit


def _unseen(selection: Selection) -> list[ColumnElement[bool]]:
    return [*selection.conditions(), EventRow.status == "dead", EventRow.acknowledged_at.is_(None)]


def _mark(now: datetime, limit: int | None, connection: Connection, event_ids: Sequence[str], before: Count) -> Count:
    if limit is not None:
        event_ids = event_ids[: limit - before.events]
    mine = (EventRow.id.in_(event_ids), *_unseen(Selection()))
    return Count(connection.execute(update(EventRow).where(*mine).values(acknowledged_at=now)).rowcount)
