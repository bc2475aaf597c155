"""`concurrency=`: how many runs of one handler are at work at once, over all processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import Engine, update
from sqlalchemy import event as hooks
from sqlalchemy.exc import IntegrityError

from handlers import Context, Event, Retry
from handlers.registry import Registry
from tests.workers.given import (
    NOW,
    Clock,
    another_process,
    killed,
    planned,
    process_elsewhere,
    received,
    rows,
    rung,
    sent_back,
)
from workers import database, dispatch
from workers.app import PROCESS, Runtime
from workers.audit import audit
from workers.claims import HELD_BACK
from workers.dispatch import Dispatcher, process
from workers.models import AnyRow, EventRow, HandlerRun


def run_of(engine: Engine, event_id: str) -> AnyRow:
    (run,) = [run for run in rows(engine, HandlerRun) if run.event_id == event_id]
    return run


def statuses(engine: Engine) -> list[str]:
    return [run.status for run in rows(engine, HandlerRun)]


class AtWork:
    """Counts the runs that are at work, and the most there ever were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = self.most = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        yield
        with self._lock:
            self._now -= 1


@pytest.mark.parametrize("limit", [1, 2])
def test_no_more_than_the_limit_are_at_work_however_many_processes_there_are(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, limit: int
) -> None:
    at_work, calls = AtWork(), list[str]()
    all_places = threading.Barrier(limit)

    @registry.on("*", name="printer", concurrency=limit)
    def _(event: Event, ctx: Context) -> None:
        with at_work.one():
            calls.append(event.id)
            if len(calls) <= limit:
                all_places.wait(20)  # no place is left empty
            rows(engine, HandlerRun)  # takes a moment, and lets the other threads go on

    event_ids = [received(engine) for _ in range(12)]
    ready = threading.Barrier(4)

    def work(turn: int) -> None:
        with another_process(dispatcher) as own:
            ready.wait(20)
            process(own, event_ids[turn * 3 :] + event_ids[: turn * 3])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))

    assert at_work.most == limit
    assert sorted(calls) == sorted(event_ids)
    assert {(run.status, run.starts, run.slot) for run in rows(engine, HandlerRun)} == {("succeeded", 1, None)}
    assert audit(engine).holds


