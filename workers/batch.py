"""A batch: the runs that one process has taken, the one it is at, and the results that it has not written yet.

Results are written together, at most `_UNWRITTEN` seconds after the first of them came; if the process dies before,
those handlers run again. Nobody waits behind a slow handler: once it has run for `_PATIENCE` seconds, what was taken
after it is given back. Both are seen to by a thread, the keeper, for as long as the main thread is in a handler.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from functools import cache

from sqlalchemy.exc import DBAPIError

from handlers.context import Context
from workers import claims, database, tracing
from workers.app import PROCESS, ring
from workers.dispatcher import Dispatcher, Done, Taken
from workers.durable import Kept
from workers.execution import Failed, Result, execute, last_resort
from workers.logs import log
from workers.settling import settle

_UNWRITTEN = 0.05
_PATIENCE = 0.5
_LOOK_EVERY = 0.025
_TRIES = 3
_SENTENCES = ("Retry", "TimeUp")
"""What failures begin with that are no tracebacks and have a name all the same."""
_GROUP = 100
"""Results that are written together at most."""


class Batch:
    """What one call of `dispatch.process` has in hand."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        # However long it takes to plan a batch, one run of it is begun, else its rest would be rung for ever. What the
        # first may be late by is within the lease: half of the grace, the other half is the last resort's.
        self._ends = time.monotonic() + dispatcher.settings.lease_grace / 2
        self._begun = False
        self._state = threading.Lock()
        self._rest: deque[Taken] = deque()
        self._done: list[Done] = []
        self._first_done = self._began = float("inf")
        self._writing = threading.Lock()
        self.deliveries: list[str] = []
        """Those that the written results caused."""

    @property
    def over(self) -> bool:
        """Whether this process should begin nothing more of this batch."""
        return self._dispatcher.stopping() or time.monotonic() > self._ends

    def run(self, taken: Iterable[Taken]) -> None:
        """Start these one after the other, and write what came of them; what there is no time for is given back."""
        self._rest.extend(taken)
        if not self._rest:
            return
        keeper(os.getpid()).watch(self)
        try:
            self._run_rest()
        except Exception:
            self._let_go()
            raise
        finally:
            keeper(os.getpid()).watch(None)
        self.write()

    def _run_rest(self) -> None:
        taken_at, timeout = time.monotonic(), None
        with last_resort() as end_process_in:
            while (one := self._next()) is not None:
                if one.timeout != timeout:  # who hangs is ended by its own measure, not by the longest of the batch
                    timeout = one.timeout
                    end_process_in(taken_at + self._dispatcher.last_resort(timeout) - time.monotonic())
                self._ended(self._start(one))

    def write(self) -> None:
        """Write the results there are; they stay in hand where that fails. Raises SQLAlchemy's errors."""
        with self._writing:  # so whoever comes second returns only when the first has written
            done = self._unwritten()
            try:
                self.deliveries += self._settled(done)
            except BaseException:
                with self._state:
                    self._done[:0] = done
                raise

    def _settled(self, done: list[Done]) -> list[str]:
        """Settle, again where a transaction got in the way or the connection was cut: whoever ran would run again.

        Had the cut one committed after all, the second finds its lease ended and changes nothing.
        """
        for _ in range(_TRIES - 1):
            try:
                return settle(self._dispatcher, done)
            except DBAPIError as error:
                if not (database.collided(error) or error.connection_invalidated):
                    raise
        return settle(self._dispatcher, done)

    def _let_go(self) -> None:
        """After a failure that ends the batch: what was not begun has not died, so its start does not count."""
        try:
            self._give_back()
        except Exception as error:  # the failure itself is raised; these wait for the end of their lease
            log.warning("the database did not take runs back", action="keep_failed", error=type(error).__name__)

    def keep(self) -> None:
        """What the keeper does while a handler runs."""
        now = time.monotonic()
        try:
            if now - self._first_done > _UNWRITTEN:
                self.write()
            if now - self._began > _PATIENCE:
                self._give_back()
        except Exception as error:  # the main thread meets it too, and raises it
            log.warning("the database did not take results", action="keep_failed", error=type(error).__name__)

    def _next(self) -> Taken | None:
        if self.over:
            self._give_back()
            return None
        with self._state:
            self._began = time.monotonic()
            if not self._begun:
                self._begun, self._ends = True, self._began + self._dispatcher.slice
            return self._rest.popleft() if self._rest else None

    def _start(self, taken: Taken) -> Done:
        lease, reading = taken.lease, taken.reading
        durable = Kept(self._dispatcher, lease, reading.row.source, self.write)
        context = Context(
            event=reading.event,
            attempt=lease.attempts + 1,
            first_seen=reading.received_at,
            replay=lease.replays > 0,
            logger=log.bind(event_id=lease.event_id, handler=lease.handler),
            durable=durable,
        )
        about = {
            "billhook.event.id": lease.event_id,
            "billhook.event.type": reading.row.type,
            "billhook.source": reading.row.source,
            "billhook.handler": lease.handler,
            "billhook.attempt": lease.attempts + 1,
            "billhook.replays": lease.replays or None,
        }
        before = reading.row.traceparent
        with tracing.continued(f"run {lease.handler}", "consumer", before, about) as span:
            result = self._execute(taken, context)
            _note(span, result)
        return Done(taken, context, result, durable.asked_once, span.traceparent or before)

    def _execute(self, taken: Taken, context: Context) -> Result:
        most = self._dispatcher.settings.max_starts
        if taken.handler is None:
            return Failed(f"handler {taken.lease.handler} is not loaded in this worker: see BILLHOOK_HANDLERS", None)
        if taken.lease.deaths >= most:
            return Failed(f"its process died {most} times while it ran", None, final=True)
        if taken.reading.error is not None:
            return Failed(taken.reading.error, None, final=taken.reading.final)
        return execute(taken.handler, taken.reading.event, context)

    def _ended(self, done: Done) -> None:
        with self._state:
            self._began = float("inf")
            self._done.append(done)
            self._first_done = min(self._first_done, time.monotonic())
            enough = len(self._done) >= _GROUP or time.monotonic() - self._first_done > _UNWRITTEN
        if enough:
            self.write()

    def _unwritten(self) -> list[Done]:
        with self._state:
            done, self._done = self._done, []
            self._first_done = float("inf")
            return done

    def _give_back(self) -> None:
        """Let others have what was not begun."""
        with self._writing:
            with self._state:
                rest = list(self._rest)
                self._rest.clear()
            if not rest:
                return
            try:
                with database.write(self._dispatcher.engine) as connection:
                    claims.give_back(self._dispatcher, connection, rest)
            except BaseException:
                with self._state:
                    self._rest.extend(rest)
                raise
        ring(PROCESS, sorted({one.lease.event_id for one in rest}))


def _note(span: tracing.Span, result: Result) -> None:
    """What a span says of how a start went."""
    span.note({"billhook.outcome": type(result).__name__.lower()})
    if isinstance(result, Failed):
        last = result.error.rstrip().rpartition("\n")[2]
        kind, _, message = last.partition(": ")
        if last != result.error.rstrip():  # a traceback
            span.fail(kind, message, result.error)
        elif kind in _SENTENCES:
            span.fail(kind, message)
        else:
            span.fail("Failed", last)


class Keeper(threading.Thread):
    """One thread of a process, which looks after the batch that the main thread is at."""

    def __init__(self) -> None:
        super().__init__(name="keeper", daemon=True)
        self._changed = threading.Condition()
        self._batch: Batch | None = None

    def watch(self, batch: Batch | None) -> None:
        """Look after this batch, or after none."""
        with self._changed:
            self._batch = batch
            self._changed.notify()

    def run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait(None if self._batch is None else _LOOK_EVERY)
                batch = self._batch
            if batch is not None:
                batch.keep()


@cache
def keeper(_pid: int) -> Keeper:
    """The keeper of this process; a forked child has none of its parent's threads."""
    thread = Keeper()
    thread.start()
    return thread
