"""One start of one handler: call it, end it at its timeout, and say how it went."""

from __future__ import annotations

import asyncio
import faulthandler
import inspect
import math
import signal
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from types import FrameType
from typing import Any

from handlers.context import Context, Pause
from handlers.errors import Discard, ProviderError, ProviderUnavailable, Retry
from handlers.event import Event
from handlers.registry import Handler
from workers.tracing import OFF, Span

_KEPT_TRACEBACK = 32_000
STDERR = 2


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The handler returned."""

    seconds: float
    summary: None = None


@dataclass(frozen=True, slots=True)
class Discarded:
    """The handler raised Discard."""

    reason: str
    seconds: float

    @property
    def summary(self) -> str:
        return self.reason[:200]


@dataclass(frozen=True, slots=True)
class Paused:
    """The handler asked to be called again at `until`."""

    until: datetime
    seconds: float

    @property
    def summary(self) -> str:
        return f"until {self.until.isoformat()}"


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler raised, ran out of time, or was not started at all, which took no `seconds`.

    `after`: seconds it asks to wait; `final`: never again.
    """

    error: str
    seconds: float | None
    after: float | None = None
    at_least: float | None = None
    final: bool = False

    @property
    def summary(self) -> str:
        """The last line: the exception without its traceback."""
        return self.error.rstrip().rpartition("\n")[2][:200]


Result = Succeeded | Discarded | Paused | Failed


class _TimeUp(BaseException):
    """Not an Exception, so that a handler that catches those does not catch this."""


def execute(handler: Handler, event: Event, context: Context) -> Result:
    """Run a handler to its end or its timeout; whatever it raises becomes a result."""
    started = time.monotonic()
    try:
        with time_limit(handler.timeout):
            _call(handler, event, context)
    except KeyboardInterrupt:
        raise
    except BaseException as raised:  # a handler that exits, is cancelled or panics ends itself, not the worker
        seconds = time.monotonic() - started
        result = _result(handler, raised, seconds)
    else:
        seconds = time.monotonic() - started
        result = Succeeded(seconds)
    if context.paused_until is not None:  # whatever became of the Pause on its way: a bare `except`, a task group
        return Paused(context.paused_until, seconds)
    return result


def _call(handler: Handler, event: Event, context: Context) -> None:
    # Asked again, because an error in it made the run: here it is seen.
    if handler.when is not None and not handler.when(event):
        raise Discard("its `when` does not want this event any more")
    returned: Any = handler.function(event, context)
    if inspect.isawaitable(returned):
        asyncio.run(_awaited(returned))


def _result(handler: Handler, raised: BaseException, seconds: float) -> Result:
    match raised:
        case Pause():
            return Paused(raised.until, seconds)
        case Discard():
            return Discarded(text_of(getattr(raised, "reason", "")), seconds)
        case Retry():
            return Failed(f"Retry: {text_of(raised)}", seconds, after=_number(raised, "after"))
        case ProviderUnavailable():
            return Failed(_trace(), seconds, at_least=_number(raised, "retry_after"))
        case _TimeUp():
            return Failed(f"TimeUp: the handler ran longer than {handler.timeout:g} s", seconds)
    return Failed(_trace(), seconds)


async def _awaited(returned: Awaitable[None]) -> None:
    await returned


def _trace() -> str:
    try:
        return traceback.format_exc()[-_KEPT_TRACEBACK:]
    except Exception as error:  # of an exception that is made so that it cannot be shown
        return f"an exception whose traceback cannot be written: {type(error).__name__}"


# What a handler raises may be of a class of its own, which never called ours: nothing about it is certain.


def text_of(value: object) -> str:
    """A text of somebody else's value, whatever that is made like."""
    try:
        return str(value)[-_KEPT_TRACEBACK:]
    except Exception as error:
        return f"a {type(value).__name__} whose text cannot be written: {type(error).__name__}"


def _number(raised: BaseException, name: str) -> float | None:
    value = getattr(raised, name, None)
    return float(value) if isinstance(value, int | float) and not math.isnan(value) else None


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise _TimeUp in the block after `seconds`, and each second from then on until it has ended.

    A signal interrupts Python code and system calls of the main thread, which is where a worker runs its tasks. What
    never returns to the interpreter ends by `last_resort`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Asked each time, because a handler before may have set another and not put ours back.
    with nullcontext() if _alarms and signal.getsignal(signal.SIGALRM) is _time_up else _alarm():
        try:
            _missed.clear()
            signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            # Twice, because the alarm may go off just before the first.
            signal.setitimer(signal.ITIMER_REAL, 0)


_alarms: list[int] = []
"""Not empty while the alarm is set up."""


@contextmanager
def _alarm() -> Iterator[None]:
    """In the block, an alarm raises _TimeUp."""
    before = signal.signal(signal.SIGALRM, _time_up)
    _alarms.append(signal.SIGALRM)
    try:
        yield
    finally:
        _alarms.pop()
        signal.signal(signal.SIGALRM, before)


def _time_up(_number: int, _frame: FrameType | None) -> None:
    if _undisturbed:
        _missed.append(_number)
    else:
        raise _TimeUp


_undisturbed: list[object] = []
"""Not empty while the main thread is in code of ours that a handler called."""
_missed: list[int] = []


@contextmanager
def undisturbed() -> Iterator[None]:
    """Have the alarm wait for the end of the block.

    An exception amid a transaction can leave a connection that nobody gives back, and on SQLite its lock with it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _undisturbed.append(None)
    try:
        yield
    finally:
        _undisturbed.pop()
        if _missed and not _undisturbed:
            _missed.clear()
            raise _TimeUp


@contextmanager
def within(span: Span, *, ends: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Make a span the current one for a block in which a handler runs, and end it with that if `ends` says so."""
    if span is OFF:
        yield
        return
    with undisturbed():
        leave = span.enter()
    try:
        yield
    except Exception as error:
        with undisturbed():
            span.fail(error.code if isinstance(error, ProviderError) else type(error).__name__, text_of(error))
        raise
    finally:
        with undisturbed():
            leave()
            if ends():
                span.end()


@contextmanager
def last_resort() -> Iterator[Callable[[float], None]]:
    """End the process, with a traceback on stderr, if the block has not ended when the seconds last given are over.

    They are given by calling what the block gets; before that they never end. Code that never returns to the
    interpreter (a database driver that waits for a lock) would keep its process for ever, and with it one of the few
    places to work in. The start was counted. To give them costs a thread, so not every run of a batch needs its own;
    the alarm too is set up once for all of them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda seconds: None
        return
    try:
        with _alarm():
            yield _end_process_in
    finally:
        faulthandler.cancel_dump_traceback_later()


def _end_process_in(seconds: float) -> None:
    faulthandler.dump_traceback_later(max(seconds, 0.001), exit=True, file=STDERR)
