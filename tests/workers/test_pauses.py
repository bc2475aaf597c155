"""`ctx.sleep_until`: a pause of the run that no process has to live through."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import Engine

from handlers import Context, Event, Retry
from handlers.context import LONGEST_PAUSE
from handlers.registry import Registry
from tests.workers.given import NOW, Clock, another_process, only, received, rows, rung, sent_back
from workers import dispatch
from workers.app import PROCESS, Runtime
from workers.audit import audit
from workers.dispatch import Dispatcher, process
from workers.models import EventRow, HandlerRun, Message

DAY = timedelta(days=1)


def test_a_pause_ends_the_start_and_counts_as_no_attempt(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    calls: list[str | int] = []

    @registry.on("*", name="dunning", retries=0)
    def _(event: Event, ctx: Context) -> None:
        ctx.step("remind", lambda: calls.append("reminded"))
        ctx.sleep_until(NOW + 3 * DAY)
        calls.append(ctx.attempt)

    event_id = received(runtime.engine)
    process(dispatcher, [event_id])

    run = only(runtime.engine, HandlerRun)
    assert (run.status, run.attempts, run.pauses, run.error) == ("waiting", 0, 1, None)
    assert run.next_attempt_at == run.ring_at == NOW + 3 * DAY
    assert only(runtime.engine, EventRow).status == "waiting"
    assert audit(runtime.engine).holds

    clock.now = NOW + 3 * DAY - timedelta(seconds=1)
    process(dispatcher, [event_id])
    assert (calls, dispatch.sweep(runtime, clock)) == (["reminded"], 0)

    clock.turn(1)
    assert dispatch.sweep(runtime, clock) == 1
    assert rung(runtime, "events") == [(PROCESS, [event_id])]
    with another_process(dispatcher) as other:
        process(other, [event_id])
    assert calls == ["reminded", 1]
    assert only(runtime.engine, EventRow).status == "processed"


def test_pauses_follow_each_other_and_each_keeps_the_moment_it_first_had(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    passed: list[datetime] = []

    @registry.on("*", name="dunning")
    def _(event: Event, ctx: Context) -> None:
        for number in (1, 2, 3):
            ctx.sleep_until(clock.now + number * DAY)
            ctx.step(f"after {number}", lambda: passed.append(clock.now))

    event_id = received(engine)
    process(dispatcher, [event_id])
    for late in (timedelta(hours=2), timedelta(), timedelta(hours=1)):
        clock.now = only(engine, HandlerRun).next_attempt_at + late
        process(dispatcher, [event_id])

    assert passed == [
        NOW + DAY + timedelta(hours=2),
        NOW + 3 * DAY + timedelta(hours=2),
        NOW + 6 * DAY + timedelta(hours=3),
    ]
    run = only(engine, HandlerRun)
    assert (run.status, run.attempts, run.pauses) == ("succeeded", 1, 3)


def test_a_failure_after_a_pause_does_not_pause_again(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    attempts: list[int] = []

    @registry.on("*", name="dunning", retries=1)
    def _(event: Event, ctx: Context) -> None:
        ctx.sleep_until(clock.now + DAY)
        attempts.append(ctx.attempt)
        if ctx.attempt == 1:
            raise Retry(after=60)

    event_id = received(engine)
    for later in (DAY, timedelta(seconds=60), timedelta()):
        process(dispatcher, [event_id])
        clock.now += later

    assert attempts == [1, 2]
    assert only(engine, EventRow).status == "processed"


def test_many_pauses_are_not_taken_for_deaths(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    pauses = dispatcher.settings.max_starts + 2

    @registry.on("*", name="dunning", retries=0)
    def _(event: Event, ctx: Context) -> None:
        for _week in range(pauses):
            ctx.sleep_until(clock.now + 7 * DAY)

    event_id = received(engine)
    for _week in range(pauses + 1):
        process(dispatcher, [event_id])
        clock.now += 7 * DAY

    run = only(engine, HandlerRun)
    assert (run.status, run.pauses, run.attempts) == ("succeeded", pauses, 1)


def test_an_async_handler_pauses_too_and_what_catches_exceptions_does_not_catch_a_pause(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    calls: list[str] = []

    @registry.on("*", name="dunning")
    async def _(event: Event, ctx: Context) -> None:
        try:
            ctx.sleep_until(NOW + DAY)
        except Exception:
            calls.append("caught")
        calls.append("woke")

    event_id = received(engine)
    process(dispatcher, [event_id])
    assert (calls, only(engine, HandlerRun).next_attempt_at) == ([], NOW + DAY)

    clock.now += DAY
    process(dispatcher, [event_id])
    assert calls == ["woke"]


@pytest.mark.parametrize("error", [None, ValueError("no"), Retry(after=1)], ids=["returns", "fails", "retries"])
def test_a_pause_that_a_handler_swallows_is_one_all_the_same(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, error: Exception | None
) -> None:
    @registry.on("*", name="dunning", retries=0)
    def _(event: Event, ctx: Context) -> None:
        ctx.emit("reminder.sent", {})
        try:
            ctx.sleep_until(NOW + DAY)
        except BaseException:
            if error is not None:
                raise error from None

    process(dispatcher, [received(engine)])

    run = only(engine, HandlerRun)
    assert (run.status, run.attempts, run.next_attempt_at, run.error) == ("waiting", 0, NOW + DAY, None)
    assert rows(engine, Message) == []


def test_a_pause_until_a_moment_that_has_passed_is_none(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("*", name="dunning")(lambda event, ctx: ctx.sleep_until(NOW))

    process(dispatcher, [received(engine)])

    assert (only(engine, HandlerRun).status, only(engine, HandlerRun).pauses) == ("succeeded", 0)


def test_a_moment_in_any_zone_is_the_same_moment(dispatcher: Dispatcher, registry: Registry, engine: Engine) -> None:
    moment = (NOW + DAY).astimezone(timezone(timedelta(hours=5, minutes=45)))
    registry.on("*", name="dunning")(lambda event, ctx: ctx.sleep_until(moment))

    process(dispatcher, [received(engine)])

    assert only(engine, HandlerRun).next_attempt_at == NOW + DAY


@pytest.mark.parametrize(
    ("until", "says"),
    [
        (lambda now: now.replace(tzinfo=None), "sleep_until needs a time with a zone"),
        (lambda now: now + LONGEST_PAUSE + timedelta(seconds=1), "sleep_until reaches 366 days at most"),
    ],
    ids=["no zone", "too far"],
)
def test_a_moment_that_cannot_be_meant_fails_the_attempt(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, until: Callable[[datetime], datetime], says: str
) -> None:
    registry.on("*", name="dunning", backoff=60)(lambda event, ctx: ctx.sleep_until(until(NOW)))

    process(dispatcher, [received(engine)])

    run = only(engine, HandlerRun)
    assert (run.status, run.attempts, run.next_attempt_at) == ("waiting", 1, NOW + timedelta(seconds=60))
    assert says in run.error


def test_what_is_emitted_before_a_pause_is_sent_once_and_with_the_success(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    @registry.on("*", name="dunning")
    def _(event: Event, ctx: Context) -> None:
        ctx.emit("reminder.sent", {"day": 0})
        ctx.sleep_until(NOW + DAY)
        ctx.emit("reminder.sent", {"day": 1})

    event_id = received(engine)
    process(dispatcher, [event_id])
    assert rows(engine, Message) == []

    clock.now += DAY
    process(dispatcher, [event_id])
    process(dispatcher, [event_id])
    assert len(rows(engine, Message)) == 2


def test_a_replay_after_success_pauses_anew_and_one_after_death_does_not(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    fails = [True]

    @registry.on("*", name="dunning", retries=0)
    def _(event: Event, ctx: Context) -> None:
        ctx.sleep_until(clock.now + DAY)
        if fails:
            raise ValueError

    event_id = received(engine)
    statuses: list[str] = []
    for turn in ("start", "wake and die", "replay", "replay", "wake"):
        if turn == "replay":
            sent_back(engine, only(engine, HandlerRun).id, now=clock.now)
            fails.clear()
        process(dispatcher, [event_id])
        statuses.append(only(engine, HandlerRun).status)
        clock.now += DAY

    assert statuses == ["waiting", "dead", "succeeded", "waiting", "succeeded"]
