"""One start of one handler: call it, end it at its timeout, and say how it went."""

from __future__ import annotations

import asyncio
import faulthandler
import inspect
import signal
import threading
import time
import traceback
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from handlers.context import Context
from handlers.errors import Discard, ProviderUnavailable, Retry
from handlers.event import Event
from handlers.registry import Handler

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
        return self.reason


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler raised, or ran out of time. `after`: seconds it asks to wait; `final`: never again."""

    error: str
    seconds: float
    after: float | None = None
    at_least: float | None = None
    final: bool = False

    @property
    def summary(self) -> str:
        """The last line: the exception without its traceback."""
        return self.error.rstrip().rpartition("\n")[2][:200]


Result = Succeeded | Discarded | Failed


class _TimeUp(BaseException):
    """Not an Exception, so that a handler that catches those does not catch this."""


def execute(handler: Handler, event: Event, context: Context, *, patience: float | None = None) -> Result:
    """Run a handler to its end or its timeout; whatever it raises becomes a result.

    `patience`: seconds beyond the timeout after which a handler that cannot be interrupted ends the process.
    """
    started = time.monotonic()
    try:
        with _time_limit(handler.timeout, patience):
            returned: Any = handler.function(event, context)
            if inspect.isawaitable(returned):
                asyncio.run(_awaited(returned))
    except Discard as discard:
        return Discarded(discard.reason, time.monotonic() - started)
    except Retry as retry:
        return Failed(f"Retry: {retry}", time.monotonic() - started, after=retry.after)
    except ProviderUnavailable as unavailable:
        return Failed(_trace(), time.monotonic() - started, at_least=unavailable.retry_after)
    except _TimeUp:
        return Failed(f"TimeUp: the handler ran longer than {handler.timeout:g} s", time.monotonic() - started)
    except KeyboardInterrupt:
        raise
    except BaseException:  # a handler that exits, is cancelled or panics ends itself, not the worker
        return Failed(_trace(), time.monotonic() - started)
    return Succeeded(time.monotonic() - started)


async def _awaited(returned: Awaitable[None]) -> None:
    await returned


def _trace() -> str:
    return traceback.format_exc()[-_KEPT_TRACEBACK:]


@contextmanager
def _time_limit(seconds: float, patience: float | None) -> Iterator[None]:
    """Raise _TimeUp in the block after `seconds`, and each second from then on until it has ended.

    A signal interrupts Python code and system calls of the main thread, which is where a worker runs its tasks;
    code that never returns to the interpreter (a database driver that waits for a lock) would keep its process for
    ever, and with it one of the few places to work in. So the process ends, with a traceback on stderr; the start was
    counted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def time_up(_number: int, _frame: FrameType | None) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, time_up)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    if patience is not None:
        faulthandler.dump_traceback_later(seconds + patience, exit=True, file=STDERR)
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        # Twice, because the alarm may go off just before the first.
        signal.setitimer(signal.ITIMER_REAL, 0)
        if patience is not None:
            faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)
