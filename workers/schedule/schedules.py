"""Schedules as they are stored: adding, finding, and what is to come and what has become of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, Engine, func, or_, select, text
from sqlalchemy.sql.elements import ColumnElement

from workers import audit_log, database, ids
from workers.models import RUNNING, WAITING, AnyRow, Occurrence, Schedule
from workers.schedule import plans, rhythm
from workers.schedule.drafts import draft_of
from workers.schedule.errors import NOT_FOUND, QUOTA_EXCEEDED, Problem, ScheduleError, invalid, invalid_state
from workers.schedule.plans import Plan
from workers.settings import Settings

LIVE = ("active", "paused")
TAKING_OVER = "it is being taken over: `billhook schedules take-over` again goes on with it"
"""The reason of a schedule that its provider may still bill for."""
STATUSES = (*LIVE, "completed", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How a schedule begins here: from which day on, in which status, and what it is known by elsewhere."""

    earliest: date | None = None
    """The first day that may be due; None: today. A due date before today is made up for."""
    status: str = "active"
    external_id: str | None = None


def add(
    engine: Engine, settings: Settings, plan: Plan, *, actor: str, now: datetime, start: Start | None = None
) -> str:
    """Store a schedule and return its id. Its first invoice is for the first due date from today on.

    A start date in the past only anchors the rhythm: no invoice is made for the days before the schedule was
    known here. Raises ScheduleError (VALIDATION_ERROR, QUOTA_EXCEEDED).
    """
    row = row_of(settings, plan, now, start or Start())
    with database.write(engine) as connection:
        insert(connection, settings, [row])
        audit_log.note(connection, actor, "schedules.add", {"schedule": row["id"], "source": plan.source}, now)
    return str(row["id"])


def row_of(settings: Settings, plan: Plan, now: datetime, start: Start) -> dict[str, Any]:
    """The row of a new schedule. Raises ScheduleError."""
    plans.check(settings, plan)
    timezone = settings.sources[plan.source].timezone
    row = {
        **{name: getattr(plan, name) for name in Plan.__slots__},
        "id": ids.new("sch"),
        "items": [dict(item) for item in plan.items],
        "options": dict(plan.options),
        "timezone": timezone,
        "external_id": start.external_id,
        "status": start.status,
        "anchor_date": None,
        "anchor_day": None,
        "prior": 0,
        "planned": 0,
        "failures": 0,
        "created_at": now,
    }
    earliest = start.earliest or rhythm.today(now, timezone)
    first = rhythm.due_from(plans.rhythm_of(plan), max(plan.start_date, earliest))
    if first is None:
        raise invalid(Problem("end_date", "or max_occurrences leaves no due date from today on"))
    active = start.status == "active"
    return row | {"next_index": first[0], "next_run_at": rhythm.start_of_day(first[1], timezone) if active else None}


def insert(connection: Connection, settings: Settings, rows: Sequence[dict[str, Any]]) -> set[str]:
    """Store new schedules of one source, except what was imported before; the ids of what was new.

    Raises ScheduleError (QUOTA_EXCEEDED).
    """
    expect_quota(connection, settings, str(rows[0]["source"]), len(rows))
    return database.insert_new(connection, Schedule, rows)


