"""A batch: results written together, nobody behind a slow handler, and what a process that dies leaves behind."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy import Connection, Engine, make_url
from sqlalchemy import event as hooks
from sqlalchemy.exc import OperationalError

from handlers import Context, Event, Retry
from handlers.registry import Registry
from tests.workers.given import (
    Clock,
    endpoint,
    only,
    process_elsewhere,
    received,
    rows,
    rung,
    statements,
    until,
)
from workers import app
from workers.app import PROCESS, Runtime
from workers.audit import audit
from workers.clients import Clients
from workers.dispatch import Dispatcher, process
from workers.models import AnyRow, Delivery, EventRow, HandlerRun, Message
from workers.settings import Settings

on_postgresql = pytest.mark.parametrize("backend", ["servers"], indirect=True)


def run_of(engine: Engine, event_id: str) -> AnyRow:
    (run,) = [run for run in rows(engine, HandlerRun) if run.event_id == event_id]
    return run


def statuses(engine: Engine) -> dict[str, str]:
    """What became of each event's run."""
    return {run.event_id: run.status for run in rows(engine, HandlerRun)}


def in_turn(engine: Engine, count: int) -> list[str]:
    """Events in the order in which one process runs them."""
    return sorted(received(engine) for _ in range(count))


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are not written because of the time that they have waited."""
    monkeypatch.setattr("workers.batch._UNWRITTEN", 60.0)


@pytest.fixture
def impatient(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dispatcher hands back what is behind a handler, and writes what is done, almost at once."""
    monkeypatch.setattr("workers.batch._PATIENCE", 0.01)
    monkeypatch.setattr("workers.batch._UNWRITTEN", 0.01)


# In few transactions


