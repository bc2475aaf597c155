"""Gathering: requests that are in flight together share one commit.

While one batch commits, the next one gathers; so a lone request waits for nobody, and under load the batches
grow by themselves. Answers go out as soon as their batch is committed; remembering and ringing follow.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from workers import database
from workers.inbox import Arrival, Outcome
from workers.logs import log
from workers.metrics import ACCEPT_SECONDS, BATCH_SIZE

MAX_BATCH = 256
"""Rows of one commit; beyond it the rows cost more than the commit."""
MAX_BATCH_BYTES = 8 * 1024 * 1024
"""Bytes of bodies after which a commit takes no further row."""
MAX_WAITING_BYTES = 256 * 1024 * 1024
"""Bytes of bodies that may wait; with small bodies the number that may wait is reached long before."""

PAUSE = 0.05
"""Seconds between announcements while deliveries keep coming, so that a message to the workers is worth its price."""
CLOSES_WITHIN = 10.0
"""Seconds that commits and announcements under way get at the end."""


class Overloaded(Exception):
    """Too many deliveries wait for the database."""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The delivery could not be stored; the sender should try again."""


Result = Outcome | Unavailable
Waiting = tuple[Arrival, Callable[[Result], None]]


class Gatherer:
    """Gathers arrivals into batches for `accept`, and tells `announce` which of them were new.

    Both run in a thread of their own, one call at a time each.
    """

    def __init__(
        self,
        accept: Callable[[Sequence[Arrival]], list[Outcome]],
        announce: Callable[[Sequence[Arrival]], None],
        *,
        max_waiting: int,
    ) -> None:
        self._accept = accept
        self._announce = announce
        self._max_waiting = max_waiting
        self._waiting: deque[Waiting] = deque()
        self._waiting_bytes = 0
        self._committing = False
        self._new: list[Arrival] = []
        self._announcing = False
        self._quiet = asyncio.Event()
        """Set each time that a commit or an announcement has ended."""
        self._committer = ThreadPoolExecutor(1, "commit")
        self._announcer = ThreadPoolExecutor(1, "announce")

    def put(self, arrival: Arrival, done: Callable[[Result], None]) -> None:
        """Let the arrival wait for the next commit, after which `done` is called in this loop. Raises Overloaded."""
        if len(self._waiting) >= self._max_waiting or self._waiting_bytes > MAX_WAITING_BYTES:
            raise Overloaded
        self._waiting.append((arrival, done))
        self._waiting_bytes += len(arrival.event.body)
        if not self._committing:
            self._start()

    async def submit(self, arrival: Arrival) -> Result:
        """Wait until the arrival is stored, or cannot be. Raises Overloaded."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.put(arrival, lambda result: None if future.done() else future.set_result(result))
        return await future

    async def close(self) -> None:
        """Let what is under way finish, then end the threads."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSES_WITHIN):
                while self._waiting or self._committing or self._announcing:
                    self._quiet.clear()
                    await self._quiet.wait()
        self._committer.shutdown(wait=False)
        self._announcer.shutdown(wait=False)

    def _start(self) -> None:
        batch: list[Waiting] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size += len(batch[-1][0].event.body)
        self._waiting_bytes -= size
        self._committing = True
        self._committer.submit(self._commit, asyncio.get_running_loop(), batch)

    def _commit(self, loop: asyncio.AbstractEventLoop, batch: list[Waiting]) -> None:
        arrivals = [arrival for arrival, _ in batch]
        started = time.perf_counter()
        results = self._outcomes(arrivals)
        ACCEPT_SECONDS.observe(time.perf_counter() - started)
        BATCH_SIZE.observe(len(batch))
        loop.call_soon_threadsafe(self._finish, batch, results)

    def _outcomes(self, arrivals: list[Arrival]) -> list[Result]:
        try:
            return list(self._accept(arrivals))
        except Exception as error:
            if len(arrivals) == 1 or database.unavailable(error):
                log.error(
                    "could not store deliveries",
                    action="accept_failed",
                    count=len(arrivals),
                    error=type(error).__name__,
                )
                return [Unavailable()] * len(arrivals)
        # One of them is what the database refuses: the others must not suffer for it.
        return [outcome for arrival in arrivals for outcome in self._outcomes([arrival])]

    def _finish(self, batch: list[Waiting], results: list[Result]) -> None:
        self._committing = False
        self._quiet.set()
        if self._waiting:
            self._start()
        new = []
        for (arrival, done), result in zip(batch, results, strict=True):
            if isinstance(result, Outcome) and result.kind == "accepted":
                new.append(arrival)
            try:
                done(result)
            except Exception as error:  # one that cannot be answered must not keep the others waiting
                log.exception("could not answer a sender", action="answer_failed", error=type(error).__name__)
        if new:
            self._new += new
            if not self._announcing:
                self._announcing = True
                self._announcer.submit(self._announce_new, asyncio.get_running_loop())

    def _announce_new(self, loop: asyncio.AbstractEventLoop) -> None:
        # What is committed meanwhile joins the next round: one message then rings for several batches.
        new, self._new = self._new, []
        try:
            self._announce(new)
        except Exception as error:  # what was not announced is swept up; what comes next must still be announced
            reason = type(error).__name__
            log.exception("could not announce deliveries; the sweep will ring", action="announce_failed", error=reason)
        log.info("accepted", action="accepted", event_ids=[arrival.id for arrival in new])
        loop.call_soon_threadsafe(loop.call_later, PAUSE, self._announce_next, loop)

    def _announce_next(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._new:
            self._announcer.submit(self._announce_new, loop)
        else:
            self._announcing = False
            self._quiet.set()
