from __future__ import annotations

import itertools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.conftest import SECRET
from tests.workers.given import NOW, fill_queue, only, rows, rung
from tests.workers.schedule.given import ACTOR, HOUR, added, plan
from workers.app import GENERATE, Runtime
from workers.models import Occurrence, Schedule
from workers.schedule import generate
from workers.schedule import tick as ticking
from workers.schedule.errors import ScheduleError
from workers.schedule.generator import Generator
from workers.schedule.rhythm import start_of_day
from workers.schedule.schedules import add, coming_of, find
from workers.schedule.tick import tick
from workers.settings import Settings, Source

TODAY = NOW.date()


def in_zone(settings: Settings, timezone: str) -> Settings:
    source = Source(provider="hisab", secrets=SECRET, api_key="hisab_test_key", timezone=timezone)
    return settings.model_copy(update={"sources": {"shop": source}})


def due_on(engine: Engine) -> list[date]:
    return sorted(row.due_on for row in rows(engine, Occurrence))


# Adding


def test_a_schedule_is_stored_with_all_its_fields(settings: Settings, engine: Engine) -> None:
    item = {**HOUR, "tax_rate": "20"}
    given = plan(
        name="Hosting",
        frequency="quarterly",
        interval_count=2,
        day_of_month=10,
        end_date=date(2030, 1, 1),
        max_occurrences=5,
        auto_finalize=True,
        auto_send=True,
        days_until_due=15,
        currency="EUR",
        items=[HOUR, item],
    )

    schedule_id = add(engine, settings, given, actor=ACTOR, now=NOW)

    (row,) = find(engine)
    assert row.id == schedule_id
    assert schedule_id.startswith("sch_")
    assert (row.source, row.name, row.customer_id, row.timezone) == ("shop", "Hosting", "cus_2b81fe", "UTC")
    assert (row.auto_finalize, row.auto_send, row.days_until_due, row.currency) == (True, True, 15, "EUR")
    assert row.items == [HOUR, item]
    assert (row.frequency, row.interval_count, row.day_of_month, row.day_of_week) == ("quarterly", 2, 10, None)
    assert (row.start_date, row.end_date, row.max_occurrences) == (TODAY, date(2030, 1, 1), 5)
    assert (row.status, row.next_index, row.created_at) == ("active", 0, NOW)
    assert row.next_run_at == datetime(2026, 6, 10, tzinfo=UTC)


def test_a_schedule_that_starts_today_is_due_today(settings: Settings, engine: Engine) -> None:
    add(engine, settings, plan(), actor=ACTOR, now=NOW)

    assert len(tick(engine, now=NOW)) == 1
    assert due_on(engine) == [TODAY]


