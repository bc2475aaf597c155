"""What makes a sandbox go: a call is one transaction, its webhooks leave after it, what falls due is done in time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import orjson
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from handlers.providers.sandbox import faults, webhooks
from handlers.providers.sandbox.clock import Clock
from handlers.providers.sandbox.sender import Sender
from handlers.providers.sandbox.store import Store

TICK = 1.0
"""Seconds between two looks, when served, for what fell due."""

Later = Callable[[], Response]
"""The rest of an answer, made in a thread after the commit. May raise Refusal."""

_log = logging.getLogger(__name__)


class Refusal(Exception):
    """An answer that is an error; nothing that the call did is kept."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: list[dict[str, str]] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.details = details or []
        self.headers = dict(headers or {})


class Alarm(Protocol):
    """What happens when its time has come by the sandbox's clock."""

    def next(self, session: Session) -> datetime | None:
        """The earliest moment at which something is due; None: nothing is."""

    def ring(self, machine: Machine, session: Session, moment: datetime) -> None:
        """Do what is due at `moment`, in one transaction. What is next must then be another, or later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request in its transaction."""

    machine: Machine
    session: Session
    request: Request
    raw: bytes
    now: datetime
    """The sandbox's time, in UTC."""

    @property
    def id(self) -> str:
        """The `{id}` of the path."""
        return str(self.request.path_params["id"])

    def emit(self, event_type: str, body: Mapping[str, Any] | bytes, **where: Any) -> None:
        """Have a webhook sent if this transaction is committed; see `Machine.emit`."""
        self.machine.emit(self.session, event_type, body, **where)


Work = Callable[[Call], Response | Later]


class Machine:
    """A sandbox's store, clock, sender and alarm; see the package for how they are put together.

    `render` makes an error body of the provider's kind; `failures` has what the faults `error` and `too_many` answer.
    """

    def __init__(
        self,
        *,
        store: Store,
        sender: Sender,
        render: Callable[[Refusal], Response],
        failures: Mapping[str, Refusal],
        wall: Callable[[], float] = time.time,
        start: datetime | None = None,
        alarm: Alarm | None = None,
        delivery_prefix: str = "del",
    ) -> None:
        self.store, self.sender = store, sender
        self.clock = Clock(store, wall, start)
        self._render, self._failures, self._alarm = render, failures, alarm
        self._delivery_prefix = delivery_prefix
        self._served = False
        self._woken = asyncio.Event()

    def emit(
        self,
        session: Session,
        event_type: str,
        body: Mapping[str, Any] | bytes,
        *,
        owner: str | None = None,
        url: str | None = None,
        delivery_id: str | None = None,
    ) -> None:
        """Put a webhook into the outbox: for the endpoints of `owner` and of all, or for `url` alone."""
        webhooks.enqueue(
            session,
            event_type,
            body if isinstance(body, bytes) else orjson.dumps(body),
            delivery_id=delivery_id or f"{self._delivery_prefix}_{secrets.token_hex(8)}",
            at=self.sender.timer(),
            owner=owner,
            url=url,
        )

    def endpoint(self, work: Work) -> Callable[[Request], Awaitable[Response]]:
        """A Starlette endpoint that answers by `work`."""

        async def answer(request: Request) -> Response:
            raw = await request.body()
            with self.store.transaction() as session:
                struck = faults.strike(session, faults.OF_CALLS, f"{request.method} {request.url.path}")
            if "slow" in struck:
                await asyncio.sleep(struck["slow"])
            for kind in ("error", "too_many"):
                if kind in struck:
                    return self._render(self._failures[kind])
            response = await self.answered(work, request, raw)
            if "error_after" in struck:
                lost, response = response, self._render(self._failures["error"])
                response.background = lost.background
            return response

        return answer

    async def answered(
        self, work: Work, request: Request, raw: bytes, render: Callable[[Refusal], Response] | None = None
    ) -> Response:
        """Do the work in a transaction of its own; the webhooks of it leave after the answer."""
        render = render or self._render
        self._try_catching_up()
        try:
            with self.store.transaction() as session:
                response = work(Call(machine=self, session=session, request=request, raw=raw, now=self.clock.now()))
            if not isinstance(response, Response):
                response = await run_in_threadpool(response)
        except Refusal as refusal:
            response = render(refusal)
        except Exception:
            _log.exception("%s %s failed", request.method, request.url.path)
            response = render(self._failures["error"])
        if self._served:
            self._woken.set()
        elif self.sender.waits(self.store):
            response.background = BackgroundTask(self._settle)
        return response

    def catch_up(self) -> None:
        """Do all that fell due."""
        while self._ring(self.clock.now()):
            pass

    def _try_catching_up(self) -> None:
        try:
            self.catch_up()
        except Exception:
            # A fault of ours in there must not keep everything else from being answered.
            _log.exception("what fell due failed")

    async def advance(self, to: datetime) -> int:
        """Set the clock forward, and do on the way what falls due, each at its time; how often something did.

        Raises ValueError for a moment that has passed.
        """
        self.catch_up()
        if to < self.clock.now():
            raise ValueError("the sandbox's clock only goes forward")
        rung = 0
        while self._ring(to, move=True):
            rung += 1
            await asyncio.sleep(0)  # a year of schedules keeps nobody else waiting
        with self.store.transaction() as session:
            self.clock.move(session, max(to, self.clock.now()))
        return rung

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """While served: what waits in the outbox is sent, and what falls due is done, also when nobody calls."""
        self._woken = asyncio.Event()
        self._served = True
        keeper = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            self._served = False
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper

    def _ring(self, until: datetime, *, move: bool = False) -> bool:
        """Do what is due first, if it is due by then."""
        if self._alarm is None:
            return False
        with self.store.transaction() as session:
            moment = self._alarm.next(session)
            if moment is None or moment > until:
                return False
            if move:
                self.clock.move(session, moment)
            with self.clock.at(moment):
                self._alarm.ring(self, session, moment)
            return True

    async def _settle(self) -> None:
        try:
            await self.sender.settle(self.store, self.clock.wall)
        except Exception:
            _log.exception("webhooks could not be sent")

    async def _keep(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                self._woken.clear()
                self._try_catching_up()
                if self.sender.waits(self.store):
                    group.create_task(self._settle())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK):
                        await self._woken.wait()
