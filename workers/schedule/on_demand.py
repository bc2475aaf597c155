"""The next invoice of a schedule at once, because somebody asks for it (Hisab API reference, Generate)."""

from __future__ import annotations

from datetime import date

from sqlalchemy import Connection, Engine, select, update

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.invoicing import CUSTOMER_INACTIVE
from workers import audit_log, database
from workers.models import AnyRow, Occurrence, Schedule
from workers.schedule import rhythm
from workers.schedule.completion import OPEN
from workers.schedule.errors import NOT_FOUND, ScheduleError, invalid_state
from workers.schedule.generate import generate
from workers.schedule.generator import Generator, billing, client
from workers.schedule.schedules import get, read
from workers.schedule.tick import occurrence


def generate_now(generator: Generator, schedule_id: str, *, issue_date: date | None = None, actor: str) -> AnyRow:
    """Make the invoice of the next due date now, dated today or `issue_date`; the occurrence as it is then.

    The due date is used up by it. If the provider does not answer, the occurrence waits and is tried again. Raises
    ScheduleError (NOT_FOUND; INVALID_STATE unless it is active and nothing of it is under way; CUSTOMER_INACTIVE), and
    ProviderError where the provider cannot say whether the customer is active.
    """
    expect_billable(generator, schedule_id)
    planned = plan_now(generator, schedule_id, issue_date=issue_date, actor=actor)
    generate(generator, [planned])
    return occurrence_of(generator.engine, planned)


def expect_billable(generator: Generator, schedule_id: str) -> None:
    """Ask whether its next invoice may be made at all; the provider is called. Raises as `generate_now`."""
    schedule = get(generator.engine, schedule_id)
    _expect_active(schedule)
    _check_customer(generator, schedule)


def plan_now(generator: Generator, schedule_id: str, *, issue_date: date | None = None, actor: str) -> str:
    """Use up the next due date; the id of its occurrence, which is due at once. No call leaves this process.

    Raises ScheduleError (NOT_FOUND; INVALID_STATE unless it is active and nothing of it is under way).
    """
    with database.write(generator.engine) as connection:
        return _plan(connection, generator, schedule_id, issue_date, actor)


def occurrence_of(engine: Engine, occurrence_id: str) -> AnyRow:
    """An occurrence as it is now. Raises ScheduleError (NOT_FOUND) where its schedule was deleted."""
    with database.read(engine) as connection:
        rows = select(*Occurrence.__table__.columns).where(Occurrence.id == occurrence_id)
        row = connection.execute(rows).one_or_none()
    if row is None:
        raise ScheduleError(NOT_FOUND, "the schedule was deleted, and its history with it")
    return row


def _check_customer(generator: Generator, schedule: AnyRow) -> None:
    found = billing(generator, schedule.source)
    try:
        found.invoicing(client(generator, schedule.source)).check_customer(schedule.customer_id)
    except ProviderUnavailable:
        raise
    except ProviderError as error:
        if error.code == CUSTOMER_INACTIVE:
            raise ScheduleError(CUSTOMER_INACTIVE, str(error).removeprefix(f"{error.code}: ")) from None
        raise


def _plan(connection: Connection, generator: Generator, schedule_id: str, issue_date: date | None, actor: str) -> str:
    now = generator.clock()
    schedule = read(connection, schedule_id, lock=True)
    _expect_active(schedule)
    under_way = connection.execute(
        select(Occurrence.due_on).where(Occurrence.schedule_id == schedule_id, Occurrence.status.in_(OPEN)).limit(1)
    ).scalar()
    if under_way is not None:
        raise invalid_state(f"its invoice for {under_way} is under way: ask again once that has ended")
    due_on = rhythm.due(schedule, schedule.next_index)
    if due_on is None:
        raise invalid_state("it has no due date any more")
    issue_on = issue_date or rhythm.today(now, schedule.timezone)
    row = occurrence(schedule, due_on, now, issue_on=issue_on)
    database.insert_new(connection, Occurrence, [row])
    following = rhythm.due(schedule, schedule.next_index + 1)
    change = {
        "next_index": schedule.next_index + 1,
        "planned": schedule.planned + 1,
        "status": "completed" if following is None else "active",
        "ended_at": now if following is None else None,
        "next_run_at": None if following is None else rhythm.start_of_day(following, schedule.timezone),
    }
    connection.execute(update(Schedule).where(Schedule.id == schedule_id).values(**change))
    detail = {"schedule": schedule_id, "due_on": due_on.isoformat(), "issue_date": issue_on.isoformat()}
    audit_log.note(connection, actor, "schedules.generate", detail, now)
    return str(row["id"])


def _expect_active(schedule: AnyRow) -> None:
    if schedule.status != "active":
        raise invalid_state(f"a schedule that is {schedule.status} generates nothing")
