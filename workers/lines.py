"""Lines: the ordered runs of an object stand in line before one of them is taken.

Events come in batches that several processes plan at once, and not in the order in which they happened. Whoever plans
an event for an ordered handler therefore first gives the earlier events of its object their places, though nobody
rang for those yet: in a transaction of its own, in one order, so that two processes wait for each other in line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, bindparam, exists, select

from handlers.registry import Handler
from workers import database, planning
from workers.dispatcher import Dispatcher
from workers.models import WAITING, EventRow, HandlerRun
from workers.reconciled import known_by_reconciliation

_TOGETHER = 500
"""Events whose bodies are read at a time."""

Moment = tuple[datetime, str]
"""When an event happened, and its id, by which events of one moment are told apart."""


def line_up(dispatcher: Dispatcher, event_ids: Sequence[str]) -> None:
    """Give the waiting events that happened before these, to the same objects, their places in line."""
    ordered = [handler for handler in dispatcher.registry if handler.ordered]
    if not ordered:
        return
    with database.write(dispatcher.engine) as connection:
        earlier = _earlier(connection, _last_of_lanes(connection, ordered, event_ids))
        for first in range(0, len(earlier), _TOGETHER):
            _place(dispatcher, connection, earlier[first : first + _TOGETHER])


def _last_of_lanes(connection: Connection, ordered: Sequence[Handler], event_ids: Sequence[str]) -> dict[str, Moment]:
    """By lane, the last of these events that an ordered handler may want and that nobody planned yet."""
    last: dict[str, Moment] = {}
    for row in connection.execute(_unplanned(connection.dialect.name, "id"), {"ids": list(event_ids)}):
        lane = planning.lane_of(row)
        heard = any(one.hears(row.type, provider=row.provider, source=row.source) for one in ordered)
        if lane is not None and heard:
            moment = (row.occurred_at, row.id)
            last[lane] = max(last.get(lane, moment), moment)
    return last


def _earlier(connection: Connection, last: Mapping[str, Moment]) -> list[str]:
    """Events of these lanes before those moments, that have no place in line yet."""
    if not last:
        return []
    objects = {"ids": [lane.split("/", 2)[2] for lane in last]}
    found = connection.execute(_unplanned(connection.dialect.name, "object_id"), objects)
    return sorted(row.id for row in found if _before((row.occurred_at, row.id), last.get(planning.lane_of(row) or "")))


def _before(moment: Moment, other: Moment | None) -> bool:
    return other is not None and moment < other


@cache
def _unplanned(dialect: str, column: str) -> Any:
    head = (EventRow.id, EventRow.type, EventRow.provider, EventRow.source, EventRow.object_kind, EventRow.object_id)
    placed = exists().where(HandlerRun.event_id == EventRow.id, HandlerRun.ordered)
    these = database.among(dialect, getattr(EventRow, column), bindparam("ids"))
    return select(*head, EventRow.occurred_at).where(
        these, EventRow.ring_at.is_not(None), EventRow.status == WAITING, ~placed
    )


def _place(dispatcher: Dispatcher, connection: Connection, event_ids: Sequence[str]) -> None:
    readings = planning.read(connection, event_ids, waiting=True)
    late = known_by_reconciliation(connection, [reading.row for reading in readings.values()])
    now = dispatcher.clock()
    rows = [
        planning.new_run(reading.row, handler, now, now)
        for event_id, reading in readings.items()
        if event_id not in late
        for handler in planning.wanting(dispatcher.registry, reading)
        if handler.ordered
    ]
    if rows:
        database.insert_new(connection, HandlerRun, rows)
