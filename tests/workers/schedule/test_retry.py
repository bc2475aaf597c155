"""Asking again for what failed: one invoice, another event, and what was mended meanwhile."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pytest

from handlers.providers.hisab.client import HisabClient
from tests.workers.given import NOW, Clock, change, only, rows
from tests.workers.schedule.given import (
    ACTOR,
    DAY,
    Network,
    added,
    at_call,
    away,
    became,
    made,
    noted,
    planned,
    refused,
    refusing,
    reported,
    told,
)
from workers.audit import audit
from workers.models import Occurrence, Schedule
from workers.schedule.errors import INVALID_STATE, ScheduleError
from workers.schedule.generate import generate, work_off
from workers.schedule.generator import Generator
from workers.schedule.issuing import SETTLES_WITHIN
from workers.schedule.outcomes import RETRIES
from workers.schedule.tick import tick
from workers.schedule.verbs import cancel, pause, retry, update_schedule

LATER = NOW + timedelta(minutes=10)


CUSTOMER, CREATE, FINALIZE, SEND = "GET cus_", "POST invoices", "POST finalize", "POST send"


def failed(generator: Generator, network: Network, customer: str, call: str, **values: Any) -> str:
    """A schedule whose first invoice is refused at a call."""
    occurrence = planned(generator, customer, **values)
    network.before = at_call(network, call, lambda _: refusing("NOT_NOW"))
    generate(generator, [occurrence])
    network.heal()
    row = only(generator.engine, Occurrence)
    assert (row.status, row.error_code) == ("failed", "NOT_NOW")
    return str(row.schedule_id)


def asked_again(generator: Generator, schedule_id: str, *days: date) -> int:
    return retry(generator.engine, schedule_id, due_on=days or None, actor=ACTOR, now=LATER)


@pytest.mark.parametrize("call", [CUSTOMER, CREATE, FINALIZE, SEND])
def test_what_failed_becomes_one_invoice(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock, call: str
) -> None:
    schedule_id = failed(generator, network, customer, call)
    clock.now = LATER

    assert asked_again(generator, schedule_id) == 1
    row = only(generator.engine, Occurrence)
    assert (row.status, row.starts, row.attempts, row.retries, row.ended_at) == ("waiting", 0, 0, 1, None)
    work_off(generator, "shop")

    (invoice,) = made(books, customer)
    row = only(generator.engine, Occurrence)
    assert (invoice["status"], row.status, row.invoice_id) == ("sent", "generated", invoice["id"])
    assert (row.error, row.error_code, row.ended_at) == (None, None, LATER)
    assert row.invoice_number == invoice["invoice_number"]
    assert audit(generator.engine, clock).holds


def test_each_end_is_told_by_an_event_of_its_own(generator: Generator, customer: str, network: Network) -> None:
    schedule_id = failed(generator, network, customer, CUSTOMER)
    (occurrence,) = [row.id for row in rows(generator.engine, Occurrence)]
    for _ in range(2):
        asked_again(generator, schedule_id)
        network.before = lambda _: refusing("NOT_NOW")
        generator.clock.now = LATER  # type: ignore[attr-defined]
        work_off(generator, "shop")
    network.heal()
    change(generator.engine, Schedule, status="active", failures=0)
    asked_again(generator, schedule_id)
    work_off(generator, "shop")

    events = [*told(generator.engine, "failed"), *told(generator.engine, "generated")]
    assert sorted(event.delivery_id for event in events) == [
        occurrence, f"{occurrence}:1", f"{occurrence}:2", f"{occurrence}:3",
    ]  # fmt: skip
    assert only(generator.engine, Occurrence).event_id == told(generator.engine, "generated")[0].id
    assert {event.conflicts for event in events} == {0}


def test_what_was_mended_meanwhile_is_asked_for(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    schedule_id = failed(generator, network, customer, CREATE)
    mended = [{"description": "Support", "quantity": "1", "unit_price": "10.00", "tax_rate": "0"}]
    changes = {"items": mended, "auto_send": False, "days_until_due": 5}
    update_schedule(generator.engine, generator.settings, schedule_id, changes, actor=ACTOR, now=LATER)
    clock.now = LATER

    asked_again(generator, schedule_id)
    work_off(generator, "shop")

    (invoice,) = made(books, customer)
    assert (invoice["total"], invoice["status"], invoice["due_date"]) == ("10.00", "finalized", "2026-06-10")
    assert (invoice["issue_date"], invoice["items"][0]["description"]) == ("2026-06-05", "Support")


def test_what_was_made_before_it_failed_is_gone_on_with(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    schedule_id = failed(generator, network, customer, FINALIZE)
    (before,) = made(books, customer)
    mended = [{"description": "Support", "quantity": "1", "unit_price": "10.00"}]
    update_schedule(generator.engine, generator.settings, schedule_id, {"items": mended}, actor=ACTOR, now=LATER)
    clock.now = LATER

    asked_again(generator, schedule_id)
    work_off(generator, "shop")

    (invoice,) = made(books, customer)
    assert (invoice["id"], invoice["status"], invoice["total"]) == (before["id"], "sent", before["total"])


def test_an_invoice_that_nobody_heard_of_is_found(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    def lose(_: int) -> None:
        if network.calls[-1] == "POST invoices":
            away(0)

    occurrence = planned(generator, customer)
    network.after = lose
    generate(generator, [occurrence])
    network.before = away
    for _ in range(RETRIES):
        clock.turn(DAY)
        generate(generator, [occurrence])
    network.heal()
    row = only(generator.engine, Occurrence)
    assert (row.status, row.invoice_id, row.step) == ("failed", None, "intended")
    clock.turn(SETTLES_WITHIN)

    retry(generator.engine, row.schedule_id, actor=ACTOR, now=clock())
    work_off(generator, "shop")

    assert [one["status"] for one in made(books, customer)] == ["sent"]


def test_only_what_was_due_on_a_date_is_asked_for_again(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    network.before = lambda _: refusing("NO", 404)
    planned(generator, customer, frequency="weekly")
    schedule_id = only(generator.engine, Schedule).id
    clock.now = datetime(2026, 6, 12, 9, tzinfo=UTC)
    tick(generator.engine, now=clock())
    work_off(generator, "shop")
    network.heal()
    assert became(generator.engine, schedule_id) == {"2026-06-05": "failed", "2026-06-12": "failed"}

    with refused(INVALID_STATE, "has failed on such a date"):
        asked_again(generator, schedule_id, date(2026, 6, 6))
    assert asked_again(generator, schedule_id, date(2026, 6, 12), date(2026, 6, 13)) == 1
    work_off(generator, "shop")

    assert became(generator.engine, schedule_id) == {"2026-06-05": "failed", "2026-06-12": "generated"}
    assert asked_again(generator, schedule_id) == 1
    work_off(generator, "shop")
    assert sorted(one["issue_date"] for one in made(books, customer)) == ["2026-06-05", "2026-06-12"]


def test_where_nothing_failed_nothing_is_asked_for_again(generator: Generator, customer: str) -> None:
    schedule_id = added(generator.engine, generator.settings, customer_id=customer)
    tick(generator.engine, now=NOW)
    for _ in range(2):
        with refused(INVALID_STATE, "no occurrence of it has failed"):
            asked_again(generator, schedule_id)
        work_off(generator, "shop")

    assert only(generator.engine, Occurrence).retries == 0


@pytest.mark.parametrize("verb", [pause, cancel])
def test_nor_of_a_schedule_that_makes_no_invoices(
    generator: Generator, customer: str, network: Network, verb: Any
) -> None:
    schedule_id = failed(generator, network, customer, CUSTOMER)
    verb(generator.engine, schedule_id, actor=ACTOR, now=LATER)

    with refused(INVALID_STATE, "tried again"):
        asked_again(generator, schedule_id)

    assert only(generator.engine, Occurrence).status == "failed"


def test_of_a_completed_schedule_it_is_and_its_end_is_not_told_again(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    schedule_id = failed(generator, network, customer, CUSTOMER, max_occurrences=1)
    (completed,) = told(generator.engine, "completed")
    clock.now = LATER

    asked_again(generator, schedule_id)
    work_off(generator, "shop")

    assert len(made(books, customer)) == 1
    assert only(generator.engine, Schedule).status == "completed"
    # It is no conflict either, of which somebody would be warned.
    assert told(generator.engine, "completed") == [completed]
    assert [event["type"] for event in reported(generator)].count("recurring.generated") == 1


def test_what_is_asked_for_again_comes_before_what_is_due_later(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    schedule_id = failed(generator, network, customer, CUSTOMER, frequency="weekly")
    clock.now = datetime(2026, 6, 12, 9, tzinfo=UTC)
    tick(generator.engine, now=clock())
    retry(generator.engine, schedule_id, actor=ACTOR, now=clock())
    network.before = lambda _: refusing("DOWN", 503)

    work_off(generator, "shop")
    assert became(generator.engine, schedule_id) == {"2026-06-05": "waiting", "2026-06-12": "waiting"}
    assert made(books, customer) == []

    network.heal()
    clock.turn(DAY)
    work_off(generator, "shop")
    assert became(generator.engine, schedule_id) == {"2026-06-05": "generated", "2026-06-12": "generated"}
    assert len(made(books, customer)) == 2


def test_an_end_that_comes_after_it_does_not_call_it_off(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    schedule_id = failed(generator, network, customer, CUSTOMER, frequency="weekly")
    clock.now = datetime(2026, 6, 12, 9, tzinfo=UTC)
    tick(generator.engine, now=clock())
    work_off(generator, "shop")
    retry(generator.engine, schedule_id, actor=ACTOR, now=clock())

    # One there may be, and the first is that one.
    changes = {"max_occurrences": 1}
    update_schedule(generator.engine, generator.settings, schedule_id, changes, actor=ACTOR, now=clock())
    work_off(generator, "shop")

    assert became(generator.engine, schedule_id) == {"2026-06-05": "generated", "2026-06-12": "generated"}


# Not failed yet


def test_what_waits_for_its_provider_is_taken_up_at_once(
    generator: Generator, books: HisabClient, customer: str, network: Network
) -> None:
    occurrence = planned(generator, customer)
    network.before = away
    generate(generator, [occurrence])
    network.heal()
    schedule_id = only(generator.engine, Schedule).id
    with refused(INVALID_STATE, "on such a date"):
        retry(generator.engine, schedule_id, due_on=[date(2026, 6, 6)], actor=ACTOR, now=NOW)

    assert retry(generator.engine, schedule_id, actor=ACTOR, now=NOW) == 1
    work_off(generator, "shop")

    assert only(generator.engine, Occurrence).status == "generated"
    assert only(generator.engine, Occurrence).retries == 0
    assert [event.delivery_id for event in told(generator.engine, "generated")] == [occurrence]
    assert len(made(books, customer)) == 1


def late(books: HisabClient, customer: str, occurrence: str) -> None:
    """What the provider was asked for, and had not made when it was looked for, it makes after all."""
    books.invoices.create(
        customer_id=customer,
        issue_date="2026-06-05",
        items=[{"description": "Hosting", "quantity": 1, "unit_price": 1}],
        internal_notes=f"billhook:{occurrence}",
    )


@pytest.mark.parametrize("tried", [0, RETRIES], ids=["postponed", "failed"])
def test_a_creation_whose_end_was_not_heard_is_given_its_time(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock, tried: int
) -> None:
    occurrence = planned(generator, customer)
    change(generator.engine, Occurrence, attempts=tried)
    network.before = at_call(network, CREATE, lambda _: httpx.Response(504))
    generate(generator, [occurrence])
    network.heal()
    row = only(generator.engine, Occurrence)
    assert (row.status, row.step) == ("failed" if tried else "waiting", "intended")
    clock.turn(10)

    with suppress(ScheduleError):
        retry(generator.engine, row.schedule_id, actor=ACTOR, now=clock())
    work_off(generator, "shop")
    late(books, customer, occurrence)
    clock.turn(SETTLES_WITHIN)
    work_off(generator, "shop")

    assert [one["status"] for one in made(books, customer)] == ["sent"]
    assert only(generator.engine, Occurrence).status == "generated"


def test_a_capture_whose_end_was_not_heard_is_given_its_time(generator: Generator, customer: str) -> None:
    planned(generator, customer)
    # The answer to the capture was lost a moment ago.
    until = NOW + timedelta(seconds=SETTLES_WITHIN)
    begun = {"step": "capturing", "attempts": 1, "intended_at": NOW, "invoice_id": "1"}
    change(generator.engine, Occurrence, **begun, next_attempt_at=until, ring_at=until)

    with suppress(ScheduleError):
        retry(generator.engine, only(generator.engine, Schedule).id, actor=ACTOR, now=NOW)

    assert only(generator.engine, Occurrence).next_attempt_at == until


def test_asking_again_is_in_the_audit_log(generator: Generator, customer: str, network: Network) -> None:
    schedule_id = failed(generator, network, customer, CREATE)

    asked_again(generator, schedule_id)

    entry = noted(generator.engine, "retry")
    assert (entry.actor, entry.at) == (ACTOR, LATER)
    assert entry.detail == {"schedule": schedule_id, "occurrences": 1}
