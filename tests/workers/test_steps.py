"""`ctx.step`: what has returned is not done again, whatever becomes of the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date
from typing import Any, TypeVar

import pytest
from sqlalchemy import Engine, select

from handlers import Context, Event, Retry
from handlers.context import MAX_STEP_BYTES
from handlers.errors import LeaseLost
from handlers.registry import Registry
from tests.workers.given import (
    NOW,
    Clock,
    another_process,
    killed,
    only,
    process_elsewhere,
    received,
    rows,
    sent_back,
    statements,
)
from workers import database
from workers.audit import audit
from workers.dispatch import Dispatcher, process
from workers.models import EventRow, HandlerRun, Step

T = TypeVar("T")


def kept(engine: Engine) -> list[str]:
    """The names of the steps that are kept."""
    with database.read(engine) as connection:
        return list(connection.execute(select(Step.name).order_by(Step.name)).scalars())


def noting(calls: list[str], name: str, value: T) -> Callable[[], T]:
    """Something to be done in a step, which notes that it was."""

    def do() -> T:
        calls.append(name)
        return value

    return do


VALUES: dict[str, tuple[Any, Any]] = {
    "nothing": (None, None),
    "yes": (True, True),
    "number": (7, 7),
    "fraction": (1.5, 1.5),
    "text": ("\u0645\u0631\u062d\u0628\u0627", "\u0645\u0631\u062d\u0628\u0627"),
    "list": ([1, [2]], [1, [2]]),
    "object": ({"a": {"b": None}}, {"a": {"b": None}}),
    "tuple": ((1, 2), [1, 2]),
    "day": (date(2026, 6, 5), "2026-06-05"),
    "bytes": (b"\x00\xff%PDF", b"\x00\xff%PDF"),
    "no bytes": (b"", b""),
}


def test_a_step_is_done_once_and_gives_the_same_in_every_start(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    done: list[str] = []
    got: list[dict[str, Any]] = []

    @registry.on("*", name="receipts")
    def _(event: Event, ctx: Context) -> None:
        got.append({name: ctx.step(name, noting(done, name, value)) for name, (value, _) in VALUES.items()})
        if ctx.attempt < 3:
            raise Retry(after=1)

    event_id = received(engine)
    for _start in range(3):
        process(dispatcher, [event_id])
        clock.turn(1)

    assert done == list(VALUES)
    assert got == [{name: comes_back for name, (_, comes_back) in VALUES.items()}] * 3
    assert only(engine, EventRow).status == "processed"


def test_what_did_not_return_is_done_again(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    calls: list[str] = []

    def pdf() -> str:
        calls.append("pdf")
        if len(calls) == 1:
            raise TimeoutError
        return "done"

    registry.on("*", name="receipts", backoff=1)(lambda event, ctx: ctx.step("pdf", pdf) and None)
    event_id = received(engine)
    process(dispatcher, [event_id])
    assert kept(engine) == []

    clock.turn(1)
    process(dispatcher, [event_id])
    assert (calls, kept(engine)) == (["pdf", "pdf"], ["pdf"])


def test_a_step_is_not_repeated_after_the_death_of_its_process(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    calls: list[str] = []

    @registry.on("*", name="receipts")
    def _(event: Event, ctx: Context) -> None:
        number = ctx.step("number", noting(calls, "number", f"R-{len(calls)}"))
        if len(calls) == 1:
            calls.append("dies")
            raise KeyboardInterrupt
        calls.append(number)

    event_id = received(engine)
    killed(dispatcher, event_id)
    clock.now = only(engine, HandlerRun).next_attempt_at
    with another_process(dispatcher) as other:
        process(other, [event_id])

    assert calls == ["number", "dies", "R-0"]
    assert audit(engine).holds


def test_steps_of_an_async_handler_are_awaited_and_kept_too(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    calls: list[str] = []
    got: list[list[Any]] = []

    async def fetch(name: str) -> dict[str, str]:
        await asyncio.sleep(0)
        calls.append(name)
        return {"name": name}

    @registry.on("*", name="receipts")
    async def _(event: Event, ctx: Context) -> None:
        one, two = (ctx.step(name, lambda name=name: fetch(name)) for name in ("one", "two"))
        plain = ctx.step("plain", lambda: calls.append("plain"))
        got.append([*await asyncio.gather(one, two), plain])
        if ctx.attempt == 1:
            raise Retry(after=1)

    event_id = received(engine)
    process(dispatcher, [event_id])
    clock.turn(1)
    process(dispatcher, [event_id])

    assert sorted(calls) == ["one", "plain", "two"]
    assert got == [[{"name": "one"}, {"name": "two"}, None]] * 2


def twice(ctx: Context) -> None:
    ctx.step("pdf", lambda: 1)
    ctx.step("pdf", lambda: 2)


@pytest.mark.parametrize(
    ("misuse", "says", "leaves"),
    [
        (lambda ctx: ctx.step("pdf", object), "the result of step 'pdf' is neither JSON nor bytes", []),
        (lambda ctx: ctx.step("pdf", lambda: {"a": b"x"}), "the result of step 'pdf' is neither JSON nor bytes", []),
        (lambda ctx: ctx.step("pdf", lambda: 2**70), "the result of step 'pdf' is neither JSON nor bytes", []),
        (lambda ctx: ctx.step("pdf", lambda: bytes(MAX_STEP_BYTES)), "at most 1048576 can be kept", []),
        (lambda ctx: ctx.step("", lambda: 1), "a step's name has 1 to 200 printable characters", []),
        (twice, "step 'pdf' was used before in this run: give each step its own name", ["pdf"]),
    ],
    ids=["object", "nested bytes", "large number", "large", "no name", "name used twice"],
)
def test_a_step_that_cannot_be_kept_fails_the_attempt_and_says_why(
    dispatcher: Dispatcher,
    registry: Registry,
    engine: Engine,
    clock: Clock,
    misuse: Callable[[Context], None],
    says: str,
    leaves: list[str],
) -> None:
    @registry.on("*", name="receipts", backoff=1)
    def _(event: Event, ctx: Context) -> None:
        if ctx.attempt == 1:
            misuse(ctx)

    event_id = received(engine)
    process(dispatcher, [event_id])

    run = only(engine, HandlerRun)
    assert (run.status, run.attempts) == ("waiting", 1)
    assert says in run.error.splitlines()[-1]
    assert kept(engine) == leaves
    clock.turn(1)
    process(dispatcher, [event_id])
    assert only(engine, HandlerRun).status == "succeeded"


def test_the_largest_result_that_can_be_kept_is_kept(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    sizes: list[int] = []

    @registry.on("*", name="receipts")
    def _(event: Event, ctx: Context) -> None:
        sizes.append(len(ctx.step("pdf", lambda: bytes(MAX_STEP_BYTES - 2))))

    process(dispatcher, [received(engine)])

    assert sizes == [MAX_STEP_BYTES - 2]
    assert only(engine, HandlerRun).status == "succeeded"


@pytest.mark.parametrize("late", [lambda ctx: ctx.step("late", lambda: 1), lambda ctx: ctx.once("late")],
                         ids=["step", "once"])  # fmt: skip
def test_a_start_whose_run_went_to_another_process_keeps_nothing_more(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock, late: Callable[[Context], object]
) -> None:
    starts: list[int] = []
    refused: list[str] = []

    @registry.on("*", name="receipts")
    def _(event: Event, ctx: Context) -> None:
        starts.append(ctx.attempt)
        ctx.step("early", lambda: 1)
        if len(starts) == 1:
            clock.turn(dispatcher.lease(30).total_seconds())
            process_elsewhere(dispatcher, event.id)
            try:
                late(ctx)
            except LeaseLost as error:
                refused.append(str(error))
                raise

    process(dispatcher, [received(engine)])

    assert refused == ["the run of receipts took too long and was given to another process"]
    assert kept(engine) == ["early"]
    run = only(engine, HandlerRun)
    assert (run.status, run.attempts, run.error) == ("succeeded", 1, None)


def test_a_dead_run_that_is_replayed_goes_on_where_it_was(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    calls: list[str] = []

    @registry.on("*", name="receipts", retries=0)
    def _(event: Event, ctx: Context) -> None:
        ctx.step("charge", lambda: calls.append("charge"))
        ctx.step("print", lambda: calls.append("print"))
        if not ctx.replay:
            raise ValueError

    event_id = received(engine)
    process(dispatcher, [event_id])
    assert only(engine, EventRow).status == "dead"
    sent_back(engine, only(engine, HandlerRun).id)
    process(dispatcher, [event_id])

    assert calls == ["charge", "print"]
    assert only(engine, EventRow).status == "processed"


def test_a_run_that_succeeded_and_is_replayed_runs_anew(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    calls: list[bool] = []
    registry.on("*", name="receipts")(lambda event, ctx: ctx.step("charge", lambda: calls.append(ctx.replay)))
    event_id = received(engine)
    process(dispatcher, [event_id])
    sent_back(engine, only(engine, HandlerRun).id)
    process(dispatcher, [event_id])

    assert calls == [False, True]


def test_a_first_start_does_not_ask_for_earlier_steps_and_any_other_asks_once(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    @registry.on("*", name="receipts")
    def _(event: Event, ctx: Context) -> None:
        for name in ("one", "two", "three"):
            ctx.step(name, lambda: 1)
        if ctx.attempt == 1:
            raise Retry(after=1)

    event_id = received(engine)
    asked = []
    for _start in range(2):
        with statements(engine) as seen:
            process(dispatcher, [event_id])
        asked.append(sum("FROM steps" in statement for statement in seen))
        clock.turn(1)

    assert asked == [0, 1]


def test_the_steps_of_two_handlers_of_one_event_do_not_meet(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    got: list[str] = []
    for name in ("one", "two"):
        registry.on("*", name=name)(lambda event, ctx, name=name: got.append(ctx.step("who", lambda: name)))

    process(dispatcher, [received(engine)])

    assert sorted(got) == ["one", "two"]
    assert {run.status for run in rows(engine, HandlerRun)} == {"succeeded"}
    assert {run.next_attempt_at for run in rows(engine, HandlerRun)} == {NOW}
