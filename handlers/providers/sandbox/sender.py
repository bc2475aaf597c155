"""Sends what the outbox holds: signed, in order, and again until it is answered 2xx or the delays are used up.

Webhooks to one address leave one at a time, in the order of the changes they tell; one that must be sent again has
lost its place. A retry has the delivery id of the first attempt and a fresh timestamp.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import httpx
from sqlalchemy import select

from handlers.providers.http import trust
from handlers.providers.provider import Provider
from handlers.providers.sandbox.store import Store
from handlers.providers.sandbox.webhooks import DELIVERED, FAILED, WAITING, Attempt, Delivery
from handlers.testing.deliveries import signed_request

RETRY_DELAYS = (1.0, 5.0, 25.0)
"""Seconds before a webhook that failed is sent again; no provider says what its own are."""
TIMEOUT = 10.0
LOOK = 0.02
"""Seconds between two looks whether the webhook that is to leave first has left."""
STALE = 3600.0
"""Seconds by which the fault `stale_timestamp` is late."""
LAST_WORDS = 1.0
"""Seconds that a request in flight has to end in when the sandbox stops."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One attempt to deliver a webhook; `status` is None where no answer came."""

    delivery_id: str
    event_type: str
    status: int | None


class Sign(Protocol):
    def __call__(
        self, event_type: str, body: bytes, *, secret: str, delivery_id: str, now: float, forged: bool
    ) -> Mapping[str, str]:
        """The headers of a delivery, at `now` in Unix seconds. `forged` asks for a signature that does not hold."""


def signed_by(provider: Provider) -> Sign:
    """Sign as `handlers.testing.signed_request` does for the provider."""

    def sign(
        event_type: str, body: bytes, *, secret: str, delivery_id: str, now: float, forged: bool
    ) -> Mapping[str, str]:
        return signed_request(
            provider, event_type, secret, body=body, delivery_id=delivery_id, now=now, forged=forged
        ).headers

    return sign


class Sender:
    """`sent` lists the attempts of this process, and grows; `transport` stands in for the network.

    `timer` is the watch that delays go by, in Unix seconds; what signatures say is the machine's `wall`.
    """

    def __init__(
        self,
        *,
        sign: Sign,
        headers: Mapping[str, str],
        retry_delays: Sequence[float] = RETRY_DELAYS,
        transport: httpx.AsyncBaseTransport | None = None,
        timer: Callable[[], float] = time.time,
    ) -> None:
        self.sent: list[Sent] = []
        self.timer = timer
        self.sign = sign
        self._headers = dict(headers)
        self._retry_delays = tuple(retry_delays)
        # Between two webhooks nothing stays open, so nobody has to close this client.
        self._http = httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            verify=trust(),
            timeout=TIMEOUT,
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self._in_hand: set[int] = set()
        self._turns: dict[str, asyncio.Lock] = {}
        self._stirred = asyncio.Event()

    def check(self, secret: str) -> None:
        """Raise ValueError, without the secret in it, where nothing can be signed with it."""
        self.sign("check", b"{}", secret=secret, delivery_id="check", now=self.timer(), forged=False)

    def waits(self, store: Store) -> bool:
        """Whether there is something to send that nobody has in hand."""
        return bool(self._waiting(store))

    async def settle(self, store: Store, wall: Callable[[], float]) -> None:
        """Send all that waits and that nobody has in hand, and return when each is delivered or given up."""
        numbers = self._waiting(store)
        self._in_hand.update(numbers)
        try:
            async with asyncio.TaskGroup() as group:
                for number in numbers:
                    group.create_task(self._deliver(store, wall, number))
                # One that was held back may be due now.
                self._stirred.set()
                self._stirred = asyncio.Event()
        finally:
            self._in_hand.difference_update(numbers)
            if not self._in_hand:
                self._turns.clear()  # locks belong to one event loop, a sandbox may see several

    def _waiting(self, store: Store) -> list[int]:
        with store.transaction() as session:
            rows = select(Delivery.number).where(Delivery.state == WAITING).order_by(Delivery.due_at, Delivery.number)
            return [number for number in session.scalars(rows) if number not in self._in_hand]

    async def _deliver(self, store: Store, wall: Callable[[], float], number: int) -> None:
        try:
            waits = True
            while waits and (delivery := _read(store, number)) is not None:
                wait = delivery.due_at - self.timer()
                if wait > 0 or not _its_turn(store, delivery):
                    await self._rest(wait if wait > 0 else LOOK)
                    continue
                async with self._turns.setdefault(delivery.url, asyncio.Lock()):
                    status = await self._attempt(delivery, wall())
                    waits = self._record(store, number, status)
        finally:
            self._in_hand.discard(number)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stirred.wait()
        except TimeoutError:
            pass

    async def _attempt(self, delivery: Delivery, now: float) -> int | None:
        faults = _faults(delivery)
        if "drop" in faults:
            return None
        try:
            headers = self.sign(
                delivery.event_type,
                delivery.body,
                secret="" if delivery.endpoint is None else delivery.endpoint.secret,
                delivery_id=delivery.delivery_id,
                now=now - (STALE if "stale_timestamp" in faults else 0),
                forged="wrong_signature" in faults,
            )
        except ValueError:  # its endpoint was removed, and the secret with it
            return None
        try:
            return await self._post(delivery.url, delivery.body, {**headers, **self._headers})
        except httpx.RequestError:
            return None

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """The status of the answer. Who is cancelled while it connects would leave the new socket open (anyio 4)."""
        posting = asyncio.create_task(self._http.post(url, content=body, headers=headers))
        try:
            return (await asyncio.shield(posting)).status_code
        except asyncio.CancelledError:
            await asyncio.wait({posting}, timeout=LAST_WORDS)
            posting.cancel()
            await asyncio.gather(posting, return_exceptions=True)
            raise

    def _record(self, store: Store, number: int, status: int | None) -> bool:
        """Write an attempt down; whether there will be another."""
        with store.transaction() as session:
            delivery = session.get_one(Delivery, number)
            session.add(Attempt(number=number, at=self.timer(), status=status, faults=_faults(delivery)))
            made, delivery.tried = delivery.tried, delivery.tried + 1
            if status is not None and 200 <= status < 300:
                delivery.state = DELIVERED
            elif delivery.state != WAITING:
                pass  # its endpoint was removed meanwhile
            elif made < len(self._retry_delays):
                delivery.due_at = self.timer() + self._retry_delays[made]
            else:
                delivery.state = FAILED
            self.sent.append(Sent(delivery.delivery_id, delivery.event_type, status))
            return delivery.state == WAITING


def _read(store: Store, number: int) -> Delivery | None:
    """The delivery, while it waits."""
    with store.transaction() as session:
        delivery = session.get_one(Delivery, number)
        return delivery if delivery.state == WAITING else None


def _its_turn(store: Store, delivery: Delivery) -> bool:
    """Whether the one that it has to follow has left, if there is one."""
    if delivery.after is None:
        return True
    with store.transaction() as session:
        first = session.get_one(Delivery, delivery.after)
        return first.tried > 0 or first.state != WAITING


def _faults(delivery: Delivery) -> list[str]:
    return [] if delivery.tried else list(delivery.faults)