def test_a_start_in_the_past_anchors_the_rhythm_and_makes_no_invoice_for_it(settings: Settings, engine: Engine) -> None:
    add(engine, settings, plan(start_date=date(2026, 1, 31)), actor=ACTOR, now=NOW)

    row = only(engine, Schedule)
    assert row.next_run_at == datetime(2026, 6, 30, tzinfo=UTC)
    assert tick(engine, now=NOW) == []


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"source": "nope"}, "source: there is no source 'nope'"),
        ({"source": "silent"}, "source: 'silent' has no api_key"),
        ({"customer_id": ""}, "customer_id: "),
        ({"auto_send": True}, "auto_send: needs auto_finalize"),
        ({"days_until_due": -1}, "days_until_due: "),
        ({"days_until_due": 366}, "days_until_due: "),
        ({"currency": "mad"}, "currency: "),
        ({"currency": "MAD\n"}, "currency: "),
        ({"items": []}, "items: "),
        ({"items": [{**HOUR, "price": "1"}]}, r"items\[0\]: 'price' is none of"),
        ({"items": [{**HOUR, "description": ""}]}, r"items\[0\].description: "),
        ({"items": [HOUR, {"description": "Hour", "quantity": "1"}]}, r"items\[1\].unit_price: "),
        ({"items": [{**HOUR, "quantity": "eight"}]}, r"items\[0\].quantity: "),
        ({"items": [{**HOUR, "unit_price": "NaN"}]}, r"items\[0\].unit_price: "),
        ({"items": [{**HOUR, "unit_price": "Infinity"}]}, r"items\[0\].unit_price: "),
        ({"items": [{**HOUR, "tax_rate": ""}]}, r"items\[0\].tax_rate: "),
        ({"frequency": "daily"}, "frequency: must be one of weekly"),
        ({"interval_count": 13}, "interval_count: must"),
        ({"day_of_month": 29}, "day_of_month: must"),
        ({"day_of_week": 1}, "day_of_week: is accepted only with"),
        ({"end_date": date(2026, 6, 4)}, "end_date: must not be before"),
        ({"start_date": date(2026, 1, 1), "end_date": date(2026, 6, 4)}, "leaves no due date from today on"),
        ({"start_date": date(2026, 1, 1), "max_occurrences": 3}, "leaves no due date from today on"),
        ({"max_occurrences": 2**31}, "max_occurrences: must be at most"),
        ({"options": {"a": ["\x00"]}}, "options: may have"),
        ({"options": {"a": "\ud800"}}, "options: may have"),
        ({"options": {"a": 2**64}}, "options: may have"),
        ({"options": {"a": 0.5}}, "options: may have"),
        ({"options": {"\x00": None}}, "options: may have"),
        ({"options": {"a": [[[[[[[[[]]]]]]]]]}}, "options: may have"),
    ],
)
def test_what_a_schedule_cannot_be_is_said_by_its_field(
    tmp_path: Any, values: Mapping[str, Any], complaint: str
) -> None:
    sources = {
        "shop": Source(provider="hisab", secrets=SECRET, api_key="hisab_test_key"),
        "silent": Source(provider="hisab", secrets=SECRET),
    }
    settings = Settings(state_dir=tmp_path, sources=sources)
    # Nothing is asked of the database before the plan is right.
    with pytest.raises(ScheduleError, match=complaint):
        add(None, settings, plan(**values), actor=ACTOR, now=NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize("price", [0.1, True])
def test_money_that_is_no_decimal_string_is_refused(tmp_path: Any, price: object) -> None:
    settings = Settings(
        state_dir=tmp_path, sources={"shop": Source(provider="hisab", secrets=SECRET, api_key="hisab_test_key")}
    )

    with pytest.raises(ScheduleError, match=r"items\[0\].unit_price: "):
        add(None, settings, plan(items=[{**HOUR, "unit_price": price}]), actor=ACTOR, now=NOW)  # type: ignore[arg-type]


def test_the_longest_numbers_are_multiplied_exactly(tmp_path: Any) -> None:
    settings = Settings(
        state_dir=tmp_path, sources={"shop": Source(provider="hisab", secrets=SECRET, api_key="hisab_test_key")}
    )
    most = {**HOUR, "quantity": f"{'9' * 15}.{'9' * 10}", "unit_price": f"{'9' * 15}.{'9' * 10}"}

    (coming,) = coming_of(settings, plan(items=[most]), 1, NOW)

    # (10^15 - 10^-10)^2, and a fifth of that as tax
    assert coming.total == Decimal("1199999999999999999999999760000.00")


# The tick


def test_a_tick_before_the_day_plans_nothing(settings: Settings, engine: Engine) -> None:
    add(engine, settings, plan(start_date=date(2026, 6, 10)), actor=ACTOR, now=NOW)

    assert tick(engine, now=datetime(2026, 6, 9, 23, 59, 59, tzinfo=UTC)) == []
    assert len(tick(engine, now=datetime(2026, 6, 10, tzinfo=UTC))) == 1


def test_a_planned_occurrence_waits_to_be_generated_at_once(settings: Settings, engine: Engine) -> None:
    schedule_id = add(engine, settings, plan(), actor=ACTOR, now=NOW)

    (planned,) = tick(engine, now=NOW)

    row = only(engine, Occurrence)
    assert (row.id, row.schedule_id, row.due_on, row.step) == (planned, schedule_id, TODAY, "planned")
    # By the moment that it was due, not by that of the tick, so that the oldest is taken first.
    assert (row.status, row.next_attempt_at, row.created_at) == (
        "waiting",
        datetime(2026, 6, 5, tzinfo=UTC),
        NOW,
    )
    assert row.ring_at == row.next_attempt_at
    assert planned.startswith("occ_")


def test_each_due_date_is_planned_once_however_often_it_ticks(settings: Settings, engine: Engine) -> None:
    add(engine, settings, plan(frequency="weekly"), actor=ACTOR, now=NOW)

    now, planned = NOW, []
    while now < NOW + timedelta(days=30):
        planned += tick(engine, now=now)
        now += timedelta(hours=7)

    expected = [TODAY + timedelta(days=7 * week) for week in range(5)]
    assert due_on(engine) == expected
    assert len(planned) == len(set(planned)) == 5


def test_after_a_long_downtime_every_missed_date_is_planned(settings: Settings, engine: Engine) -> None:
    add(engine, settings, plan(start_date=date(2026, 8, 31)), actor=ACTOR, now=NOW)

    tick(engine, now=datetime(2027, 3, 1, 12, tzinfo=UTC))

    assert due_on(engine) == [
        date(2026, 8, 31),
        date(2026, 9, 30),
        date(2026, 10, 31),
        date(2026, 11, 30),
        date(2026, 12, 31),
        date(2027, 1, 31),
        date(2027, 2, 28),
    ]
    assert only(engine, Schedule).next_run_at == datetime(2027, 3, 31, tzinfo=UTC)


def test_more_schedules_than_one_look_takes_are_all_planned(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticking, "AT_ONCE", 3)
    for _ in range(7):
        add(engine, settings, plan(), actor=ACTOR, now=NOW)

    assert len(tick(engine, now=NOW)) == 7
    assert tick(engine, now=NOW) == []


def test_ticks_at_once_plan_each_due_date_once(settings: Settings, engine: Engine) -> None:
    for day in range(12):
        add(engine, settings, plan(frequency="weekly", start_date=TODAY + timedelta(days=day)), actor=ACTOR, now=NOW)
    later = NOW + timedelta(days=60)

    with ThreadPoolExecutor(4) as threads:
        ticks = list(threads.map(lambda _: tick(engine, now=later), range(4)))

    planned = [occurrence for found in ticks for occurrence in found]
    expected = sum(len(range(day, 61, 7)) for day in range(12))
    assert len(planned) == len(set(planned)) == len(rows(engine, Occurrence)) == expected


def test_a_schedule_is_completed_with_its_last_due_date(settings: Settings, engine: Engine) -> None:
    add(engine, settings, plan(frequency="weekly", max_occurrences=3), actor=ACTOR, now=NOW)
    add(engine, settings, plan(frequency="weekly", end_date=TODAY + timedelta(days=14)), actor=ACTOR, now=NOW)

    tick(engine, now=NOW + timedelta(days=13))
    assert [row.status for row in rows(engine, Schedule)] == ["active", "active"]
    tick(engine, now=NOW + timedelta(days=14))

    assert [(row.status, row.next_run_at, row.next_index) for row in rows(engine, Schedule)] == [
        ("completed", None, 3)
    ] * 2
    assert tick(engine, now=NOW + timedelta(days=1000)) == []
    assert len(rows(engine, Occurrence)) == 6


def test_a_planned_date_is_not_planned_again_when_the_schedule_is_set_back(settings: Settings, engine: Engine) -> None:
    add(engine, settings, plan(), actor=ACTOR, now=NOW)
    first = tick(engine, now=NOW)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE schedules SET next_index = 0, next_run_at = created_at")

    again = tick(engine, now=NOW)

    assert (len(first), again) == (1, [])
    assert only(engine, Schedule).planned == 1
    assert due_on(engine) == [TODAY]


# Time zones


@pytest.mark.parametrize(
    ("zone", "day", "begins"),
    [
        ("UTC", date(2025, 6, 5), "2025-06-05T00:00:00+00:00"),
        ("Africa/Casablanca", date(2025, 6, 5), "2025-06-04T23:00:00+00:00"),
        ("Africa/Casablanca", date(2025, 3, 10), "2025-03-10T00:00:00+00:00"),  # the month of Ramadan
        ("Asia/Kuwait", date(2025, 6, 5), "2025-06-04T21:00:00+00:00"),
        ("America/New_York", date(2025, 6, 5), "2025-06-05T04:00:00+00:00"),
        ("Pacific/Kiritimati", date(2025, 6, 5), "2025-06-04T10:00:00+00:00"),
        ("Africa/Cairo", date(2025, 4, 25), "2025-04-24T22:00:00+00:00"),  # midnight is skipped: it begins at 01:00
        ("Asia/Beirut", date(2025, 3, 30), "2025-03-29T22:00:00+00:00"),  # likewise
        ("America/Havana", date(2024, 11, 3), "2024-11-03T04:00:00+00:00"),  # 00:00 comes twice: the first
    ],
)
def test_a_day_begins_where_the_customer_is(zone: str, day: date, begins: str) -> None:
    assert start_of_day(day, zone) == datetime.fromisoformat(begins)


def test_a_day_begins_after_the_one_before_it_in_every_month_of_a_zone_that_skips_midnights() -> None:
    days = [date(2025, 1, 1) + timedelta(days=count) for count in range(365)]
    starts = [start_of_day(day, "Africa/Cairo") for day in days]

    lengths = {later - earlier for earlier, later in itertools.pairwise(starts)}
    assert lengths == {timedelta(hours=23), timedelta(hours=24), timedelta(hours=25)}


def test_the_zone_of_the_source_decides_what_day_it_is(settings: Settings, engine: Engine) -> None:
    moroccan = in_zone(settings, "Africa/Casablanca")
    late = datetime(2025, 6, 4, 23, 30, tzinfo=UTC)  # already the 5th in Casablanca

    add(engine, moroccan, plan(start_date=date(2025, 6, 5)), actor=ACTOR, now=late)

    assert only(engine, Schedule).timezone == "Africa/Casablanca"
    assert tick(engine, now=late - timedelta(minutes=31)) == []
    assert len(tick(engine, now=late)) == 1
    assert due_on(engine) == [date(2025, 6, 5)]


def test_what_is_today_in_utc_may_be_past_for_the_customer(settings: Settings, engine: Engine) -> None:
    late = datetime(2025, 6, 4, 23, 30, tzinfo=UTC)

    add(engine, in_zone(settings, "Africa/Casablanca"), plan(start_date=date(2025, 6, 4)), actor=ACTOR, now=late)

    assert only(engine, Schedule).next_index == 1


def test_a_day_whose_midnight_is_skipped_is_due_all_the_same_and_once(settings: Settings, engine: Engine) -> None:
    add(
        engine,
        in_zone(settings, "Africa/Cairo"),
        plan(start_date=date(2025, 4, 25), frequency="weekly"),
        actor=ACTOR,
        now=datetime(2025, 4, 1, tzinfo=UTC),
    )

    assert tick(engine, now=datetime(2025, 4, 24, 21, 59, 59, tzinfo=UTC)) == []
    assert len(tick(engine, now=datetime(2025, 4, 24, 22, 0, tzinfo=UTC))) == 1
    assert tick(engine, now=datetime(2025, 5, 1, 20, 59, 59, tzinfo=UTC)) == []
    assert len(tick(engine, now=datetime(2025, 5, 1, 21, 0, tzinfo=UTC))) == 1
    assert due_on(engine) == [date(2025, 4, 25), date(2025, 5, 2)]


def test_a_schedule_keeps_its_zone_when_the_settings_change(settings: Settings, engine: Engine) -> None:
    add(engine, in_zone(settings, "Asia/Kuwait"), plan(start_date=date(2026, 6, 10)), actor=ACTOR, now=NOW)

    assert tick(engine, now=datetime(2026, 6, 9, 20, 59, tzinfo=UTC)) == []
    assert len(tick(engine, now=datetime(2026, 6, 9, 21, 0, tzinfo=UTC))) == 1


# The sweep


def test_the_sweep_plans_what_is_due_and_rings_for_its_source(runtime: Runtime, generator: Generator) -> None:
    added(runtime.engine, runtime.settings)
    added(runtime.engine, runtime.settings)

    assert generate.sweep(generator) == 1

    assert rung(runtime, "schedules") == [(GENERATE, ["shop"])]
    assert due_on(runtime.engine) == [TODAY, TODAY]


def test_the_sweep_rings_as_long_as_something_is_due(runtime: Runtime, generator: Generator) -> None:
    added(runtime.engine, runtime.settings)

    assert [generate.sweep(generator) for _ in range(3)] == [1, 1, 1]

    assert rung(runtime, "schedules") == [(GENERATE, ["shop"])] * 3


def test_the_sweep_is_silent_where_nothing_is_due(runtime: Runtime, generator: Generator) -> None:
    added(runtime.engine, runtime.settings, start_date=TODAY + timedelta(days=1))

    assert generate.sweep(generator) == 0

    assert rung(runtime, "schedules") == []


def test_the_sweep_plans_but_is_quiet_while_the_queue_is_full(runtime: Runtime, generator: Generator) -> None:
    added(runtime.engine, runtime.settings)
    fill_queue(runtime, "schedules")

    assert generate.sweep(generator) == 0

    assert due_on(runtime.engine) == [TODAY]
    runtime.redis.delete(f"{runtime.settings.redis_prefix}schedules")
    assert generate.sweep(generator) == 1
