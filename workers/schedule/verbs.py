"""What a person does to a schedule: update, pause, resume, cancel, retry, delete (Hisab API reference, Recurring).

Each is one transaction with its entry in the audit log. It locks the schedule first, so that what it decides on stays
as it is; an occurrence that has been begun at the provider is brought to its end, whatever is done to its schedule.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, or_, select, update

from workers import audit_log, database
from workers.models import HELD, RUNNING, WAITING, AnyRow, Occurrence, Schedule
from workers.schedule import plans, rhythm
from workers.schedule.completion import complete
from workers.schedule.errors import Problem, invalid, invalid_state
from workers.schedule.issuing import SETTLES_WITHIN
from workers.schedule.outcomes import HAS_ENDED, WAS_CANCELLED, hold, skip_held
from workers.schedule.plans import Plan
from workers.schedule.schedules import LIVE, TAKING_OVER, read
from workers.schedule.tick import SKIPPED, occurrence, wanted
from workers.settings import Settings

OF_RHYTHM = ("frequency", "interval_count", "day_of_month", "day_of_week")
CHANGEABLE = (
    *OF_RHYTHM, "name", "end_date", "max_occurrences", "auto_finalize", "auto_send", "days_until_due", "items",
    "catch_up", "options",
)  # fmt: skip
_MAY_BE_NONE = ("end_date", "max_occurrences", "day_of_month", "day_of_week")
_OF_WEEKS = ("weekly", "biweekly")


def update_schedule(
    engine: Engine, settings: Settings, schedule_id: str, changes: Mapping[str, Any], *, actor: str, now: datetime
) -> AnyRow:
    """Change an active or paused schedule; it as it is then. What has been begun stays as it was.

    A changed rhythm is counted from the next due date. Raises ScheduleError (NOT_FOUND, INVALID_STATE,
    VALIDATION_ERROR).
    """
    with database.write(engine) as connection:
        row = _update(connection, settings, schedule_id, changes, now)
        _note(connection, actor, "update", schedule_id, now, changed=sorted(changes))
        return row


def preview_update(
    engine: Engine, settings: Settings, schedule_id: str, changes: Mapping[str, Any], *, now: datetime
) -> AnyRow:
    """The schedule as `update_schedule` would make it. Raises as that does."""
    try:
        with database.write(engine) as connection:
            raise _Undone(_update(connection, settings, schedule_id, changes, now))
    except _Undone as undone:
        return undone.row


class _Undone(Exception):
    def __init__(self, row: AnyRow) -> None:
        super().__init__()
        self.row = row


def pause(engine: Engine, schedule_id: str, *, actor: str, now: datetime) -> AnyRow:
    """Make no further invoices until it is resumed; what is planned and not begun is held.

    Raises ScheduleError (NOT_FOUND, INVALID_STATE).
    """
    with database.write(engine) as connection:
        _locked(connection, schedule_id, ("active",), "paused")
        _write(connection, schedule_id, {"status": "paused", "next_run_at": None, "updated_at": now})
        held = hold(connection, schedule_id)
        _note(connection, actor, "pause", schedule_id, now, held=held)
        return read(connection, schedule_id)


def resume(engine: Engine, schedule_id: str, *, next_run_date: date | None = None, actor: str, now: datetime) -> AnyRow:
    """Go on with a paused schedule. What came due meanwhile is made up for as its `catch_up` says.

    With `next_run_date` (today or later) it goes on there, its rhythm is counted from that day, and what was missed is
    skipped. Raises ScheduleError (NOT_FOUND, INVALID_STATE, VALIDATION_ERROR).
    """
    with database.write(engine) as connection:
        row = _locked(connection, schedule_id, ("paused",), "resumed")
        if row.reason == TAKING_OVER:
            raise invalid_state(TAKING_OVER)
        today = rhythm.today(now, row.timezone)
        if next_run_date is not None:
            _check_next_run(connection, row, next_run_date, today)
            _unplan(connection, schedule_id, next_run_date)
            _skip_missed(connection, read(connection, schedule_id), today, next_run_date, now)
            row = read(connection, schedule_id)
        _release(connection, row, today, now, none=next_run_date is not None)
        written = {"status": "active", "reason": None, "failures": 0, "updated_at": now}
        if next_run_date is not None:
            # Its rhythm begins anew: days of the week or the month would name other dates.
            written |= {**_anchored(row, next_run_date), "day_of_month": None, "day_of_week": None, "anchor_day": None}
        _write(connection, schedule_id, written)
        _replan(connection, read(connection, schedule_id), now)
        on = None if next_run_date is None else next_run_date.isoformat()
        _note(connection, actor, "resume", schedule_id, now, next_run_date=on)
        return read(connection, schedule_id)


def cancel(engine: Engine, schedule_id: str, *, actor: str, now: datetime) -> AnyRow:
    """End a schedule for good, and keep its history; what is planned and not begun is skipped.

    Raises ScheduleError (NOT_FOUND, INVALID_STATE).
    """
    with database.write(engine) as connection:
        _locked(connection, schedule_id, LIVE, "cancelled")
        change = {"status": "cancelled", "next_run_at": None, "updated_at": now, "ended_at": now}
        _write(connection, schedule_id, change)
        hold(connection, schedule_id)
        skipped = skip_held(connection, schedule_id, now, WAS_CANCELLED)
        _note(connection, actor, "cancel", schedule_id, now, skipped=skipped)
        return read(connection, schedule_id)


def retry(
    engine: Engine, schedule_id: str, *, due_on: Collection[date] | None = None, actor: str, now: datetime
) -> int:
    """Try again what failed, and now what was postponed, or of it what was due on these dates; how many occurrences.

    Each is made as the schedule is now, unless its invoice is there already. Raises ScheduleError (NOT_FOUND,
    INVALID_STATE where it is paused or was cancelled, or nothing has failed).
    """
    with database.write(engine) as connection:
        _locked(connection, schedule_id, ("active", "completed"), "tried again")
        failed = [Occurrence.schedule_id == schedule_id, Occurrence.status == "failed"]
        if due_on is not None:
            failed.append(Occurrence.due_on.in_(list(due_on)))
        columns = (Occurrence.id, Occurrence.intended_at, Occurrence.ended_at)
        rows = connection.execute(select(*columns).where(*failed)).all()
        for row in rows:
            _begin_anew(connection, row, now)
        count = len(rows) + _hasten(connection, schedule_id, due_on, now)
        if not count:
            raise invalid_state("no occurrence of it has failed" + ("" if due_on is None else " on such a date"))
        _note(connection, actor, "retry", schedule_id, now, occurrences=count)
    return count


def _begin_anew(connection: Connection, row: AnyRow, now: datetime) -> None:
    """Let one that failed be tried again: at once, or when what was asked for unheard has had time to take effect."""
    at = now
    if row.intended_at is not None:
        at = max(now, (row.ended_at or row.intended_at) + timedelta(seconds=SETTLES_WITHIN))
    # Its key is another one then, under which the provider knows nothing: so it is looked for first.
    anew = {"starts": 0, "attempts": 0, "draft": None, "intended_at": None, "ended_at": None, "event_id": None}
    again = {**anew, "status": WAITING, "retries": Occurrence.retries + 1, "next_attempt_at": at, "ring_at": at}
    connection.execute(update(Occurrence).where(Occurrence.id == row.id).values(**again))


def _hasten(connection: Connection, schedule_id: str, due_on: Collection[date] | None, now: datetime) -> int:
    """Take up at once what was postponed; but not what may still take effect at the provider."""
    settled = or_(Occurrence.intended_at.is_(None), Occurrence.intended_at <= now - timedelta(seconds=SETTLES_WITHIN))
    postponed = [
        Occurrence.schedule_id == schedule_id, Occurrence.status == WAITING, Occurrence.attempts > 0, settled,
        Occurrence.next_attempt_at > now,
    ]  # fmt: skip
    if due_on is not None:
        postponed.append(Occurrence.due_on.in_(list(due_on)))
    return connection.execute(update(Occurrence).where(*postponed).values(next_attempt_at=now, ring_at=now)).rowcount


def delete_schedule(engine: Engine, schedule_id: str, *, actor: str, now: datetime) -> None:
    """Remove a schedule and its history. Invoices and events stay.

    Raises ScheduleError (NOT_FOUND, or INVALID_STATE while an invoice of it is being made).
    """
    with database.write(engine) as connection:
        read(connection, schedule_id, lock=True)
        mine = (Occurrence.schedule_id == schedule_id, Occurrence.status.in_((WAITING, RUNNING)))
        columns = (Occurrence.due_on, Occurrence.status, Occurrence.step)
        # Locked, so that nobody takes one up in between.
        found = connection.execute(select(*columns).where(*mine).with_for_update()).all()
        under_way = [row.due_on for row in found if row.status == RUNNING or row.step != "planned"]
        if under_way:
            raise invalid_state(
                f"its invoice for {under_way[0]} is being made, and would be forgotten: pause it, and delete it once "
                "its history shows how that ended"
            )
        gone = connection.execute(delete(Occurrence).where(Occurrence.schedule_id == schedule_id)).rowcount
        connection.execute(delete(Schedule).where(Schedule.id == schedule_id))
        _note(connection, actor, "delete", schedule_id, now, occurrences=gone)


def _update(
    connection: Connection, settings: Settings, schedule_id: str, changes: Mapping[str, Any], now: datetime
) -> AnyRow:
    if unknown := sorted(set(changes) - set(CHANGEABLE)):
        raise invalid(Problem(unknown[0], f"cannot be changed; what can is {', '.join(CHANGEABLE)}"))
    if missing := sorted(name for name in changes if changes[name] is None and name not in _MAY_BE_NONE):
        raise invalid(*(Problem(name, "must be there") for name in missing))
    row = _locked(connection, schedule_id, LIVE, "changed")
    values = {**_values(row), **_without_strange_days(row, changes)}
    plans.check(settings, Plan(**values))
    written = {**changes, **{name: values[name] for name in OF_RHYTHM}, "updated_at": now}
    if "items" in changes:
        written["items"] = [dict(item) for item in changes["items"]]
    if any(values[name] != getattr(row, name) for name in OF_RHYTHM):
        written |= {**_anchored(row, _next_due(row)), "anchor_day": _meant_day(row)}
    _write(connection, schedule_id, written)
    _cut(connection, read(connection, schedule_id), now)
    _replan(connection, read(connection, schedule_id), now)
    return read(connection, schedule_id)


def _cut(connection: Connection, row: AnyRow, now: datetime) -> None:
    """Skip what was planned and not begun, and lies beyond the end that the schedule has now."""
    planned = (Occurrence.status == WAITING, Occurrence.step == "planned")
    mine = (Occurrence.schedule_id == row.id, *planned, Occurrence.retries == 0)
    days = connection.execute(select(Occurrence.due_on).where(*mine).order_by(Occurrence.due_on.desc())).scalars().all()
    surplus = 0 if row.max_occurrences is None else row.prior + row.next_index - row.max_occurrences
    beyond = {*days[: max(0, surplus)], *(day for day in days if row.end_date is not None and day > row.end_date)}
    skipped = {"status": SKIPPED, "error": HAS_ENDED, "ended_at": now, "ring_at": None}
    connection.execute(update(Occurrence).where(*mine, Occurrence.due_on.in_(list(beyond))).values(**skipped))


def _locked(connection: Connection, schedule_id: str, statuses: Collection[str], wanted_to_be: str) -> AnyRow:
    row = read(connection, schedule_id, lock=True)
    if row.status not in statuses:
        raise invalid_state(f"a schedule that is {row.status} cannot be {wanted_to_be}")
    return row


def _values(row: AnyRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Plan.__slots__}


def _without_strange_days(row: AnyRow, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes, with the days dropped that a new frequency has no use for."""
    by_weeks = changes.get("frequency", row.frequency) in _OF_WEEKS
    strange = "day_of_month" if by_weeks else "day_of_week"
    return {**({} if strange in changes else {strange: None}), **changes}


