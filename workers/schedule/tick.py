"""The tick: due schedules get an occurrence for each due date that has come.

Two ticks at once are harmless: each schedule is locked by one of them, and a due date is unique. If the process dies, a
batch is planned whole or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, Engine, select

from workers import database, ids
from workers.models import WAITING, AnyRow, Occurrence, Schedule
from workers.schedule import rhythm
from workers.schedule.completion import complete

AT_ONCE = 1_000
"""Schedules in one transaction."""
MOST = 500
"""Due dates of one schedule in one transaction; the next one goes on."""
SKIPPED = "skipped"
_COLUMNS = (
    "id", "source", "frequency", "start_date", "interval_count", "day_of_month", "day_of_week", "end_date",
    "max_occurrences", "anchor_date", "anchor_day", "prior", "next_index", "next_run_at", "timezone", "catch_up",
    "planned",
)  # fmt: skip


def tick(engine: Engine, *, now: datetime) -> list[str]:
    """Plan an occurrence for every due date that has come; the ids of those that are to be generated.

    All that were missed are planned, or recorded as skipped, as each schedule has it.
    """
    waiting: list[str] = []
    while True:
        with database.write(engine) as connection:
            rows = connection.execute(
                select(*(getattr(Schedule, name) for name in _COLUMNS))
                .where(Schedule.next_run_at <= now, Schedule.status == "active")
                .order_by(Schedule.next_run_at)
                .limit(AT_ONCE)
                .with_for_update(skip_locked=True)
            ).all()
            waiting += _plan(connection, rows, now)
        if len(rows) < AT_ONCE:
            return waiting


def _plan(connection: Connection, rows: Sequence[AnyRow], now: datetime) -> list[str]:
    if not rows:
        return []
    occurrences: list[dict[str, Any]] = []
    changes = []
    for row in rows:
        planned, change = _advance(row, now)
        occurrences += planned
        changes.append(change)
    new = database.insert_new(connection, Occurrence, occurrences) if occurrences else set()
    of_schedule: dict[str, int] = {}
    for occurrence in occurrences:
        if occurrence["id"] in new:
            of_schedule[occurrence["schedule_id"]] = of_schedule.get(occurrence["schedule_id"], 0) + 1
    for row, change in zip(rows, changes, strict=True):
        change["planned"] = row.planned + of_schedule.get(row.id, 0)
    database.update_each(connection, Schedule, changes)
    waiting = [one for one in occurrences if one["status"] == WAITING and one["id"] in new]
    still_open = {one["schedule_id"] for one in waiting}
    for change in changes:
        if change["status"] == "completed" and change["id"] not in still_open:
            complete(connection, change["id"], now)
    return [one["id"] for one in waiting]


def _advance(row: AnyRow, now: datetime) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The occurrences of one schedule that are due by now, and what changes in it."""
    index, due_on = row.next_index, rhythm.due(row, row.next_index)
    come: list[date] = []
    while due_on is not None and len(come) < MOST and rhythm.start_of_day(due_on, row.timezone) <= now:
        come.append(due_on)
        index += 1
        due_on = rhythm.due(row, index)
    more = due_on is not None and rhythm.start_of_day(due_on, row.timezone) <= now
    kept = wanted(row.catch_up, come, rhythm.today(now, row.timezone), more=more)
    change = {
        "id": row.id,
        "next_index": index,
        "next_run_at": None if due_on is None else rhythm.start_of_day(due_on, row.timezone),
        "status": "completed" if due_on is None else "active",
        "ended_at": now if due_on is None else None,
    }
    return [occurrence(row, day, now, skipped=day not in kept) for day in come], change


def wanted(catch_up: str, come: Sequence[date], today: date, *, more: bool = False) -> frozenset[date]:
    """Which of these due dates get an invoice, oldest first; the others are skipped. `more`: later ones have come too.

    all: each. latest: only the last that has come. none: only that of today, which is not late yet.
    """
    if catch_up == "all":
        return frozenset(come)
    if catch_up == "latest":
        return frozenset() if more else frozenset(come[-1:])
    return frozenset(day for day in come if day == today)


def occurrence(
    row: AnyRow, due_on: date, now: datetime, *, skipped: bool = False, issue_on: date | None = None
) -> dict[str, Any]:
    """The row of a new occurrence. Its id follows from schedule and due date."""
    due_at = min(now, rhythm.start_of_day(due_on, row.timezone))
    return {
        "id": ids.derived("occ", rhythm.start_of_day(due_on, "UTC"), row.id, due_on.isoformat()),
        "schedule_id": row.id,
        "source": row.source,
        "due_on": due_on,
        "issue_on": issue_on,
        "step": "planned",
        "status": SKIPPED if skipped else WAITING,
        "starts": 0,
        "fence": 0,
        "attempts": 0,
        "retries": 0,
        # The moment that it was due, so that the oldest is taken first.
        "next_attempt_at": due_at,
        "ring_at": None if skipped else due_at,
        "created_at": now,
        "ended_at": now if skipped else None,
        "error": f"missed, and catch_up is {row.catch_up}" if skipped else None,
    }
