from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from handlers import Context, Discard, Event, Retry
from handlers.errors import ProviderError
from handlers.registry import Handler
from handlers.testing.memory import InMemory, Store
from workers.execution import Discarded, Failed, Result, Succeeded, execute

NOW = datetime(2026, 6, 5, 14, 0, tzinfo=UTC)
EVENT = Event(id="evt_1", type="invoice.paid", data={}, occurred_at=NOW, received_at=NOW)


def context() -> Context:
    """A first start, whose steps are kept in memory."""
    durable = InMemory(store=Store(), handler="shop.test", event=EVENT, clock=lambda: NOW, clients={}, replay=False)
    return Context(event=EVENT, attempt=1, first_seen=NOW, logger=structlog.get_logger(), durable=durable)


def executed(function: Callable[..., Any], *, timeout: float = 5.0) -> Result:
    handler = Handler(
        name="shop.test",
        function=function,
        patterns=("*",),
        provider=None,
        source=None,
        retries=0,
        backoff=1.0,
        timeout=timeout,
    )
    return execute(handler, EVENT, context())


def failed(function: Callable[..., Any], *, timeout: float = 5.0) -> Failed:
    result = executed(function, timeout=timeout)
    assert isinstance(result, Failed)
    return result


@pytest.fixture(autouse=True)
def _the_alarm_is_left_as_it_was() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) == before


def test_a_handler_gets_the_event_and_its_context() -> None:
    got: list[Any] = []

    result = executed(lambda *arguments: got.extend(arguments))

    assert isinstance(result, Succeeded)
    assert got[0] is EVENT
    assert isinstance(got[1], Context)


def test_an_async_handler_runs_to_its_end() -> None:
    steps = []

    async def handler(event: Event, ctx: Context) -> None:
        steps.append("begun")
        await asyncio.sleep(0)
        steps.append("ended")

    assert isinstance(executed(handler), Succeeded)
    assert steps == ["begun", "ended"]


def test_whatever_a_handler_returns_to_be_awaited_is_awaited() -> None:
    awaited = []

    class Later:
        def __await__(self) -> Generator[None, None, None]:
            awaited.append(True)
            return
            yield

    def handler(event: Event, ctx: Context) -> Awaitable[None]:
        return Later()

    assert isinstance(executed(handler), Succeeded)
    assert awaited == [True]


def test_a_failure_carries_its_traceback_and_is_summed_up_in_its_last_line() -> None:
    def handler(event: Event, ctx: Context) -> None:
        raise LookupError("no such receipt")

    result = failed(handler)

    assert result.error.startswith("Traceback")
    assert 'raise LookupError("no such receipt")' in result.error
    assert result.summary == "LookupError: no such receipt"
    assert (result.after, result.final) == (None, False)


def test_an_async_failure_is_a_failure() -> None:
    async def handler(event: Event, ctx: Context) -> None:
        await asyncio.sleep(0)
        raise LookupError("no such receipt")

    assert failed(handler).summary == "LookupError: no such receipt"


def test_the_end_of_a_long_traceback_is_kept() -> None:
    def handler(event: Event, ctx: Context) -> None:
        raise ValueError("x" * 100_000 + " the end")

    result = failed(handler)

    assert len(result.error) < 50_000
    assert result.error.rstrip().endswith("the end")
    assert len(result.summary) <= 200


def test_discard_and_retry_say_what_they_mean() -> None:
    def discard(event: Event, ctx: Context) -> None:
        raise Discard("not ours")

    def retry(event: Event, ctx: Context) -> None:
        raise Retry("the printer is busy", after=90)

    discarded = executed(discard)
    assert isinstance(discarded, Discarded)
    assert (discarded.reason, discarded.summary) == ("not ours", "not ours")
    assert (failed(retry).error, failed(retry).after) == ("Retry: the printer is busy", 90)


def test_a_refusal_by_a_provider_is_a_failure_like_any_other() -> None:
    def handler(event: Event, ctx: Context) -> None:
        raise ProviderError("NOT_FOUND", "Resource not found", status=404)

    result = failed(handler)

    assert result.after is None
    assert result.summary.endswith("NOT_FOUND: Resource not found")


def _exits(event: Event, ctx: Context) -> None:
    sys.exit("enough")


