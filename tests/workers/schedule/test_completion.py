"""The end of a schedule: told once, when nothing of it is left to be done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
import pytest

from handlers.errors import ProviderError
from handlers.providers.hisab.client import HisabClient
from handlers.vocabulary import OF_SCHEDULES
from tests.workers.given import NOW, Clock, only, rows, until, waits_for_a_lock
from tests.workers.schedule.given import (
    ACTOR,
    DAY,
    Network,
    added,
    at_call,
    away,
    became,
    made,
    of_another_process,
    planned,
    refusing,
    told,
)
from workers import database, leases
from workers.models import AnyRow, EventRow, Occurrence, Schedule
from workers.schedule import outcomes
from workers.schedule.generate import work_off
from workers.schedule.generator import LEASE, Generator
from workers.schedule.outcomes import Outcome
from workers.schedule.schedules import get, read
from workers.schedule.tick import tick
from workers.schedule.verbs import cancel, pause, resume, retry, update_schedule

LATER = NOW + timedelta(days=1)


def completed(generator: Generator) -> list[dict[str, Any]]:
    return [orjson.loads(event.body)["data"] for event in told(generator.engine, "completed")]


def twice(generator: Generator, customer: str, **values: Any) -> str:
    """A schedule with two due dates, both of them come."""
    planned(generator, customer, frequency="weekly", max_occurrences=2, **values)
    generator.clock.now = datetime(2026, 6, 12, 9, tzinfo=UTC)  # type: ignore[attr-defined]
    tick(generator.engine, now=generator.clock())
    row = only(generator.engine, Schedule)
    assert row.status == "completed"
    return str(row.id)


def test_it_is_told_once_after_the_last_invoice(generator: Generator, books: HisabClient, customer: str) -> None:
    planned(generator, customer, frequency="weekly", max_occurrences=2, name="Hosting")
    schedule_id = only(generator.engine, Schedule).id
    work_off(generator, "shop")
    generator.clock.now = datetime(2026, 6, 12, 9, tzinfo=UTC)  # type: ignore[attr-defined]
    tick(generator.engine, now=generator.clock())
    assert completed(generator) == []

    shift = work_off(generator, "shop")

    (event,) = told(generator.engine, "completed")
    assert event.id in shift.events
    assert completed(generator) == [
        {
            "schedule_id": schedule_id,
            "name": "Hosting",
            "customer_id": customer,
            "generated": 2,
            "failed": 0,
            "skipped": 0,
        }
    ]
    assert (event.source, event.provider, event.object_kind, event.object_id) == (
        "shop", "billhook", "schedule", schedule_id,
    )  # fmt: skip
    assert (event.received_at, event.status, event.ring_at is not None) == (generator.clock(), "waiting", True)
    assert event.type in OF_SCHEDULES
    generator.clock.turn(DAY)  # type: ignore[attr-defined]
    assert tick(generator.engine, now=generator.clock()) == work_off(generator, "shop").events == []
    assert len(completed(generator)) == 1


def test_it_is_told_where_the_last_one_fails(generator: Generator, customer: str, network: Network) -> None:
    twice(generator, customer)
    network.before = at_call(network, "GET cus_", lambda _: refusing("NO"), turn=2)

    work_off(generator, "shop")

    (data,) = completed(generator)
    assert (data["generated"], data["failed"], data["skipped"]) == (1, 1, 0)


def test_it_is_told_where_all_that_was_left_is_skipped(generator: Generator, customer: str) -> None:
    planned(generator, customer, frequency="weekly", max_occurrences=3, catch_up="none")
    work_off(generator, "shop")

    tick(generator.engine, now=datetime(2026, 7, 1, tzinfo=UTC))

    (data,) = completed(generator)
    assert (data["generated"], data["failed"], data["skipped"]) == (1, 0, 2)


def test_it_is_told_where_a_change_leaves_nothing(generator: Generator, customer: str) -> None:
    planned(generator, customer, frequency="weekly")
    work_off(generator, "shop")
    schedule_id = only(generator.engine, Schedule).id

    for changes in ({"end_date": date(2026, 6, 30)}, {"end_date": date(2026, 6, 10)}):
        assert completed(generator) == []
        update_schedule(generator.engine, generator.settings, schedule_id, changes, actor=ACTOR, now=LATER)

    (data,) = completed(generator)
    assert data["generated"] == 1


def test_it_is_told_where_no_due_date_was_left_to_come(generator: Generator) -> None:
    schedule_id = added(generator.engine, generator.settings, start_date=date(2026, 6, 10))

    changes = {"end_date": date(2026, 6, 10), "day_of_month": 11}
    update_schedule(generator.engine, generator.settings, schedule_id, changes, actor=ACTOR, now=LATER)

    (data,) = completed(generator)
    assert (data["generated"], data["failed"], data["skipped"]) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["shortened", "at its last"])
def test_it_is_not_told_while_something_is_open(
    generator: Generator, customer: str, network: Network, clock: Clock, kind: str
) -> None:
    planned(generator, customer, frequency="weekly", max_occurrences=1 if kind == "at its last" else None)
    schedule_id = only(generator.engine, Schedule).id
    if kind == "shortened":
        changes = {"max_occurrences": 1}
        update_schedule(generator.engine, generator.settings, schedule_id, changes, actor=ACTOR, now=NOW)
    assert get(generator.engine, schedule_id).status == "completed"
    assert completed(generator) == []

    network.before = away
    work_off(generator, "shop")
    assert completed(generator) == []

    network.heal()
    clock.turn(DAY)
    work_off(generator, "shop")
    assert [data["generated"] for data in completed(generator)] == [1]


def test_it_is_not_told_while_something_is_held(generator: Generator, customer: str) -> None:
    planned(generator, customer, frequency="weekly", max_occurrences=2)
    schedule_id = only(generator.engine, Schedule).id
    pause(generator.engine, schedule_id, actor=ACTOR, now=NOW)

    generator.clock.now = datetime(2026, 6, 12, 9, tzinfo=UTC)  # type: ignore[attr-defined]
    tick(generator.engine, now=generator.clock())
    assert completed(generator) == []

    resume(generator.engine, schedule_id, actor=ACTOR, now=generator.clock())
    tick(generator.engine, now=generator.clock())
    assert (get(generator.engine, schedule_id).status, completed(generator)) == ("completed", [])
    work_off(generator, "shop")
    assert [data["generated"] for data in completed(generator)] == [2]


def test_what_was_cancelled_or_is_paused_is_not_completed(
    generator: Generator, customer: str, network: Network, clock: Clock
) -> None:
    for verb in (pause, cancel):
        schedule_id = added(generator.engine, generator.settings, customer_id=customer, frequency="weekly")
        tick(generator.engine, now=NOW)
        verb(generator.engine, schedule_id, actor=ACTOR, now=NOW)
    work_off(generator, "shop")

    assert completed(generator) == []


def test_it_is_told_once_where_what_failed_is_asked_for_again(
    generator: Generator, books: HisabClient, customer: str, network: Network
) -> None:
    schedule_id = twice(generator, customer)
    network.before = lambda _: refusing("NO")
    work_off(generator, "shop")
    assert [(data["failed"], data["generated"]) for data in completed(generator)] == [(2, 0)]
    network.heal()

    retry(generator.engine, schedule_id, actor=ACTOR, now=generator.clock())
    work_off(generator, "shop")

    assert became(generator.engine, schedule_id) == {"2026-06-05": "generated", "2026-06-12": "generated"}
    assert len(completed(generator)) == 1
    assert len(made(books, customer)) == 2


# At once


@pytest.fixture
def processes(generator: Generator) -> Iterator[list[Generator]]:
    with ExitStack() as stack:
        yield [stack.enter_context(of_another_process(generator)) for _ in range(2)]


def ends(outcome: Callable[[], Outcome], generator: Generator, processes: list[Generator]) -> list[list[str]]:
    """Two processes end the last two occurrences of a schedule in the same moment; the events of each."""
    with database.write(generator.engine) as connection:
        ids = [row.id for row in rows(generator.engine, Occurrence) if row.status == "waiting"]
        taken = leases.claim(connection, Occurrence, ids, now=generator.clock(), lease=LEASE)
    barrier = threading.Barrier(2)

    def end(number: int) -> list[str]:
        barrier.wait(10)
        return outcomes.end(processes[number], taken[number], outcome())

    with ThreadPoolExecutor(2) as threads:
        if generator.engine.dialect.name != "postgresql":
            return list(threads.map(end, range(2)))
        # Both have come to where they wait for the schedule before either goes on.
        with database.write(generator.engine) as connection:
            read(connection, taken[0].schedule_id, lock=True)
            under_way = [threads.submit(end, number) for number in range(2)]
            until(lambda: waits_for_a_lock(generator.engine))
        return [future.result(20) for future in under_way]


def test_processes_that_end_the_last_two_at_once_tell_it_once(
    generator: Generator, customer: str, processes: list[Generator]
) -> None:
    generator.clock.now = datetime(2026, 6, 12, 9, tzinfo=UTC)  # type: ignore[attr-defined]
    for turn in range(5):
        added(generator.engine, generator.settings, customer_id=customer, frequency="weekly", max_occurrences=2)
        tick(generator.engine, now=generator.clock())

        events = ends(lambda: Outcome(error=ProviderError("NO", "No")), generator, processes)

        assert len(completed(generator)) == turn + 1
        assert completed(generator)[-1]["failed"] == 2
        assert sorted(map(len, events)) == [1, 2]
    assert {event.conflicts for event in rows(generator.engine, EventRow)} == {0}


def test_a_process_that_lost_its_lease_tells_nothing(
    generator: Generator, customer: str, clock: Clock, processes: list[Generator]
) -> None:
    occurrence = planned(generator, customer, max_occurrences=1)
    taken: list[AnyRow] = []
    for _ in range(2):
        with database.write(generator.engine) as connection:
            taken += leases.claim(connection, Occurrence, [occurrence], now=clock(), lease=LEASE)
        clock.turn(LEASE.total_seconds())
    failed = Outcome(error=ProviderError("NO", "No"))

    assert outcomes.end(generator, taken[0], failed) == []
    assert completed(generator) == []
    assert len(outcomes.end(generator, taken[1], failed)) == 2
    assert outcomes.end(generator, taken[1], failed) == []
    assert len(completed(generator)) == 1