def test_a_place_that_becomes_free_is_taken_at_once_by_whoever_waits_longest(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    calls: list[str] = []

    @registry.on("*", name="printer", concurrency=1)
    def _(event: Event, ctx: Context) -> None:
        calls.append(event.id)
        if event.id == retries and ctx.attempt == 1:
            raise Retry(after=10)
        if event.id == slow:
            clock.turn(5)
            process_elsewhere(dispatcher, due_first)
            clock.turn(6)
            process_elsewhere(dispatcher, retries)
            assert calls == [retries, slow]

    retries, slow, due_first = (received(engine) for _ in range(3))
    process(dispatcher, [retries])

    process(dispatcher, [slow])

    assert calls == [retries, slow, due_first, retries]


def test_what_waits_for_a_place_is_looked_at_again_now_and_then(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    @registry.on("*", name="printer", concurrency=1, timeout=3600)
    def _(event: Event, ctx: Context) -> None:
        raise KeyboardInterrupt

    first, second = received(runtime.engine), received(runtime.engine)
    killed(dispatcher, first)
    process(dispatcher, [second])

    clock.turn(HELD_BACK.total_seconds() - 0.001)
    assert dispatch.sweep(runtime, clock) == 0
    clock.turn(0.001)
    assert dispatch.sweep(runtime, clock) == 1
    assert rung(runtime, "events") == [(PROCESS, [second])]


def test_a_run_whose_process_died_keeps_its_place_until_its_lease_ends_and_takes_it_up_first(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    calls: list[str] = []

    @registry.on("*", name="printer", concurrency=1)
    def _(event: Event, ctx: Context) -> None:
        calls.append(event.id)
        if len(calls) == 1:
            raise KeyboardInterrupt

    first, second = received(engine), received(engine)
    killed(dispatcher, first)
    lease_ends = run_of(engine, first).next_attempt_at

    clock.now = lease_ends - timedelta(seconds=1)
    process(dispatcher, [second])
    assert calls == [first]

    clock.now = lease_ends
    process(dispatcher, [second])
    assert calls == [first, first, second]
    assert audit(engine).holds


def test_a_run_that_waits_has_no_place(dispatcher: Dispatcher, registry: Registry, engine: Engine) -> None:
    calls: list[str] = []

    @registry.on("*", name="printer", concurrency=1)
    def _(event: Event, ctx: Context) -> None:
        calls.append(event.id)
        if event.id == retries:
            raise Retry(after=60)
        if event.id == sleeps:
            ctx.sleep_until(NOW + timedelta(days=1))

    retries, sleeps, third = (received(engine) for _ in range(3))
    process(dispatcher, [retries, sleeps, third])

    assert sorted(calls) == sorted([retries, sleeps, third])
    assert sorted(statuses(engine)) == ["succeeded", "waiting", "waiting"]
    assert [run.slot for run in rows(engine, HandlerRun)] == [None, None, None]


def test_two_handlers_have_places_of_their_own(dispatcher: Dispatcher, registry: Registry, engine: Engine) -> None:
    calls: list[str] = []

    @registry.on("*", name="printer", concurrency=1)
    def _(event: Event, ctx: Context) -> None:
        raise KeyboardInterrupt

    event_id = received(engine)
    killed(dispatcher, event_id)
    registry.on("*", name="mailer", concurrency=1)(lambda event, ctx: calls.append(event.id))
    second = received(engine)
    process(dispatcher, [second])

    assert calls == [second]


def test_that_a_place_is_taken_twice_is_refused_by_the_database(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("*", name="printer", concurrency=2)(lambda event, ctx: None)
    planned(dispatcher, received(engine), received(engine))

    with pytest.raises(IntegrityError), database.write(engine) as connection:
        connection.execute(update(HandlerRun).values(status="running", slot=0))


@pytest.mark.parametrize(("limit", "started"), [(1, False), (2, False), (3, True)])
def test_a_limit_that_was_changed_counts_those_who_are_at_work_already(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock, limit: int, started: bool
) -> None:
    calls: list[str] = []

    @registry.on("*", name="printer", concurrency=3)
    def _(event: Event, ctx: Context) -> None:
        calls.append(event.id)
        if len(calls) <= 3:
            raise KeyboardInterrupt

    event_ids = [received(engine) for _ in range(3)]
    for event_id in event_ids:
        clock.turn(1)
        killed(dispatcher, event_id)
    clock.now = run_of(engine, event_ids[0]).next_attempt_at
    process(dispatcher, event_ids)  # the first ends, and its place is free; the other two still have theirs
    changed = Registry()
    changed.on("*", name="printer", concurrency=limit)(lambda event, ctx: calls.append(event.id))
    fourth = received(engine)

    process(replace(dispatcher, registry=changed), [fourth])

    assert (calls[4:] == [fourth]) is started


def test_an_event_that_was_replayed_gets_its_new_handlers_started_too(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    calls: list[str] = []
    registry.on("*", name="printer", concurrency=1)(lambda event, ctx: calls.append("printer"))
    event_id = received(engine)
    process(dispatcher, [event_id])
    registry.on("*", name="new")(lambda event, ctx: calls.append("new"))
    sent_back(engine, run_of(engine, event_id).id, plan_anew=True)

    process(dispatcher, [received(engine, "customer.created")])

    assert sorted(calls) == ["new", "new", "printer", "printer", "printer"]


def test_with_a_limit_too_one_object_is_in_order_and_another_need_not_wait_for_it(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    calls: list[str] = []

    @registry.on("*", name="books", concurrency=1, ordered=True)
    def _(event: Event, ctx: Context) -> None:
        calls.append(event.id)
        if event.id == first and ctx.attempt == 1:
            raise Retry(after=60)

    def happened(minute: int, object_id: str) -> str:
        return received(engine, object_id=object_id, occurred_at=NOW - timedelta(hours=1) + timedelta(minutes=minute))

    second, first = happened(20, "inv_7"), happened(10, "inv_7")
    others = [happened(minute, "inv_8") for minute in (5, 15)]
    process(dispatcher, [second, first, *others])
    assert sorted(calls) == sorted([first, *others])

    clock.turn(60)
    process(dispatcher, [first])

    assert calls[3:] == [first, second]
    assert [event_id for event_id in calls if event_id in others] == others
    assert audit(engine).holds


def test_of_one_object_nobody_takes_a_second_place(dispatcher: Dispatcher, registry: Registry, engine: Engine) -> None:
    at_work, calls = AtWork(), list[str]()

    @registry.on("*", name="books", concurrency=4, ordered=True)
    def _(event: Event, ctx: Context) -> None:
        with at_work.one():
            if not calls:
                process_elsewhere(dispatcher, *event_ids)
            calls.append(event.id)

    event_ids = [received(engine, object_id="inv_7", occurred_at=NOW + timedelta(minutes=n)) for n in range(3)]

    process(dispatcher, event_ids)

    assert at_work.most == 1
    assert calls == event_ids


def ten_more(calls: list[str], before: int) -> bool:
    return len(calls) >= before + 10


def test_a_backlog_is_worked_off_by_the_rings_that_a_process_leaves_behind(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry
) -> None:
    calls: list[str] = []
    registry.on("*", name="printer", concurrency=2)(lambda event, ctx: calls.append(event.id))
    event_ids = [received(runtime.engine) for _ in range(50)]
    planned(dispatcher, *event_ids)

    # Only the first is rung for, and each process has time for ten.
    messages = [event_ids[:1]]
    while messages:
        process(replace(dispatcher, stopping=partial(ten_more, calls, len(calls))), messages.pop(0))
        messages += [rung_for for _task, rung_for in rung(runtime, "events")]

    assert sorted(calls) == sorted(event_ids)
    assert {row.status for row in rows(runtime.engine, EventRow)} == {"processed"}


@pytest.mark.parametrize("backend", ["servers"], indirect=True)
def test_a_place_is_taken_at_once_even_by_a_run_that_is_being_held_back_when_it_becomes_free(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    began, may_end = threading.Event(), threading.Event()

    @registry.on("*", name="printer", concurrency=1)
    def _(event: Event, ctx: Context) -> None:
        if event.id == first:
            began.set()
            assert may_end.wait(20)

    first, second = received(engine), received(engine)
    with another_process(dispatcher) as one, another_process(dispatcher) as two, ThreadPoolExecutor(1) as thread:
        ended = thread.submit(process, one, [first])
        assert began.wait(20)

        @hooks.listens_for(two.engine, "after_cursor_execute")
        def _(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if statement.startswith("UPDATE handler_runs SET ring_at"):
                may_end.set()
                ended.result(20)

        process(two, [second])

    assert may_end.is_set()
    assert statuses(engine) == ["succeeded", "succeeded"]
