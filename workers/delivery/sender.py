"""Many exchanges with endpoints at once, on a thread with an event loop of its own, one for each process.

`begin` starts exchanges and returns; what ended is handed over a few milliseconds' worth at a time, so that the one who
writes it down can do so in few transactions. No exchange waits for another.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from workers.delivery.egress import Egress, Lookup
from workers.delivery.exchange import (
    INTERRUPTED,
    MAX_KEPT,
    MAX_READ,
    OWN_HEADERS,
    Answer,
    Error,
    Request,
    Terms,
    exchange,
    retry_after,
)
from workers.delivery.wires import Wires
from workers.logs import log

GATHERING = 0.005
"""Seconds that answers are gathered before they are handed over together."""

Ended = Callable[[Mapping[str, Answer]], None]

_changing = threading.Lock()  # while an engine is made, fed or taken away
os.register_at_fork(before=_changing.acquire, after_in_parent=_changing.release, after_in_child=_changing.release)


class Sender:
    """The connections of one process to all endpoints, opened at first use and kept; any thread may use it.

    A forked child starts with a thread and connections of its own.
    """

    def __init__(
        self,
        *,
        user_agent: str,
        egress: Egress,
        deadline: float = 20.0,
        connect: float = 5.0,
        tls: ssl.SSLContext | None = None,
        lookup: Lookup | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`deadline`: seconds for one exchange, all included; `connect`: those of it for name, TCP and TLS.

        `tls` replaces the default trust (the bundled authorities, or what SSL_CERT_FILE names).
        """
        self._terms = Terms(user_agent=user_agent, egress=egress, deadline=deadline, connect=connect, now=now)
        self._wires = partial(Wires, egress=egress, deadline=deadline, connect=connect, tls=tls, lookup=lookup)
        self._engine: _Engine | None = None
        self._inherited: list[_Engine] = []

    def begin(self, requests: Mapping[str, Request], ended: Ended) -> None:
        """Start these exchanges and return at once.

        `ended` is called on the sender's thread with what has ended, by key, each key exactly once. It must be quick,
        because all exchanges wait for it, and must not close the sender.
        """
        if not requests:
            return
        with _changing:
            engine = self._running()
            engine.loop.call_soon_threadsafe(engine.start, requests, ended)

    def send(self, requests: Sequence[Request]) -> list[Answer]:
        """Send all at once and wait; the answers are in the order of the requests."""
        answers: dict[str, Answer] = {}
        complete = threading.Event()

        def ended(some: Mapping[str, Answer]) -> None:
            answers.update(some)
            if len(answers) == len(requests):
                complete.set()

        if requests:
            self.begin({str(number): request for number, request in enumerate(requests)}, ended)
            complete.wait()
        return [answers[str(number)] for number in range(len(requests))]

    def close(self, within: float = 0.0) -> None:
        """Let what is under way end for `within` seconds, cut off the rest, close every connection.

        Every answer has been handed over when this returns. A later `begin` opens new connections.
        """
        with _changing:
            engine, self._engine = self._engine, None
        if engine is not None and engine.pid == os.getpid():
            engine.close(within)

    def _running(self) -> _Engine:
        if self._engine is not None and self._engine.pid != os.getpid():
            # The parent's event loop: closing it, or letting it be collected, would take away the parent's sockets.
            self._inherited.append(self._engine)
            self._engine = None
        if self._engine is None:
            self._engine = _Engine(self._wires(), self._terms)
        return self._engine


class _Engine:
    """What belongs to one process: the thread, its event loop, and what is under way there."""

    def __init__(self, wires: Wires, terms: Terms) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self._wires = wires
        self._terms = terms
        self._under_way: set[asyncio.Task[Answer]] = set()
        self._answers: dict[Ended, dict[str, Answer]] = {}
        self._thread = threading.Thread(target=self._run, name="billhook-sender", daemon=True)
        self._thread.start()

    def start(self, requests: Mapping[str, Request], ended: Ended) -> None:
        """On the loop's thread: one task for each request."""
        for key, request in requests.items():
            task = self.loop.create_task(exchange(self._wires, request, self._terms))
            self._under_way.add(task)
            task.add_done_callback(partial(self._gather, key, ended))

    def close(self, within: float) -> None:
        """From another thread: end what is under way, then the loop and the thread."""
        asyncio.run_coroutine_threadsafe(self._finish(within), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def _run(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    def _gather(self, key: str, ended: Ended, task: asyncio.Task[Answer]) -> None:
        self._under_way.discard(task)
        if not self._answers:
            self.loop.call_later(GATHERING, self._hand_over)
        self._answers.setdefault(ended, {})[key] = self._unbegun() if task.cancelled() else task.result()
        if not self._under_way:
            self._hand_over()  # nothing else can end: the quiet case need not wait

    def _unbegun(self) -> Answer:
        """The answer of an exchange that was cut off before its first step."""
        return Answer(None, 0, error="interrupted", detail=INTERRUPTED, started=self._terms.now())

    def _hand_over(self) -> None:
        gathered, self._answers = self._answers, {}
        for ended, answers in gathered.items():
            try:
                ended(answers)
            except Exception:
                log.exception("what ended was not taken", action="answers_lost", count=len(answers))

    async def _finish(self, within: float) -> None:
        if self._under_way and within > 0:
            await asyncio.wait(self._under_way, timeout=within)
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)
        self._hand_over()
        await self._wires.close()
        await self.loop.shutdown_asyncgens()
        await self.loop.shutdown_default_executor()


__all__ = ["GATHERING", "MAX_KEPT", "MAX_READ", "OWN_HEADERS", "Answer", "Error", "Request", "Sender", "retry_after"]
