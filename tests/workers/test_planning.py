"""Which runs an event gets, in which state they are written, and what `when` has to say."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select
from sqlalchemy import event as hooks

from handlers import Context, Event, Retry
from handlers.registry import Registry
from tests.workers.given import (
    NOW,
    Clock,
    another_process,
    change,
    killed,
    only,
    planned,
    received,
    rows,
    until,
    waits_for_a_lock,
)
from workers import claims, database, planning
from workers.audit import audit
from workers.dispatch import Dispatcher, process
from workers.models import EventRow, HandlerRun

on_postgresql = pytest.mark.parametrize("backend", ["servers"], indirect=True)


def nothing(event: Event, ctx: Context) -> None:
    pass


def test_a_run_that_nothing_can_hold_back_is_leased_as_it_is_planned_and_any_other_waits(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("*", name="free", timeout=5)(nothing)
    registry.on("*", name="books", ordered=True)(nothing)
    registry.on("*", name="printer", concurrency=2)(nothing)
    event_id = received(engine)
    with database.write(engine) as connection:
        plan = planning.plan(dispatcher, connection, [event_id])

    runs = {run.handler: run for run in rows(engine, HandlerRun)}
    assert [taken.lease.handler for taken in plan.taken] == ["free"]
    assert {name: (run.status, run.starts, run.fence) for name, run in runs.items()} == {
        "free": ("running", 1, 1),
        "books": ("waiting", 0, 0),
        "printer": ("waiting", 0, 0),
    }
    assert runs["free"].next_attempt_at == NOW + dispatcher.lease(30)
    assert runs["books"].next_attempt_at == runs["printer"].next_attempt_at == NOW


def test_a_run_knows_which_object_it_is_about_and_when_that_happened(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("*", name="books", ordered=True)(nothing)
    moment = NOW - timedelta(hours=3, milliseconds=1)

    planned(dispatcher, received(engine, object_id="inv_7", occurred_at=moment))
    planned(dispatcher, received(engine, "customer.created", object_id="cus_7", source="mill"))
    planned(dispatcher, received(engine, "books.closed", object_id=None))

    runs = sorted(rows(engine, HandlerRun), key=lambda run: run.event_id)
    assert [(run.lane, run.ordered, run.occurred_at) for run in runs] == [
        ("shop/invoice/inv_7", True, moment),
        ("mill/customer/cus_7", True, NOW),
        (None, False, NOW),
    ]


def test_an_event_is_rung_for_by_itself_only_until_its_runs_are(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("invoice.paid", name="free")(nothing)
    registry.on("invoice.sent", name="books", ordered=True)(nothing)
    event_ids = [received(engine, "invoice.paid"), received(engine, "invoice.sent")]

    planned(dispatcher, *event_ids)

    events = {row.id: row.ring_at for row in rows(engine, EventRow)}
    assert [events[event_id] is None for event_id in event_ids] == [False, True]


def test_the_event_of_a_process_that_died_is_not_started_again_before_its_lease_ends(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    calls: list[str] = []

    @registry.on("*", name="unlucky")
    def _(event: Event, ctx: Context) -> None:
        calls.append(event.id)
        if len(calls) == 1:
            raise KeyboardInterrupt

    event_id = received(engine)
    killed(dispatcher, event_id)
    process(dispatcher, [event_id])
    assert len(calls) == 1

    clock.turn(dispatcher.lease(30).total_seconds())
    process(dispatcher, [event_id])
    assert len(calls) == 2
    assert only(engine, EventRow).status == "processed"


# Conditions


def test_an_event_that_the_condition_does_not_want_is_ignored(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    calls: list[str] = []
    registry.on("*", name="large", when=lambda event: event.object_id == "inv_7")(
        lambda event, ctx: calls.append(event.id)
    )
    wanted, other = received(engine, object_id="inv_7"), received(engine, object_id="inv_8")

    process(dispatcher, [wanted, other])

    assert calls == [wanted]
    assert {row.id: row.status for row in rows(engine, EventRow)} == {wanted: "processed", other: "ignored"}


def test_a_condition_that_raises_fails_the_run_with_its_error_until_it_no_longer_does(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    calls: list[int] = []
    prices: dict[str, int] = {}
    registry.on("*", name="large", backoff=60, when=lambda event: prices[event.type] > 5)(
        lambda event, ctx: calls.append(ctx.attempt)
    )
    event_id = received(engine)
    process(dispatcher, [event_id])

    run = only(engine, HandlerRun)
    assert (run.status, run.attempts, calls) == ("waiting", 1, [])
    assert "KeyError: 'invoice.paid'" in run.error

    prices["invoice.paid"] = 10
    clock.turn(60)
    process(dispatcher, [event_id])
    assert calls == [2]


def test_a_condition_that_no_longer_wants_the_event_discards_its_run(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    wants = [True]

    @registry.on("*", name="large", when=lambda event: wants[-1])
    def _(event: Event, ctx: Context) -> None:
        raise Retry(after=60)

    event_id = received(engine)
    process(dispatcher, [event_id])
    wants.append(False)
    clock.turn(60)
    process(dispatcher, [event_id])

    assert only(engine, HandlerRun).status == "discarded"
    assert only(engine, EventRow).status == "processed"


@pytest.mark.parametrize(
    ("broken", "becomes"), [({"provider": "gone"}, "waiting"), ({"body": b"{}"}, "dead")], ids=["provider", "body"]
)
def test_a_condition_is_not_asked_about_an_event_that_cannot_be_read(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, broken: dict[str, object], becomes: str
) -> None:
    registry.on("*", name="large", when=lambda event: bool(event.data.get("id")))(nothing)
    event_id = received(engine)
    change(engine, EventRow, **broken)

    process(dispatcher, [event_id])

    assert only(engine, EventRow).status == becomes
    assert only(engine, HandlerRun).status == becomes


# Workers with different handlers, as while a new version is rolled out


@on_postgresql
def test_runs_that_two_workers_planned_for_one_event_end_it_even_if_they_end_at_once(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    both_run, both_look, first = threading.Barrier(2), threading.Barrier(2), threading.Lock()

    def handler(event: Event, ctx: Context) -> None:
        both_run.wait(20)

    def looks_before_the_other_commits(own: Engine) -> None:
        """Whether the other's run has ended is asked before that can be seen, if the product lets it come to that."""
        looked = threading.Event()

        @hooks.listens_for(own, "before_cursor_execute")
        def _(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if statement.startswith("UPDATE events SET status") and not looked.is_set():
                looked.set()
                with suppress(threading.BrokenBarrierError):
                    both_look.wait(0.3)

        @hooks.listens_for(own, "commit")
        def _(_connection: object) -> None:
            if looked.is_set() and first.acquire(blocking=False):
                with suppress(AssertionError):
                    until(lambda: waits_for_a_lock(engine), 0.3)

    renamed = Registry()
    registry.on("*", name="old")(handler)
    renamed.on("*", name="new")(handler)
    event_id = received(engine)
    with another_process(dispatcher) as one, another_process(replace(dispatcher, registry=renamed)) as two:
        looks_before_the_other_commits(one.engine)
        looks_before_the_other_commits(two.engine)
        with ThreadPoolExecutor(2) as threads:
            for ended in [threads.submit(process, own, [event_id]) for own in (one, two)]:
                ended.result(30)

    assert [run.status for run in rows(engine, HandlerRun)] == ["succeeded", "succeeded"]
    assert only(engine, EventRow).status == "processed"


@on_postgresql
def test_a_run_is_not_lost_when_another_worker_ignores_its_event_at_the_same_moment(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    calls: list[str] = []

    @registry.on("*", name="new")
    def _(event: Event, ctx: Context) -> None:
        calls.append(event.id)
        if len(calls) == 1:
            raise KeyboardInterrupt

    event_id = received(engine)
    with another_process(replace(dispatcher, registry=Registry())) as old:

        @hooks.listens_for(old.engine, "commit", once=True)
        def _(_connection: object) -> None:
            killed(dispatcher, event_id)

        process(old, [event_id])
    clock.turn(dispatcher.lease(30).total_seconds())

    process(dispatcher, [event_id])

    assert calls == [event_id, event_id]
    assert only(engine, EventRow).status == "processed"
    assert audit(engine).holds


@on_postgresql
def test_who_takes_a_run_of_an_event_to_be_planned_again_locks_the_event_first_as_who_settles_it_does(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("*", name="receipts")(nothing)
    event_id = received(engine)
    planned(dispatcher, event_id)
    change(engine, EventRow, ring_at=NOW)
    run_id = only(engine, HandlerRun).id

    with another_process(dispatcher) as other, ThreadPoolExecutor(1) as thread:
        with database.write(engine) as connection:
            connection.execute(select(EventRow.id).where(EventRow.id == event_id).with_for_update())
            taken = thread.submit(claims.heads, other, [run_id])
            until(lambda: waits_for_a_lock(engine))
            # Whoever waits for the event has not got the run, else this raises, and without `nowait` none would end.
            connection.execute(select(HandlerRun.id).where(HandlerRun.id == run_id).with_for_update(nowait=True))
        assert [one.lease.id for one in taken.result(20)] == [run_id]
