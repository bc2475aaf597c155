"""What providers sent goes on as it came: once, with its planning, and at no cost where nobody forwards."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from handlers import Context, Event
from handlers.registry import Registry
from tests.workers.given import (
    NOW,
    Clock,
    another_process,
    change,
    endpoint,
    killed,
    only,
    process_elsewhere,
    received,
    rows,
    statements,
)
from tests.workers.test_reconciled import arrival, reconciled
from tests.workers.test_reconciled import change as found_change
from workers import database, inbox, leases, planning
from workers.app import Runtime
from workers.audit import audit
from workers.delivery import endpoints
from workers.delivery.forwarding import _content_type
from workers.dispatch import Dispatcher, process
from workers.inbox import internal
from workers.models import Delivery, Endpoint, EventRow, HandlerRun, Message
from workers.replay import Wish, replay
from workers.selection import Selection


def nothing(event: Event, ctx: Context) -> None:
    pass


@pytest.fixture
def forwards(runtime: Runtime) -> str:
    """An endpoint that gets all that providers send."""
    return endpoint(runtime, forward=True)


def test_an_event_is_forwarded_byte_for_byte_under_the_type_it_came_as(
    runtime: Runtime, dispatcher: Dispatcher, forwards: str
) -> None:
    event_id = received(runtime.engine)
    change(runtime.engine, EventRow, headers=json.dumps({"content-type": "application/json; charset=utf-8"}))

    deliveries = process(dispatcher, [event_id])

    event, message = only(runtime.engine, EventRow), only(runtime.engine, Message)
    delivery = only(runtime.engine, Delivery)
    assert message.body == event.body
    assert (message.type, message.source, message.event_id) == ("invoice.paid", "shop", event_id)
    assert (message.forwarded, message.content_type) == (True, "application/json; charset=utf-8")
    assert (delivery.endpoint_id, delivery.status, delivery.ring_at) == (forwards, "waiting", NOW)
    assert deliveries == [delivery.id]
    assert event.status == "ignored"
    assert audit(runtime.engine).holds


@pytest.mark.usefixtures("forwards")
def test_it_needs_no_handler_and_stands_beside_what_handlers_emit(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry
) -> None:
    @registry.on("invoice.paid", name="receipts")
    def _(event: Event, ctx: Context) -> None:
        ctx.emit("receipt.issued", {"n": 1})

    deliveries = process(dispatcher, [received(runtime.engine), received(runtime.engine, "customer.created")])

    messages = sorted((message.type, message.forwarded) for message in rows(runtime.engine, Message))
    assert messages == [("customer.created", True), ("invoice.paid", True), ("receipt.issued", False)]
    assert {message.source for message in rows(runtime.engine, Message)} == {"shop"}
    assert len(rows(runtime.engine, Delivery)) == 3
    assert 0 < len(set(deliveries)) <= 3
    assert audit(runtime.engine).holds


def test_only_what_somebody_wants_is_stored(runtime: Runtime, dispatcher: Dispatcher) -> None:
    endpoint(runtime)
    by_type = endpoint(runtime, "invoice.*", forward=True)
    by_source = endpoint(runtime, forward=True, sources=("shop",))
    off = endpoint(runtime, forward=True)
    with database.write(runtime.engine) as connection:
        endpoints.disable(connection, off, "gone")
    paid, created, elsewhere = (
        received(runtime.engine),
        received(runtime.engine, "customer.created"),
        received(runtime.engine, "customer.deleted", source="mill"),
    )

    process(dispatcher, [paid, created, elsewhere])

    of = {message.id: message.event_id for message in rows(runtime.engine, Message)}
    pairs = {(of[delivery.message_id], delivery.endpoint_id) for delivery in rows(runtime.engine, Delivery)}
    assert pairs == {(paid, by_type), (paid, by_source), (created, by_source)}
    assert set(of.values()) == {paid, created}


def test_where_nobody_forwards_a_batch_costs_one_short_statement(runtime: Runtime, dispatcher: Dispatcher) -> None:
    endpoint(runtime)
    events = [received(runtime.engine) for _ in range(50)]

    with statements(runtime.engine) as asked:
        process(dispatcher, events)

    assert len([one for one in asked if "endpoints" in one]) == 1
    assert rows(runtime.engine, Message) == []


@pytest.mark.usefixtures("forwards")
def test_many_events_are_forwarded_in_few_statements(runtime: Runtime, dispatcher: Dispatcher) -> None:
    events = [received(runtime.engine) for _ in range(50)]
    with database.write(runtime.engine) as connection, statements(runtime.engine) as asked:
        plan = planning.plan(dispatcher, connection, events)

    assert len(plan.deliveries) == 1  # of one endpoint
    assert len(rows(runtime.engine, Message)) == len(rows(runtime.engine, Delivery)) == 50
    assert len([one for one in asked if "endpoints" in one or "messages" in one or "deliveries" in one]) == 4


@pytest.mark.usefixtures("forwards")
def test_an_event_is_forwarded_once_however_often_it_is_planned(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry
) -> None:
    registry.on("invoice.paid", name="books")(nothing)
    handled, ignored = received(runtime.engine), received(runtime.engine, "customer.created")
    first = process(dispatcher, [handled, ignored])
    assert len(first) == 1  # of one endpoint

    registry.on("*", name="late")(nothing)
    replay(runtime.engine, Wish(selection=Selection(source="shop")), actor="ada", now=NOW)
    again = process(dispatcher, [handled, ignored])

    assert len(rows(runtime.engine, HandlerRun)) == 3
    assert again == []
    assert len(rows(runtime.engine, Delivery)) == 2


@pytest.mark.usefixtures("forwards")
def test_two_processes_that_plan_an_event_forward_it_once(runtime: Runtime, dispatcher: Dispatcher) -> None:
    event_id = received(runtime.engine)

    process(dispatcher, [event_id])
    process_elsewhere(dispatcher, event_id)
    change(runtime.engine, EventRow, status="waiting", ring_at=NOW)  # as it looks to one that was read before
    with another_process(dispatcher) as other:
        assert process(other, [event_id]) == []

    assert len(rows(runtime.engine, Message)) == len(rows(runtime.engine, Delivery)) == 1


@pytest.mark.usefixtures("forwards")
def test_a_process_that_dies_behind_the_planning_leaves_deliveries_that_the_sweep_rings_for(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry
) -> None:
    @registry.on("*", name="unlucky")
    def _(event: Event, ctx: Context) -> None:
        raise KeyboardInterrupt

    killed(dispatcher, received(runtime.engine))

    waiting = only(runtime.engine, Delivery)
    with database.write(runtime.engine) as connection:
        assert leases.due(connection, Delivery, Delivery.id, now=NOW) == [waiting.id]


@pytest.mark.usefixtures("forwards")
def test_a_process_that_dies_within_the_planning_leaves_nothing_of_it(runtime: Runtime, dispatcher: Dispatcher) -> None:
    event_id = received(runtime.engine)

    def die() -> None:
        with database.write(runtime.engine) as connection:
            planning.plan(dispatcher, connection, [event_id])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die()

    assert rows(runtime.engine, Message) == rows(runtime.engine, Delivery) == []
    assert len(process(dispatcher, [event_id])) == 1


def test_what_billhook_reports_itself_is_not_forwarded(runtime: Runtime, dispatcher: Dispatcher, forwards: str) -> None:
    told = Event(
        id="evt_1",
        type="recurring.generated",
        data={},
        occurred_at=NOW,
        source="shop",
        provider="billhook",
        received_at=NOW,
    )
    (outcome,) = inbox.accept(runtime.engine, [internal(told, "occ_1")])

    assert process(dispatcher, [outcome.event_id]) == []
    assert rows(runtime.engine, Message) == []


@pytest.mark.usefixtures("forwards")
def test_a_reconciled_event_is_forwarded_and_a_late_delivery_of_the_same_is_not(
    runtime: Runtime, dispatcher: Dispatcher
) -> None:
    (found,) = inbox.accept(runtime.engine, [reconciled(found_change())])
    assert len(process(dispatcher, [found.event_id])) == 1

    (late,) = inbox.accept(runtime.engine, [arrival("del_late")])

    assert process(dispatcher, [late.event_id]) == []
    assert only(runtime.engine, Message).event_id == found.event_id


def test_an_endpoint_that_is_added_later_gets_nothing_of_before_not_even_by_a_replay(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    old = received(runtime.engine)
    process(dispatcher, [old])
    new_endpoint = endpoint(runtime, forward=True)
    with database.write(runtime.engine) as connection:
        connection.execute(update(Endpoint).values(created_at=NOW + timedelta(hours=1)))

    registry.on("*", name="late")(nothing)
    replay(runtime.engine, Wish(selection=Selection(source="shop")), actor="ada", now=NOW)
    assert process(dispatcher, [old]) == []

    clock.turn(7200)
    process(dispatcher, [received(runtime.engine, at=clock())])
    assert only(runtime.engine, Delivery).endpoint_id == new_endpoint


@pytest.mark.usefixtures("forwards")
def test_a_body_that_is_no_longer_understood_is_forwarded_all_the_same(
    runtime: Runtime, dispatcher: Dispatcher
) -> None:
    event_id = received(runtime.engine)
    change(runtime.engine, EventRow, body=b"\x00\xffnot json")

    process(dispatcher, [event_id])

    message = only(runtime.engine, Message)
    assert (message.body, message.content_type) == (b"\x00\xffnot json", "application/octet-stream")


@pytest.mark.parametrize(
    ("received_as", "body", "content_type"),
    [
        ("application/x-www-form-urlencoded", b"{}", "application/x-www-form-urlencoded"),
        (" text/plain ", b"{}", "text/plain"),
        (None, b' {"a": 1}', "application/json"),
        (None, b"[1]", "application/json"),
        (None, b"data=0a1b", "application/octet-stream"),
        (None, b"", "application/octet-stream"),
        ("", b"{}", "application/json"),
        ("text/plain\r\nX-Key: 1", b"x", "application/octet-stream"),
        ("text/pläin", b"x", "application/octet-stream"),
        ("x" * 201, b"{}", "application/json"),
    ],
)
def test_the_content_type_is_what_came_or_what_the_body_looks_like(
    received_as: str | None, body: bytes, content_type: str
) -> None:
    headers: dict[str, Any] = {"user-agent": "x"} | ({} if received_as is None else {"content-type": received_as})

    assert _content_type(headers, body) == content_type
