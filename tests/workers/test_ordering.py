"""`ordered=True`: the runs of one handler for one object follow each other, by what happened first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from handlers import Context, Discard, Event, Retry
from handlers.registry import Registry
from tests.workers.given import NOW, Clock, killed, planned, process_elsewhere, received, rows, rung, sent_back
from workers import dispatch
from workers.app import PROCESS, Runtime
from workers.audit import audit
from workers.claims import HELD_BACK
from workers.dispatch import Dispatcher, process
from workers.models import AnyRow, EventRow, HandlerRun


def happened(engine: Engine, minute: int, *, object_id: str = "inv_7", source: str = "shop") -> str:
    """An event about an object, received now, that happened at that minute before noon."""
    occurred_at = NOW - timedelta(hours=4) + timedelta(minutes=minute)
    return received(engine, object_id=object_id, occurred_at=occurred_at, source=source)


def run_of(engine: Engine, event_id: str) -> AnyRow:
    (run,) = [run for run in rows(engine, HandlerRun) if run.event_id == event_id]
    return run


def statuses(engine: Engine, *event_ids: str) -> list[str]:
    """What became of the runs of these events."""
    return [run_of(engine, event_id).status for event_id in event_ids]


@pytest.fixture
def seen() -> list[str]:
    """The events that the handler was called with, or got done, in that order."""
    return []


def test_what_waits_follows_the_order_of_occurrence_however_it_came(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, seen: list[str]
) -> None:
    registry.on("*", name="books", ordered=True)(lambda event, ctx: seen.append(event.id))
    third, second, first = (happened(engine, minute) for minute in (30, 20, 10))

    process(dispatcher, [third, second, first])

    assert seen == [first, second, third]
    assert {run.starts for run in rows(engine, HandlerRun)} == {1}
    assert {row.status for row in rows(engine, EventRow)} == {"processed"}
    assert audit(engine).holds


def test_what_happened_at_the_same_moment_follows_the_order_of_receipt(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, seen: list[str]
) -> None:
    registry.on("*", name="books", ordered=True)(lambda event, ctx: seen.append(event.id))
    event_ids = sorted(happened(engine, 10) for _ in range(4))

    process(dispatcher, event_ids[::-1])

    assert seen == event_ids


def test_a_later_event_alone_waits_for_the_earlier_and_is_run_by_whoever_ends_that(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, seen: list[str]
) -> None:
    registry.on("*", name="books", ordered=True)(lambda event, ctx: seen.append(event.id))
    first, second, third = (happened(engine, minute) for minute in (10, 20, 30))
    planned(dispatcher, first, second, third)

    process(dispatcher, [third])
    process(dispatcher, [second])
    assert seen == []

    process(dispatcher, [first])
    assert seen == [first, second, third]


def test_a_later_event_waits_also_for_an_earlier_one_that_nobody_rang_for_yet(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, seen: list[str]
) -> None:
    registry.on("*", name="books", ordered=True)(lambda event, ctx: seen.append(event.id))
    registry.on("*", name="plain")(lambda event, ctx: None)
    first, elsewhere, second = happened(engine, 10), happened(engine, 10, source="other"), happened(engine, 20)

    process(dispatcher, [second])
    assert seen == []

    process(dispatcher, [first])
    assert seen == [first, second]
    process(dispatcher, [elsewhere])
    assert [(row.id, row.status) for row in rows(engine, EventRow)] == [
        (event_id, "processed") for event_id in sorted([first, elsewhere, second])
    ]
    assert audit(engine).holds


def test_an_earlier_event_that_the_handler_does_not_want_holds_nothing_back(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, seen: list[str]
) -> None:
    registry.on("*", name="books", ordered=True, when=lambda event: event.id != first)(
        lambda event, ctx: seen.append(event.id)
    )
    first, second = happened(engine, 10), happened(engine, 20)

    process(dispatcher, [second])

    assert seen == [second]


def test_what_is_held_back_is_looked_at_again_now_and_then(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry, clock: Clock, seen: list[str]
) -> None:
    @registry.on("*", name="books", ordered=True)
    def _(event: Event, ctx: Context) -> None:
        if event.id == first:
            raise Retry(after=3600)
        seen.append(event.id)

    first, second = happened(runtime.engine, 10), happened(runtime.engine, 20)
    process(dispatcher, [first, second])

    clock.turn(HELD_BACK.total_seconds() - 0.001)
    assert dispatch.sweep(runtime, clock) == 0
    clock.turn(0.001)
    assert dispatch.sweep(runtime, clock) == 1
    assert rung(runtime, "events") == [(PROCESS, [second])]
    process(dispatcher, [second])
    assert seen == []


def test_a_retrying_run_holds_back_its_own_object_and_nobody_elses(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock, seen: list[str]
) -> None:
    @registry.on("*", name="books", ordered=True, backoff=60)
    def _(event: Event, ctx: Context) -> None:
        seen.append(event.id)
        if event.id == first and ctx.attempt < 3:
            raise ValueError("the ledger is closed")

    first, second = happened(engine, 10), happened(engine, 20)
    others = [happened(engine, minute, object_id="inv_8") for minute in (30, 40)]

    process(dispatcher, [first, second, *others])
    assert sorted(seen) == sorted([first, *others])

    for _attempt in (2, 3):
        assert statuses(engine, first, second) == ["waiting", "waiting"]
        clock.now = run_of(engine, first).next_attempt_at
        process(dispatcher, [first, second])
    assert seen[3:] == [first, first, second]
    assert audit(engine).holds


@pytest.mark.parametrize("end", [ValueError("no"), Discard("no")], ids=["dead", "discarded"])
def test_a_run_that_has_ended_without_success_lets_its_line_go_on(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, seen: list[str], end: Exception
) -> None:
    @registry.on("*", name="books", ordered=True, retries=0)
    def _(event: Event, ctx: Context) -> None:
        seen.append(event.id)
        if event.id == first:
            raise end

    first, second = happened(engine, 10), happened(engine, 20)

    process(dispatcher, [second, first])

    assert seen == [first, second]
    assert statuses(engine, second) == ["succeeded"]


def test_a_run_that_sleeps_holds_its_line(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock, seen: list[str]
) -> None:
    @registry.on("*", name="dunning", ordered=True)
    def _(event: Event, ctx: Context) -> None:
        if event.id == first:
            ctx.sleep_until(NOW + timedelta(days=3))
        seen.append(event.id)

    first, second = happened(engine, 10), happened(engine, 20)
    process(dispatcher, [first, second])
    clock.turn(3 * 86400 - 1)
    process(dispatcher, [second, first])
    assert seen == []

    clock.turn(1)
    process(dispatcher, [first])
    assert seen == [first, second]


def test_handlers_of_two_names_do_not_wait_for_each_other(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, seen: list[str]
) -> None:
    @registry.on("*", name="stuck", ordered=True)
    def _(event: Event, ctx: Context) -> None:
        raise Retry(after=3600)

    registry.on("*", name="books", ordered=True)(lambda event, ctx: seen.append(event.id))
    event_ids = [happened(engine, minute) for minute in (10, 20)]

    process(dispatcher, event_ids)

    assert seen == event_ids
    assert sum(run.starts for run in rows(engine, HandlerRun) if run.handler == "stuck") == 1


def test_an_object_is_another_at_another_source_and_of_another_kind(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, seen: list[str]
) -> None:
    @registry.on("*", name="books", ordered=True)
    def _(event: Event, ctx: Context) -> None:
        if event.id == first:
            raise Retry(after=3600)
        seen.append(event.id)

    first = happened(engine, 10, object_id="7")
    others = [happened(engine, 20, object_id="7", source="mill"), received(engine, "customer.created", object_id="7")]

    process(dispatcher, [first, *others])

    assert sorted(seen) == sorted(others)


def test_events_about_no_object_stand_in_no_line(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, seen: list[str]
) -> None:
    @registry.on("*", name="books", ordered=True)
    def _(event: Event, ctx: Context) -> None:
        if event.id == first:
            raise Retry(after=3600)
        seen.append(event.id)

    first, second = (received(engine, "books.closed", object_id=None) for _ in range(2))

    process(dispatcher, [first, second])

    assert seen == [second]
    assert [run.ordered for run in rows(engine, HandlerRun)] == [False, False]


def test_an_earlier_event_that_comes_while_a_later_runs_waits_and_is_next(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, seen: list[str]
) -> None:
    came: list[str] = []

    @registry.on("*", name="books", ordered=True)
    def _(event: Event, ctx: Context) -> None:
        if not came:
            came.append(happened(engine, 5))
            process_elsewhere(dispatcher, *came)
            assert seen == []
        seen.append(event.id)

    second, third = happened(engine, 20), happened(engine, 30)

    process(dispatcher, [second, third])

    assert seen == [second, *came, third]
    assert audit(engine).holds


def test_a_replayed_run_goes_before_what_happened_later(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, seen: list[str]
) -> None:
    registry.on("*", name="books", ordered=True)(lambda event, ctx: seen.append(event.id))
    first = happened(engine, 10)
    process(dispatcher, [first])
    second = happened(engine, 20)
    sent_back(engine, run_of(engine, first).id)

    process(dispatcher, [second])
    assert seen == [first]
    process(dispatcher, [first])
    assert seen == [first, first, second]


# Processes that die, stop, or come at the same time


def kills_once(seen: list[str], victim: Callable[[], str]) -> Callable[[Event, Context], None]:
    """A handler whose process is killed the first time that it is called with the victim."""

    def handler(event: Event, ctx: Context) -> None:
        seen.append(event.id)
        if event.id == victim() and seen.count(event.id) == 1:
            raise KeyboardInterrupt

    return handler


def test_a_run_whose_process_died_holds_its_line_until_its_lease_ends(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock, seen: list[str]
) -> None:
    registry.on("*", name="books", ordered=True)(kills_once(seen, lambda: first))
    first, second = happened(engine, 10), happened(engine, 20)
    killed(dispatcher, first, second)
    process(dispatcher, [first, second])
    assert seen == [first]

    clock.now = run_of(engine, first).next_attempt_at
    process(dispatcher, [first])

    assert seen == [first, first, second]
    assert audit(engine).holds


def test_an_earlier_event_that_comes_after_the_process_died_does_not_stop_the_line_for_ever(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock, seen: list[str]
) -> None:
    registry.on("*", name="books", ordered=True)(kills_once(seen, lambda: second))
    second = happened(engine, 20)
    killed(dispatcher, second)
    first = happened(engine, 10)
    process(dispatcher, [first])
    assert seen == [second]

    clock.now = run_of(engine, second).next_attempt_at
    process(dispatcher, [first, second])

    assert statuses(engine, first, second) == ["succeeded", "succeeded"]
    assert audit(engine).holds


def test_the_next_in_line_is_rung_for_where_the_process_is_to_stop(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry, clock: Clock, seen: list[str]
) -> None:
    registry.on("*", name="books", ordered=True)(kills_once(seen, lambda: first))
    first, second = happened(runtime.engine, 10), happened(runtime.engine, 20)
    killed(dispatcher, first)
    process(dispatcher, [second])
    clock.now = run_of(runtime.engine, first).next_attempt_at

    process(replace(dispatcher, stopping=lambda: len(seen) == 2), [first])

    assert seen == [first, first]
    assert rung(runtime, "events") == [(PROCESS, sorted([first, second]))]