@pytest.mark.usefixtures("together")
def test_the_results_of_many_quick_runs_are_written_in_few_transactions(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("*", name="quick")(lambda event, ctx: None)
    event_ids = in_turn(engine, 250)
    commits: list[Connection] = []
    hooks.listen(engine, "commit", commits.append)

    process(dispatcher, event_ids)

    assert len(commits) == 1 + 3  # one that plans, and one for each hundred results
    assert {row.status for row in rows(engine, EventRow)} == {"processed"}


@pytest.mark.usefixtures("together")
def test_a_hundred_events_take_as_many_statements_as_ten(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("*", name="quick")(lambda event, ctx: None)
    counted: dict[int, int] = {}
    for count in (10, 100):
        event_ids = in_turn(engine, count)
        with statements(engine) as asked:
            process(dispatcher, event_ids)
        counted[count] = len(asked)

    # SQLite has no statement that writes many different rows; one there costs no more than a function call.
    extra = 0 if engine.dialect.name == "postgresql" else 90
    assert counted[100] == counted[10] + extra


@pytest.mark.usefixtures("together")
def test_no_statement_asks_for_what_a_handler_does_not_use(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("*", name="quick")(lambda event, ctx: None)
    event_ids = in_turn(engine, 3)

    with statements(engine) as asked:
        process(dispatcher, event_ids)

    for table in ("steps", "once_keys", "messages", "deliveries"):
        assert [statement for statement in asked if table in statement] == []


# A handler that takes its time


@pytest.mark.usefixtures("impatient")
def test_behind_a_slow_handler_results_are_written_and_the_rest_is_handed_back_and_rung_for(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry
) -> None:
    calls: list[str] = []
    messages: list[tuple[str, list[str]]] = []

    def handed_back() -> bool:
        messages.extend(rung(runtime, "events"))
        return bool(messages)

    @registry.on("*", name="either")
    def _(event: Event, ctx: Context) -> None:
        calls.append(event.id)
        if event.id == slow:
            until(lambda: statuses(runtime.engine)[quick] == "succeeded")
            until(handed_back)
            process_elsewhere(dispatcher, *messages[0][1])

    quick, slow, *rest = in_turn(runtime.engine, 5)
    process(dispatcher, [quick, slow, *rest])

    assert messages == [(PROCESS, rest)]
    assert (calls[:2], sorted(calls[2:])) == ([quick, slow], rest)
    assert {(run.status, run.starts) for run in rows(runtime.engine, HandlerRun)} == {("succeeded", 1)}
    assert audit(runtime.engine).holds


@pytest.mark.usefixtures("impatient")
def test_what_was_emitted_is_rung_for_whoever_wrote_it(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry
) -> None:
    endpoint(runtime)

    @registry.on("*", name="receipts")
    def _(event: Event, ctx: Context) -> None:
        if event.id == second:
            until(lambda: statuses(runtime.engine)[first] == "succeeded")
        ctx.emit("receipt.issued", {})

    first, second = in_turn(runtime.engine, 2)
    found = process(dispatcher, [first, second])
    for _task, event_ids in rung(runtime, "events"):
        found += process(dispatcher, event_ids)

    assert sorted(found) == [delivery.id for delivery in rows(runtime.engine, Delivery)]
    assert len(found) == 2


def test_a_process_that_is_to_stop_hands_back_what_it_has_not_begun_and_rings_for_it(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry
) -> None:
    calls: list[str] = []
    registry.on("*", name="counts")(lambda event, ctx: calls.append(event.id))
    first, *rest = in_turn(runtime.engine, 4)

    process(replace(dispatcher, stopping=lambda: bool(calls)), [first, *rest])

    assert statuses(runtime.engine) == {first: "succeeded"} | dict.fromkeys(rest, "waiting")
    assert {run_of(runtime.engine, event_id).starts for event_id in rest} == {0}
    assert rung(runtime, "events") == [(PROCESS, rest)]
    process(dispatcher, rest)
    assert sorted(calls) == [first, *rest]


def test_a_handler_that_changes_the_alarm_does_not_take_it_from_the_next(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    @registry.on("*", name="either", timeout=0.05)
    def _(event: Event, ctx: Context) -> None:
        if event.id == careless:
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
        else:
            time.sleep(5)  # until the alarm

    careless, endless = in_turn(engine, 2)
    process(dispatcher, [careless, endless])

    assert "TimeUp" in run_of(engine, endless).error


# A database that fails


@contextmanager
def failing_once(engine: Engine, thread: str) -> Iterator[threading.Event]:
    """The database does not take the first results that this thread writes; set when that has happened."""
    failed = threading.Event()

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        writes = statement.startswith("UPDATE handler_runs")
        if writes and threading.current_thread().name == thread and not failed.is_set():
            failed.set()
            raise OperationalError("the server closed the connection unexpectedly", None, Exception())

    hooks.listen(engine, "before_cursor_execute", fail)
    yield failed
    hooks.remove(engine, "before_cursor_execute", fail)


@pytest.mark.usefixtures("impatient")
def test_results_that_the_database_does_not_take_while_a_handler_runs_are_written_later(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry
) -> None:
    calls: list[str] = []

    @registry.on("*", name="receipts")
    def _(event: Event, ctx: Context) -> None:
        calls.append(event.id)
        ctx.emit("receipt.issued", {})
        if event.id == second:
            assert failed.wait(20)

    first, second = in_turn(runtime.engine, 2)
    with failing_once(runtime.engine, "keeper") as failed:
        process(dispatcher, [first, second])
        for _task, event_ids in rung(runtime, "events"):
            process(dispatcher, event_ids)

    assert calls == [first, second]
    assert set(statuses(runtime.engine).values()) == {"succeeded"}
    assert len(rows(runtime.engine, Message)) == 2
    assert audit(runtime.engine).holds


@pytest.mark.usefixtures("together")
def test_results_that_were_not_written_leave_leases_that_end_and_nothing_is_lost_or_sent_twice(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    calls: list[str] = []

    @registry.on("*", name="receipts")
    def _(event: Event, ctx: Context) -> None:
        calls.append(event.id)
        ctx.emit("receipt.issued", {})

    event_ids = in_turn(engine, 3)
    with failing_once(engine, "MainThread"), pytest.raises(OperationalError):
        process(dispatcher, event_ids)
    assert set(statuses(engine).values()) == {"running"}
    assert audit(engine).holds

    process(dispatcher, event_ids)
    assert calls == event_ids
    clock.turn(dispatcher.lease(30).total_seconds())
    process(dispatcher, event_ids)

    assert sorted(calls) == sorted(event_ids * 2)
    assert set(statuses(engine).values()) == {"succeeded"}
    assert len(rows(engine, Message)) == 3
    assert audit(engine).holds


@pytest.mark.usefixtures("together")
def test_results_whose_commit_was_not_confirmed_are_not_written_twice(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    calls: list[str] = []

    @registry.on("*", name="receipts")
    def _(event: Event, ctx: Context) -> None:
        calls.append(event.id)
        ctx.emit("receipt.issued", {})

    event_id = received(engine)
    commits: list[Connection] = []

    def unconfirmed(connection: Connection) -> None:
        commits.append(connection)
        if len(commits) == 2:  # after that of the plan
            connection.exec_driver_sql("COMMIT")
            raise OperationalError("the server closed the connection unexpectedly", None, Exception())

    hooks.listen(engine, "commit", unconfirmed)
    with pytest.raises(OperationalError):
        process(dispatcher, [event_id])
    clock.turn(dispatcher.lease(30).total_seconds())
    process(dispatcher, [event_id])

    assert calls == [event_id]
    assert (only(engine, HandlerRun).status, only(engine, HandlerRun).attempts) == ("succeeded", 1)
    assert len(rows(engine, Message)) == 1
    assert audit(engine).holds


@on_postgresql
@pytest.mark.usefixtures("together")
def test_connections_that_were_cut_while_handlers_ran_are_made_anew(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    calls: list[str] = []
    url = make_url(dispatcher.settings.sqlalchemy_url).set(drivername="postgresql")

    @registry.on("*", name="cuts")
    def _(event: Event, ctx: Context) -> None:
        calls.append(event.id)
        with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )

    event_ids = in_turn(engine, 3)
    process(dispatcher, event_ids)

    assert calls == event_ids
    assert set(statuses(engine).values()) == {"succeeded"}


# A process that dies


@pytest.mark.usefixtures("together")
def test_a_run_that_kills_its_process_takes_no_other_of_its_batch_with_it(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    calls: list[str] = []

    @registry.on("*", name="either")
    def _(event: Event, ctx: Context) -> None:
        calls.append(event.id)
        if event.id == poison:
            raise KeyboardInterrupt

    before, poison, *after = event_ids = in_turn(engine, 6)
    for _death in range(dispatcher.settings.max_starts + 1):
        with suppress(KeyboardInterrupt):
            process(dispatcher, event_ids)
        with suppress(KeyboardInterrupt):
            process(dispatcher, event_ids)  # as its message comes again
        clock.turn(dispatcher.lease(30).total_seconds())

    assert statuses(engine) == {before: "succeeded", poison: "dead"} | dict.fromkeys(after, "succeeded")
    assert run_of(engine, poison).error == "its process died 5 times while it ran"
    assert calls.count(poison) == 5
    assert {run_of(engine, event_id).starts for event_id in (before, *after)} == {2}
    assert audit(engine).holds


@pytest.mark.usefixtures("together")
def test_the_deaths_of_one_run_are_never_counted_as_those_of_another_that_waits_for_its_next_attempt(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    starts: list[str] = []

    @registry.on("*", name="either", retries=20)
    def _(event: Event, ctx: Context) -> None:
        starts.append(event.id)
        if event.id == poison and starts.count(poison) % 2 == 0:
            raise KeyboardInterrupt
        if event.id == poison or ctx.attempt <= 8:
            raise Retry(after=60)

    poison, *innocent = event_ids = in_turn(engine, 4)
    while set(statuses(engine).values()) != {"dead", "succeeded"}:
        for _message in range(2):
            with suppress(KeyboardInterrupt):
                process(dispatcher, event_ids)
        assert len(starts) < 100
        assert "dead" not in [run_of(engine, event_id).status for event_id in innocent]
        clock.turn(dispatcher.lease(30).total_seconds())

    assert run_of(engine, poison).error == "its process died 5 times while it ran"
    assert audit(engine).holds


def _works(settings: Settings, event_ids: list[str]) -> None:
    """A process with a handler that nothing can interrupt, beside one that may take its time."""
    runtime, registry = app.start(settings), Registry()
    registry.on("*", name="patient", timeout=600, when=lambda event: event.id == event_ids[0])(lambda event, ctx: None)

    @registry.on("*", name="either", timeout=0.1, when=lambda event: event.id != event_ids[0])
    def stuck(event: Event, ctx: Context) -> None:
        if event.id == event_ids[1]:
            lock = ctypes.create_string_buffer(64)
            for _ in range(2):
                ctypes.CDLL(None).pthread_mutex_lock(lock)

    process(
        Dispatcher(engine=runtime.engine, settings=settings, registry=registry, clients=Clients(settings)), event_ids
    )


def test_a_process_whose_handler_nothing_can_interrupt_ends_and_leaves_the_others_to_others(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    registry.on("*", name="either")(lambda event, ctx: None)
    quick, stuck, *rest = in_turn(runtime.engine, 4)
    settings = runtime.settings.model_copy(update={"lease_grace": 2.0})

    child = multiprocessing.get_context("spawn").Process(target=_works, args=(settings, [quick, stuck, *rest]))
    child.start()
    child.join(60)

    assert child.exitcode == 1
    assert statuses(runtime.engine) == {quick: "succeeded", stuck: "running"} | dict.fromkeys(rest, "waiting")
    assert rung(runtime, "events") == [(PROCESS, rest)]
    clock.now = run_of(runtime.engine, stuck).next_attempt_at
    process(dispatcher, [stuck, *rest])
    assert set(statuses(runtime.engine).values()) == {"succeeded"}
    assert run_of(runtime.engine, stuck).starts == 2
