"""The flight: many deliveries at once, and endpoints that do not get in each other's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from tests.workers.delivery.given import (
    HERE,
    LEASE,
    TLS,
    Reply,
    Subscriber,
    a_sender,
    add,
    answering,
    publish_some,
    subscribing,
)
from tests.workers.given import NOW, Clock, only, rows
from workers import database
from workers.app import Runtime
from workers.delivery import flight
from workers.delivery.deliver import Courier
from workers.delivery.exchange import Answer, Request
from workers.delivery.flight import Flight, deliver
from workers.delivery.gate import Queue
from workers.delivery.sender import Sender
from workers.models import Attempt, Delivery, Endpoint


class Held:
    """A subscriber that answers when it is told to, and how many requests it has had at once."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.at_once = self.most = 0
        self._changed = threading.Condition()

    def __call__(self) -> Reply:
        with self._changed:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            self._changed.notify_all()
        self.free.wait(10)
        with self._changed:
            self.at_once -= 1
        return 204, {}, b""

    def wait_for(self, at_once: int) -> None:
        """Until so many requests wait for an answer."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.at_once == at_once, 10)


@contextmanager
def flying(courier: Courier) -> Iterator[Flight]:
    """A flight with its thread, as in a worker."""
    flown = Flight(courier)
    flown.start()
    yield flown
    flown.close(5)


def until(flown: Flight, attempted: int) -> None:
    with flown._stirred:
        assert flown._stirred.wait_for(lambda: flown.attempted >= attempted, 10)


def statuses(courier: Courier) -> dict[str, int]:
    found = [row.status for row in rows(courier.engine, Delivery)]
    return {status: found.count(status) for status in set(found)}


def test_a_slow_endpoint_keeps_no_other_waiting(courier: Courier, subscriber: Subscriber) -> None:
    with subscribing() as slow, flying(courier) as flown:
        slow.reply = held = Held()
        add(courier, slow.url)
        flown.take(publish_some(courier, 40))
        add(courier, subscriber.url)
        flown.take(publish_some(courier, 5))

        until(flown, 5)

        assert len(subscriber.bodies) == 5
        assert statuses(courier)["succeeded"] == 5
        held.free.set()


def test_no_more_are_under_way_to_an_endpoint_than_it_takes(courier: Courier, subscriber: Subscriber) -> None:
    subscriber.reply = held = Held()
    held.free.set()
    add(courier, subscriber.url, concurrency=3)

    assert deliver(courier, publish_some(courier, 30)) == 30

    assert held.most <= 3
    assert statuses(courier) == {"succeeded": 30}


def test_a_rate_is_kept(courier: Courier, subscriber: Subscriber) -> None:
    arrived: list[float] = []

    def note() -> Reply:
        arrived.append(time.monotonic())
        return 204, {}, b""

    subscriber.reply = note
    add(courier, subscriber.url, rate=20)

    assert deliver(courier, publish_some(courier, 8)) == 8

    # Two may begin at once, the other six twentieths of a second apart.
    assert arrived[-1] - arrived[0] > 0.2


def test_more_than_a_process_holds_at_once_is_sent_all_the_same(courier: Courier, subscriber: Subscriber) -> None:
    for _ in range(3):
        add(courier, subscriber.url)
    deliveries = publish_some(courier, 50)

    assert deliver(replace(courier, in_flight=4), deliveries) == 150

    assert statuses(courier) == {"succeeded": 150}


def test_an_endpoint_that_is_down_is_left_alone_and_then_tried_with_one(
    courier: Courier, subscriber: Subscriber, clock: Clock
) -> None:
    add(courier, subscriber.url, concurrency=5)
    deliveries = publish_some(courier, 20)
    subscriber.reply = answering(500)

    assert 5 <= deliver(courier, deliveries) < 10  # those that were under way with the fifth
    assert deliver(courier, deliveries) == 0
    clock.turn(30)
    assert deliver(courier, deliveries) == 1
    subscriber.reply = answering(204)
    clock.turn(300)
    assert deliver(courier, deliveries) == 20

    assert statuses(courier) == {"succeeded": 20}
    endpoint = only(courier.engine, Endpoint)
    assert (endpoint.failures, endpoint.failing_since, endpoint.held_until) == (0, None, None)


def test_what_waits_for_a_held_endpoint_is_left_to_the_end_of_the_hold(
    runtime: Runtime, courier: Courier, subscriber: Subscriber, clock: Clock
) -> None:
    add(courier, subscriber.url, concurrency=1)
    subscriber.reply = answering(503, Retry_After="600")
    deliveries = publish_some(courier, 3)

    assert deliver(courier, deliveries) == 1
    assert deliver(courier, deliveries) == 0

    assert flight.sweep(runtime, clock) == 0
    clock.turn(599)
    assert flight.sweep(runtime, clock) == 0
    clock.turn(1)
    assert flight.sweep(runtime, clock) == 1
    assert [row.attempts for row in rows(courier.engine, Delivery)].count(0) == 2


def test_a_process_that_stops_lets_what_is_under_way_end(courier: Courier, subscriber: Subscriber) -> None:
    subscriber.reply = held = Held()
    add(courier, subscriber.url)
    flown = Flight(courier)
    flown.start()
    flown.take(publish_some(courier, 3))
    held.wait_for(3)

    threading.Timer(0.1, held.free.set).start()
    flown.close(10)

    assert statuses(courier) == {"succeeded": 3}


def test_what_does_not_end_in_time_is_given_back_without_an_attempt(courier: Courier, subscriber: Subscriber) -> None:
    subscriber.reply = held = Held()
    add(courier, subscriber.url)
    flown = Flight(courier)
    flown.start()
    flown.take(publish_some(courier, 3))
    held.wait_for(3)

    flown.close(0)
    held.free.set()

    assert statuses(courier) == {"waiting": 3}
    assert {(row.attempts, row.again, row.next_attempt_at) for row in rows(courier.engine, Delivery)} == {
        (0, False, NOW)
    }
    assert rows(courier.engine, Attempt) == []


def test_results_outlive_a_database_that_is_away(
    courier: Courier, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight, "_AFTER_FAILURE", 0.01)
    subscriber.reply = held = Held()
    add(courier, subscriber.url)
    with flying(courier) as flown, capture_logs() as lines:
        flown.take(publish_some(courier))
        held.wait_for(1)
        with database.write(courier.engine) as connection:
            connection.exec_driver_sql("ALTER TABLE attempts RENAME TO gone")
        held.free.set()
        while not any(line["action"] == "flight_failed" for line in lines):
            pass
        with database.write(courier.engine) as connection:
            connection.exec_driver_sql("ALTER TABLE gone RENAME TO attempts")
        until(flown, 1)

    assert statuses(courier) == {"succeeded": 1}
    assert len(subscriber.bodies) == 1


def test_a_delivery_without_a_free_place_is_left_to_the_sweep(
    runtime: Runtime, courier: Courier, subscriber: Subscriber, clock: Clock
) -> None:
    endpoint_id, _ = add(courier, subscriber.url, concurrency=1)
    deliveries = publish_some(courier, 2)
    courier.gate.enter([Queue(endpoint_id, ["dlv_other"], [], 1, 0)])

    assert deliver(courier, deliveries) == 0
    assert flight.sweep(runtime, clock) == 1
    courier.gate.leave([(endpoint_id, "dlv_other")])
    assert deliver(courier, deliveries) == 2


def test_what_is_under_way_is_not_begun_again_though_its_lease_is_over(
    courier: Courier, subscriber: Subscriber, clock: Clock
) -> None:
    subscriber.reply = held = Held()
    add(courier, subscriber.url)
    deliveries = publish_some(courier)
    with flying(courier) as flown:
        flown.take(deliveries)
        held.wait_for(1)
        clock.turn(LEASE.total_seconds() + 1)  # it was set, or the machine stood still
        flown.take(deliveries)
        flown.take(deliveries)
        held.free.set()
        until(flown, 1)

    assert len(subscriber.bodies) == 1
    assert statuses(courier) == {"succeeded": 1}


class Refusing(Sender):
    """It has no thread left, once."""

    def begin(self, requests: Mapping[str, Request], ended: Callable[[Mapping[str, Answer]], None]) -> None:
        self.begin = super().begin  # type: ignore[method-assign]
        raise RuntimeError("can't start new thread")


def test_a_sender_that_cannot_begin_loses_no_delivery_and_no_place(
    courier: Courier, subscriber: Subscriber, clock: Clock
) -> None:
    add(courier, subscriber.url, concurrency=1)
    deliveries = publish_some(courier)
    unable = replace(courier, sender=Refusing(user_agent="x", egress=HERE, tls=TLS))
    with pytest.raises(RuntimeError, match="new thread"):
        deliver(unable, deliveries)

    clock.turn(LEASE.total_seconds())

    assert deliver(unable, deliveries) == 1
    unable.sender.close()


def test_two_processes_share_an_endpoints_places(courier: Courier, subscriber: Subscriber) -> None:
    subscriber.reply = held = Held()
    add(courier, subscriber.url, concurrency=3)
    deliveries = publish_some(courier, 12)
    other = replace(courier, sender=a_sender())
    with flying(courier) as one, flying(other) as two:
        one.take(deliveries)
        two.take(deliveries)
        held.free.set()
        while statuses(courier) != {"succeeded": 12}:
            one.take(deliveries)
            two.take(deliveries)
    other.sender.close()

    assert held.most <= 3
    assert len(subscriber.bodies) == 12