async def _exits_later(event: Event, ctx: Context) -> None:
    await asyncio.sleep(0)
    sys.exit("enough")


async def _is_cancelled(event: Event, ctx: Context) -> None:
    raise asyncio.CancelledError


class Panic(BaseException):
    """As extensions written in Rust raise it."""


def _panics(event: Event, ctx: Context) -> None:
    raise Panic


@pytest.mark.parametrize("handler", [_exits, _exits_later, _is_cancelled, _panics])
def test_a_handler_ends_itself_and_not_the_worker(handler: Callable[..., Any]) -> None:
    assert failed(handler).after is None


def test_an_interrupt_from_the_keyboard_is_not_the_handlers() -> None:
    def handler(event: Event, ctx: Context) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        executed(handler)


def _sleeps(event: Event, ctx: Context) -> None:
    time.sleep(30)


def _spins(event: Event, ctx: Context) -> None:
    while True:
        pass


def _catches_every_exception(event: Event, ctx: Context) -> None:
    try:
        time.sleep(30)
    except Exception:
        time.sleep(30)


async def _sleeps_async(event: Event, ctx: Context) -> None:
    await asyncio.sleep(30)


async def _spins_async(event: Event, ctx: Context) -> None:
    while True:
        await asyncio.sleep(0)


@pytest.mark.parametrize("handler", [_sleeps, _spins, _catches_every_exception, _sleeps_async, _spins_async])
def test_a_handler_is_ended_at_its_timeout(handler: Callable[..., Any]) -> None:
    started = time.monotonic()

    result = failed(handler, timeout=0.05)

    assert result.error == "TimeUp: the handler ran longer than 0.05 s"
    assert 0.05 <= time.monotonic() - started < 5


def test_a_handler_that_swallows_its_end_is_ended_again() -> None:
    def handler(event: Event, ctx: Context) -> None:
        try:
            time.sleep(30)
        except BaseException:
            time.sleep(30)

    assert failed(handler, timeout=0.05).summary.startswith("TimeUp")


def test_an_alarm_that_fires_at_the_very_end_does_not_outlive_its_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    set_timer = signal.setitimer
    fired: list[bool] = []

    def late(which: int, seconds: float, interval: float = 0.0) -> tuple[float, float]:
        if seconds == 0 and not fired:
            fired.append(True)
            signal.raise_signal(signal.SIGALRM)
        return set_timer(which, seconds, interval)

    # The handler has returned; its time is up in the moment before the alarm is called off.
    monkeypatch.setattr(signal, "setitimer", late)
    try:
        executed(lambda event, ctx: None, timeout=5.0)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        set_timer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def test_outside_the_main_thread_a_handler_runs_without_an_alarm() -> None:
    results: list[Result] = []

    def handler(event: Event, ctx: Context) -> None:
        time.sleep(0.02)

    thread = threading.Thread(target=lambda: results.append(executed(handler, timeout=0.001)))
    thread.start()
    thread.join()

    assert isinstance(results[0], Succeeded)
    assert results[0].seconds >= 0.02


UNINTERRUPTIBLE = """
import ctypes
from tests.workers.test_execution import EVENT, Handler, context, execute
from workers.execution import last_resort

def stuck(event, context):
    lock = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(lock)

handler = Handler(name="stuck", function=stuck, patterns=("*",), provider=None, source=None, retries=0, backoff=1.0,
                  timeout=0.1)
with last_resort() as end_process_in:
    end_process_in(0.3)
    execute(handler, EVENT, context())
"""


def test_a_handler_that_cannot_be_interrupted_ends_its_process_and_says_where_it_was() -> None:
    root = Path(__file__).parents[2]

    ended = subprocess.run(
        [sys.executable, "-c", UNINTERRUPTIBLE], cwd=root, check=False, capture_output=True, timeout=60
    )

    assert ended.returncode == 1
    assert b"in stuck" in ended.stderr


def test_a_wait_that_is_no_number_of_seconds_fails_the_attempt_with_the_reason() -> None:
    def ask(_event: Event, _context: Context) -> None:
        raise Retry(after=timedelta(minutes=5))  # type: ignore[arg-type]

    assert "TypeError: after is a number of seconds, not timedelta" in failed(ask).error