def expect_quota(connection: Connection, settings: Settings, source: str, count: int) -> None:
    """Raise ScheduleError (QUOTA_EXCEEDED) where a source may not have so many schedules more."""
    quota = settings.sources[source].max_schedules
    if quota is None:
        return
    if connection.dialect.name == "postgresql":  # whoever adds at the same moment waits to be counted
        lock = text("SELECT pg_advisory_xact_lock(hashtext(:name))")
        connection.execute(lock, {"name": f"billhook.schedules.{source}"})
    live = select(func.count()).where(Schedule.source == source, Schedule.status.in_(LIVE))
    if connection.execute(live).scalar_one() + count > quota:
        raise ScheduleError(
            QUOTA_EXCEEDED,
            f"source {source!r} may have {quota} active and paused schedules: end some, or raise "
            f"BILLHOOK_SOURCES__{source.upper()}__MAX_SCHEDULES",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which schedules are meant; `search` looks into name, customer and id."""

    source: str | None = None
    status: str | None = None
    customer_id: str | None = None
    frequency: str | None = None
    search: str | None = None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        for name in ("source", "status", "customer_id", "frequency"):
            value = getattr(self, name)
            if value is not None:
                yield getattr(Schedule, name) == value
        if self.search is not None:
            columns = (Schedule.name, Schedule.customer_id, Schedule.id)
            yield or_(*(column.icontains(self.search, autoescape=True) for column in columns))


def find(
    engine: Engine, meant: Filter | None = None, *, after: str | None = None, limit: int | None = None
) -> Sequence[AnyRow]:
    """The schedules that are meant, oldest first; those behind the id `after`, at most `limit`."""
    statement = select(*Schedule.__table__.columns).where(*(meant or Filter()).conditions()).order_by(Schedule.id)
    if after is not None:
        statement = statement.where(Schedule.id > after)
    with database.read(engine) as connection:
        return connection.execute(statement.limit(limit)).all()


def get(engine: Engine, schedule_id: str, *, lock: bool = False) -> AnyRow:
    """One schedule; `lock`, within `database.together`: as it stays until that ends.

    Raises ScheduleError (NOT_FOUND).
    """
    with database.read(engine) as connection:
        return read(connection, schedule_id, lock=lock)


def read(connection: Connection, schedule_id: str, *, lock: bool = False, share: bool = False) -> AnyRow:
    """One schedule; locked against others who change it, or who lock it, until the transaction ends.

    Raises ScheduleError (NOT_FOUND).
    """
    statement = select(*Schedule.__table__.columns).where(Schedule.id == schedule_id)
    if lock or share:
        statement = statement.with_for_update(read=share)
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise ScheduleError(NOT_FOUND, f"there is no schedule {schedule_id!r}")
    return row


def next_run_date(row: AnyRow) -> date | None:
    """The next due date of a schedule that is active."""
    return rhythm.due(row, row.next_index) if row.status == "active" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What became of one due date, in the words of the Hisab document: success, failed or skipped.

    One that has not ended is waiting, running or held; `next_attempt_at` is when it is taken up.
    """

    id: str
    scheduled_date: date
    status: str
    generated_at: datetime | None
    invoice_id: str | None
    invoice_number: str | None
    invoice_total: str | None
    error_code: str | None
    error_message: str | None
    attempts: int
    next_attempt_at: datetime | None
    event_id: str | None


def entry(row: AnyRow) -> Entry:
    """An occurrence as the history has it."""
    return Entry(
        id=row.id,
        scheduled_date=row.due_on,
        status="success" if row.status == "generated" else row.status,
        generated_at=row.ended_at,
        invoice_id=row.invoice_id,
        invoice_number=row.invoice_number,
        invoice_total=row.invoice_total,
        error_code=row.error_code,
        error_message=row.error,
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at if row.status in {WAITING, RUNNING} else None,
        event_id=row.event_id,
    )


def history(engine: Engine, schedule_id: str, *, limit: int = 20) -> Sequence[Entry]:
    """What became of its due dates, the latest first. Raises ScheduleError (NOT_FOUND)."""
    get(engine, schedule_id)
    statement = select(*Occurrence.__table__.columns).where(Occurrence.schedule_id == schedule_id)
    with database.read(engine) as connection:
        rows = connection.execute(statement.order_by(Occurrence.due_on.desc()).limit(limit)).all()
    return [entry(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Coming:
    """A due date to come, and what its invoice will come to."""

    due_on: date
    pay_by: date
    total: Decimal
    currency: str


def coming_of(settings: Settings, plan: Plan, count: int, now: datetime) -> list[Coming]:
    """The first due dates of a schedule that is not added. Raises ScheduleError as `add`."""
    return preview(settings, SimpleNamespace(**row_of(settings, plan, now, Start())), count, now)


def preview(settings: Settings, row: Any, count: int, now: datetime, *, issued: date | None = None) -> list[Coming]:
    """The next `count` due dates of a schedule, from the next one on, as it is now; less where it ends.

    `issued` is the date that the invoices will bear, where that is not the due date. Raises ScheduleError
    (INVALID_STATE where its source cannot bill any more).
    """
    if row.status not in LIVE:
        return []
    if row.source not in plans.sources_that_bill(settings):
        raise invalid_state(f"its source {row.source!r} is not in the settings, or has no api_key")
    billing = plans.billing_of(settings, row.source)
    coming = []
    for index in range(row.next_index, row.next_index + count):
        due_on = rhythm.due(row, index)
        if due_on is None:
            break
        draft = draft_of(row, issued or due_on, occurrence_id=row.id, retries=0, recurrences=None, now=now)
        coming.append(Coming(due_on, draft.due_date, billing.total(draft), draft.currency))
    return coming
