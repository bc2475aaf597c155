"""The next invoice of a schedule at once, because somebody asks for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta

import pytest

from handlers.errors import ProviderUnavailable
from handlers.invoicing import CUSTOMER_INACTIVE
from handlers.providers.hisab.client import HisabClient
from tests.conftest import SECRET
from tests.workers.given import NOW, Clock, change, only, rows
from tests.workers.schedule.given import (
    ACTOR,
    DAY,
    KEY,
    Network,
    added,
    at_call,
    away,
    became,
    coming,
    made,
    noted,
    of_another_process,
    plan,
    planned,
    refused,
    refusing,
    reported,
    told,
)
from workers.audit import audit
from workers.models import AuditEntry, Occurrence, Schedule
from workers.schedule.errors import INVALID_STATE, ScheduleError
from workers.schedule.generate import generate, work_off
from workers.schedule.generator import Generator
from workers.schedule.on_demand import generate_now
from workers.schedule.schedules import add, get
from workers.schedule.tick import tick
from workers.schedule.verbs import cancel, pause, retry
from workers.settings import Source

SOON = date(2026, 6, 10)


def weekly(generator: Generator, customer: str, start: date = SOON, **values: object) -> str:
    given = {"frequency": "weekly", "auto_finalize": True, "auto_send": True, "days_until_due": 15, **values}
    return added(generator.engine, generator.settings, customer_id=customer, start_date=start, **given)


def nothing_used_up(generator: Generator, schedule_id: str) -> None:
    row = get(generator.engine, schedule_id)
    assert (row.status, row.next_index, row.planned) == ("active", 0, 0)
    assert (rows(generator.engine, Occurrence), reported(generator)) == ([], [])
    assert [entry.action for entry in rows(generator.engine, AuditEntry)] == ["schedules.add"]


def after(network: Network, turn: int, does: Callable[[], object]) -> Callable[[int], None]:
    """What is done once the API was asked for the customer: by who asks, and by who makes the invoice."""

    def befall(_: int) -> None:
        if network.calls[-1].startswith("GET cus_") and len(network.calls) == turn:
            does()

    return befall


def test_the_next_invoice_is_made_at_once_and_dated_today(
    generator: Generator, books: HisabClient, customer: str
) -> None:
    schedule_id = weekly(generator, customer)

    row = generate_now(generator, schedule_id, actor=ACTOR)

    (invoice,) = made(books, customer)
    assert (row.status, row.invoice_id, row.due_on, row.issue_on) == ("generated", invoice["id"], SOON, NOW.date())
    assert row == only(generator.engine, Occurrence)
    assert (invoice["issue_date"], invoice["due_date"], invoice["status"]) == ("2026-06-05", "2026-06-20", "sent")
    (event,) = reported(generator)
    assert (event["type"], event["data"]["due_on"]) == ("recurring.generated", "2026-06-10")
    assert audit(generator.engine, generator.clock).holds


def test_or_on_the_day_that_is_asked_for(generator: Generator, books: HisabClient, customer: str) -> None:
    schedule_id = weekly(generator, customer)

    generate_now(generator, schedule_id, issue_date=date(2026, 6, 1), actor=ACTOR)

    (invoice,) = made(books, customer)
    assert (invoice["issue_date"], invoice["due_date"]) == ("2026-06-01", "2026-06-16")


def test_today_is_that_of_the_account(generator: Generator, books: HisabClient, customer: str) -> None:
    source = Source(provider="hisab", secrets=SECRET, api_key=KEY, timezone="Pacific/Kiritimati")  # 14 hours ahead
    there = generator.settings.model_copy(update={"sources": {"shop": source}})
    schedule_id = add(generator.engine, there, plan(customer_id=customer, start_date=SOON), actor=ACTOR, now=NOW)

    generate_now(generator, schedule_id, actor=ACTOR)

    assert made(books, customer)[0]["issue_date"] == "2026-06-06"


def test_its_due_date_is_not_due_any_more(
    generator: Generator, books: HisabClient, customer: str, clock: Clock
) -> None:
    schedule_id = weekly(generator, customer)

    generate_now(generator, schedule_id, actor=ACTOR)

    assert coming(generator.engine, generator.settings, schedule_id, 1) == [date(2026, 6, 17)]
    assert get(generator.engine, schedule_id).next_run_at == datetime(2026, 6, 17, tzinfo=UTC)
    clock.now = datetime(2026, 6, 17, 9, tzinfo=UTC)
    tick(generator.engine, now=clock())
    work_off(generator, "shop")
    assert became(generator.engine, schedule_id) == {"2026-06-10": "generated", "2026-06-17": "generated"}
    assert sorted(one["issue_date"] for one in made(books, customer)) == ["2026-06-05", "2026-06-17"]


def test_a_due_date_that_has_come_and_is_not_planned_yet_is_the_next(
    generator: Generator, books: HisabClient, customer: str
) -> None:
    schedule_id = weekly(generator, customer, NOW.date())

    assert generate_now(generator, schedule_id, actor=ACTOR).due_on == NOW.date()

    assert tick(generator.engine, now=NOW) == []
    assert len(made(books, customer)) == 1


def test_one_after_the_other_are_those_of_the_due_dates_in_turn(
    generator: Generator, books: HisabClient, customer: str
) -> None:
    schedule_id = weekly(generator, customer, max_occurrences=3)

    days = [generate_now(generator, schedule_id, actor=ACTOR).due_on for _ in range(3)]

    assert days == [date(2026, 6, 10), date(2026, 6, 17), date(2026, 6, 24)]
    assert get(generator.engine, schedule_id).status == "completed"
    assert len(told(generator.engine, "completed")) == 1
    with refused(INVALID_STATE, "completed"):
        generate_now(generator, schedule_id, actor=ACTOR)
    assert len(made(books, customer)) == 3


# Refused


def test_what_is_not_active_makes_none(generator: Generator, customer: str, network: Network) -> None:
    schedule_id = weekly(generator, customer)

    for status in ("paused", "completed", "cancelled"):
        change(generator.engine, Schedule, status=status, next_run_at=None)
        with refused(INVALID_STATE, status):
            generate_now(generator, schedule_id, actor=ACTOR)

    assert (rows(generator.engine, Occurrence), network.calls) == ([], [])


def test_what_is_paused_while_it_is_asked_for_makes_none(
    generator: Generator, books: HisabClient, customer: str, network: Network
) -> None:
    schedule_id = weekly(generator, customer)
    network.after = after(network, 1, lambda: pause(generator.engine, schedule_id, actor=ACTOR, now=NOW))

    with refused(INVALID_STATE, "paused"):
        generate_now(generator, schedule_id, actor=ACTOR)

    assert (rows(generator.engine, Occurrence), made(books, customer)) == ([], [])


@pytest.mark.parametrize("verb", [pause, cancel])
def test_what_is_ended_while_it_is_made_is_not_begun(
    generator: Generator, books: HisabClient, customer: str, network: Network, verb: Callable[..., object]
) -> None:
    schedule_id = weekly(generator, customer)
    network.after = after(network, 2, lambda: verb(generator.engine, schedule_id, actor=ACTOR, now=NOW))

    row = generate_now(generator, schedule_id, actor=ACTOR)

    assert row.status == ("held" if verb is pause else "skipped")
    assert made(books, customer) == []
    assert audit(generator.engine, generator.clock).holds


def test_while_another_one_is_under_way_none_is_made(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    occurrence = planned(generator, customer, frequency="weekly")
    schedule_id = only(generator.engine, Schedule).id

    with refused(INVALID_STATE, "2026-06-05 is under way"):
        generate_now(generator, schedule_id, actor=ACTOR)
    network.before = away
    generate(generator, [occurrence])
    network.heal()
    with refused(INVALID_STATE, "2026-06-05 is under way"):
        generate_now(generator, schedule_id, actor=ACTOR)
    clock.turn(DAY)
    work_off(generator, "shop")

    assert generate_now(generator, schedule_id, actor=ACTOR).due_on == date(2026, 6, 12)
    assert len(made(books, customer)) == 2


def test_for_a_customer_who_is_not_to_be_billed_none_is_made_and_no_due_date_used_up(
    generator: Generator, books: HisabClient, customer: str
) -> None:
    schedule_id = weekly(generator, customer)
    books.customers.update(customer, status="inactive")

    with refused(CUSTOMER_INACTIVE, "^the customer is inactive$"):
        generate_now(generator, schedule_id, actor=ACTOR)
    nothing_used_up(generator, schedule_id)

    books.customers.update(customer, status="active")
    assert generate_now(generator, schedule_id, actor=ACTOR).due_on == SOON
    assert len(made(books, customer)) == 1


def test_at_a_due_date_such_a_customer_is_a_failure(
    generator: Generator, books: HisabClient, customer: str, network: Network
) -> None:
    occurrence = planned(generator, customer)
    books.customers.update(customer, status="inactive")

    work_off(generator, "shop")

    row = only(generator.engine, Occurrence)
    assert (row.id, row.status, row.error_code, row.step) == (occurrence, "failed", CUSTOMER_INACTIVE, "planned")
    (event,) = reported(generator)
    assert (event["data"]["error"]["code"], event["data"]["invoice_id"]) == (CUSTOMER_INACTIVE, None)
    assert network.calls == [f"GET {customer}"]

    books.customers.update(customer, status="active")
    retry(generator.engine, row.schedule_id, actor=ACTOR, now=NOW)
    work_off(generator, "shop")
    assert len(made(books, customer)) == 1


@pytest.mark.parametrize("answer", ["away", "down", "unknown"])
def test_where_the_provider_cannot_say_of_its_customer_no_due_date_is_used_up(
    generator: Generator, customer: str, network: Network, answer: str
) -> None:
    schedule_id = weekly(generator, customer if answer != "unknown" else "cus_unknown")
    network.before = {"away": away, "down": lambda _: refusing("DOWN", 503)}.get(answer, lambda _: None)

    with pytest.raises(Exception, match=r"NO_ANSWER|DOWN|NOT_FOUND") as caught:
        generate_now(generator, schedule_id, actor=ACTOR)

    assert isinstance(caught.value, ProviderUnavailable) == (answer != "unknown")
    nothing_used_up(generator, schedule_id)


# Failures


def test_where_the_provider_goes_away_then_it_waits_and_is_tried_again(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    schedule_id = weekly(generator, customer)
    network.before = lambda number: away(number) if number > 1 else None

    row = generate_now(generator, schedule_id, actor=ACTOR)
    assert (row.status, row.attempts, row.error_code) == ("waiting", 1, "NO_ANSWER")
    assert row.ring_at == row.next_attempt_at > NOW

    network.heal()
    clock.turn(DAY)
    work_off(generator, "shop")
    (invoice,) = made(books, customer)
    # It bears the day that it was asked for on, not that of the answer.
    assert (invoice["issue_date"], invoice["status"]) == ("2026-06-05", "sent")
    assert became(generator.engine, schedule_id) == {"2026-06-10": "generated"}


def test_what_is_refused_has_failed_and_can_be_asked_for_again(
    generator: Generator, books: HisabClient, customer: str, network: Network
) -> None:
    schedule_id = weekly(generator, customer)
    network.before = at_call(network, "POST invoices", lambda _: refusing("NO"), turn=1)

    row = generate_now(generator, schedule_id, actor=ACTOR)
    assert (row.status, row.error_code) == ("failed", "NO")

    retry(generator.engine, schedule_id, actor=ACTOR, now=NOW)
    work_off(generator, "shop")
    assert [one["issue_date"] for one in made(books, customer)] == ["2026-06-05"]


# At once


def test_two_who_ask_at_once_never_get_one_due_date_twice(
    generator: Generator, books: HisabClient, customer: str
) -> None:
    schedule_id = weekly(generator, customer)
    barrier = threading.Barrier(3)

    def ask(own: Generator) -> str:
        barrier.wait(10)
        try:
            return str(generate_now(own, schedule_id, actor=ACTOR).due_on)
        except ScheduleError as error:
            return error.code

    with ExitStack() as stack, ThreadPoolExecutor(3) as threads:
        processes = [stack.enter_context(of_another_process(generator)) for _ in range(3)]
        outcomes = list(threads.map(ask, processes))

    days = [outcome for outcome in outcomes if outcome != INVALID_STATE]
    assert sorted(days) == [str(SOON + timedelta(weeks=week)) for week in range(len(days))]
    assert days
    assert became(generator.engine, schedule_id) == dict.fromkeys(days, "generated")
    assert len(made(books, customer)) == len(reported(generator)) == len(days)
    assert get(generator.engine, schedule_id).planned == len(days)


def test_one_who_asks_while_it_is_made_is_refused(
    generator: Generator, books: HisabClient, customer: str, network: Network
) -> None:
    schedule_id = weekly(generator, customer)
    asked: list[str] = []

    def meanwhile(_: int) -> None:
        if network.calls[-1] == "POST invoices":
            with refused(INVALID_STATE, "is under way"):
                generate_now(generator, schedule_id, actor=ACTOR)
            asked.append("refused")

    network.after = meanwhile
    generate_now(generator, schedule_id, actor=ACTOR)

    assert asked == ["refused"]
    assert len(made(books, customer)) == 1


# The audit log


def test_asking_is_in_the_audit_log(generator: Generator, customer: str) -> None:
    schedule_id = weekly(generator, customer)

    generate_now(generator, schedule_id, issue_date=date(2026, 6, 8), actor=ACTOR)

    entry = noted(generator.engine, "generate")
    assert (entry.actor, entry.at) == (ACTOR, NOW)
    assert entry.detail == {"schedule": schedule_id, "due_on": "2026-06-10", "issue_date": "2026-06-08"}
