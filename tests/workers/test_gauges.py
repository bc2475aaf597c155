from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import Engine, update

from handlers.registry import Registry
from tests.workers.given import NOW, Clock, change, endpoint, planned, received, rows
from tests.workers.schedule.given import added
from workers import database
from workers.app import Runtime
from workers.dispatch import Dispatcher, process
from workers.gauges import Backlog, Gauges, _first_in_line, backlogs, due_at_sources
from workers.models import Delivery, Endpoint, EventRow, HandlerRun, Occurrence
from workers.schedule.tick import tick
from workers.settings import Settings


@pytest.fixture
def registry_of_gauges(engine: Engine, clock: Clock) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(Gauges(engine, clock))
    return registry


def by_queue(engine: Engine, at: Any) -> dict[str, Backlog]:
    with database.read(engine) as connection:
        return {backlog.queue: backlog for backlog in backlogs(connection, at, due_at_sources(connection, at))}


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


def test_ordered_runs_behind_one_that_is_tried_again_later_are_not_late(
    engine: Engine, dispatcher: Dispatcher, registry: Registry
) -> None:
    @registry.on("invoice.paid", name="failing", backoff=60, ordered=True)
    def _(event: Any, ctx: Any) -> None:
        raise ValueError

    line = [received(engine, object_id="inv_1", occurred_at=NOW + timedelta(seconds=nth)) for nth in range(3)]
    other = received(engine, object_id="inv_2")
    planned(dispatcher, *line, other)
    process(dispatcher, line)

    assert by_queue(engine, NOW + timedelta(seconds=30))["events"] == Backlog("events", 1, 30.0)  # the other object's
    process(dispatcher, [other])
    assert by_queue(engine, NOW + timedelta(seconds=30))["events"].waiting == 0
    # Once the first may be tried again and nobody does it, it is late: itself, and in each line.
    assert by_queue(engine, NOW + timedelta(seconds=100))["events"] == Backlog("events", 2, 40.0)


def test_ordered_runs_are_not_late_while_one_of_their_line_runs(
    engine: Engine, dispatcher: Dispatcher, registry: Registry
) -> None:
    registry.on("invoice.paid", name="slow", ordered=True)(lambda event, ctx: None)
    second, first = (received(engine, object_id="inv_1", occurred_at=NOW + timedelta(seconds=at)) for at in (2, 1))
    planned(dispatcher, second)
    with database.write(engine) as connection:
        connection.execute(update(HandlerRun).values(status="running", next_attempt_at=NOW + timedelta(minutes=5)))
    planned(dispatcher, first)

    assert [run.status for run in rows(engine, HandlerRun)] == ["running", "waiting"]
    assert by_queue(engine, NOW + timedelta(seconds=30))["events"].waiting == 0


def test_the_first_of_each_line_is_found_by_one_walk_through_the_index_of_what_is_open(engine: Engine) -> None:
    dialect = engine.dialect
    asked = _first_in_line(NOW).compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    explain = "EXPLAIN " if dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "

    with database.read(engine) as connection:
        if dialect.name == "postgresql":  # an empty table is read as a whole, if that is possible
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        plan = str(connection.exec_driver_sql(explain + str(asked)).all())

    assert "ix_handler_runs_line" in plan
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan


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


def test_due_dates_behind_one_that_is_tried_again_later_are_not_late(runtime: Runtime) -> None:
    added(runtime.engine, runtime.settings, frequency="weekly")
    later = NOW + timedelta(days=21)
    tick(runtime.engine, now=later)
    first, *others = sorted(rows(runtime.engine, Occurrence), key=lambda row: str(row.due_on))
    assert len(others) == 3

    assert by_queue(runtime.engine, later)["schedules"].waiting == 1
    with database.write(runtime.engine) as connection:
        postponed = update(Occurrence).where(Occurrence.id == first.id)
        connection.execute(postponed.values(next_attempt_at=later + timedelta(hours=1)))
    assert by_queue(runtime.engine, later)["schedules"].waiting == 0
    assert by_queue(runtime.engine, later + timedelta(hours=2))["schedules"] == Backlog("schedules", 1, 3600.0)


def test_each_source_tells_how_many_due_dates_of_it_wait(
    runtime: Runtime, registry_of_gauges: CollectorRegistry
) -> None:
    sources = dict.fromkeys(("shop", "branch"), runtime.settings.sources["shop"])
    settings = runtime.settings.model_copy(update={"sources": sources})
    for source in ("shop", "branch", "branch"):
        added(runtime.engine, settings, source=source)
    tick(runtime.engine, now=NOW)
    added(runtime.engine, settings)  # is not planned yet

    text = generate_latest(registry_of_gauges).decode()

    assert 'billhook_occurrences_due{source="branch"} 2.0' in text
    assert 'billhook_occurrences_due{source="shop"} 2.0' in text
    assert 'billhook_waiting{queue="schedules"} 4.0' in text


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
