"""Failures in a row pause a schedule, so that nobody is asked for the same wrong invoice for ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from handlers.providers.hisab.client import HisabClient
from tests.workers.given import NOW, Clock, only, rows
from tests.workers.schedule.given import (
    ACTOR,
    DAY,
    Network,
    added,
    at_call,
    away,
    became,
    made,
    of_shop,
    planned,
    refusing,
    reported,
    told,
)
from workers import database, leases
from workers.audit import audit
from workers.models import Occurrence, Schedule
from workers.schedule.generate import generate, work_off
from workers.schedule.generator import LEASE, Generator
from workers.schedule.outcomes import RETRIES
from workers.schedule.schedules import get
from workers.schedule.tick import tick
from workers.schedule.verbs import resume, retry
from workers.settings import Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings by which no test waits for the limit of the API."""
    return of_shop(settings, calls_a_minute=10**6)


@pytest.fixture
def weekly(generator: Generator, customer: str) -> str:
    """A schedule of which five due dates have come."""
    values = {"frequency": "weekly", "auto_finalize": True, "auto_send": True}
    schedule_id = added(generator.engine, generator.settings, customer_id=customer, **values)
    come(generator, 4)
    return schedule_id


def come(generator: Generator, weeks: int) -> None:
    generator.clock.now = NOW + timedelta(weeks=weeks)  # type: ignore[attr-defined]
    tick(generator.engine, now=generator.clock())


def statuses(generator: Generator, schedule_id: str) -> list[str]:
    return list(became(generator.engine, schedule_id).values())


def by_day(generator: Generator) -> dict[str, str]:
    """The occurrences, by their due dates."""
    return {row.due_on.isoformat(): row.id for row in rows(generator.engine, Occurrence)}


def paused_by(generator: Generator) -> list[bool]:
    """Of each failure that was reported, by its due date, whether its event says that it paused the schedule."""
    failures: list[dict[str, Any]] = [
        event["data"] for event in reported(generator) if event["type"] == "recurring.failed"
    ]
    return [data["schedule_paused"] for data in sorted(failures, key=lambda data: str(data["due_on"]))]


def test_three_failures_in_a_row_pause_a_schedule(
    generator: Generator, customer: str, network: Network, weekly: str
) -> None:
    network.before = lambda _: refusing("NO")

    with capture_logs() as lines:
        work_off(generator, "shop")

    row = get(generator.engine, weekly)
    assert (row.status, row.next_run_at, row.failures, row.updated_at) == ("paused", None, 3, generator.clock())
    assert row.reason == "3 invoices in a row failed, the last one with NO: No"
    assert row.ended_at is None
    assert statuses(generator, weekly) == ["failed"] * 3 + ["held"] * 2
    assert paused_by(generator) == [False, False, True]
    assert [line["reason"] for line in lines if line.get("action") == "schedule_paused"] == [row.reason]
    assert len(network.calls) == 3
    assert work_off(generator, "shop").events == []
    assert audit(generator.engine, generator.clock).holds


@pytest.mark.parametrize("most", [1, 4])
def test_how_many_it_takes_is_for_the_settings_to_say(
    generator: Generator, network: Network, weekly: str, most: int
) -> None:
    settings = generator.settings.model_copy(update={"pause_after_failures": most})
    network.before = lambda _: refusing("NO")

    work_off(replace(generator, settings=settings), "shop")

    assert statuses(generator, weekly) == ["failed"] * most + ["held"] * (5 - most)
    assert paused_by(generator) == [False] * (most - 1) + [True]


def test_another_schedule_is_not_paused_with_it(
    generator: Generator, books: HisabClient, customer: str, network: Network, weekly: str
) -> None:
    other = books.customers.create(name="Rif", type="b2c")["id"]
    well = added(generator.engine, generator.settings, customer_id=other, frequency="weekly")
    come(generator, 4)
    network.before = lambda _: refusing("NO", 404) if network.calls[-1] == f"GET {customer}" else None

    work_off(generator, "shop")

    assert (get(generator.engine, weekly).status, get(generator.engine, well).status) == ("paused", "active")
    assert statuses(generator, well) == ["generated"] * 5


