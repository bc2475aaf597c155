"""Operational events: what is told of endpoints and deliveries, to whom, and what is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from threading import Barrier

import orjson
import pytest
from sqlalchemy import Connection, Engine, update
from sqlalchemy.exc import SQLAlchemyError

from handlers import Context, Event
from handlers.registry import Registry
from handlers.testing import event as sample
from handlers.vocabulary import OPERATIONAL
from tests.workers.delivery.given import Reply, Subscriber, a_sender, add, answering, publish_some, subscribing
from tests.workers.given import NOW, Clock, endpoint, only, received, rows, rung
from workers import database
from workers.app import DELIVER, PROCESS, Runtime
from workers.audit import audit
from workers.delivery import notices
from workers.delivery.deliver import Courier
from workers.delivery.flight import Flight, deliver
from workers.delivery.notices import Notice, Told
from workers.dispatch import Dispatcher, process
from workers.models import AnyRow, Attempt, Delivery, Endpoint, EventRow, Message

LONG_AGO = NOW - timedelta(hours=13)
ONE_ATTEMPT = (0.0,)


@pytest.fixture
def listener() -> Iterator[Subscriber]:
    """A subscriber that hears what happens to others."""
    with subscribing() as seen:
        yield seen


def happens(courier: Courier, subscriber: Subscriber, what: str) -> str:
    """Have this happen to an endpoint at the subscriber, which wants all, operational events too; its id."""
    wanted = ("*", "billhook.*")
    about, _ = add(courier, subscriber.url, event_types=wanted, schedule=ONE_ATTEMPT if "exhausted" in what else None)
    before = {"failures": 60, "failing_since": LONG_AGO}
    if "warned" in what or "recovered" in what:
        has_been(courier, about, **before, warned_at=LONG_AGO if "recovered" in what else None)
    subscriber.reply = answering(410 if "disabled" in what else 204 if "recovered" in what else 500)
    deliver(courier, publish_some(courier))
    return about


def has_been(courier: Courier, endpoint_id: str, **health: object) -> None:
    with database.write(courier.engine) as connection:
        connection.execute(update(Endpoint).where(Endpoint.id == endpoint_id).values(**health))


def told(engine: Engine) -> list[str]:
    """The types of all operational events, oldest first."""
    return [row.type for row in rows(engine, EventRow) if row.source == "billhook"]


def of_type(engine: Engine, what: str) -> AnyRow:
    """The only event of a type."""
    (row,) = (row for row in rows(engine, EventRow) if row.type == what)
    return row


def sent_to(engine: Engine, endpoint_id: str) -> list[AnyRow]:
    """The messages that an endpoint was to get."""
    mine = {row.message_id for row in rows(engine, Delivery) if row.endpoint_id == endpoint_id}
    return [row for row in rows(engine, Message) if row.id in mine]


@contextmanager
def away(engine: Engine, table: str) -> Iterator[None]:
    """A database that cannot take rows of a table."""
    with database.write(engine) as connection:
        connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO gone")
    try:
        yield
    finally:
        with database.write(engine) as connection:
            connection.exec_driver_sql(f"ALTER TABLE gone RENAME TO {table}")


# What is told, and to whom


@pytest.mark.parametrize("what", OPERATIONAL)
def test_what_happens_is_an_event_that_looks_as_its_sample(
    runtime: Runtime, courier: Courier, subscriber: Subscriber, what: str
) -> None:
    about = happens(courier, subscriber, what)

    found, like = of_type(courier.engine, what), sample(what, provider="billhook")
    assert (found.type, found.source, found.provider, found.status) == (what, "billhook", "billhook", "waiting")
    data = orjson.loads(found.body)["data"]
    assert data["endpoint_id"] == about
    assert data.keys() == like.data.keys()
    assert {name: type(value) for name, value in data.items()} == {
        name: type(value) for name, value in like.data.items()
    }
    assert (found.object_kind, found.object_id) == (like.object_kind, data[f"{like.object_kind}_id"])
    assert (like.source, like.object_id) == ("billhook", like.data[f"{like.object_kind}_id"])
    ((task, announced),) = rung(runtime, "events")
    assert (task, found.id in announced) == (PROCESS, True)


@pytest.mark.parametrize("what", OPERATIONAL)
def test_endpoints_that_ask_for_it_get_it_but_never_the_one_that_it_is_about(
    runtime: Runtime, courier: Courier, subscriber: Subscriber, listener: Subscriber, what: str
) -> None:
    # Given endpoints that want all of somebody else's, or all that Billhook tells, or this
    everything, _ = add(courier, listener.url, event_types=("*",))
    operational, _ = add(courier, listener.url, event_types=("billhook.*",))
    this = endpoint(runtime, what, url=listener.url, sources=("shop",))
    other, _ = add(courier, listener.url, event_types=("billhook.other",))

    about = happens(courier, subscriber, what)

    # Then it is for those who asked for it by name, whatever sources they want
    assert sorted(one.type for one in sent_to(courier.engine, operational)) == sorted(told(courier.engine))
    assert [one.type for one in sent_to(courier.engine, this)] == [what]
    assert [one.type for one in sent_to(courier.engine, everything)] == ["receipt.issued"]
    assert sent_to(courier.engine, other) == []
    assert [one.type for one in sent_to(courier.engine, about)] == ["receipt.issued"]

    # And goes out with the next turn, as any message does
    ((task, deliveries),) = rung(runtime, "deliveries")
    assert task == DELIVER
    deliver(courier, deliveries)
    event = of_type(courier.engine, what)
    document = {"type": what, "timestamp": NOW.isoformat(), "data": orjson.loads(event.body)["data"]}
    bodies = [orjson.loads(body) for body in listener.bodies]
    assert [body for body in bodies if body["type"] == what] == [document] * 2


def test_of_several_each_is_told_of_for_itself(courier: Courier, subscriber: Subscriber) -> None:
    subscriber.reply = answering(500)
    for _ in range(2):
        add(courier, subscriber.url, schedule=ONE_ATTEMPT)

    deliver(courier, publish_some(courier, 2))

    exhausted = {row.id for row in rows(courier.engine, Delivery) if row.status == "exhausted"}
    assert told(courier.engine) == ["billhook.delivery.exhausted"] * 4
    assert {row.object_id for row in rows(courier.engine, EventRow)} == exhausted


# Handlers


def test_handlers_hear_of_it(
    courier: Courier, subscriber: Subscriber, dispatcher: Dispatcher, registry: Registry
) -> None:
    heard: list[tuple[str, str]] = []

    @registry.on("billhook.endpoint.disabled", name="by_name")
    def by_name(event: Event, _: Context) -> None:
        heard.append((event.data["endpoint_id"], event.data["reason"]))

    @registry.on("billhook.delivery.exhausted", name="another")
    def another(_event: Event, _: Context) -> None:
        raise AssertionError("nothing of that kind happened")

    about = happens(courier, subscriber, "billhook.endpoint.disabled")
    process(dispatcher, [of_type(courier.engine, "billhook.endpoint.disabled").id])

    assert heard == [(about, "it answered 410 Gone")]
    assert audit(courier.engine, courier.clock).holds


def test_without_a_handler_for_it_the_audit_is_in_balance(
    courier: Courier, subscriber: Subscriber, listener: Subscriber, dispatcher: Dispatcher
) -> None:
    add(courier, listener.url, event_types=("billhook.*",))
    happens(courier, subscriber, "billhook.endpoint.disabled")

    process(dispatcher, [row.id for row in rows(courier.engine, EventRow)])

    balance = audit(courier.engine, courier.clock)
    assert (balance.ignored, balance.faults) == (2, ())


# No event is the cause of another like it


def test_what_becomes_of_such_a_message_is_not_told(
    runtime: Runtime, courier: Courier, subscriber: Subscriber, listener: Subscriber
) -> None:
    # Given an endpoint that asks for operational events and fails
    add(courier, listener.url, event_types=("billhook.*",), schedule=ONE_ATTEMPT)
    listener.reply = answering(500)

    happens(courier, subscriber, "billhook.delivery.exhausted")
    ((_, deliveries),) = rung(runtime, "deliveries")
    assert deliver(courier, deliveries) == 1

    assert [row.status for row in rows(courier.engine, Delivery)] == ["exhausted", "exhausted"]
    assert told(courier.engine) == ["billhook.delivery.exhausted"]


def test_nor_is_what_becomes_of_an_emit_that_such_an_event_caused(
    courier: Courier, subscriber: Subscriber, dispatcher: Dispatcher, registry: Registry
) -> None:
    @registry.on("billhook.delivery.exhausted", "invoice.paid", name="alert")
    def alert(event: Event, context: Context) -> None:
        context.emit("alert.raised", {"about": event.object_id})

    happens(courier, subscriber, "billhook.delivery.exhausted")
    (first,) = rows(courier.engine, EventRow)

    # When the handler's message is exhausted too
    assert deliver(courier, process(dispatcher, [first.id])) == 1

    # Then that ends it; the same handler's message about something else is told of
    assert told(courier.engine) == ["billhook.delivery.exhausted"]
    assert deliver(courier, process(dispatcher, [received(courier.engine)])) == 1
    assert told(courier.engine) == ["billhook.delivery.exhausted"] * 2


def test_endpoints_that_hear_of_each_others_end_come_to_one(
    runtime: Runtime, courier: Courier, subscriber: Subscriber
) -> None:
    for _ in range(3):
        add(courier, subscriber.url, event_types=("billhook.*",))

    happens(courier, subscriber, "billhook.endpoint.disabled")
    while taken := rung(runtime, "deliveries"):
        deliver(courier, [one for _, some in taken for one in some])

    assert {row.status for row in rows(courier.engine, Endpoint)} == {"disabled"}
    assert {row.status for row in rows(courier.engine, Delivery)} <= {"exhausted", "cancelled"}
    assert told(courier.engine).count("billhook.endpoint.disabled") == 4


# With what they tell, or not at all


def test_it_is_told_in_the_transaction_in_which_it_is_so(
    courier: Courier, subscriber: Subscriber, listener: Subscriber
) -> None:
    # Given a message under way, whose answer disables its endpoint
    add(courier, listener.url, event_types=("billhook.*",))
    add(courier, subscriber.url, event_types=("receipt.*",))
    subscriber.reply = answering(410)
    flight = Flight(courier)
    flight.take(publish_some(courier))
    flight.turn()

    # When the last of what has to be written cannot be
    with away(courier.engine, "messages"), pytest.raises(SQLAlchemyError):
        flight.finish()

    # Then nothing is
    assert {row.status for row in rows(courier.engine, Endpoint)} == {"enabled"}
    assert [rows(courier.engine, table) for table in (Attempt, EventRow)] == [[], []]
    assert only(courier.engine, Delivery).status == "running"

    # And later all of it, once
    flight.finish()
    assert sorted(row.status for row in rows(courier.engine, Endpoint)) == ["disabled", "enabled"]
    assert len(rows(courier.engine, Attempt)) == 1
    assert sorted(told(courier.engine)) == ["billhook.delivery.exhausted", "billhook.endpoint.disabled"]


@pytest.mark.parametrize("backend", ["servers"], indirect=True)  # SQLite has one writer at a time
def test_processes_that_tell_each_others_endpoints_do_not_wait_in_a_circle(
    courier: Courier, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two endpoints that hear of each other, and a message exhausted at each by a process of its own
    for _ in range(2):
        add(courier, subscriber.url, event_types=("*", "billhook.*"), schedule=ONE_ATTEMPT)
    subscriber.reply = answering(500)
    both, tell = Barrier(2, timeout=20), notices.tell

    def tell_together(connection: Connection, some: Sequence[Notice], *, now: datetime) -> Told:
        if some:
            both.wait()
        return tell(connection, some, now=now)

    # When both have written how their endpoint is, before either tells the other's
    monkeypatch.setattr(notices, "tell", tell_together)
    with ThreadPoolExecutor(2) as threads:
        couriers = [replace(courier, sender=a_sender()) for _ in range(2)]
        list(threads.map(lambda own, one: deliver(own, [one]), couriers, publish_some(courier)))
    for own in couriers:
        own.sender.close()

    assert told(courier.engine) == ["billhook.delivery.exhausted"] * 2
    assert {row.status for row in rows(courier.engine, Delivery)} == {"exhausted"}


def test_who_lost_the_lease_tells_nothing(
    courier: Courier, subscriber: Subscriber, listener: Subscriber, clock: Clock
) -> None:
    add(courier, subscriber.url, schedule=ONE_ATTEMPT)
    deliveries = publish_some(courier)

    def overtaken() -> Reply:
        if len(subscriber.bodies) == 1:
            clock.turn(courier.lease.total_seconds())
            assert deliver(courier, deliveries) == 1
            return 410, {}, b""
        return 204, {}, b""

    subscriber.reply = overtaken
    deliver(courier, deliveries)

    assert told(courier.engine) == []
