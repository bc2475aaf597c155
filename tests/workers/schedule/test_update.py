"""Changing a schedule: what can be, what cannot, and from which day on a changed rhythm counts."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlalchemy import Engine

from handlers.providers.hisab.client import HisabClient
from tests.workers.given import NOW, Clock, change, only, rows
from tests.workers.schedule.given import (
    ACTOR,
    HOUR,
    Network,
    added,
    became,
    coming,
    live,
    made,
    noted,
    planned,
    refused,
    told,
)
from workers.models import AnyRow, AuditEntry, Schedule
from workers.schedule.errors import INVALID_STATE, VALIDATION_ERROR
from workers.schedule.generate import generate, work_off
from workers.schedule.generator import Generator
from workers.schedule.schedules import get
from workers.schedule.tick import tick
from workers.schedule.verbs import CHANGEABLE, OF_RHYTHM, pause, update_schedule
from workers.settings import Settings

LATER = datetime(2026, 6, 8, 9, 30, tzinfo=UTC)
MENDED = {"description": "Support", "quantity": "2", "unit_price": "80.00", "tax_rate": "10"}


def updated(engine: Engine, settings: Settings, schedule_id: str, /, **changes: Any) -> AnyRow:
    return update_schedule(engine, settings, schedule_id, changes, actor=ACTOR, now=LATER)


def wrong_fields(engine: Engine, settings: Settings, schedule_id: str, **changes: Any) -> list[str]:
    """The fields that a refused change is refused for."""
    before = get(engine, schedule_id)
    with refused(VALIDATION_ERROR) as caught:
        updated(engine, settings, schedule_id, **changes)
    assert get(engine, schedule_id) == before
    assert [row.action for row in rows(engine, AuditEntry)] == ["schedules.add"]
    for problem in caught.value.details:
        assert problem.message
        assert str(problem) in str(caught.value)
    return [problem.field for problem in caught.value.details]


# Fields


def test_each_field_can_be_changed_and_no_other_changes_with_it(settings: Settings, engine: Engine) -> None:
    changes = {
        "name": "Hosting",
        "end_date": date(2027, 6, 5),
        "max_occurrences": 12,
        "auto_finalize": True,
        "days_until_due": 0,
        "items": [MENDED, HOUR],
        "catch_up": "none",
        "options": {},
        "frequency": "quarterly",
        "interval_count": 2,
        "day_of_month": 10,
    }
    assert set(changes) | {"day_of_week", "auto_send"} == set(CHANGEABLE)
    for name, value in changes.items():
        schedule_id = added(engine, settings)
        before = get(engine, schedule_id)

        row = updated(engine, settings, schedule_id, **{name: value})

        assert row == get(engine, schedule_id)
        assert (getattr(row, name), row.updated_at) == (value, LATER)
        touched = {field for field in row._fields if getattr(row, field) != getattr(before, field)}
        follows = {"anchor_date", "anchor_day", "next_run_at"} if name in OF_RHYTHM else set()
        assert touched - follows - {name} == {"updated_at"}


def test_what_needs_another_field_can_be_changed_with_it(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings)
    assert wrong_fields(engine, settings, schedule_id, auto_send=True) == ["auto_send"]

    row = updated(engine, settings, schedule_id, auto_send=True, auto_finalize=True)

    assert (row.auto_finalize, row.auto_send) == (True, True)


def test_a_day_of_the_week_can_be_changed(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings, frequency="weekly", day_of_week=1)  # Mondays, from 8 June

    updated(engine, settings, schedule_id, day_of_week=3)

    assert coming(engine, settings, schedule_id, 2) == [date(2026, 6, 10), date(2026, 6, 17)]


def test_an_end_can_be_taken_away(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings, end_date=date(2026, 6, 30), max_occurrences=1)

    updated(engine, settings, schedule_id, end_date=None, max_occurrences=None)

    assert len(coming(engine, settings, schedule_id, 20)) == 20


def test_what_is_paused_can_be_changed_and_stays_paused(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings)
    pause(engine, schedule_id, actor=ACTOR, now=NOW)

    row = updated(engine, settings, schedule_id, name="Hosting", frequency="weekly")

    assert (row.status, row.name, row.frequency, row.next_run_at) == ("paused", "Hosting", "weekly", None)


@pytest.mark.parametrize("status", ["completed", "cancelled"])
def test_what_has_ended_cannot_be_changed(settings: Settings, engine: Engine, status: str) -> None:
    schedule_id = added(engine, settings)
    change(engine, Schedule, status=status, next_run_at=None)

    with refused(INVALID_STATE, status):
        updated(engine, settings, schedule_id, max_occurrences=12)

    assert get(engine, schedule_id).max_occurrences is None


def test_no_other_field_can_be_changed(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings)

    for name in ("colour", "source", "customer_id", "currency", "start_date", "timezone", "status", "planned", "id"):
        assert wrong_fields(engine, settings, schedule_id, **{name: "x", "name": "Hosting"}) == [name]


def test_what_cannot_be_is_said_by_its_field(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings)
    wrong: list[tuple[dict[str, Any], list[str]]] = [
        ({"days_until_due": 366}, ["days_until_due"]),
        ({"interval_count": 0}, ["interval_count"]),
        ({"frequency": "daily"}, ["frequency"]),
        ({"day_of_month": 29}, ["day_of_month"]),
        ({"day_of_week": 1}, ["day_of_week"]),
        ({"frequency": "weekly", "day_of_month": 1}, ["day_of_month"]),
        ({"end_date": date(2026, 6, 4)}, ["end_date"]),
        ({"end_date": "2026-12-31"}, ["end_date"]),
        ({"max_occurrences": 0}, ["max_occurrences"]),
        ({"options": {"livemode": True}}, ["options"]),
        ({"items": [{**HOUR, "tax_rate": "19"}]}, ["items[0].tax_rate"]),
        ({"items": [{**HOUR, "colour": "red"}]}, ["items[0]"]),
        ({"catch_up": "some", "days_until_due": -1, "name": "\n"}, ["catch_up", "days_until_due", "name"]),
        (
            {"items": [{**HOUR, "quantity": "x"}, {}], "catch_up": "no"},
            ["catch_up", "items[0].quantity", "items[1].description", "items[1].quantity", "items[1].unit_price"],
        ),
    ]

    for changes, fields in wrong:
        assert sorted(wrong_fields(engine, settings, schedule_id, **changes)) == fields


def test_all_that_is_wrong_with_a_rhythm_is_said_at_once(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings)
    wrong = {"interval_count": 13, "day_of_month": 29, "max_occurrences": 0, "end_date": date(2026, 6, 4)}

    assert sorted(wrong_fields(engine, settings, schedule_id, **wrong, catch_up="no")) == sorted([*wrong, "catch_up"])


def test_what_a_schedule_must_have_cannot_be_taken_away(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings)

    for name in set(CHANGEABLE) - {"end_date", "max_occurrences", "day_of_month", "day_of_week"}:
        assert wrong_fields(engine, settings, schedule_id, **{name: None}) == [name]


# What is under way


def test_what_was_begun_stays_as_it_was_and_what_was_not_follows_the_change(
    generator: Generator, books: HisabClient, customer: str, network: Network
) -> None:
    begun = planned(generator, customer, frequency="weekly")
    live(generator, network, begun, ("before", 2))
    schedule_id = only(generator.engine, Schedule).id
    (following,) = tick(generator.engine, now=datetime(2026, 6, 12, tzinfo=UTC))
    generator.clock.now = datetime(2026, 6, 12, 8, tzinfo=UTC)  # type: ignore[attr-defined]

    updated(generator.engine, generator.settings, schedule_id, items=[MENDED], auto_send=False, days_until_due=3)
    network.heal()
    generate(generator, [begun, following])

    found = {one["issue_date"]: one for one in made(books, customer)}
    assert [(day, one["status"], one["due_date"]) for day, one in sorted(found.items())] == [
        ("2026-06-05", "sent", "2026-06-20"),
        ("2026-06-12", "finalized", "2026-06-15"),
    ]
    assert [found[day]["items"][0]["description"] for day in sorted(found)] == ["Hosting", "Support"]


# The rhythm


def test_a_changed_rhythm_counts_from_the_next_due_date(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings)
    tick(engine, now=NOW)

    row = updated(engine, settings, schedule_id, frequency="weekly", interval_count=2)

    assert coming(engine, settings, schedule_id) == [date(2026, 7, 5), date(2026, 7, 19), date(2026, 8, 2)]
    assert row.next_run_at == datetime(2026, 7, 5, tzinfo=UTC)
    tick(engine, now=datetime(2026, 7, 20, tzinfo=UTC))
    assert list(became(engine, schedule_id)) == ["2026-06-05", "2026-07-05", "2026-07-19"]


def test_a_rhythm_that_is_changed_on_a_due_date_leaves_none_out_and_none_twice(
    settings: Settings, engine: Engine
) -> None:
    schedule_id = added(engine, settings)
    updated(engine, settings, schedule_id, frequency="quarterly")  # of today nothing is planned yet
    tick(engine, now=NOW)
    updated(engine, settings, schedule_id, frequency="biannually")
    tick(engine, now=datetime(2027, 6, 1, tzinfo=UTC))

    assert list(became(engine, schedule_id)) == ["2026-06-05", "2026-09-05", "2027-03-05"]


def test_the_31st_is_kept_where_the_rhythm_changes_in_a_short_month(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings, start_date=date(2027, 1, 31))
    tick(engine, now=datetime(2027, 1, 31, tzinfo=UTC))

    updated(engine, settings, schedule_id, frequency="quarterly")
    assert coming(engine, settings, schedule_id) == [date(2027, 2, 28), date(2027, 5, 31), date(2027, 8, 31)]

    updated(engine, settings, schedule_id, frequency="monthly")
    assert coming(engine, settings, schedule_id) == [date(2027, 2, 28), date(2027, 3, 31), date(2027, 4, 30)]


def test_a_leap_day_is_kept_where_the_rhythm_changes_in_a_common_year(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings, start_date=date(2028, 2, 29), frequency="yearly")
    tick(engine, now=datetime(2028, 2, 29, tzinfo=UTC))

    updated(engine, settings, schedule_id, interval_count=3)

    assert coming(engine, settings, schedule_id, 2) == [date(2029, 2, 28), date(2032, 2, 29)]


def test_what_is_no_rhythm_leaves_the_due_dates_alone(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings, start_date=date(2027, 1, 31))
    tick(engine, now=datetime(2027, 1, 31, tzinfo=UTC))

    row = updated(engine, settings, schedule_id, name="Hosting", frequency="monthly", interval_count=1)

    assert (row.anchor_date, row.anchor_day, row.prior, row.next_index) == (None, None, 0, 1)
    assert coming(engine, settings, schedule_id) == [date(2027, 2, 28), date(2027, 3, 31), date(2027, 4, 30)]


@pytest.mark.parametrize(("day", "first"), [(4, date(2026, 8, 4)), (5, date(2026, 7, 5)), (20, date(2026, 7, 20))])
def test_another_day_of_the_month_is_the_first_one_from_the_next_due_date_on(
    settings: Settings, engine: Engine, day: int, first: date
) -> None:
    schedule_id = added(engine, settings)
    tick(engine, now=NOW)

    updated(engine, settings, schedule_id, day_of_month=day)

    assert coming(engine, settings, schedule_id, 1) == [first]


def test_by_weeks_the_day_of_the_month_is_dropped(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings, day_of_month=15)

    row = updated(engine, settings, schedule_id, frequency="weekly")

    assert (row.day_of_month, row.day_of_week) == (None, None)
    assert coming(engine, settings, schedule_id, 2) == [date(2026, 6, 15), date(2026, 6, 22)]


def test_by_months_the_day_of_the_week_is_dropped(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings, frequency="biweekly", day_of_week=3)

    row = updated(engine, settings, schedule_id, frequency="monthly", day_of_month=12)

    assert (row.day_of_month, row.day_of_week) == (12, None)
    assert coming(engine, settings, schedule_id, 2) == [date(2026, 6, 12), date(2026, 7, 12)]


def test_the_way_to_weeks_and_back_forgets_the_31st(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings, start_date=date(2027, 1, 31))
    tick(engine, now=datetime(2027, 1, 31, tzinfo=UTC))

    updated(engine, settings, schedule_id, frequency="weekly")
    assert coming(engine, settings, schedule_id, 2) == [date(2027, 2, 28), date(2027, 3, 7)]

    updated(engine, settings, schedule_id, frequency="monthly")
    assert coming(engine, settings, schedule_id, 2) == [date(2027, 2, 28), date(2027, 3, 28)]


# The end


def test_an_end_before_the_next_due_date_completes_it(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings)
    tick(engine, now=NOW)

    row = updated(engine, settings, schedule_id, end_date=date(2026, 7, 4))

    assert (row.status, row.next_run_at, row.ended_at) == ("completed", None, LATER)
    assert tick(engine, now=datetime(2030, 1, 1, tzinfo=UTC)) == []


def test_an_end_on_the_next_due_date_does_not(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings)
    tick(engine, now=NOW)

    row = updated(engine, settings, schedule_id, end_date=date(2026, 7, 5))

    assert (row.status, row.next_run_at) == ("active", datetime(2026, 7, 5, tzinfo=UTC))
    assert coming(engine, settings, schedule_id) == [date(2026, 7, 5)]


def test_as_many_as_there_were_complete_it(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings, frequency="weekly")
    tick(engine, now=datetime(2026, 6, 12, tzinfo=UTC))

    assert updated(engine, settings, schedule_id, max_occurrences=3).status == "active"
    assert updated(engine, settings, schedule_id, max_occurrences=2).status == "completed"


def test_what_was_held_of_a_schedule_that_is_completed_so_is_skipped(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings)
    tick(engine, now=NOW)
    pause(engine, schedule_id, actor=ACTOR, now=NOW)

    assert updated(engine, settings, schedule_id, max_occurrences=1).status == "completed"

    assert became(engine, schedule_id) == {"2026-06-05": "skipped"}
    assert len(told(engine, "completed")) == 1


@pytest.mark.parametrize("changes", [{"end_date": date(2026, 6, 11)}, {"max_occurrences": 1}], ids=str)
def test_what_lies_beyond_a_new_end_and_was_not_begun_is_not_billed(
    generator: Generator, books: HisabClient, customer: str, clock: Clock, changes: dict[str, Any]
) -> None:
    planned(generator, customer, frequency="weekly")
    schedule_id = only(generator.engine, Schedule).id
    clock.now = datetime(2026, 6, 12, 8, tzinfo=UTC)
    tick(generator.engine, now=clock())

    updated(generator.engine, generator.settings, schedule_id, **changes)
    work_off(generator, "shop")

    assert became(generator.engine, schedule_id) == {"2026-06-05": "generated", "2026-06-12": "skipped"}
    assert len(made(books, customer)) == len(told(generator.engine, "completed")) == 1


def test_what_was_before_a_changed_rhythm_counts(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings, frequency="weekly", max_occurrences=5)
    tick(engine, now=datetime(2026, 6, 12, tzinfo=UTC))

    updated(engine, settings, schedule_id, frequency="monthly")
    tick(engine, now=datetime(2026, 6, 19, tzinfo=UTC))
    updated(engine, settings, schedule_id, frequency="biweekly")
    tick(engine, now=datetime(2030, 1, 1, tzinfo=UTC))

    assert list(became(engine, schedule_id)) == [
        "2026-06-05", "2026-06-12",
        "2026-06-19",
        "2026-07-19", "2026-08-02",
    ]  # fmt: skip
    row = get(engine, schedule_id)
    assert (row.status, row.planned) == ("completed", 5)


# The audit log


def test_a_change_is_in_the_audit_log_by_its_fields(settings: Settings, engine: Engine, clock: Clock) -> None:
    schedule_id = added(engine, settings)

    updated(engine, settings, schedule_id, name="Hosting", frequency="yearly")

    entry = noted(engine, "update")
    assert (entry.at, entry.actor) == (LATER, ACTOR)
    assert entry.detail == {"schedule": schedule_id, "changed": ["frequency", "name"]}
