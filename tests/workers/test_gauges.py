from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import Engine

from handlers.registry import Registry
from tests.workers.given import NOW, Clock, change, endpoint, received
from tests.workers.schedule.given import added
from workers import database
from workers.app import Runtime
from workers.dispatch import Dispatcher, process
from workers.gauges import Backlog, Gauges, backlogs
from workers.models import Delivery, Endpoint, EventRow
from workers.schedule.tick import tick
from workers.settings import Settings


@pytest.fixture
def registry_of_gauges(engine: Engine, clock: Clock) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(Gauges(engine, clock))
    return registry


def by_queue(engine: Engine, at: Any) -> dict[str, Backlog]:
    with database.read(engine) as connection:
        return {backlog.queue: backlog for backlog in backlogs(connection, at)}


def test_where_nothing_happened_nothing_waits(engine: Engine, registry_of_gauges: CollectorRegistry) -> None:
    assert {backlog.waiting for backlog in by_queue(engine, NOW).values()} == {0}

    text = generate_latest(registry_of_gauges).decode()

    assert 'billhook_waiting{queue="events"} 0.0' in text
    assert 'billhook_oldest_waiting_seconds{queue="schedules"} 0.0' in text
    assert 'billhook_endpoints{state="disabled"} 0.0' in text
    assert "billhook_dead_events 0.0" in text


def test_an_event_waits_from_its_receipt_until_it_is_planned(engine: Engine, dispatcher: Dispatcher) -> None:
    event = received(engine)

    assert by_queue(engine, NOW)["events"].waiting == 0  # it is on its way
    assert by_queue(engine, NOW + timedelta(seconds=90))["events"] == Backlog("events", 1, 90.0)
    process(dispatcher, [event])
    assert by_queue(engine, NOW + timedelta(seconds=90))["events"].waiting == 0


def test_a_run_waits_once_it_is_due(engine: Engine, dispatcher: Dispatcher, registry: Registry) -> None:
    @registry.on("invoice.paid", name="failing", backoff=60)
    def _(event: Any, ctx: Any) -> None:
        raise ValueError

    process(dispatcher, [received(engine)])

    assert by_queue(engine, NOW + timedelta(seconds=30))["events"].waiting == 0
    assert by_queue(engine, NOW + timedelta(seconds=100))["events"] == Backlog("events", 1, 40.0)


def test_deliveries_wait_only_for_endpoints_that_can_be_sent_to(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry
) -> None:
    @registry.on("invoice.paid", name="emits")
    def _(event: Any, ctx: Any) -> None:
        ctx.emit("receipt.issued", {})

    endpoint(runtime)
    process(dispatcher, [received(runtime.engine)])
    later = NOW + timedelta(seconds=10)
    assert by_queue(runtime.engine, later)["deliveries"] == Backlog("deliveries", 1, 10.0)

    change(runtime.engine, Endpoint, held_until=NOW + timedelta(hours=1))
    assert by_queue(runtime.engine, later)["deliveries"].waiting == 0
    change(runtime.engine, Endpoint, held_until=None, status="disabled")
    assert by_queue(runtime.engine, later)["deliveries"].waiting == 0
    change(runtime.engine, Endpoint, status="enabled")
    change(runtime.engine, Delivery, status="succeeded")
    assert by_queue(runtime.engine, later)["deliveries"].waiting == 0


def test_a_schedule_waits_from_its_due_moment_whether_it_was_planned_or_not(runtime: Runtime) -> None:
    added(runtime.engine, runtime.settings)
    fourteen_hours = 14 * 3600.0

    assert by_queue(runtime.engine, NOW)["schedules"] == Backlog("schedules", 1, fourteen_hours)
    tick(runtime.engine, now=NOW)
    assert by_queue(runtime.engine, NOW)["schedules"] == Backlog("schedules", 1, fourteen_hours)


def test_endpoints_are_counted_by_state_and_dead_events_until_somebody_has_seen_them(
    runtime: Runtime, registry_of_gauges: CollectorRegistry
) -> None:
    endpoint(runtime)
    change(runtime.engine, Endpoint, held_until=NOW + timedelta(minutes=5))
    endpoint(runtime)
    received(runtime.engine)
    change(runtime.engine, EventRow, status="dead")

    text = generate_latest(registry_of_gauges).decode()

    assert 'billhook_endpoints{state="enabled"} 1.0' in text
    assert 'billhook_endpoints{state="held"} 1.0' in text
    assert "billhook_dead_events 1.0" in text


def test_a_look_is_good_for_some_seconds(runtime: Runtime, registry_of_gauges: CollectorRegistry) -> None:
    first = generate_latest(registry_of_gauges)
    endpoint(runtime)

    assert generate_latest(registry_of_gauges) == first


def test_a_database_that_does_not_answer_leaves_the_other_metrics_alone(tmp_path: Any) -> None:
    away = database.connect(Settings(database_url="postgresql://nobody@127.0.0.1:9/nothing"))
    registry = CollectorRegistry()
    registry.register(Gauges(away))

    assert generate_latest(registry) == b""
