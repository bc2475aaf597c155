"""`ctx.once`: an effect that one run has for all. `ctx.is_stale`: whether a newer event was handled already."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select, update

from handlers import Context, Discard, Event, Retry
from handlers.registry import Registry
from tests.workers.given import NOW, Clock, another_process, killed, received, rows, sent_back
from workers import database
from workers.audit import audit
from workers.dispatch import Dispatcher, process
from workers.models import EventRow, HandlerRun, OnceKey


def run_id_of(engine: Engine, event_id: str) -> str:
    (run_id,) = [run.id for run in rows(engine, HandlerRun) if run.event_id == event_id]
    return str(run_id)


@pytest.fixture
def asked() -> list[tuple[str, bool]]:
    """What the handler `welcome` was told: the event, and whether the effect was its to have."""
    return []


def welcome(
    asked: list[tuple[str, bool]], ends: Callable[[Event, Context], None] = lambda event, ctx: None
) -> Callable[[Event, Context], None]:
    def handler(event: Event, ctx: Context) -> None:
        asked.append((event.id, ctx.once("welcome cus_1")))
        ends(event, ctx)

    return handler


def test_of_two_events_one_has_the_effect(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, asked: list[tuple[str, bool]]
) -> None:
    registry.on("*", name="welcome")(welcome(asked))
    first, second = (received(engine) for _ in range(2))
    process(dispatcher, [first])
    process(dispatcher, [second])

    assert asked == [(first, True), (second, False)]
    assert {run.status for run in rows(engine, HandlerRun)} == {"succeeded"}


def test_of_two_events_in_one_batch_one_has_the_effect_before_that_is_written(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, asked: list[tuple[str, bool]]
) -> None:
    registry.on("*", name="welcome")(welcome(asked))

    process(dispatcher, [received(engine) for _ in range(3)])

    assert [mine for _, mine in asked] == [True, False, False]


def test_of_two_processes_at_once_one_has_the_effect(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    told: dict[str, list[bool]] = {str(number): [] for number in range(20)}
    ready = threading.Barrier(2)

    @registry.on("*", name="welcome")
    def _(event: Event, ctx: Context) -> None:
        ready.wait(20)
        for key, answers in told.items():
            answers.append(ctx.once(key))

    event_ids = [received(engine) for _ in range(2)]

    def work(event_id: str) -> None:
        with another_process(dispatcher) as own:
            process(own, [event_id])

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(work, event_ids))

    assert {key: sorted(answers) for key, answers in told.items()} == {key: [False, True] for key in told}


def test_a_run_keeps_its_key_through_retries_and_no_other_gets_it_meanwhile(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock, asked: list[tuple[str, bool]]
) -> None:
    def fails_twice(event: Event, ctx: Context) -> None:
        if event.id == first and ctx.attempt < 3:
            raise Retry(after=60)

    registry.on("*", name="welcome")(welcome(asked, fails_twice))
    first = received(engine)
    process(dispatcher, [first])
    second = received(engine)
    process(dispatcher, [second])
    for _attempt in (2, 3):
        clock.turn(60)
        process(dispatcher, [first])

    assert asked == [(first, True), (second, False), (first, True), (first, True)]


def test_a_run_whose_process_died_still_has_its_key(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock, asked: list[tuple[str, bool]]
) -> None:
    def dies_once(event: Event, ctx: Context) -> None:
        if len(asked) == 1:
            raise KeyboardInterrupt

    registry.on("*", name="welcome")(welcome(asked, dies_once))
    event_id = received(engine)
    killed(dispatcher, event_id)
    clock.turn(dispatcher.lease(30).total_seconds())
    process(dispatcher, [event_id])

    assert asked == [(event_id, True), (event_id, True)]


@pytest.mark.parametrize("end", [ValueError(), Discard("no")], ids=["dead", "discarded"])
def test_a_run_that_ended_without_success_has_the_key_again_when_it_is_replayed(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, asked: list[tuple[str, bool]], end: Exception
) -> None:
    def fails_at_first(event: Event, ctx: Context) -> None:
        if event.id == first and not ctx.replay:
            raise end

    registry.on("*", name="welcome", retries=0)(welcome(asked, fails_at_first))
    first, second = (received(engine) for _ in range(2))
    process(dispatcher, [first])
    process(dispatcher, [second])
    sent_back(engine, run_id_of(engine, first))
    process(dispatcher, [first])

    assert asked == [(first, True), (second, False), (first, True)]
    assert audit(engine).holds


def test_a_replay_of_a_run_that_succeeded_does_not_repeat_the_effect(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, asked: list[tuple[str, bool]]
) -> None:
    registry.on("*", name="welcome")(welcome(asked))
    event_id = received(engine)
    process(dispatcher, [event_id])
    for _replay in range(2):
        sent_back(engine, run_id_of(engine, event_id))
        process(dispatcher, [event_id])

    assert [mine for _, mine in asked] == [True, False, False]
    assert audit(engine).holds


def test_a_success_closes_also_the_keys_that_only_an_earlier_start_asked_for(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    told: list[bool] = []

    @registry.on("*", name="welcome")
    def _(event: Event, ctx: Context) -> None:
        if ctx.attempt == 1:
            told.append(ctx.once("welcome cus_1"))
            if not ctx.replay:
                raise Retry(after=1)

    event_id = received(engine)
    process(dispatcher, [event_id])
    clock.turn(1)
    process(dispatcher, [event_id])
    sent_back(engine, run_id_of(engine, event_id))
    process(dispatcher, [event_id])

    assert told == [True, False]


def test_the_same_key_of_another_handler_is_another_key(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, asked: list[tuple[str, bool]]
) -> None:
    registry.on("*", name="welcome")(welcome(asked))
    registry.on("*", name="gift")(welcome(asked))

    process(dispatcher, [received(engine)])

    assert [mine for _, mine in asked] == [True, True]


def test_a_key_is_there_from_the_moment_it_was_asked_for_and_done_with_the_success(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    def keys() -> list[tuple[str, str, bool]]:
        with database.read(engine) as connection:
            return [(row.handler, row.key, row.done) for row in connection.execute(select(*OnceKey.__table__.columns))]

    seen: list[list[tuple[str, str, bool]]] = []

    @registry.on("*", name="welcome")
    def _(event: Event, ctx: Context) -> None:
        ctx.once("cus_1")
        seen.append(keys())
        if ctx.attempt == 1:
            raise Retry(after=1)

    event_id = received(engine)
    process(dispatcher, [event_id])
    clock.turn(1)
    process(dispatcher, [event_id])

    assert [*seen, keys()] == [[("welcome", "cus_1", False)]] * 2 + [[("welcome", "cus_1", True)]]


@pytest.mark.parametrize("key", ["", "a\nb", "x" * 201], ids=["empty", "line", "long"])
def test_a_key_that_is_none_fails_the_attempt(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, key: str
) -> None:
    registry.on("*", name="welcome")(lambda event, ctx: ctx.once(key) and None)

    process(dispatcher, [received(engine)])

    (run,) = rows(engine, HandlerRun)
    assert (run.status, run.attempts) == ("waiting", 1)
    assert "a once key has 1 to 200 printable characters" in run.error


# Stale events


def happened(engine: Engine, minute: int, object_id: str | None = "inv_7") -> str:
    """An event about an object that happened at that minute before noon."""
    return received(engine, object_id=object_id, occurred_at=NOW - timedelta(hours=4) + timedelta(minutes=minute))


@pytest.fixture
def stale(registry: Registry) -> dict[str, bool]:
    """What the handler `sync` was told about each event."""
    told: dict[str, bool] = {}

    @registry.on("*", name="sync", retries=0)
    def _(event: Event, ctx: Context) -> None:
        told[event.id] = ctx.is_stale

    return told


def test_an_event_is_stale_once_a_newer_one_of_its_object_was_handled(
    dispatcher: Dispatcher, engine: Engine, stale: dict[str, bool]
) -> None:
    order = [20, 10, 30, 20]
    event_ids = [happened(engine, minute) for minute in order]
    for event_id in event_ids:
        process(dispatcher, [event_id])

    assert [stale[event_id] for event_id in event_ids] == [False, True, False, True]


def test_an_event_is_stale_also_where_the_newer_one_was_handled_a_moment_before_in_the_same_batch(
    dispatcher: Dispatcher, engine: Engine, stale: dict[str, bool]
) -> None:
    event_ids = sorted(happened(engine, minute) for minute in (10, 20))
    with database.write(engine) as connection:  # they run in the order of their ids: let the first be the newer
        connection.execute(update(EventRow).where(EventRow.id == event_ids[0]).values(occurred_at=NOW))

    process(dispatcher, event_ids)

    assert [stale[event_id] for event_id in event_ids] == [False, True]


def test_what_is_about_another_object_or_about_none_makes_nothing_stale(
    dispatcher: Dispatcher, engine: Engine, stale: dict[str, bool]
) -> None:
    process(dispatcher, [happened(engine, 30, "inv_8"), happened(engine, 30, None)])
    event_ids = [happened(engine, 10), happened(engine, 10, None)]
    process(dispatcher, event_ids)

    assert [stale[event_id] for event_id in event_ids] == [False, False]


def test_only_the_handlers_own_successes_make_an_event_stale(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    told: list[bool] = []

    @registry.on("*", name="fails at first", retries=0)
    def _(event: Event, ctx: Context) -> None:
        told.append(ctx.is_stale)
        if event.id == newer:
            raise ValueError

    registry.on("*", name="succeeds")(lambda event, ctx: None)
    newer, older = happened(engine, 20), happened(engine, 10)
    process(dispatcher, [newer])
    process(dispatcher, [older])

    assert told == [False, False]
