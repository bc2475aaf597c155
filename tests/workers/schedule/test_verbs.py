"""Pausing, cancelling and deleting schedules, by themselves and while their invoices are being made."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import Engine, update

from handlers.providers.hisab.client import HisabClient
from tests.workers.given import NOW, Clock, change, only, rows, until, waits_for_a_lock
from tests.workers.schedule.given import (
    ACTOR,
    DAY,
    Network,
    added,
    at_call,
    away,
    became,
    live,
    made,
    noted,
    planned,
    refused,
    refusing,
    reported,
    told,
)
from workers import database, leases
from workers.audit import audit
from workers.models import EventRow, Occurrence, Schedule
from workers.schedule import generate as generating
from workers.schedule.errors import INVALID_STATE, NOT_FOUND, ScheduleError
from workers.schedule.generate import generate, work_off
from workers.schedule.generator import LEASE, Generator
from workers.schedule.on_demand import generate_now
from workers.schedule.schedules import get, history
from workers.schedule.tick import tick
from workers.schedule.verbs import cancel, delete_schedule, pause, resume, retry, update_schedule
from workers.settings import Settings

LATER = NOW + timedelta(minutes=10)
VERBS: dict[str, Callable[[Generator, str], object]] = {
    "update": lambda g, at: update_schedule(g.engine, g.settings, at, {"name": "x"}, actor=ACTOR, now=LATER),
    "pause": lambda g, at: pause(g.engine, at, actor=ACTOR, now=LATER),
    "resume": lambda g, at: resume(g.engine, at, actor=ACTOR, now=LATER),
    "cancel": lambda g, at: cancel(g.engine, at, actor=ACTOR, now=LATER),
    "retry": lambda g, at: retry(g.engine, at, actor=ACTOR, now=LATER),
    "delete": lambda g, at: delete_schedule(g.engine, at, actor=ACTOR, now=LATER),
    "generate": lambda g, at: generate_now(g, at, actor=ACTOR),
    "history": lambda g, at: history(g.engine, at),
}


def paused(generator: Generator, schedule_id: str) -> None:
    pause(generator.engine, schedule_id, actor=ACTOR, now=LATER)


def cancelled(generator: Generator, schedule_id: str) -> None:
    cancel(generator.engine, schedule_id, actor=ACTOR, now=LATER)


def test_what_is_not_there_is_not_found(generator: Generator) -> None:
    added(generator.engine, generator.settings)

    for ask in VERBS.values():
        with refused(NOT_FOUND, "sch_unknown"):
            ask(generator, "sch_unknown")


@pytest.mark.parametrize(
    ("status", "verbs"),
    [
        ("active", ["resume"]),
        ("paused", ["pause"]),
        ("completed", ["pause", "resume", "cancel"]),
        ("cancelled", ["pause", "resume", "cancel"]),
    ],
)
def test_what_makes_no_sense_of_a_status_is_refused_and_changes_nothing(
    generator: Generator, status: str, verbs: list[str]
) -> None:
    schedule_id = added(generator.engine, generator.settings)
    tick(generator.engine, now=NOW)
    values = {} if status == "active" else {"status": status, "next_run_at": None}
    change(generator.engine, Schedule, updated_at=NOW, **values)
    before = only(generator.engine, Schedule), only(generator.engine, Occurrence)

    for verb in verbs:
        with refused(INVALID_STATE, status):
            VERBS[verb](generator, schedule_id)

    assert (only(generator.engine, Schedule), only(generator.engine, Occurrence)) == before


# Pause


def test_what_is_paused_is_never_due(settings: Settings, engine: Engine) -> None:
    schedule_id = added(engine, settings)

    row = pause(engine, schedule_id, actor=ACTOR, now=LATER)

    assert row == get(engine, schedule_id)
    assert (row.status, row.next_run_at, row.updated_at, row.ended_at, row.reason) == (
        "paused", None, LATER, None, None,
    )  # fmt: skip
    assert tick(engine, now=datetime(2030, 1, 1, tzinfo=UTC)) == []
    assert noted(engine, "pause").detail == {"schedule": schedule_id, "held": 0}


def test_what_was_planned_and_not_begun_is_held(
    generator: Generator, books: HisabClient, customer: str, network: Network
) -> None:
    occurrence = planned(generator, customer)

    paused(generator, only(generator.engine, Schedule).id)

    row = only(generator.engine, Occurrence)
    assert (row.status, row.step, row.ring_at) == ("held", "planned", None)
    assert work_off(generator, "shop").events == generate(generator, [occurrence]) == []
    assert generating.waiting_at(generator.engine, generator.clock()) == []
    assert (network.calls, made(books, customer)) == ([], [])
    assert noted(generator.engine, "pause").detail["held"] == 1
    assert audit(generator.engine, generator.clock).holds


def test_what_waits_for_its_provider_to_come_back_is_held_too(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    occurrence = planned(generator, customer)
    network.before = away
    generate(generator, [occurrence])

    paused(generator, only(generator.engine, Schedule).id)
    network.heal()
    clock.turn(DAY)

    assert work_off(generator, "shop").events == []
    assert only(generator.engine, Occurrence).status == "held"
    assert made(books, customer) == []


@pytest.mark.parametrize("end", [paused, cancelled])
@pytest.mark.parametrize("death", [("before", 2), ("after", 2), ("after", 3)], ids=str)
def test_what_was_begun_is_brought_to_its_end(
    generator: Generator,
    books: HisabClient,
    customer: str,
    network: Network,
    death: tuple[str, int],
    end: Callable[[Generator, str], None],
) -> None:
    occurrence = planned(generator, customer)
    live(generator, network, occurrence, death)

    end(generator, only(generator.engine, Schedule).id)
    network.heal()
    work_off(generator, "shop")

    assert [one["status"] for one in made(books, customer)] == ["sent"]
    assert only(generator.engine, Occurrence).status == "generated"
    assert [event["type"] for event in reported(generator)] == ["recurring.generated"]
    assert only(generator.engine, Schedule).status == end.__name__


@pytest.mark.parametrize(("end", "status"), [(paused, "held"), (cancelled, "skipped")])
def test_what_is_in_hand_and_not_begun_goes_no_further(
    generator: Generator,
    books: HisabClient,
    customer: str,
    network: Network,
    end: Callable[[Generator, str], None],
    status: str,
) -> None:
    planned(generator, customer)
    schedule_id = only(generator.engine, Schedule).id
    # While it is asked for the customer, in another process.
    network.after = lambda number: end(generator, schedule_id) if number == 1 else None

    assert work_off(generator, "shop").events == []

    row = only(generator.engine, Occurrence)
    assert (row.status, row.step, row.ring_at) == (status, "planned", None)
    assert made(books, customer) == []
    assert reported(generator) == []
    assert audit(generator.engine, generator.clock).holds


@pytest.mark.parametrize(("end", "status"), [(paused, "held"), (cancelled, "skipped")])
@pytest.mark.parametrize("answer", [404, 500])
def test_nor_does_it_where_the_provider_fails_or_refuses_meanwhile(
    generator: Generator,
    customer: str,
    network: Network,
    answer: int,
    end: Callable[[Generator, str], None],
    status: str,
) -> None:
    planned(generator, customer)
    schedule_id = only(generator.engine, Schedule).id

    def befall(number: int) -> httpx.Response | None:
        if number > 1:
            return None
        end(generator, schedule_id)
        return refusing("NO", answer)

    network.before = befall

    work_off(generator, "shop")

    row = only(generator.engine, Occurrence)
    assert (row.status, row.ring_at, row.ended_at) == (status, None, None if status == "held" else NOW)
    assert reported(generator) == []


def test_a_start_that_was_held_is_none_that_never_ended(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    occurrence = planned(generator, customer)
    schedule_id = only(generator.engine, Schedule).id
    for _ in range(2 * generator.settings.max_starts):
        network.after = lambda _: paused(generator, schedule_id)
        assert generate(generator, [occurrence]) == []
        network.heal()
        resume(generator.engine, schedule_id, actor=ACTOR, now=clock())
        clock.turn(LEASE.total_seconds())

    generate(generator, [occurrence])

    assert only(generator.engine, Occurrence).status == "generated"
    assert len(made(books, customer)) == 1


# Cancel


@pytest.mark.parametrize("before", ["active", "paused"])
def test_what_is_cancelled_skips_what_was_planned_and_keeps_its_history(
    generator: Generator, customer: str, before: str
) -> None:
    planned(generator, customer, frequency="weekly")
    schedule_id = only(generator.engine, Schedule).id
    work_off(generator, "shop")
    tick(generator.engine, now=NOW + timedelta(days=7))
    if before == "paused":
        paused(generator, schedule_id)

    row = cancel(generator.engine, schedule_id, actor=ACTOR, now=LATER)

    assert (row.status, row.next_run_at, row.ended_at, row.updated_at) == ("cancelled", None, LATER, LATER)
    assert became(generator.engine, schedule_id) == {"2026-06-05": "generated", "2026-06-12": "skipped"}
    skipped = history(generator.engine, schedule_id)[0]
    assert (skipped.error_message, skipped.generated_at) == ("the schedule was cancelled", LATER)
    assert tick(generator.engine, now=datetime(2030, 1, 1, tzinfo=UTC)) == []
    assert noted(generator.engine, "cancel").detail == {"schedule": schedule_id, "skipped": 1}
    assert audit(generator.engine, generator.clock).holds


def test_what_is_cancelled_is_never_told_to_be_completed(
    generator: Generator, books: HisabClient, customer: str, network: Network
) -> None:
    occurrence = planned(generator, customer, frequency="weekly", max_occurrences=2)
    live(generator, network, occurrence, ("after", 2))

    cancelled(generator, only(generator.engine, Schedule).id)
    live(generator, network, occurrence, None)

    assert len(made(books, customer)) == 1
    assert told(generator.engine, "completed") == []


# Delete


def test_what_is_deleted_takes_its_history_and_leaves_its_invoices_and_events(
    generator: Generator, books: HisabClient, customer: str
) -> None:
    planned(generator, customer, frequency="weekly")
    kept = added(generator.engine, generator.settings, start_date=datetime(2027, 1, 1, tzinfo=UTC).date())
    (schedule_id,) = {row.id for row in rows(generator.engine, Schedule)} - {kept}
    work_off(generator, "shop")
    (waiting,) = tick(generator.engine, now=NOW + timedelta(days=7))

    delete_schedule(generator.engine, schedule_id, actor=ACTOR, now=LATER)

    assert [row.id for row in rows(generator.engine, Schedule)] == [kept]
    assert rows(generator.engine, Occurrence) == []
    with refused(NOT_FOUND):
        get(generator.engine, schedule_id)
    assert generate(generator, [waiting]) == []
    assert len(made(books, customer)) == len(rows(generator.engine, EventRow)) == 1
    assert noted(generator.engine, "delete").detail == {"schedule": schedule_id, "occurrences": 2}
    assert audit(generator.engine, generator.clock).holds


@pytest.mark.parametrize("status", ["active", "paused", "completed", "cancelled"])
def test_a_schedule_can_be_deleted_in_any_status(generator: Generator, status: str) -> None:
    schedule_id = added(generator.engine, generator.settings, max_occurrences=1 if status == "completed" else None)
    tick(generator.engine, now=NOW)
    if (end := {"paused": paused, "cancelled": cancelled}.get(status)) is not None:
        end(generator, schedule_id)
    assert only(generator.engine, Schedule).status == status

    delete_schedule(generator.engine, schedule_id, actor=ACTOR, now=LATER)

    assert rows(generator.engine, Schedule) == rows(generator.engine, Occurrence) == []


@pytest.mark.parametrize("death", [("before", 1), ("before", 2), ("after", 2), ("after", 4)], ids=str)
def test_what_is_being_made_is_not_forgotten(
    generator: Generator, books: HisabClient, customer: str, network: Network, death: tuple[str, int]
) -> None:
    occurrence = planned(generator, customer)
    schedule_id = only(generator.engine, Schedule).id
    live(generator, network, occurrence, death)

    with refused(INVALID_STATE, "2026-06-05 is being made"):
        delete_schedule(generator.engine, schedule_id, actor=ACTOR, now=LATER)

    live(generator, network, occurrence, None)
    delete_schedule(generator.engine, schedule_id, actor=ACTOR, now=LATER)
    assert len(made(books, customer)) == 1


def test_what_waits_to_be_gone_on_with_is_not_forgotten(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    occurrence = planned(generator, customer)
    network.before = at_call(network, "POST finalize", lambda _: refusing("DOWN", 503), turn=1)
    generate(generator, [occurrence])
    assert only(generator.engine, Occurrence).status == "waiting"

    with refused(INVALID_STATE):
        delete_schedule(generator.engine, only(generator.engine, Schedule).id, actor=ACTOR, now=LATER)

    clock.turn(DAY)
    generate(generator, [occurrence])
    assert [one["status"] for one in made(books, customer)] == ["sent"]


def test_what_is_taken_up_while_it_is_deleted_is_not_forgotten(generator: Generator, customer: str) -> None:
    occurrence = planned(generator, customer)
    schedule_id = only(generator.engine, Schedule).id

    def deleted() -> str:
        try:
            delete_schedule(generator.engine, schedule_id, actor=ACTOR, now=LATER)
        except ScheduleError as error:
            return error.code
        return "deleted"

    with ThreadPoolExecutor(1) as thread:
        with database.write(generator.engine) as connection:
            assert leases.claim(connection, Occurrence, [occurrence], now=NOW, lease=LEASE)
            other = thread.submit(deleted)
            if generator.engine.dialect.name == "postgresql":
                until(lambda: waits_for_a_lock(generator.engine))
        outcome = other.result(20)

    assert outcome == INVALID_STATE
    assert only(generator.engine, Occurrence).status == "running"


@pytest.mark.parametrize("answer", [lambda: refusing("CUSTOMER_INACTIVE"), lambda: refusing("INTERNAL", 500)])
def test_what_was_ended_by_another_and_deleted_keeps_nobody_from_the_rest(
    generator: Generator, customer: str, network: Network, books: HisabClient, answer: Callable[[], httpx.Response]
) -> None:
    # Given a call so slow that its lease ended, and another process did all there was to do
    planned(generator, customer)
    schedule_id = only(generator.engine, Schedule).id
    added(generator.engine, generator.settings, customer_id=customer)
    tick(generator.engine, now=NOW)

    def deleted(_: int) -> httpx.Response:
        with database.write(generator.engine) as connection:
            mine = update(Occurrence).where(Occurrence.schedule_id == schedule_id)
            connection.execute(mine.values(status="failed", fence=Occurrence.fence + 1))
        delete_schedule(generator.engine, schedule_id, actor=ACTOR, now=LATER)
        return answer()

    network.before = at_call(network, "GET cus_", deleted, turn=1)

    shift = work_off(generator, "shop")

    assert [one["status"] for one in made(books, customer)] == ["draft"]
    assert only(generator.engine, Occurrence).status == "generated"
    assert len(shift.events) == 1
