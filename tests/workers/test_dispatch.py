from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest
import structlog
from sqlalchemy import Engine, update
from structlog.testing import capture_logs

from handlers import Context, Discard, Event, Retry
from handlers.errors import ProviderUnavailable
from handlers.registry import REGISTRY, Registry
from handlers.vocabulary import INTERNAL
from tests.conftest import SECRET
from tests.workers import given
from tests.workers.given import NOW, Clock, change, fill_queue, only, received, rows, rung
from workers import claims, database, dispatch, ids, inbox, leases, planning
from workers.app import DELIVER, PROCESS, Runtime
from workers.clients import Clients
from workers.dispatch import Dispatcher, process
from workers.models import Delivery, EventRow, HandlerRun, Message

DAY = 24 * 3600.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def dispatcher(runtime: Runtime, registry: Registry, clock: Clock) -> Dispatcher:
    settings = runtime.settings
    return Dispatcher(
        engine=runtime.engine,
        settings=settings,
        registry=registry,
        clients=Clients(settings),
        clock=clock,
        chance=lambda: 0.0,
    )


@pytest.fixture
def endpoint(runtime: Runtime) -> str:
    """An endpoint that wants everything."""
    return given.endpoint(runtime)


def by_handler(engine: Engine) -> dict[str, Any]:
    """The runs, each under the name of its handler."""
    return {run.handler: run for run in rows(engine, HandlerRun)}


def planned(dispatcher: Dispatcher, event_id: str) -> None:
    """Give an event its runs, none of them started."""
    with database.write(dispatcher.engine) as connection:
        plan = planning.plan(dispatcher, connection, [event_id])
        claims.give_back(dispatcher, connection, plan.taken)


def nothing(event: Event, ctx: Context) -> None:
    pass


def raising(error: BaseException) -> Callable[[Event, Context], None]:
    def handler(event: Event, ctx: Context) -> None:
        raise error

    return handler


# Planning


def test_an_event_with_two_handlers_gets_two_runs(dispatcher: Dispatcher, registry: Registry, engine: Engine) -> None:
    seen: list[tuple[str, str]] = []
    registry.on("invoice.paid", name="exact")(lambda event, ctx: seen.append(("exact", event.id)))
    registry.on("invoice.*", name="prefix")(lambda event, ctx: seen.append(("prefix", event.id)))
    registry.on("customer.*", name="other")(lambda event, ctx: seen.append(("other", event.id)))
    event_id = received(engine)

    process(dispatcher, [event_id])

    assert sorted(seen) == [("exact", event_id), ("prefix", event_id)]
    runs = by_handler(engine)
    assert {name: (run.status, run.attempts, run.starts) for name, run in runs.items()} == {
        "exact": ("succeeded", 1, 1),
        "prefix": ("succeeded", 1, 1),
    }
    assert only(engine, EventRow).status == "processed"