def _next_due(row: AnyRow) -> date:
    """The next due date of a schedule that is not over."""
    return rhythm.due(row, row.next_index) or row.start_date


def _meant_day(row: AnyRow) -> int | None:
    """The day of the month that is meant where a month is too short for it, so that a change does not lose it."""
    if row.frequency in _OF_WEEKS or row.day_of_month is not None:
        return None
    return int(row.anchor_day or (row.anchor_date or row.start_date).day)


def _anchored(row: AnyRow, day: date) -> dict[str, Any]:
    """Count the rhythm from `day` on; the due dates before it stay counted."""
    return {"anchor_date": day, "prior": row.prior + row.next_index, "next_index": 0}


def _replan(connection: Connection, row: AnyRow, now: datetime) -> None:
    """Set when it is due next, by what it has become; without a due date it is completed."""
    due_on = rhythm.due(row, row.next_index)
    if due_on is None:
        change = {"status": "completed", "next_run_at": None, "ended_at": now, "updated_at": now}
        _write(connection, row.id, change)
        skip_held(connection, row.id, now, HAS_ENDED)
        complete(connection, row.id, now)
    elif row.status == "active":
        _write(connection, row.id, {"next_run_at": rhythm.start_of_day(due_on, row.timezone)})


def _check_next_run(connection: Connection, row: AnyRow, day: date, today: date) -> None:
    if day < today:
        raise invalid(Problem("next_run_date", f"must not be in the past; today is {today}"))
    if row.end_date is not None and day > row.end_date:
        raise invalid(Problem("next_run_date", f"is after end_date, {row.end_date}"))
    done = or_(Occurrence.status != HELD, Occurrence.retries > 0)
    last = select(func.max(Occurrence.due_on)).where(Occurrence.schedule_id == row.id, done)
    latest = connection.execute(last).scalar()
    if latest is not None and day <= latest:
        raise invalid(Problem("next_run_date", f"must be after {latest}, which is done or under way"))


