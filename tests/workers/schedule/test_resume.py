"""Going on with a paused schedule: what is made up for, what is skipped, and where its rhythm begins anew."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Engine

from handlers.providers.hisab.client import HisabClient
from tests.conftest import SECRET
from tests.workers.given import NOW, Clock, change, only, rows
from tests.workers.schedule.given import (
    ACTOR,
    KEY,
    Network,
    added,
    became,
    coming,
    made,
    noted,
    plan,
    planned,
    refused,
    refusing,
    told,
)
from workers import database, leases
from workers.audit import audit
from workers.models import AuditEntry, Occurrence, Schedule
from workers.schedule.errors import VALIDATION_ERROR
from workers.schedule.generate import work_off
from workers.schedule.generator import LEASE, Generator
from workers.schedule.on_demand import generate_now
from workers.schedule.plans import CATCH_UP
from workers.schedule.schedules import add, get, history
from workers.schedule.tick import tick
from workers.schedule.verbs import cancel, pause, resume, retry
from workers.settings import Settings, Source

SOON = NOW + timedelta(minutes=5)
HELD_FIRST = pytest.mark.parametrize("held", [True, False], ids=["planned before", "planned never"])


def at(day: int, month: int = 6) -> datetime:
    return datetime(2026, month, day, 9, tzinfo=UTC)


def asleep(engine: Engine, settings: Settings, *, held: bool, **values: object) -> str:
    """A weekly schedule from 5 June, a Friday, that was paused on that day: before or after that was planned."""
    schedule_id = added(engine, settings, **{"frequency": "weekly", **values})
    if held:
        tick(engine, now=NOW)
    pause(engine, schedule_id, actor=ACTOR, now=NOW)
    return schedule_id


def resumed(engine: Engine, schedule_id: str, now: datetime, next_run_date: date | None = None) -> None:
    resume(engine, schedule_id, next_run_date=next_run_date, actor=ACTOR, now=now)
    tick(engine, now=now)
    assert audit(engine, lambda: now).holds


# Making up


@HELD_FIRST
@pytest.mark.parametrize("now", [at(26), at(27)], ids=["on a due date", "after it"])
def test_what_came_due_meanwhile_is_made_up_for_as_the_schedule_says(
    settings: Settings, engine: Engine, held: bool, now: datetime
) -> None:
    waiting = {"all": [5, 12, 19, 26], "latest": [26], "none": [26] if now == at(26) else []}
    schedules = {catch_up: asleep(engine, settings, held=held, catch_up=catch_up) for catch_up in CATCH_UP}

    for catch_up, schedule_id in schedules.items():
        resumed(engine, schedule_id, now)

        expected = {day: "waiting" if day in waiting[catch_up] else "skipped" for day in (5, 12, 19, 26)}
        assert became(engine, schedule_id) == {f"2026-06-{day:02}": status for day, status in expected.items()}
        row = get(engine, schedule_id)
        assert (row.status, row.next_run_at) == ("active", datetime(2026, 7, 3, tzinfo=UTC))


def test_what_was_held_is_made_up_for_where_nothing_came_due_after_it(settings: Settings, engine: Engine) -> None:
    cases = [
        ("all", at(8), "waiting"),
        ("latest", at(8), "waiting"),
        ("none", at(8), "skipped"),
        ("none", SOON, "waiting"),
    ]
    for catch_up, now, status in cases:
        schedule_id = asleep(engine, settings, held=True, catch_up=catch_up)

        resumed(engine, schedule_id, now)

        assert became(engine, schedule_id) == {"2026-06-05": status}
        assert coming(engine, settings, schedule_id, 1) == [date(2026, 6, 12)]


@HELD_FIRST
def test_what_was_skipped_is_in_the_history_with_the_reason(settings: Settings, engine: Engine, held: bool) -> None:
    schedule_id = asleep(engine, settings, held=held, catch_up="none")

    resumed(engine, schedule_id, at(13))

    found = history(engine, schedule_id)
    assert [(entry.scheduled_date.day, entry.status, entry.generated_at) for entry in found] == [
        (12, "skipped", at(13)),
        (5, "skipped", at(13)),
    ]
    assert all(str(entry.error_message).startswith("missed") for entry in found)


def test_what_is_made_up_for_becomes_invoices_in_its_order(
    generator: Generator, books: HisabClient, customer: str, clock: Clock
) -> None:
    planned(generator, customer, frequency="weekly")
    schedule_id = only(generator.engine, Schedule).id
    pause(generator.engine, schedule_id, actor=ACTOR, now=NOW)
    clock.now = at(19)

    resumed(generator.engine, schedule_id, clock())
    work_off(generator, "shop")

    assert sorted(one["issue_date"] for one in made(books, customer)) == ["2026-06-05", "2026-06-12", "2026-06-19"]


def test_failures_and_the_reason_are_forgotten(settings: Settings, engine: Engine) -> None:
    schedule_id = asleep(engine, settings, held=False)
    change(engine, Schedule, failures=3, reason="3 invoices in a row failed")

    resumed(engine, schedule_id, SOON)

    row = get(engine, schedule_id)
    assert (row.failures, row.reason, row.updated_at) == (0, None, SOON)


def test_what_somebody_asked_for_again_is_not_missed(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    network.before = lambda _: refusing("NO", 404)
    planned(generator, customer, frequency="weekly", catch_up="none")
    schedule_id = only(generator.engine, Schedule).id
    work_off(generator, "shop")
    network.heal()
    retry(generator.engine, schedule_id, actor=ACTOR, now=NOW)
    pause(generator.engine, schedule_id, actor=ACTOR, now=NOW)
    clock.now = at(15)

    resumed(generator.engine, schedule_id, clock())
    work_off(generator, "shop")

    assert became(generator.engine, schedule_id) == {"2026-06-05": "generated", "2026-06-12": "skipped"}
    assert len(made(books, customer)) == 1


# Going on at another day


@HELD_FIRST
def test_it_goes_on_at_a_later_day_and_counts_from_there(settings: Settings, engine: Engine, held: bool) -> None:
    schedule_id = asleep(engine, settings, held=held)

    resumed(engine, schedule_id, at(22), date(2026, 6, 30))

    assert became(engine, schedule_id) == dict.fromkeys(["2026-06-05", "2026-06-12", "2026-06-19"], "skipped")
    assert coming(engine, settings, schedule_id, 2) == [date(2026, 6, 30), date(2026, 7, 7)]
    assert get(engine, schedule_id).next_run_at == datetime(2026, 6, 30, tzinfo=UTC)


@HELD_FIRST
def test_it_goes_on_today(settings: Settings, engine: Engine, held: bool) -> None:
    schedule_id = asleep(engine, settings, held=held, catch_up="none")

    resumed(engine, schedule_id, at(22), date(2026, 6, 22))

    assert became(engine, schedule_id) == {
        "2026-06-05": "skipped", "2026-06-12": "skipped", "2026-06-19": "skipped", "2026-06-22": "waiting",
    }  # fmt: skip
    assert coming(engine, settings, schedule_id, 1) == [date(2026, 6, 29)]


@HELD_FIRST
def test_what_is_due_on_the_very_day_that_it_goes_on_comes_once(settings: Settings, engine: Engine, held: bool) -> None:
    schedule_id = asleep(engine, settings, held=held, max_occurrences=3)

    resumed(engine, schedule_id, SOON, NOW.date())
    tick(engine, now=at(30))

    assert became(engine, schedule_id) == dict.fromkeys(["2026-06-05", "2026-06-12", "2026-06-19"], "waiting")
    row = get(engine, schedule_id)
    assert (row.status, row.planned) == ("completed", 3)


@HELD_FIRST
def test_what_came_due_today_is_skipped_where_it_goes_on_later(settings: Settings, engine: Engine, held: bool) -> None:
    schedule_id = asleep(engine, settings, held=held, max_occurrences=3)

    resumed(engine, schedule_id, SOON, date(2026, 6, 8))
    tick(engine, now=at(30))

    assert became(engine, schedule_id) == {
        "2026-06-05": "skipped", "2026-06-08": "waiting", "2026-06-15": "waiting",
    }  # fmt: skip


def test_what_was_missed_counts_towards_the_most(settings: Settings, engine: Engine) -> None:
    schedule_id = asleep(engine, settings, held=True, max_occurrences=4)

    resumed(engine, schedule_id, at(13), date(2026, 6, 20))

    assert coming(engine, settings, schedule_id, 9) == [date(2026, 6, 20), date(2026, 6, 27)]


def test_a_schedule_that_missed_all_that_was_left_is_completed(settings: Settings, engine: Engine) -> None:
    schedule_id = asleep(engine, settings, held=True, max_occurrences=2)

    resumed(engine, schedule_id, at(13), date(2026, 6, 20))

    assert get(engine, schedule_id).status == "completed"
    assert became(engine, schedule_id) == {"2026-06-05": "skipped", "2026-06-12": "skipped"}
    assert len(told(engine, "completed")) == 1


def test_days_of_the_week_or_of_the_month_give_way_to_the_day_it_goes_on_at(settings: Settings, engine: Engine) -> None:
    weekly = asleep(engine, settings, held=False, day_of_week=1)
    monthly = asleep(engine, settings, held=False, frequency="monthly", day_of_month=28)
    last = asleep(engine, settings, held=False, frequency="monthly")

    for schedule_id, day in ((weekly, date(2026, 6, 10)), (monthly, date(2026, 6, 15)), (last, date(2026, 8, 31))):
        resumed(engine, schedule_id, SOON, day)

    assert coming(engine, settings, weekly, 2) == [date(2026, 6, 10), date(2026, 6, 17)]
    assert coming(engine, settings, monthly, 2) == [date(2026, 6, 15), date(2026, 7, 15)]
    assert coming(engine, settings, last, 2) == [date(2026, 8, 31), date(2026, 9, 30)]


@pytest.mark.parametrize(
    ("day", "complaint"),
    [
        (date(2026, 6, 12), "must not be in the past; today is 2026-06-13"),
        (date(2026, 7, 11), "is after end_date, 2026-07-10"),
    ],
)
def test_a_day_on_which_it_cannot_go_on_is_refused_and_changes_nothing(
    settings: Settings, engine: Engine, day: date, complaint: str
) -> None:
    schedule_id = asleep(engine, settings, held=True, end_date=date(2026, 7, 10))
    before = get(engine, schedule_id), rows(engine, Occurrence), len(rows(engine, AuditEntry))

    with refused(VALIDATION_ERROR, complaint) as caught:
        resume(engine, schedule_id, next_run_date=day, actor=ACTOR, now=at(13))

    assert [problem.field for problem in caught.value.details] == ["next_run_date"]
    assert (get(engine, schedule_id), rows(engine, Occurrence), len(rows(engine, AuditEntry))) == before


def test_it_may_go_on_on_its_last_day(settings: Settings, engine: Engine) -> None:
    schedule_id = asleep(engine, settings, held=True, end_date=date(2026, 7, 10))

    resumed(engine, schedule_id, at(13), date(2026, 7, 10))

    assert coming(engine, settings, schedule_id, 9) == [date(2026, 7, 10)]


def test_today_is_that_of_the_account(settings: Settings, engine: Engine) -> None:
    source = Source(provider="hisab", secrets=SECRET, api_key=KEY, timezone="Pacific/Kiritimati")  # 14 hours ahead
    there = settings.model_copy(update={"sources": {"shop": source}})
    schedule_id = add(engine, there, plan(start_date=date(2026, 6, 20)), actor=ACTOR, now=NOW)
    pause(engine, schedule_id, actor=ACTOR, now=NOW)

    with refused(VALIDATION_ERROR, "today is 2026-06-06"):
        resume(engine, schedule_id, next_run_date=date(2026, 6, 5), actor=ACTOR, now=NOW)
    resumed(engine, schedule_id, NOW, date(2026, 6, 6))

    assert became(engine, schedule_id) == {"2026-06-06": "waiting"}


def test_it_goes_on_after_what_is_done(generator: Generator, books: HisabClient, customer: str) -> None:
    planned(generator, customer, frequency="weekly")
    work_off(generator, "shop")
    schedule_id = only(generator.engine, Schedule).id
    generate_now(generator, schedule_id, actor=ACTOR)  # that of 12 June
    pause(generator.engine, schedule_id, actor=ACTOR, now=NOW)

    for day in (5, 10, 12):
        with refused(VALIDATION_ERROR, "must be after 2026-06-12, which is done or under way"):
            resume(generator.engine, schedule_id, next_run_date=date(2026, 6, day), actor=ACTOR, now=SOON)
    resumed(generator.engine, schedule_id, SOON, date(2026, 6, 13))

    assert coming(generator.engine, generator.settings, schedule_id, 1) == [date(2026, 6, 13)]
    assert len(made(books, customer)) == 2


def test_it_does_not_go_on_at_a_day_whose_invoice_is_being_made(generator: Generator, customer: str) -> None:
    occurrence = planned(generator, customer, frequency="weekly")
    schedule_id = only(generator.engine, Schedule).id
    with database.write(generator.engine) as connection:
        leases.claim(connection, Occurrence, [occurrence], now=NOW, lease=LEASE)
    pause(generator.engine, schedule_id, actor=ACTOR, now=NOW)

    with refused(VALIDATION_ERROR, "must be after 2026-06-05"):
        resume(generator.engine, schedule_id, next_run_date=NOW.date(), actor=ACTOR, now=SOON)


def test_it_does_not_go_on_at_a_day_that_somebody_asked_for_again(
    generator: Generator, customer: str, network: Network
) -> None:
    network.before = lambda _: refusing("NO", 404)
    planned(generator, customer, frequency="weekly", max_occurrences=3)
    schedule_id = only(generator.engine, Schedule).id
    work_off(generator, "shop")
    retry(generator.engine, schedule_id, actor=ACTOR, now=NOW)
    pause(generator.engine, schedule_id, actor=ACTOR, now=NOW)

    # It would be that day's invoice twice over in the count, and once in the books.
    with refused(VALIDATION_ERROR, "must be after 2026-06-05"):
        resume(generator.engine, schedule_id, next_run_date=NOW.date(), actor=ACTOR, now=SOON)


# The audit log


def test_going_on_is_in_the_audit_log(settings: Settings, engine: Engine) -> None:
    plain, moved = (asleep(engine, settings, held=True) for _ in range(2))

    resumed(engine, plain, SOON)
    assert noted(engine, "resume").detail == {"schedule": plain, "next_run_date": None}
    cancel(engine, plain, actor=ACTOR, now=SOON)
    resumed(engine, moved, SOON, date(2026, 6, 20))

    details = [entry.detail for entry in rows(engine, AuditEntry) if entry.action == "schedules.resume"]
    assert {"schedule": moved, "next_run_date": "2026-06-20"} in details
