"""Making up for what was missed while nothing ran, and the order in which it is made."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from handlers.providers.hisab.client import HisabClient
from tests.conftest import SECRET
from tests.workers.given import NOW, Clock, rows
from tests.workers.schedule.given import (
    ACTOR,
    DAY,
    KEY,
    Network,
    added,
    at_call,
    became,
    made,
    plan,
    refusing,
    reported,
)
from workers.audit import audit
from workers.models import Occurrence, Schedule
from workers.schedule import tick as ticking
from workers.schedule.generate import generate, sweep, work_off
from workers.schedule.generator import Generator
from workers.schedule.plans import CATCH_UP
from workers.schedule.schedules import add, get, history
from workers.schedule.tick import tick
from workers.settings import Settings, Source

CUSTOMERS = 3


def at(day: int, hour: int = 9) -> datetime:
    return datetime(2026, 6, day, hour, tzinfo=UTC)


def statuses(engine: Engine, schedule_id: str) -> dict[int, str]:
    """What became of its due dates, by their days of the month."""
    return {date.fromisoformat(day).day: status for day, status in became(engine, schedule_id).items()}


# After downtime


@pytest.mark.parametrize("now", [at(26), at(28)], ids=["on a due date", "after it"])
def test_what_was_missed_is_planned_as_the_schedule_says(settings: Settings, engine: Engine, now: datetime) -> None:
    waiting = {"all": [5, 12, 19, 26], "latest": [26], "none": [26] if now == at(26) else []}
    schedules = {word: added(engine, settings, frequency="weekly", catch_up=word) for word in CATCH_UP}

    planned = tick(engine, now=now)

    for catch_up, schedule_id in schedules.items():
        assert statuses(engine, schedule_id) == {
            day: "waiting" if day in waiting[catch_up] else "skipped" for day in (5, 12, 19, 26)
        }
        row = get(engine, schedule_id)
        assert (row.status, row.next_run_at, row.planned) == ("active", datetime(2026, 7, 3, tzinfo=UTC), 4)
    assert sorted(planned) == [row.id for row in rows(engine, Occurrence) if row.status == "waiting"]
    assert audit(engine, lambda: now).holds


def test_what_is_skipped_is_in_the_history_with_the_reason(settings: Settings, engine: Engine) -> None:
    none = added(engine, settings, frequency="weekly", catch_up="none")
    latest = added(engine, settings, frequency="weekly", catch_up="latest")

    tick(engine, now=at(15))

    for schedule_id, days, reason in ((none, [12, 5], "none"), (latest, [5], "latest")):
        skipped = [entry for entry in history(engine, schedule_id) if entry.status == "skipped"]
        assert [entry.scheduled_date.day for entry in skipped] == days
        assert {entry.error_message for entry in skipped} == {f"missed, and catch_up is {reason}"}
        assert {entry.generated_at for entry in skipped} == {at(15)}
    assert {row.ring_at for row in rows(engine, Occurrence) if row.status == "skipped"} == {None}


def test_what_is_skipped_is_never_made_and_never_reported(
    generator: Generator, books: HisabClient, customer: str, clock: Clock
) -> None:
    added(generator.engine, generator.settings, customer_id=customer, frequency="weekly", catch_up="latest")
    clock.now = at(26)
    tick(generator.engine, now=clock())
    ids = [row.id for row in rows(generator.engine, Occurrence)]

    work_off(generator, "shop")
    generate(generator, ids)

    assert [one["issue_date"] for one in made(books, customer)] == ["2026-06-26"]
    assert [event["data"]["due_on"] for event in reported(generator)] == ["2026-06-26"]


def test_each_of_all_bears_its_own_date(generator: Generator, books: HisabClient, customer: str, clock: Clock) -> None:
    added(generator.engine, generator.settings, customer_id=customer, frequency="weekly")
    clock.now = at(26)

    sweep(generator)
    work_off(generator, "shop")

    assert sorted(one["issue_date"] for one in made(books, customer)) == [
        "2026-06-05", "2026-06-12", "2026-06-19", "2026-06-26",
    ]  # fmt: skip


@pytest.mark.parametrize("most", [1, 3, 11])
def test_more_due_dates_than_one_look_takes_are_all_planned(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(ticking, "MOST", most)
    schedules = {word: added(engine, settings, frequency="weekly", catch_up=word) for word in CATCH_UP}
    now = NOW + timedelta(weeks=10)

    planned: list[str] = []
    while min(row.next_run_at for row in rows(engine, Schedule)) <= now:
        planned += tick(engine, now=now)

    assert len(planned) == 11 + 1 + 1
    for word, kept in (("all", 11), ("latest", 1), ("none", 1)):
        found = list(became(engine, schedules[word]).values())
        assert found == ["skipped"] * (11 - kept) + ["waiting"] * kept
        assert get(engine, schedules[word]).planned == 11
    assert tick(engine, now=now) == []


def test_a_schedule_that_was_down_beyond_its_end_is_completed_with_all_it_missed(
    settings: Settings, engine: Engine
) -> None:
    every = added(engine, settings, frequency="weekly", end_date=date(2026, 6, 20))
    latest = added(engine, settings, frequency="weekly", end_date=date(2026, 6, 20), catch_up="latest")

    tick(engine, now=datetime(2027, 1, 1, tzinfo=UTC))

    assert statuses(engine, every) == {5: "waiting", 12: "waiting", 19: "waiting"}
    assert statuses(engine, latest) == {5: "skipped", 12: "skipped", 19: "waiting"}
    assert {row.status for row in rows(engine, Schedule)} == {"completed"}


@pytest.mark.parametrize(
    ("zone", "last"),
    [
        ("UTC", datetime(2026, 6, 11, tzinfo=UTC)),
        ("America/New_York", datetime(2026, 6, 11, 4, tzinfo=UTC)),
        ("Pacific/Kiritimati", datetime(2026, 6, 10, 10, tzinfo=UTC)),
    ],
)
def test_what_is_due_is_not_late_until_the_day_ends_where_the_account_is(
    settings: Settings, engine: Engine, zone: str, last: datetime
) -> None:
    source = Source(provider="hisab", secrets=SECRET, api_key=KEY, timezone=zone)
    there = settings.model_copy(update={"sources": {"shop": source}})
    tenth = plan(start_date=date(2026, 6, 10), catch_up="none")
    in_time = add(engine, there, tenth, actor=ACTOR, now=NOW)
    tick(engine, now=last - timedelta(seconds=1))
    too_late = add(engine, there, tenth, actor=ACTOR, now=NOW)
    tick(engine, now=last)

    assert statuses(engine, in_time) == {10: "waiting"}
    assert statuses(engine, too_late) == {10: "skipped"}


# The order


@pytest.fixture
def customers(books: HisabClient) -> list[str]:
    """Customers of this test, a schedule for each to be known by."""
    return [books.customers.create(name=f"Atlas {number}", type="b2c")["id"] for number in range(CUSTOMERS)]


def asked(network: Network, customers: list[str]) -> list[int]:
    """Whose invoices were begun, in their order."""
    return [customers.index(call.removeprefix("GET ")) for call in network.calls if call.startswith("GET cus_")]


def weekly(generator: Generator, customer: str, first: int, **values: Any) -> str:
    start = date(2026, 6, first)
    given = {"frequency": "weekly", "start_date": start, "customer_id": customer, **values}
    return added(generator.engine, generator.settings, **given)


def test_of_several_schedules_what_was_due_first_is_made_first(
    generator: Generator, network: Network, clock: Clock, customers: list[str]
) -> None:
    latest, first, second = customers
    for customer, day in ((latest, 12), (first, 6), (second, 9)):
        weekly(generator, customer, day)
    clock.now = at(20)
    tick(generator.engine, now=clock())

    work_off(generator, "shop")

    # Due on the 6th, 9th, 12th, 13th, 16th, 19th and 20th.
    assert asked(network, customers) == [1, 2, 0, 1, 2, 0, 1]
    assert {row.status for row in rows(generator.engine, Occurrence)} == {"generated"}


def test_what_is_made_up_for_comes_before_what_is_due_today(
    generator: Generator, network: Network, clock: Clock, customers: list[str]
) -> None:
    today, late, _ = customers
    weekly(generator, today, 12)
    clock.now = at(12)
    tick(generator.engine, now=clock())  # planned first
    weekly(generator, late, 6, max_occurrences=1)
    tick(generator.engine, now=clock())

    work_off(generator, "shop")

    assert asked(network, customers) == [1, 0]


def test_a_due_date_that_waits_holds_back_those_after_it_and_no_other_schedule(
    generator: Generator, books: HisabClient, network: Network, clock: Clock, customers: list[str]
) -> None:
    ill, well, _ = customers
    held_back = weekly(generator, ill, 5, auto_finalize=True)
    weekly(generator, well, 6)
    clock.now = at(20)
    tick(generator.engine, now=clock())
    network.before = at_call(network, f"GET {ill}", lambda _: refusing("DOWN", 503))

    work_off(generator, "shop")
    work_off(generator, "shop")

    assert asked(network, customers) == [0, 1, 1, 1]
    assert statuses(generator.engine, held_back) == {5: "waiting", 12: "waiting", 19: "waiting"}
    assert len(made(books, well)) == 3
    assert made(books, ill) == []

    network.heal()
    clock.turn(DAY)
    work_off(generator, "shop")
    numbers = {one["invoice_number"]: one["issue_date"] for one in made(books, ill)}
    assert [numbers[number] for number in sorted(numbers)] == ["2026-06-05", "2026-06-12", "2026-06-19"]


def test_a_due_date_that_is_being_made_holds_back_those_after_it(
    generator: Generator, books: HisabClient, network: Network, clock: Clock, customers: list[str]
) -> None:
    schedule_id = weekly(generator, customers[0], 5)
    clock.now = at(12)
    tick(generator.engine, now=clock())
    seen: list[dict[int, str]] = []

    def elsewhere(_: int) -> None:
        if network.calls[-1] == "POST invoices" and not seen:  # of the first, while another looks for work
            assert work_off(generator, "shop").events == []
            seen.append(statuses(generator.engine, schedule_id))

    network.after = elsewhere
    work_off(generator, "shop")

    assert seen == [{5: "running", 12: "waiting"}]
    assert len(made(books, customers[0])) == 2


def test_a_due_date_that_failed_for_good_holds_back_none(
    generator: Generator, books: HisabClient, network: Network, clock: Clock, customers: list[str]
) -> None:
    schedule_id = weekly(generator, customers[0], 5)
    clock.now = at(12)
    tick(generator.engine, now=clock())
    network.before = at_call(network, "GET cus_", lambda _: refusing("NO"), turn=1)

    work_off(generator, "shop")

    assert statuses(generator.engine, schedule_id) == {5: "failed", 12: "generated"}