def _skip_missed(connection: Connection, row: AnyRow, today: date, before: date, now: datetime) -> None:
    """Record what came due by today, before a day, and was never planned, as skipped."""
    index, skipped = row.next_index, []
    while (due_on := rhythm.due(row, index)) is not None and due_on <= today and due_on < before:
        missed = {"error": "missed while the schedule was paused"}
        skipped.append(occurrence(row, due_on, now, skipped=True) | missed)
        index += 1
    if skipped:
        new = database.insert_new(connection, Occurrence, skipped)
        _write(connection, row.id, {"next_index": index, "planned": row.planned + len(new)})


def _unplan(connection: Connection, schedule_id: str, day: date) -> None:
    """Forget what is held from this day on: its due dates come anew."""
    held = (Occurrence.schedule_id == schedule_id, Occurrence.status == HELD, Occurrence.retries == 0)
    gone = connection.execute(delete(Occurrence).where(*held, Occurrence.due_on >= day)).rowcount
    _write(connection, schedule_id, {"planned": Schedule.planned - gone, "next_index": Schedule.next_index - gone})


def _release(connection: Connection, row: AnyRow, today: date, now: datetime, *, none: bool) -> None:
    """Let go of what is held, as far as the schedule makes up for it, and skip the rest."""
    held = (Occurrence.schedule_id == row.id, Occurrence.status == HELD)
    # What somebody asked for again is not missed.
    asked = connection.execute(select(Occurrence.due_on).where(*held, Occurrence.retries > 0)).scalars().all()
    missed = connection.execute(
        select(Occurrence.due_on).where(*held, Occurrence.retries == 0).order_by(Occurrence.due_on)
    )
    due_on = rhythm.due(row, row.next_index)
    more = due_on is not None and due_on <= today
    kept = frozenset() if none else wanted(row.catch_up, missed.scalars().all(), today, more=more)
    connection.execute(
        update(Occurrence)
        .where(*held, Occurrence.due_on.in_([*kept, *asked]))
        .values(status=WAITING, ring_at=Occurrence.next_attempt_at)
    )
    skip_held(connection, row.id, now, "missed while the schedule was paused")


def _write(connection: Connection, schedule_id: str, values: Mapping[str, Any]) -> None:
    connection.execute(update(Schedule).where(Schedule.id == schedule_id).values(**values))


def _note(connection: Connection, actor: str, verb: str, schedule_id: str, now: datetime, **detail: Any) -> None:
    audit_log.note(connection, actor, f"schedules.{verb}", {"schedule": schedule_id, **detail}, now)