def test_an_invoice_in_between_begins_the_count_anew(
    generator: Generator, customer: str, network: Network, weekly: str
) -> None:
    turns = 0

    def befall(_: int) -> httpx.Response | None:
        nonlocal turns
        turns += network.calls[-1].startswith("GET cus_")
        return None if turns == 3 else refusing("NO")

    network.before = befall

    work_off(generator, "shop")

    assert statuses(generator, weekly) == ["failed", "failed", "generated", "failed", "failed"]
    row = get(generator.engine, weekly)
    assert (row.status, row.failures, row.reason) == ("active", 2, None)
    network.before = lambda _: refusing("NO")
    come(generator, 5)
    work_off(generator, "shop")
    assert get(generator.engine, weekly).status == "paused"


def test_what_waits_for_its_provider_has_not_failed(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    occurrence = planned(generator, customer, frequency="weekly")
    network.before = away
    for _ in range(3 * generator.settings.pause_after_failures):
        generate(generator, [occurrence])
        clock.turn(DAY)

    row = only(generator.engine, Schedule)
    assert (row.status, row.failures, reported(generator)) == ("active", 0, [])
    network.heal()
    generate(generator, [occurrence])
    assert len(made(books, customer)) == 1


def test_what_was_tried_to_the_last_has_failed_once(
    generator: Generator, customer: str, network: Network, clock: Clock
) -> None:
    occurrence = planned(generator, customer, frequency="weekly")
    network.before = away
    for _ in range(RETRIES + 1):
        generate(generator, [occurrence])
        clock.turn(DAY)

    assert only(generator.engine, Occurrence).status == "failed"
    assert only(generator.engine, Schedule).failures == 1


def test_what_kills_its_process_each_time_has_failed(generator: Generator, weekly: str, clock: Clock) -> None:
    for _ in range(generator.settings.pause_after_failures):
        oldest = next(day for day, status in became(generator.engine, weekly).items() if status == "waiting")
        occurrence = by_day(generator)[oldest]
        for _ in range(generator.settings.max_starts):
            with database.write(generator.engine) as connection:
                assert leases.claim(connection, Occurrence, [occurrence], now=clock(), lease=LEASE)
            clock.turn(LEASE.total_seconds())
        generate(generator, [occurrence])

    row = get(generator.engine, weekly)
    assert (row.status, row.failures) == ("paused", 3)
    assert "DIED" in row.reason
    assert statuses(generator, weekly) == ["failed"] * 3 + ["held"] * 2
    assert paused_by(generator) == [False, False, True]


def test_a_completed_schedule_is_not_paused(generator: Generator, customer: str, network: Network) -> None:
    values = {"frequency": "weekly", "max_occurrences": 4}
    schedule_id = added(generator.engine, generator.settings, customer_id=customer, **values)
    come(generator, 3)
    network.before = lambda _: refusing("NO")

    work_off(generator, "shop")

    row = get(generator.engine, schedule_id)
    assert (row.status, row.reason, row.failures) == ("completed", None, 4)
    assert statuses(generator, schedule_id) == ["failed"] * 4
    assert paused_by(generator) == [False] * 4
    assert len(told(generator.engine, "completed")) == 1


def test_after_it_is_resumed_the_count_begins_anew(
    generator: Generator, books: HisabClient, customer: str, network: Network, weekly: str
) -> None:
    network.before = lambda _: refusing("NO")
    work_off(generator, "shop")

    resume(generator.engine, weekly, actor=ACTOR, now=generator.clock())
    work_off(generator, "shop")  # the two that were held

    row = get(generator.engine, weekly)
    assert (row.status, row.failures, row.reason) == ("active", 2, None)
    network.heal()
    assert retry(generator.engine, weekly, actor=ACTOR, now=generator.clock()) == 5
    work_off(generator, "shop")
    assert statuses(generator, weekly) == ["generated"] * 5
    assert get(generator.engine, weekly).failures == 0
    assert len(made(books, customer)) == 5


def test_what_was_begun_before_the_pause_is_brought_to_its_end(
    generator: Generator, books: HisabClient, customer: str, network: Network, weekly: str
) -> None:
    network.before = at_call(network, "POST finalize", lambda _: refusing("DOWN", 503), turn=1)
    work_off(generator, "shop")
    first = next(iter(became(generator.engine, weekly)))
    network.before = lambda _: refusing("NO")
    generate(generator, [occurrence for day, occurrence in by_day(generator).items() if day != first])
    assert get(generator.engine, weekly).status == "paused"

    network.heal()
    generator.clock.turn(DAY)  # type: ignore[attr-defined]
    work_off(generator, "shop")

    assert became(generator.engine, weekly)[first] == "generated"
    assert [one["status"] for one in made(books, customer)] == ["sent"]
    assert get(generator.engine, weekly).status == "paused"