def test_a_run_keeps_how_long_its_last_start_took(dispatcher: Dispatcher, registry: Registry, engine: Engine) -> None:
    @registry.on("*", name="slow")
    def _(event: Event, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise ValueError
        time.sleep(0.05)

    event_id = received(engine)

    process(dispatcher, [event_id])
    assert by_handler(engine)["slow"].duration_ms is not None
    change(engine, HandlerRun, duration_ms=None, next_attempt_at=NOW)
    process(dispatcher, [event_id])

    assert by_handler(engine)["slow"].duration_ms >= 50


def test_a_handler_gets_the_event_as_it_was_signed(dispatcher: Dispatcher, registry: Registry, engine: Engine) -> None:
    got: list[tuple[Event, Context]] = []
    registry.on("*", name="keeps")(lambda event, ctx: got.append((event, ctx)))
    event_id = received(engine)

    process(dispatcher, [event_id])

    ((event, context),) = got
    stored = only(engine, EventRow)
    assert (event.id, event.source, event.provider, event.type) == (event_id, "shop", "hisab", "invoice.paid")
    assert (event.body, event.received_at, event.object_id) == (stored.body, NOW, stored.object_id)
    assert event.data == orjson.loads(stored.body)["data"]
    assert (context.attempt, context.first_seen) == (1, NOW)
    assert context.client() is context.client("shop")


def test_the_lines_a_handler_logs_carry_the_event_and_its_name(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("*", name="talks")(lambda event, ctx: ctx.logger.info("printed"))
    event_id = received(engine)

    with capture_logs() as lines:
        process(dispatcher, [event_id])

    (line,) = [line for line in lines if line["event"] == "printed"]
    assert (line["event_id"], line["handler"]) == (event_id, "talks")


def test_an_event_nobody_wants_is_ignored(dispatcher: Dispatcher, registry: Registry, engine: Engine) -> None:
    registry.on("customer.*", name="other")(nothing)
    event_id = received(engine)

    assert process(dispatcher, [event_id]) == []

    row = only(engine, EventRow)
    assert (row.status, row.ring_at) == ("ignored", None)
    assert rows(engine, HandlerRun) == []


def test_a_handler_that_comes_later_does_not_take_up_what_has_ended(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    event_id = received(engine)
    process(dispatcher, [event_id])
    registry.on("*", name="late")(nothing)

    process(dispatcher, [event_id])

    assert only(engine, EventRow).status == "ignored"
    assert rows(engine, HandlerRun) == []


def test_an_event_is_planned_once(dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock) -> None:
    registry.on("*", name="fails")(raising(ValueError()))
    event_id = received(engine)
    process(dispatcher, [event_id])
    registry.on("*", name="late")(nothing)
    clock.turn(DAY)

    process(dispatcher, [event_id])

    assert [run.handler for run in rows(engine, HandlerRun)] == ["fails"]


def test_processing_again_changes_nothing(dispatcher: Dispatcher, registry: Registry, engine: Engine) -> None:
    calls: list[str] = []
    registry.on("*", name="counts")(lambda event, ctx: calls.append(event.id))
    event_id = received(engine)
    process(dispatcher, [event_id])
    before = (only(engine, EventRow), only(engine, HandlerRun))

    process(dispatcher, [event_id, "evt_unknown"])

    assert calls == [event_id]
    assert (only(engine, EventRow), only(engine, HandlerRun)) == before


# Failing and trying again


def test_a_failing_handler_never_repeats_another(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    good: list[int] = []
    bad: list[int] = []
    registry.on("*", name="good")(lambda event, ctx: good.append(ctx.attempt))

    @registry.on("*", name="bad", backoff=5)
    def _(event: Event, ctx: Context) -> None:
        bad.append(ctx.attempt)
        if ctx.attempt < 3:
            raise ValueError

    event_id = received(engine)
    process(dispatcher, [event_id])
    assert only(engine, EventRow).status == "waiting"
    for later in (100, 100):
        clock.turn(later)
        process(dispatcher, [event_id])

    assert (good, bad) == ([1], [1, 2, 3])
    assert only(engine, EventRow).status == "processed"


def test_a_failed_run_is_tried_again_when_it_is_due_and_not_before(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    calls: list[float] = []

    @registry.on("*", name="fails", retries=3, backoff=10)
    def _(event: Event, ctx: Context) -> None:
        calls.append((clock.now - NOW).total_seconds())
        raise ValueError("not yet")

    event_id = received(engine)
    process(dispatcher, [event_id])
    while only(engine, EventRow).status == "waiting":
        run = only(engine, HandlerRun)
        assert (run.status, run.ring_at) == ("waiting", run.next_attempt_at)
        clock.now = run.next_attempt_at - timedelta(milliseconds=1)
        process(dispatcher, [event_id])
        assert only(engine, HandlerRun) == run
        clock.now = run.next_attempt_at
        process(dispatcher, [event_id])

    assert calls == [0, 10, 30, 70]


def test_jitter_comes_on_top_of_the_backoff(dispatcher: Dispatcher, registry: Registry, engine: Engine) -> None:
    registry.on("*", name="fails", backoff=10)(raising(ValueError()))

    process(replace(dispatcher, chance=lambda: 0.5), [received(engine)])

    assert only(engine, HandlerRun).next_attempt_at == NOW + timedelta(seconds=11)


def test_after_the_last_retry_a_run_is_dead_with_its_traceback_and_so_is_its_event(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    registry.on("*", name="good")(nothing)
    registry.on("*", name="bad", retries=1, backoff=1)(raising(LookupError("no such receipt")))
    event_id = received(engine)
    process(dispatcher, [event_id])
    clock.turn(1)
    process(dispatcher, [event_id])

    run = by_handler(engine)["bad"]
    assert (run.status, run.attempts, run.ring_at, run.ended_at) == ("dead", 2, None, NOW + timedelta(seconds=1))
    assert run.error.startswith("Traceback")
    assert "LookupError: no such receipt" in run.error
    assert only(engine, EventRow).status == "dead"


def test_an_event_is_not_dead_before_all_its_runs_have_ended(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    registry.on("*", name="bad", retries=0)(raising(ValueError()))

    @registry.on("*", name="slow", backoff=5)
    def _(event: Event, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise Retry

    event_id = received(engine)
    process(dispatcher, [event_id])
    assert only(engine, EventRow).status == "waiting"
    clock.turn(5)
    process(dispatcher, [event_id])

    assert only(engine, EventRow).status == "dead"


def test_no_secret_of_ours_is_stored_or_logged_with_an_error(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    (key,) = (one.get_secret_value() for one in dispatcher.settings.encryption_keys)
    registry.on("*", name="leaks", retries=0)(raising(ValueError(f"401 with {SECRET} and hisab_test_key and {key}")))

    with capture_logs() as lines:
        process(dispatcher, [received(engine)])

    for shown in (only(engine, HandlerRun).error, str(lines)):
        assert SECRET not in shown
        assert "hisab_test_key" not in shown
        assert key not in shown
        assert "401 with ******** and ******** and ********" in shown


def test_no_part_of_a_secret_is_left_where_a_long_traceback_is_cut(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    # The kept end of the traceback begins in the middle of a secret, wherever that is.
    for shift in range(0, len(SECRET), 7):
        error = ValueError(SECRET * 1_000 + "." * shift)
        registry.on("*", name=f"leaks_{shift}", retries=0)(raising(error))

    process(dispatcher, [received(engine)])

    for run in rows(engine, HandlerRun):
        assert SECRET[-12:] not in run.error
        assert len(run.error) <= 8_000


def test_a_discarded_run_has_ended_for_good(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    registry.on("*", name="picky")(raising(Discard("not ours")))
    event_id = received(engine)
    process(dispatcher, [event_id])
    clock.turn(DAY)
    process(dispatcher, [event_id])

    run = only(engine, HandlerRun)
    assert (run.status, run.error, run.attempts, run.ring_at) == ("discarded", "not ours", 1, None)
    assert only(engine, EventRow).status == "processed"


def test_whatever_an_error_says_it_can_be_stored(dispatcher: Dispatcher, registry: Registry, engine: Engine) -> None:
    for text in ("", "a zero byte: \x00", "half a character: \ud83d"):
        for kind in (ValueError, Retry, Discard):
            registry.on("*", name=f"{kind.__name__} {text[:4]}", retries=0)(raising(kind(text)))

    process(dispatcher, [received(engine)])

    statuses = {name: run.status for name, run in by_handler(engine).items()}
    assert statuses == {name: "discarded" if name.startswith("Discard") else "dead" for name in statuses}


def test_a_discard_with_an_exception_for_a_reason_is_stored_as_text(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("*", name="careless")(raising(Discard(LookupError("not ours"))))  # type: ignore[arg-type]

    process(dispatcher, [received(engine)])

    run = only(engine, HandlerRun)
    assert run.status == "discarded"
    assert "not ours" in run.error


def test_retry_after_is_the_wait_instead_of_the_backoff(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("*", name="short", backoff=60)(raising(Retry(after=1.5)))
    registry.on("*", name="long", backoff=1)(raising(Retry(after=90)))
    registry.on("*", name="plain", backoff=7)(raising(Retry("the printer is busy")))

    process(dispatcher, [received(engine)])

    runs = by_handler(engine)
    waits = {name: (run.next_attempt_at - NOW).total_seconds() for name, run in runs.items()}
    assert waits == {"short": 1.5, "long": 90, "plain": 7}
    assert runs["plain"].error == "Retry: the printer is busy"


def test_retry_too_ends_after_the_last_retry(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    registry.on("*", name="hopes", retries=2)(raising(Retry(after=1)))
    event_id = received(engine)
    for _ in range(3):
        process(dispatcher, [event_id])
        clock.turn(1)

    assert (only(engine, HandlerRun).status, only(engine, HandlerRun).attempts) == ("dead", 3)


def test_a_wait_beyond_all_measure_is_still_a_wait(dispatcher: Dispatcher, registry: Registry, engine: Engine) -> None:
    for after in (1e10, 1e300, float("inf"), float("nan"), -1e12):
        registry.on("*", name=str(after))(raising(Retry(after=after)))

    process(dispatcher, [received(engine)])

    for run in rows(engine, HandlerRun):
        assert (run.status, run.attempts) == ("waiting", 1)
        assert run.next_attempt_at >= NOW


def test_what_an_unavailable_provider_asks_for_is_a_floor_of_at_most_a_day(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    for asked in (None, 0.0, 3.0, 40.0, 999_999_999.0):
        error = ProviderUnavailable("RATE_LIMIT_EXCEEDED", "Too many requests", status=429, retry_after=asked)
        registry.on("*", name=str(asked), backoff=10)(raising(error))

    process(dispatcher, [received(engine)])

    waits = {name: (run.next_attempt_at - NOW).total_seconds() for name, run in by_handler(engine).items()}
    assert waits == {"None": 10, "0.0": 10, "3.0": 10, "40.0": 40, "999999999.0": DAY}


def test_a_body_that_is_no_longer_understood_is_dead_at_once(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("*", name="reads")(nothing)
    event_id = received(engine)
    change(engine, EventRow, body=b"{}")

    process(dispatcher, [event_id])

    assert only(engine, HandlerRun).status == "dead"
    assert "no longer understood" in only(engine, HandlerRun).error
    assert only(engine, EventRow).status == "dead"


def test_an_event_of_a_provider_that_this_worker_does_not_know_waits_and_keeps_no_other_waiting(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("*", name="reads")(nothing)
    event_ids = [received(engine)]
    change(engine, EventRow, provider="gone")
    event_ids.append(received(engine))

    process(dispatcher, event_ids)

    runs = {run.event_id: run for run in rows(engine, HandlerRun)}
    assert [(runs[event_id].status, runs[event_id].attempts) for event_id in event_ids] == [
        ("waiting", 1),
        ("succeeded", 1),
    ]
    assert "knows no provider 'gone'" in runs[event_ids[0]].error


def test_a_handler_that_this_worker_has_not_loaded_waits_for_one_that_has(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    calls: list[int] = []
    elsewhere = Registry()
    registry.on("*", name="shop.receipt", retries=0)(raising(Retry(after=0)))
    elsewhere.on("*", name="shop.receipt")(lambda event, ctx: calls.append(ctx.attempt))
    event_id = received(engine)
    planned(dispatcher, event_id)
    change(engine, HandlerRun, duration_ms=45)

    process(replace(dispatcher, registry=Registry()), [event_id])

    run = only(engine, HandlerRun)
    assert (run.status, run.duration_ms) == ("waiting", 45)
    assert "shop.receipt is not loaded" in run.error
    assert "BILLHOOK_HANDLERS" in run.error
    clock.now = run.next_attempt_at
    process(replace(dispatcher, registry=elsewhere), [event_id])
    assert calls == [2]
    assert only(engine, EventRow).status == "processed"


def test_a_handler_that_nobody_loads_is_dead_in_the_end(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    registry.on("*", name="gone")(nothing)
    event_id = received(engine)
    planned(dispatcher, event_id)

    for _ in range(9):
        clock.turn(DAY)
        process(replace(dispatcher, registry=Registry()), [event_id])

    assert only(engine, HandlerRun).status == "dead"
    assert only(engine, EventRow).status == "dead"


# Timeouts and exits


def _sleeps(event: Event, ctx: Context) -> None:
    time.sleep(30)


async def _sleeps_async(event: Event, ctx: Context) -> None:
    await asyncio.sleep(30)


def _exits(event: Event, ctx: Context) -> None:
    sys.exit(1)


def test_a_handler_that_does_not_return_costs_an_attempt_and_the_next_goes_on(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    calls: list[str] = []
    endings = {"sleeps": "TimeUp", "async": "TimeUp", "exits": "SystemExit: 1"}
    registry.on("*", name="sleeps", timeout=0.05, backoff=10)(_sleeps)
    registry.on("*", name="async", timeout=0.05, backoff=10)(_sleeps_async)
    registry.on("*", name="exits", timeout=0.05, backoff=10)(_exits)
    registry.on("*", name="well")(lambda event, ctx: calls.append(event.id))
    event_ids = [received(engine), received(engine)]

    process(dispatcher, event_ids)

    assert sorted(calls) == sorted(event_ids)
    for run in rows(engine, HandlerRun):
        if run.handler in endings:
            assert (run.status, run.attempts) == ("waiting", 1)
            assert endings[run.handler] in run.error
            assert run.next_attempt_at == NOW + timedelta(seconds=10)


def test_an_async_handler_emits_too(dispatcher: Dispatcher, registry: Registry, engine: Engine, endpoint: str) -> None:
    @registry.on("*", name="async")
    async def _(event: Event, ctx: Context) -> None:
        await asyncio.sleep(0)
        ctx.emit("receipt.issued", {"invoice": event.object_id})

    assert len(process(dispatcher, [received(engine)])) == 1
    assert only(engine, HandlerRun).status == "succeeded"


# Effects


def test_what_a_handler_emits_commits_with_its_success(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, endpoint: str
) -> None:
    before: list[int] = []

    @registry.on("*", name="receipts")
    def _(event: Event, ctx: Context) -> None:
        ctx.emit("receipt.issued", {"invoice": "inv_1"})
        before.append(len(rows(engine, Message)))

    event_id = received(engine)
    deliveries = process(dispatcher, [event_id])

    assert before == [0]
    message, delivery = only(engine, Message), only(engine, Delivery)
    assert (message.event_id, message.type) == (event_id, "receipt.issued")
    assert orjson.loads(message.body)["data"] == {"invoice": "inv_1"}
    assert (delivery.message_id, delivery.endpoint_id, delivery.status) == (message.id, endpoint, "waiting")
    assert deliveries == [delivery.id]


def test_a_run_that_does_not_succeed_emits_nothing(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, endpoint: str
) -> None:
    for error in (ValueError(), Retry(), Discard("no"), SystemExit()):

        @registry.on("*", name=type(error).__name__)
        def _(event: Event, ctx: Context, error: BaseException = error) -> None:
            ctx.emit("receipt.issued", {})
            raise error

    assert process(dispatcher, [received(engine)]) == []
    assert rows(engine, Message) == []


def test_a_repeated_run_emits_once_and_under_the_same_message_id(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, endpoint: str, clock: Clock
) -> None:
    @registry.on("*", name="receipts", backoff=1)
    def _(event: Event, ctx: Context) -> None:
        ctx.emit("receipt.issued", {"attempt": ctx.attempt})
        if ctx.attempt == 1:
            raise Retry

    event_id = received(engine)
    process(dispatcher, [event_id])
    clock.turn(1)
    first = process(dispatcher, [event_id])
    # As if the run were replayed, or its success had been forgotten.
    change(engine, HandlerRun, status="waiting", next_attempt_at=clock.now)
    change(engine, EventRow, status="waiting")
    clock.turn(1)

    assert process(dispatcher, [event_id]) == []
    message = only(engine, Message)
    assert message.id == ids.derived("msg", NOW, event_id, "receipts", "0")
    assert orjson.loads(message.body)["data"] == {"attempt": 2}
    assert [delivery.id for delivery in rows(engine, Delivery)] == first


def test_two_emits_of_one_run_are_two_messages(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, endpoint: str
) -> None:
    @registry.on("*", name="receipts")
    def _(event: Event, ctx: Context) -> None:
        ctx.emit("receipt.issued", {"copy": 1})
        ctx.emit("receipt.issued", {"copy": 2})

    @registry.on("*", name="others")
    def _(event: Event, ctx: Context) -> None:
        ctx.emit("receipt.issued", {"copy": 3})

    deliveries = process(dispatcher, [received(engine)])

    copies = [orjson.loads(message.body)["data"]["copy"] for message in rows(engine, Message)]
    assert sorted(copies) == [1, 2, 3]
    assert len(rows(engine, Delivery)) == 3
    assert 0 < len(set(deliveries)) <= 3


def test_a_key_names_a_message_whatever_else_a_run_emits(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    @registry.on("*", name="reminders")
    def _(event: Event, ctx: Context) -> None:
        for day in ["mon"] if ctx.attempt == 1 else ["sun", "mon", "0"]:
            ctx.emit("reminder.sent", {"day": day}, key=day)

    event_id = received(engine)
    process(dispatcher, [event_id])
    change(engine, HandlerRun, status="waiting", next_attempt_at=NOW)
    change(engine, EventRow, status="waiting")
    process(dispatcher, [event_id])

    days = [orjson.loads(message.body)["data"]["day"] for message in rows(engine, Message)]
    assert sorted(days) == ["0", "mon", "sun"]


def test_without_an_endpoint_an_emit_is_a_message_that_goes_nowhere(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("*", name="receipts")(lambda event, ctx: ctx.emit("receipt.issued", {}))

    assert process(dispatcher, [received(engine)]) == []
    assert only(engine, Message).type == "receipt.issued"


# Leases


def test_a_run_that_lost_its_lease_writes_nothing(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, endpoint: str, clock: Clock
) -> None:
    starts: list[int] = []

    @registry.on("*", name="slow", timeout=30)
    def _(event: Event, ctx: Context) -> None:
        starts.append(ctx.attempt)
        if len(starts) == 1:
            # It hangs beyond its lease, and another process takes the run and succeeds.
            clock.turn(dispatcher.lease(30).total_seconds())
            with ThreadPoolExecutor(1) as other:
                other.submit(process, dispatcher, [event.id]).result()
            ctx.emit("receipt.issued", {"from": "the slow one"})
            raise ValueError("and then it fails")
        ctx.emit("receipt.issued", {"from": "the other"})

    with capture_logs() as lines:
        deliveries = process(dispatcher, [received(engine)])

    assert starts == [1, 1]
    assert deliveries == []
    run = only(engine, HandlerRun)
    assert (run.status, run.attempts, run.starts, run.error) == ("succeeded", 1, 2, None)
    assert orjson.loads(only(engine, Message).body)["data"] == {"from": "the other"}
    assert only(engine, EventRow).status == "processed"
    assert [line["outcome"] for line in lines if line.get("action") == "run_ended"] == ["succeeded", "lost"]


def test_a_success_under_a_lost_lease_emits_nothing(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, endpoint: str, clock: Clock
) -> None:
    starts: list[int] = []

    @registry.on("*", name="slow", timeout=30, backoff=1)
    def _(event: Event, ctx: Context) -> None:
        starts.append(ctx.attempt)
        ctx.emit("receipt.issued", {})
        if len(starts) == 1:
            clock.turn(dispatcher.lease(30).total_seconds())
            with ThreadPoolExecutor(1) as other:
                other.submit(process, dispatcher, [event.id]).result()
        else:
            raise ValueError("the other fails")

    process(dispatcher, [received(engine)])

    assert rows(engine, Message) == []
    assert (only(engine, HandlerRun).status, only(engine, HandlerRun).attempts) == ("waiting", 1)
    assert only(engine, EventRow).status == "waiting"


def test_a_run_is_leased_for_its_timeout_and_the_grace(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    leased: list[datetime] = []
    registry.on("*", name="looks", timeout=7)(
        lambda event, ctx: leased.append(only(engine, HandlerRun).next_attempt_at)
    )

    process(dispatcher, [received(engine)])

    # And as long as the runs before it may take together.
    assert leased == [NOW + timedelta(seconds=7 + dispatcher.settings.lease_grace + 1)]


def dies(engine: Engine, clock: Clock, times: int) -> None:
    """Processes that die while the run is theirs."""
    run_id = only(engine, HandlerRun).id
    for _ in range(times):
        with database.write(engine) as connection:
            lease = timedelta(seconds=45)
            assert leases.claim(connection, HandlerRun, [run_id], now=clock(), lease=lease)
        clock.turn(45)


def test_a_run_that_kills_its_process_each_time_is_given_up(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    calls: list[str] = []
    registry.on("*", name="poison")(lambda event, ctx: calls.append(event.id))
    event_id = received(engine)
    planned(dispatcher, event_id)
    dies(engine, clock, dispatcher.settings.max_starts)

    process(dispatcher, [event_id])

    run = only(engine, HandlerRun)
    assert calls == []
    assert (run.status, run.error) == ("dead", "its process died 5 times while it ran")
    assert run.duration_ms is None, "no start of it has ended"
    assert only(engine, EventRow).status == "dead"


def test_one_start_fewer_and_the_run_gets_its_chance(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    registry.on("*", name="unlucky")(nothing)
    event_id = received(engine)
    planned(dispatcher, event_id)
    dies(engine, clock, dispatcher.settings.max_starts - 1)

    process(dispatcher, [event_id])

    assert only(engine, HandlerRun).status == "succeeded"


def test_failures_are_not_taken_for_deaths(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, clock: Clock
) -> None:
    registry.on("*", name="fails", retries=20)(raising(Retry(after=1)))
    event_id = received(engine)
    for _ in range(dispatcher.settings.max_starts + 5):
        process(dispatcher, [event_id])
        clock.turn(1)

    assert only(engine, HandlerRun).status == "waiting"


# Many at once


def test_processes_that_get_the_same_events_run_each_run_once(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, endpoint: str
) -> None:
    calls: list[tuple[str, str]] = []

    @registry.on("*", name="one")
    def _(event: Event, ctx: Context) -> None:
        calls.append(("one", event.id))
        ctx.emit("receipt.issued", {})

    registry.on("*", name="two")(lambda event, ctx: calls.append(("two", event.id)))
    event_ids = [received(engine) for _ in range(12)]
    ready = threading.Barrier(4)

    def work(turn: int) -> list[str]:
        own = replace(dispatcher, engine=database.connect(dispatcher.settings))
        ready.wait(10)
        try:
            return process(own, event_ids[turn:] + event_ids[:turn])
        finally:
            own.engine.dispose()

    with ThreadPoolExecutor(4) as threads:
        deliveries = [delivery for found in threads.map(work, range(4)) for delivery in found]

    assert sorted(calls) == sorted((name, event_id) for name in ("one", "two") for event_id in event_ids)
    assert {row.status for row in rows(engine, EventRow)} == {"processed"}
    assert {run.starts for run in rows(engine, HandlerRun)} == {1}
    assert len(rows(engine, Delivery)) == 12
    assert 0 < len(deliveries) == len(set(deliveries)) <= 12


def test_two_last_runs_that_end_at_once_still_end_their_event(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    both = threading.Barrier(2)

    def together(event: Event, ctx: Context) -> None:
        both.wait(60)

    # With a limit each, so that no process takes both.
    for name in ("one", "two"):
        registry.on("*", name=name, concurrency=1)(together)

    def work(event_id: str) -> None:
        # Again where a busy machine left no time for the second run.
        while {run.status for run in rows(engine, HandlerRun) if run.event_id == event_id} & {"waiting"}:
            process(dispatcher, [event_id])

    with ThreadPoolExecutor(2) as threads:
        for _ in range(6):
            event_id = received(engine)
            planned(dispatcher, event_id)
            for ended in [threads.submit(work, event_id), threads.submit(work, event_id)]:
                ended.result()

    assert {run.status for run in rows(engine, HandlerRun)} == {"succeeded"}
    assert {row.status for row in rows(engine, EventRow)} == {"processed"}


def test_a_process_that_is_to_stop_begins_nothing_more_and_has_the_rest_rung_at_once(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    calls: list[str] = []
    registry.on("*", name="counts")(lambda event, ctx: calls.append(event.id))
    event_ids = [received(runtime.engine) for _ in range(3)]

    process(replace(dispatcher, stopping=lambda: bool(calls)), event_ids)

    assert len(calls) == 1
    assert dispatch.sweep(runtime, clock) == 2
    process(dispatcher, event_ids)
    assert sorted(calls) == sorted(event_ids)


# Events of our own


def test_an_event_that_billhook_reports_reaches_its_handler(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    got: list[Event] = []
    registry.on("recurring.*", name="books")(lambda event, ctx: got.append(event))
    registry.on("recurring.*", provider="hisab", name="not_the_providers")(nothing)
    event = Event(
        id=ids.new("evt"),
        type="recurring.generated",
        data={"occurrence_id": "occ_1", "invoice": {"total": "12480.00"}},
        occurred_at=NOW,
        object_kind="schedule",
        object_id="sch_1",
        source="shop",
        provider=INTERNAL,
        received_at=NOW,
    )
    inbox.accept(engine, [inbox.internal(event, "occ_1")])

    process(dispatcher, [event.id])

    assert [replace(one, body=b"") for one in got] == [event]
    assert [run.handler for run in rows(engine, HandlerRun)] == ["books"]
    assert only(engine, EventRow).status == "processed"


# The sweep


def test_the_sweep_rings_for_an_event_that_nobody_planned_after_the_grace(runtime: Runtime, clock: Clock) -> None:
    event_id = received(runtime.engine)

    clock.turn(inbox.RING_AFTER.total_seconds() - 0.001)
    assert dispatch.sweep(runtime, clock) == 0
    clock.turn(0.001)
    assert dispatch.sweep(runtime, clock) == 1

    assert rung(runtime, "events") == [(PROCESS, [event_id])]


def test_the_sweep_rings_for_a_waiting_run_when_it_is_due(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    registry.on("*", name="fails", backoff=10)(raising(ValueError()))
    event_id = received(runtime.engine)
    process(dispatcher, [event_id])

    clock.turn(9.9)
    assert dispatch.sweep(runtime, clock) == 0
    clock.turn(0.1)
    assert dispatch.sweep(runtime, clock) == 1

    assert rung(runtime, "events") == [(PROCESS, [event_id])]


def test_the_sweep_rings_for_a_run_whose_process_died(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    registry.on("*", name="unlucky")(nothing)
    event_id = received(runtime.engine)
    planned(dispatcher, event_id)
    dies(runtime.engine, clock, 1)

    assert dispatch.sweep(runtime, clock) == 1
    assert rung(runtime, "events") == [(PROCESS, [event_id])]
    process(dispatcher, [event_id])
    assert only(runtime.engine, EventRow).status == "processed"


def test_the_sweep_rings_once_for_an_event_however_many_of_its_runs_are_due(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    for name in ("one", "two"):
        registry.on("*", name=name, backoff=10)(raising(ValueError()))
    event_ids = sorted(received(runtime.engine) for _ in range(3))
    process(dispatcher, event_ids)
    clock.turn(10)

    assert dispatch.sweep(runtime, clock) == 3

    assert rung(runtime, "events") == [(PROCESS, event_ids)]


def test_the_sweep_rings_again_only_after_half_a_minute(runtime: Runtime, clock: Clock) -> None:
    event_id = received(runtime.engine)
    clock.turn(60)

    assert [dispatch.sweep(runtime, clock) for _ in range(3)] == [1, 0, 0]
    clock.turn(29.9)
    assert dispatch.sweep(runtime, clock) == 0
    clock.turn(0.1)
    assert dispatch.sweep(runtime, clock) == 1

    assert rung(runtime, "events") == [(PROCESS, [event_id])] * 2


def test_the_sweep_is_quiet_while_the_queue_is_full_and_forgets_nothing(runtime: Runtime, clock: Clock) -> None:
    event_id = received(runtime.engine)
    clock.turn(60)
    fill_queue(runtime, "events")

    assert dispatch.sweep(runtime, clock) == 0

    runtime.redis.delete(f"{runtime.settings.redis_prefix}events")
    assert dispatch.sweep(runtime, clock) == 1
    assert rung(runtime, "events") == [(PROCESS, [event_id])]


def test_the_sweep_leaves_what_has_ended(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    registry.on("invoice.paid", name="good")(nothing)
    registry.on("invoice.voided", name="bad", retries=0)(raising(ValueError()))
    event_ids = [received(runtime.engine, kind) for kind in ("invoice.paid", "invoice.voided", "customer.created")]
    process(dispatcher, event_ids)
    clock.turn(DAY)

    assert [row.status for row in rows(runtime.engine, EventRow)] == ["processed", "dead", "ignored"]
    assert dispatch.sweep(runtime, clock) == 0


# The tasks


@pytest.fixture
def _own_handlers() -> Iterator[None]:
    """The handlers that a test registers with `on` are gone after it."""
    before = dict(REGISTRY._handlers)
    dispatch._dispatcher.cache_clear()
    yield
    dispatch._dispatcher.cache_clear()
    REGISTRY._handlers.clear()
    REGISTRY._handlers.update(before)


@pytest.mark.usefixtures("_own_handlers")
def test_the_task_runs_what_is_registered_and_rings_for_the_deliveries(runtime: Runtime, endpoint: str) -> None:
    REGISTRY.on("*", name="tests.receipts")(lambda event, ctx: ctx.emit("receipt.issued", {}))
    event_id = received(runtime.engine)

    dispatch.process_task([event_id])

    assert rung(runtime, "deliveries") == [(DELIVER, [only(runtime.engine, Delivery).id])]
    assert only(runtime.engine, EventRow).status == "processed"


def test_the_sweep_task_sweeps_by_the_real_clock(runtime: Runtime) -> None:
    event_id = received(runtime.engine)
    with database.write(runtime.engine) as connection:
        connection.execute(update(EventRow).values(ring_at=leases.utcnow()))

    dispatch.sweep_task()

    assert rung(runtime, "events") == [(PROCESS, [event_id])]


def test_a_line_about_a_run_has_a_fixed_action_and_no_body(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    registry.on("*", name="bad", retries=0)(raising(ValueError("no")))
    registry.on("*", name="good")(nothing)
    event_id = received(engine)

    with capture_logs() as lines, caplog.at_level(logging.DEBUG):
        process(dispatcher, [event_id])

    ended = {line["handler"]: line for line in lines if line["action"] == "run_ended"}
    assert (ended["bad"]["outcome"], ended["bad"]["log_level"]) == ("dead", "error")
    assert (ended["good"]["outcome"], ended["good"]["log_level"]) == ("succeeded", "info")
    assert "inv_" not in str(lines) + caplog.text
    assert structlog.is_configured() or lines
