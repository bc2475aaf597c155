"""Generation against the sandbox on a real socket, with a network in between that a test can break."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import httpx
import orjson
import pytest
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from handlers.providers.hisab.client import HisabClient
from tests.acceptance.watchers import Collector
from tests.workers.given import NOW, Clock, change, only, rows, rung
from tests.workers.schedule.given import (
    DAY,
    KEY,
    Died,
    Network,
    OneClient,
    added,
    dies_before,
    live,
    made,
    plan,
    planned,
    reported,
    several,
)
from workers import database, inbox, leases, tracing
from workers.app import GENERATE, PROCESS, Runtime
from workers.clients import Clients
from workers.models import EventRow, Occurrence, Schedule
from workers.schedule import generate as generating
from workers.schedule.generate import generate
from workers.schedule.generator import LEASE, Generator
from workers.schedule.issuing import SETTLES_WITHIN
from workers.schedule.outcomes import FIRST_WAIT, RETRIES
from workers.schedule.schedules import add
from workers.schedule.tick import tick

# One invoice


def test_an_occurrence_is_a_trace_that_the_event_on_it_belongs_to(
    generator: Generator, customer: str, network: Network, traced: Collector
) -> None:
    occurrence = planned(generator, customer)

    (event_id,) = generate(generator, [occurrence])
    tracing.stop()

    (span,) = [span for span in traced.spans if span.parent == ""]
    assert (span.name, span.failed, span.attributes["billhook.occurrence.id"]) == ("generate shop", False, occurrence)
    assert {(call.kind, call.parent, call.trace_id) for call in traced.spans if call is not span} >= {
        ("CLIENT", span.id, span.trace_id)
    }
    event = only(generator.engine, EventRow)
    assert (event.id, event.traceparent.split("-")[1:3]) == (event_id, [span.trace_id, span.id])


def test_an_occurrence_that_is_refused_says_so_in_its_trace(generator: Generator, traced: Collector) -> None:
    generate(generator, [planned(generator, "cus_unknown")])
    tracing.stop()

    (span,) = [span for span in traced.spans if span.parent == ""]
    assert (span.failed, span.attributes["error.type"]) == (True, only(generator.engine, Occurrence).error_code)


def test_an_occurrence_becomes_a_draft_with_what_the_schedule_says(
    generator: Generator, books: HisabClient, customer: str, network: Network
) -> None:
    occurrence = planned(generator, customer, auto_finalize=False, auto_send=False, currency="EUR")

    (event_id,) = generate(generator, [occurrence])

    (invoice,) = made(books, customer)
    assert (invoice["status"], invoice["issue_date"], invoice["due_date"]) == ("draft", "2026-06-05", "2026-06-20")
    assert (invoice["currency"], invoice["total"], invoice["internal_notes"]) == (
        "EUR",
        "360.36",
        f"billhook:{occurrence}",
    )
    (item,) = invoice["items"]
    assert (item["description"], item["quantity"], item["unit_price"]) == ("Hosting", "3", "100.10")
    row = only(generator.engine, Occurrence)
    assert (row.status, row.invoice_id, row.attempts, row.ring_at, row.error) == (
        "generated",
        invoice["id"],
        1,
        None,
        None,
    )
    assert row.ended_at == NOW
    assert only(generator.engine, EventRow).id == event_id
    assert network.calls == [f"GET {customer}", "POST invoices"]


def test_an_invoice_is_finalized_and_sent_where_the_schedule_says_so(
    generator: Generator, books: HisabClient, customer: str
) -> None:
    finalized = planned(generator, customer, auto_send=False)
    sent = planned(generator, customer)

    generate(generator, [finalized, sent])

    statuses = {invoice["internal_notes"]: invoice["status"] for invoice in made(books, customer)}
    assert statuses == {f"billhook:{finalized}": "finalized", f"billhook:{sent}": "sent"}


def test_the_result_is_an_event_in_the_inbox(generator: Generator, books: HisabClient, customer: str) -> None:
    occurrence = planned(generator, customer)

    generate(generator, [occurrence])

    row, (invoice,) = only(generator.engine, EventRow), made(books, customer)
    assert (row.type, row.source, row.provider, row.status) == ("recurring.generated", "shop", "billhook", "waiting")
    assert (row.delivery_id, row.event_key, row.object_kind) == (occurrence, occurrence, "schedule")
    assert (row.received_at, row.ring_at) == (NOW, NOW + inbox.RING_AFTER)
    assert orjson.loads(row.body)["data"] == {
        "schedule_id": row.object_id,
        "name": "",
        "customer_id": customer,
        "occurrence_id": occurrence,
        "due_on": "2026-06-05",
        "invoice": {
            "id": invoice["id"],
            "number": invoice["invoice_number"],
            "status": "sent",
            "total": "360.36",
            "currency": "MAD",
        },
    }


def test_what_was_generated_is_not_generated_again(generator: Generator, books: HisabClient, customer: str) -> None:
    occurrence = planned(generator, customer)
    generate(generator, [occurrence])
    generator.clock.turn(DAY)  # type: ignore[attr-defined]

    assert generate(generator, [occurrence, "occ_unknown"]) == []

    assert len(made(books, customer)) == len(reported(generator)) == 1


def test_an_invoice_that_is_late_bears_the_date_it_was_due(
    generator: Generator, books: HisabClient, customer: str, clock: Clock
) -> None:
    occurrence = planned(generator, customer)
    clock.turn(40 * DAY)

    generate(generator, [occurrence])

    assert made(books, customer)[0]["issue_date"] == "2026-06-05"


def test_the_same_customer_on_the_same_day_may_have_two_schedules(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    one, two = several(generator, customer, 2)
    generate(generator, [one])
    network.after = dies_before(network, 2)
    with pytest.raises(Died):
        generate(generator, [two])
    network.heal()
    clock.turn(LEASE.total_seconds())

    generate(generator, [two])

    markers = [invoice["internal_notes"] for invoice in made(books, customer)]
    assert sorted(markers) == [f"billhook:{one}", f"billhook:{two}"]


# Exactly one invoice


DEATHS = [(when, call) for call in (1, 2, 3, 4) for when in ("before", "after")]


@pytest.mark.parametrize("death", DEATHS, ids=[f"{when} call {call}" for when, call in DEATHS])
def test_a_death_at_any_call_leaves_exactly_one_invoice(
    generator: Generator, books: HisabClient, customer: str, network: Network, death: tuple[str, int]
) -> None:
    occurrence = planned(generator, customer)

    live(generator, network, occurrence, death)
    row = only(generator.engine, Occurrence)
    assert (row.status, row.attempts, reported(generator)) == ("running", 0, [])
    live(generator, network, occurrence, None)

    (invoice,) = made(books, customer)
    assert invoice["status"] == "sent"
    row = only(generator.engine, Occurrence)
    assert (row.status, row.invoice_id, row.starts, row.attempts) == ("generated", invoice["id"], 2, 1)
    (event,) = reported(generator)
    assert event["data"]["invoice"]["id"] == invoice["id"]


def test_two_deaths_at_any_calls_leave_exactly_one_invoice(
    generator: Generator, books: HisabClient, customer: str, network: Network
) -> None:
    firsts = [("before", 2), ("after", 2), ("after", 3)]
    seconds = [(when, call) for call in (1, 2, 3, 4) for when in ("before", "after")]
    lives = list(itertools.product(firsts, seconds))
    occurrences = several(generator, customer, len(lives))

    for occurrence, deaths in zip(occurrences, lives, strict=True):
        for death in (*deaths, None):
            live(generator, network, occurrence, death)

    markers = sorted(invoice["internal_notes"] for invoice in made(books, customer))
    assert markers == [f"billhook:{occurrence}" for occurrence in occurrences]
    assert {invoice["status"] for invoice in made(books, customer)} == {"sent"}
    assert {row.status for row in rows(generator.engine, Occurrence)} == {"generated"}
    assert len(reported(generator)) == len(lives)


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_an_answer_that_is_lost_on_its_way_leaves_exactly_one_invoice(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock, call: int
) -> None:
    def lose(number: int) -> None:
        if number == call:
            raise httpx.ReadTimeout("no answer")

    occurrence = planned(generator, customer)
    network.after = lose

    assert generate(generator, [occurrence]) == []
    row = only(generator.engine, Occurrence)
    assert (row.status, row.attempts) == ("waiting", 1)
    clock.now = row.next_attempt_at
    generate(generator, [occurrence])

    (invoice,) = made(books, customer)
    assert invoice["status"] == "sent"
    assert len(reported(generator)) == 1


def test_a_create_that_never_reached_the_provider_is_made_up_for(
    generator: Generator, books: HisabClient, customer: str, network: Network
) -> None:
    occurrence = planned(generator, customer)
    live(generator, network, occurrence, ("before", 2))
    assert (only(generator.engine, Occurrence).step, made(books, customer)) == ("intended", [])

    live(generator, network, occurrence, None)

    first, *others = network.calls
    assert first == f"GET {customer}"
    assert others == ["POST invoices", "GET invoices", "POST invoices", "POST finalize", "POST send"]
    assert len(made(books, customer)) == 1


def test_what_a_person_did_to_the_invoice_meanwhile_is_respected(
    generator: Generator, books: HisabClient, customer: str, network: Network
) -> None:
    occurrence = planned(generator, customer)
    live(generator, network, occurrence, ("after", 3))
    (invoice,) = made(books, customer)
    books.invoices.pay(invoice["id"])

    live(generator, network, occurrence, None)

    assert [one["status"] for one in made(books, customer)] == ["paid"]
    assert reported(generator)[0]["data"]["invoice"]["status"] == "paid"


# Leases


@pytest.mark.parametrize(("when", "call"), [("after", 2), ("before", 3), ("after", 3), ("before", 4), ("after", 4)])
def test_who_lost_the_lease_writes_nothing_and_makes_nothing_more(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock, when: str, call: int
) -> None:
    occurrence = planned(generator, customer)

    def overtake(number: int) -> None:
        if number == call:
            # It hangs beyond its lease, and another process takes the occurrence and ends it.
            clock.turn(LEASE.total_seconds())
            network.heal()
            with ThreadPoolExecutor(1) as other:
                assert len(other.submit(generate, generator, [occurrence]).result()) == 1

    setattr(network, when, overtake)
    with capture_logs():
        assert generate(generator, [occurrence]) == []

    (invoice,) = made(books, customer)
    assert invoice["status"] == "sent"
    row = only(generator.engine, Occurrence)
    assert (row.status, row.attempts, row.starts, row.error) == ("generated", 1, 2, None)
    assert [event["type"] for event in reported(generator)] == ["recurring.generated"]


def test_a_create_is_within_a_lease_however_long_the_search_before_it_took(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    occurrence = planned(generator, customer)
    live(generator, network, occurrence, ("before", 2))
    calls = len(network.calls)

    def slow(number: int) -> None:
        if number == calls + 1:  # the search for the marker
            clock.turn(LEASE.total_seconds() - 5)
        if number == calls + 2:  # the create, within what one call may take
            clock.turn(10)
            network.heal()
            with ThreadPoolExecutor(1) as other:
                other.submit(generate, generator, [occurrence]).result()

    network.before = slow
    generate(generator, [occurrence])

    assert len(made(books, customer)) == 1


def test_processes_that_get_the_same_occurrences_make_each_invoice_once(
    generator: Generator, books: HisabClient, customer: str, api_url: str
) -> None:
    occurrences = several(generator, customer, 8)

    def work(turn: int) -> list[str]:
        with HisabClient(api_key=KEY, api_url=api_url) as client:
            own = replace(generator, clients=OneClient(generator.settings, client))
            return generate(own, occurrences[turn:] + occurrences[:turn])

    with ThreadPoolExecutor(3) as threads:
        events = [event for found in threads.map(work, (0, 3, 6)) for event in found]

    markers = sorted(invoice["internal_notes"] for invoice in made(books, customer))
    assert markers == [f"billhook:{occurrence}" for occurrence in occurrences]
    assert sorted(events) == [row.id for row in rows(generator.engine, EventRow)]
    assert len(events) == 8


def test_an_occurrence_that_kills_its_process_each_time_is_given_up_and_reported(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    occurrence = planned(generator, customer)
    for _ in range(generator.settings.max_starts):
        with database.write(generator.engine) as connection:
            assert leases.claim(connection, Occurrence, [occurrence], now=clock(), lease=LEASE)
        clock.turn(LEASE.total_seconds())

    generate(generator, [occurrence])

    assert network.calls == []
    assert made(books, customer) == []
    assert only(generator.engine, Occurrence).status == "failed"
    assert [event["type"] for event in reported(generator)] == ["recurring.failed"]


# Failures


def refused(status: int, code: str, message: str = "No", **headers: str) -> httpx.Response:
    return httpx.Response(
        status,
        content=json.dumps({"success": False, "error": {"code": code, "message": message}}),
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def no_connection(_: int) -> None:
    raise httpx.ConnectError("refused")


def test_while_the_provider_is_away_an_occurrence_waits_longer_each_time(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    occurrence = planned(generator, customer)
    network.before = no_connection
    waits = []
    for attempt in (1, 2, 3, 4):
        assert generate(generator, [occurrence]) == []
        row = only(generator.engine, Occurrence)
        assert (row.status, row.attempts, row.ring_at) == ("waiting", attempt, row.next_attempt_at)
        assert "NO_ANSWER" in row.error
        waits.append((row.next_attempt_at - clock.now).total_seconds())
        clock.now = row.next_attempt_at - timedelta(milliseconds=1)
        assert generate(generator, [occurrence]) == []
        clock.now = row.next_attempt_at
    assert waits == [FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT, 8 * FIRST_WAIT]

    network.heal()
    generate(generator, [occurrence])

    assert len(made(books, customer)) == 1
    assert (only(generator.engine, Occurrence).status, only(generator.engine, Occurrence).error) == ("generated", None)


def test_an_occurrence_whose_provider_stays_away_fails_in_the_end_and_is_reported(
    generator: Generator, customer: str, network: Network, clock: Clock
) -> None:
    occurrence = planned(generator, customer)
    network.before = no_connection

    for _ in range(RETRIES + 1):
        assert reported(generator) == []
        generate(generator, [occurrence])
        clock.turn(DAY)

    row = only(generator.engine, Occurrence)
    assert (row.status, row.attempts, row.ring_at) == ("failed", RETRIES + 1, None)
    (event,) = reported(generator)
    assert (event["type"], event["data"]["error"]["code"]) == ("recurring.failed", "NO_ANSWER")


@pytest.mark.parametrize(("asked", "waited"), [("0", FIRST_WAIT), ("600", 600.0), ("999999999", DAY)])
def test_retry_after_is_a_floor_of_at_most_a_day(
    generator: Generator, customer: str, network: Network, asked: str, waited: float
) -> None:
    occurrence = planned(generator, customer)
    network.before = lambda _: refused(429, "RATE_LIMIT_EXCEEDED", Retry_After=asked)

    generate(generator, [occurrence])

    assert only(generator.engine, Occurrence).next_attempt_at == NOW + timedelta(seconds=waited)


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_may_be_replaced_and_costs_no_invoice(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock, status: int
) -> None:
    occurrence = planned(generator, customer)
    network.before = lambda _: refused(status, "UNAUTHORIZED")

    generate(generator, [occurrence])
    network.heal()
    clock.turn(DAY)
    generate(generator, [occurrence])

    assert len(made(books, customer)) == 1


def test_a_source_without_a_key_may_get_one_and_costs_no_invoice(
    generator: Generator, books: HisabClient, customer: str, clock: Clock
) -> None:
    occurrence = planned(generator, customer)
    keyless = generator.settings.model_copy(update={"sources": {}})

    generate(replace(generator, settings=keyless, clients=Clients(keyless)), [occurrence])

    assert only(generator.engine, Occurrence).status == "waiting"
    clock.turn(DAY)
    generate(generator, [occurrence])
    assert len(made(books, customer)) == 1


def test_a_refusal_is_final_and_reported(generator: Generator) -> None:
    occurrence = planned(generator, "cus_unknown")

    (event_id,) = generate(generator, [occurrence])

    row = only(generator.engine, Occurrence)
    assert (row.status, row.ring_at, row.invoice_id) == ("failed", None, None)
    assert (row.error_code, row.error.partition(":")[0]) == ("NOT_FOUND", "NOT_FOUND")
    (event,) = reported(generator)
    assert only(generator.engine, EventRow).id == event_id
    assert event["type"] == "recurring.failed"
    assert event["data"]["occurrence_id"] == occurrence
    assert event["data"]["error"]["code"] == "NOT_FOUND"
    assert "cus_unknown" in event["data"]["error"]["message"]


def test_a_refusal_after_the_invoice_was_made_says_which_invoice_is_left(
    generator: Generator, books: HisabClient, customer: str, network: Network
) -> None:
    occurrence = planned(generator, customer)
    network.before = lambda number: refused(409, "QUOTA_EXCEEDED") if number == 3 else None

    generate(generator, [occurrence])

    (invoice,) = made(books, customer)
    row = only(generator.engine, Occurrence)
    assert (row.status, row.invoice_id, invoice["status"]) == ("failed", invoice["id"], "draft")
    assert invoice["id"] in str(reported(generator)[0]["data"])


def test_a_message_with_a_zero_byte_can_be_stored(generator: Generator, customer: str, network: Network) -> None:
    final, later = several(generator, customer, 2)
    network.before = lambda number: refused(422 if number == 1 else 503, "ODD", "zero: \x00")

    generate(generator, [final])
    generate(generator, [later])

    found = {row.id: (row.status, row.error) for row in rows(generator.engine, Occurrence)}
    assert (found[final][0], found[later][0]) == ("failed", "waiting")
    assert "ODD" in str(found[final][1])


@pytest.mark.parametrize(
    "answer", [b"<html>", b'{"success": true}', b'{"success": true, "data": {}}', b'{"success": true, "data": []}']
)
def test_an_answer_out_of_shape_is_tried_again_and_keeps_no_other_waiting(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock, answer: bytes
) -> None:
    odd, good = several(generator, customer, 2)
    network.before = lambda number: httpx.Response(200, content=answer) if number == 2 else None

    assert len(generate(generator, [odd, good])) == 1

    found = {row.id: row.status for row in rows(generator.engine, Occurrence)}
    assert found == {odd: "waiting", good: "generated"}
    clock.turn(DAY)
    generate(generator, [odd])
    assert len(made(books, customer)) == 2


def test_a_fault_of_ours_keeps_no_other_waiting(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    def fault(number: int) -> None:
        if number == 1:
            raise ZeroDivisionError

    odd, good = several(generator, customer, 2)
    network.before = fault

    with capture_logs() as lines:
        generate(generator, [odd, good])

    found = {row.id: row.status for row in rows(generator.engine, Occurrence)}
    assert found == {odd: "waiting", good: "generated"}
    assert any(line.get("exc_info") and line["occurrence_id"] == odd for line in lines)
    clock.turn(DAY)
    generate(generator, [odd])
    assert len(made(books, customer)) == 2


def test_the_outcome_and_the_event_that_reports_it_commit_together(
    generator: Generator, books: HisabClient, customer: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    occurrence = planned(generator, customer)

    def full(*_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("disk full"))

    with monkeypatch.context() as patch:
        patch.setattr(inbox, "store", full)
        with pytest.raises(OperationalError):
            generate(generator, [occurrence])
    assert (only(generator.engine, Occurrence).status, reported(generator)) == ("running", [])

    clock.turn(LEASE.total_seconds())
    generate(generator, [occurrence])

    assert len(made(books, customer)) == len(reported(generator)) == 1


# The sweep and the tasks


def test_the_sweep_rings_for_an_occurrence_whose_process_died(
    runtime: Runtime, generator: Generator, customer: str, network: Network, clock: Clock
) -> None:
    occurrence = planned(generator, customer)
    network.before = dies_before(network, 1)
    with pytest.raises(Died):
        generate(generator, [occurrence])

    clock.turn(LEASE.total_seconds() - 1)
    assert generating.sweep(generator) == 0
    clock.turn(1)
    assert generating.sweep(generator) == 1
    assert rung(runtime, "schedules") == [(GENERATE, ["shop"])]
    network.heal()
    assert len(generating.work_off(generator, "shop").events) == 1
    assert only(runtime.engine, Occurrence).id == occurrence


@pytest.fixture
def _own_generator() -> Iterator[None]:
    generating._generator.cache_clear()
    yield
    generating._generator.cache_clear()


@pytest.mark.usefixtures("_own_generator")
def test_the_tasks_plan_generate_and_ring_for_the_event(
    runtime: Runtime, generator: Generator, books: HisabClient, customer: str
) -> None:
    today = leases.utcnow().date()
    weekly = plan(customer_id=customer, frequency="weekly", start_date=today)
    add(runtime.engine, runtime.settings, weekly, actor="tester", now=leases.utcnow())

    generating.sweep_task()
    ((task, sources),) = rung(runtime, "schedules")
    generating.generate_task(sources)

    assert task == GENERATE
    assert rung(runtime, "events") == [(PROCESS, [only(runtime.engine, EventRow).id])]
    assert len(made(books, customer)) == 1
    with generating._generator().clients.get("shop"):
        pass


def test_a_creation_whose_end_was_not_heard_is_given_time_to_take_place(
    generator: Generator, books: HisabClient, customer: str, network: Network, clock: Clock
) -> None:
    """The gateway gives up; the provider behind it makes the invoice a little later."""
    occurrence = planned(generator, customer)
    network.before = lambda number: httpx.Response(504) if number == 2 else None
    generate(generator, [occurrence])
    network.heal()
    clock.turn(2 * FIRST_WAIT)
    generate(generator, [occurrence])
    books.invoices.create(
        customer_id=customer,
        issue_date="2026-06-05",
        items=[{"description": "Hosting", "quantity": 1, "unit_price": 1}],
        internal_notes=f"billhook:{occurrence}",
    )
    clock.turn(SETTLES_WITHIN)

    generate(generator, [occurrence])

    assert len(made(books, customer)) == 1


def test_a_schedule_that_is_not_active_is_not_due(generator: Generator, customer: str) -> None:
    added(generator.engine, generator.settings, customer_id=customer)
    change(generator.engine, Schedule, status="paused")

    assert tick(generator.engine, now=NOW) == []
