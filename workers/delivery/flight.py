"""Flight: the deliveries that one process has under way.

A thread of its own takes what is due, has the sender begin it and records what has ended, in groups of what came in
the meantime; so a slow endpoint keeps nobody waiting, not even the process it is sent from. What belongs to an
endpoint with no place free stays in the database, and whoever ends a delivery there takes the next.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from importlib.metadata import version
from typing import Any

from celery import signals
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from workers import database
from workers.app import DELIVER, PROCESS, STOPPING, Runtime, app, ring, ringing, runtime
from workers.database import Held
from workers.delivery import line
from workers.delivery.deliver import Courier, Ended, Prepared, note, prepare, record, request
from workers.delivery.egress import Egress
from workers.delivery.gate import Gate, Queue
from workers.delivery.line import Line
from workers.delivery.sender import Answer, Sender
from workers.delivery.targets import Defaults, Target, look_up
from workers.leases import Clock, utcnow
from workers.logs import log
from workers.metrics import RUNG_AGAIN
from workers.vault import open_vault

_NOTED = 16
"""Messages that may wait to be looked at; beyond it whoever brings one waits."""
_RECORDED_WITHIN = 2.0
"""Seconds in which what was cut off is given back."""
_LANDS_WITHIN = 20.0
"""Seconds that exchanges get to end in when their process stops; less than what the worker has for all of it."""
_GATHERING = 0.005
"""Seconds that what has ended waits for more to end."""
_FRESH = 0.25
"""Seconds for which an endpoint is not read again: so long it may take until a change of it is heeded."""
_AFTER_FAILURE = 1.0
"""Seconds after which what the database did not take is tried again."""


@dataclass(slots=True)
class _News:
    """What came since the last turn."""

    noted: deque[Sequence[str]] = field(default_factory=deque)
    ended: dict[str, Answer] = field(default_factory=dict)


class Flight:
    """Turned by one thread: its own (`start`), or whoever calls `finish`."""

    def __init__(self, courier: Courier) -> None:
        self._courier = courier
        self._held = Held(courier.engine)
        self._stirred = threading.Condition()
        self._news = _News()
        self._under_way: dict[str, Prepared] = {}
        self._more: set[str] = set()
        """Endpoints at which more may be due than could be begun."""
        self._later: dict[str, float] = {}
        """Endpoints whose rate allows more from then on, by the monotonic clock."""
        self._targets: dict[str, tuple[float, Target]] = {}
        """Endpoints, and until when they are taken to be as they were read, by the monotonic clock."""
        self._closing = False
        self._thread = threading.Thread(target=self._forever, name="flight", daemon=True)
        self.attempted = 0

    def take(self, delivery_ids: Sequence[str]) -> None:
        """Note that these may be due; waits while many such notes have not been looked at."""
        with self._stirred:
            self._stirred.wait_for(lambda: len(self._news.noted) < _NOTED or self._closing)
            self._news.noted.append(delivery_ids)
            self._stirred.notify_all()

    def start(self) -> None:
        """Turn for as long as the process lives, or until `close`."""
        self._thread.start()

    def finish(self) -> int:
        """Turn until nothing that was noted is due or under way any more; how many attempts were made.

        Raises SQLAlchemy's errors.
        """
        try:
            while self._news.noted or self._under_way or self._more or self._later:
                self.turn()
        finally:
            self._held.close()
        return self.attempted

    def close(self, within: float) -> None:
        """Begin nothing more; let what is under way end for so many seconds, and give the rest back. After `start`."""
        with self._stirred:
            self._closing = True
            self._stirred.notify_all()
        self._thread.join(within)
        self._courier.sender.close()  # hands over what it cuts off
        self._thread.join(_RECORDED_WITHIN)

    def turn(self) -> None:
        """Record what has ended, and begin what may begin. Raises SQLAlchemy's errors; what ended stays in hand."""
        noted, ended = self._gather()
        try:
            if ended:
                self._record(ended)
            endpoints = self._waiting_endpoints() | {self._under_way[key].target.id for key in ended}
        except BaseException:
            self._keep(ended)
            raise
        self._forget(ended)
        if not (self._closing or STOPPING[0]):
            self._begin(endpoints, [one for ids in noted for one in ids])

    def _forever(self) -> None:
        while self._under_way or not self._closing:
            try:
                self.turn()
            except SQLAlchemyError as error:
                log.warning("the database did not take deliveries", action="flight_failed", error=type(error).__name__)
                time.sleep(_AFTER_FAILURE)
            except Exception:
                log.exception("a turn of the deliveries failed", action="flight_failed")
                time.sleep(_AFTER_FAILURE)
        self._held.close()

    def _gather(self) -> tuple[Sequence[Sequence[str]], dict[str, Answer]]:
        with self._stirred:
            self._stirred.wait_for(self._anything, self._patience())
            if self._news.ended and not self._news.noted:
                # A turn costs nearly the same for one as for many.
                self._stirred.wait_for(self._enough, _GATHERING)
            news, self._news = self._news, _News()
            self._stirred.notify_all()
            return news.noted, {key: answer for key, answer in news.ended.items() if key in self._under_way}

    def _anything(self) -> bool:
        news = bool(self._news.noted or self._news.ended)
        over = self._closing and not self._under_way
        return news or over or (bool(self._more) and self._room() > 0)

    def _enough(self) -> bool:
        return bool(self._news.noted) or self._closing or 2 * len(self._news.ended) >= len(self._under_way)

    def _patience(self) -> float | None:
        return max(0.0, min(self._later.values()) - time.monotonic()) if self._later else None

    def _room(self) -> int:
        return self._courier.in_flight - len(self._under_way)

    def _waiting_endpoints(self) -> set[str]:
        now = time.monotonic()
        ready = {endpoint_id for endpoint_id, at in self._later.items() if at <= now}
        for endpoint_id in ready:
            del self._later[endpoint_id]
        more, self._more = self._more, set()
        return ready | more

    def _record(self, ended: Mapping[str, Answer]) -> None:
        pairs: list[Ended] = [(self._under_way[key], answer) for key, answer in ended.items()]
        told = record(self._courier, self._held, pairs)
        self.attempted += len(pairs)
        for one, answer in pairs:
            if not (answer.ok and one.target.health.sound):
                self._targets.pop(one.target.id, None)  # it is not any more as it was
        if told.event_ids:
            ring(PROCESS, told.event_ids)
        if told.delivery_ids:
            ring(DELIVER, told.delivery_ids)

    def _keep(self, ended: Mapping[str, Answer]) -> None:
        """Have these recorded by a later turn, unless their leases are over: then they are others' to make again."""
        now = self._courier.clock()
        late = {key: answer for key, answer in ended.items() if self._under_way[key].row.next_attempt_at <= now}
        with self._stirred:
            self._news.ended.update((key, answer) for key, answer in ended.items() if key not in late)
        self._forget(late)

    def _forget(self, ended: Mapping[str, Answer]) -> None:
        with self._stirred:
            gone = [self._under_way.pop(key) for key in ended]
            self._stirred.notify_all()
        self._courier.gate.leave((one.target.id, one.row.id) for one in gone)

    def _begin(self, endpoint_ids: set[str], noted: Sequence[str]) -> None:
        if self._room() <= 0:
            # What was noted is found by the sweep; these we look at again when something has ended.
            self._more |= endpoint_ids
            return
        targets, due, most = self._look(endpoint_ids, noted)
        let = self._enter(targets, due, most)
        if not let:
            return
        try:
            with self._held.write() as connection:
                prepared = prepare(self._courier, connection, sorted(let), targets)
            self._send(prepared)
        finally:
            # What was not taken, or could not be sent: its lease ends by itself.
            left = ((endpoint_id, key) for key, endpoint_id in let.items() if key not in self._under_way)
            self._courier.gate.leave(left)

    def _look(self, endpoint_ids: set[str], noted: Sequence[str]) -> tuple[dict[str, Target], dict[str, Line], int]:
        """The endpoints where something may be due; what is due at those that can be sent to; how much was asked."""
        now = self._courier.clock()
        with self._held.write() as connection:
            wanted = endpoint_ids | (line.endpoints_of(connection, noted, now) if noted else set())
            targets = self._read(connection, sorted(wanted), now)
            line.cancel(connection, [one.id for one in targets.values() if not one.health.enabled], now=now)
            able = [one.id for one in targets.values() if _able(one, now)]
            widest = max((targets[endpoint_id].places for endpoint_id in able), default=0)
            most = max(2, min(widest, 2 * self._room() // max(1, len(able))))
            due = line.lines(connection, able, now=now, most=most) if able else {}
        # One whose lease is over may be under way here all the same, where a clock was set or the machine stood still.
        return targets, {key: found.without(self._under_way) for key, found in due.items()}, most

    def _read(self, connection: Connection, endpoint_ids: Sequence[str], now: datetime) -> dict[str, Target]:
        """These endpoints, by id; those that were read a moment ago, as they were then."""
        courier, moment = self._courier, time.monotonic()
        self._targets = {key: one for key, one in self._targets.items() if one[0] > moment}
        stale = [one for one in endpoint_ids if one not in self._targets]
        found = look_up(connection, courier.vault, stale, defaults=courier.defaults, now=now)
        self._targets |= {key: (moment + _FRESH, one) for key, one in found.items()}
        return {key: self._targets[key][1] for key in endpoint_ids if key in self._targets}

    def _enter(self, targets: Mapping[str, Target], due: Mapping[str, Line], most: int) -> dict[str, str]:
        """The deliveries that the limits let begin, each with its endpoint."""
        room, queues = self._room(), []
        # By chance, so that where room is scarce it is not always the same that gets none.
        for endpoint_id in sorted(due, key=lambda _: self._courier.chance()):
            if room <= 0:
                self._more.add(endpoint_id)
                continue
            queue = self._queue(targets[endpoint_id], due[endpoint_id], room)
            room -= len(queue.first) + len(queue.again)
            queues.append(queue)
        let = self._courier.gate.enter(queues)
        for queue in queues:
            one, asked = let[queue.endpoint_id], len(queue.first) + len(queue.again)
            if one.wait:
                self._later[queue.endpoint_id] = time.monotonic() + one.wait
            elif len(one.ids) == asked < queue.places and (asked < len(due[queue.endpoint_id]) or asked >= most):
                self._more.add(queue.endpoint_id)
        return {key: endpoint_id for endpoint_id, one in let.items() for key in one.ids}

    def _queue(self, target: Target, due: Line, room: int) -> Queue:
        """What to ask for an endpoint: half of the room at most, so that another always finds some."""
        places = 1 if target.health.probing else target.places
        share = min(max(1, room // 2), places)
        first, again = due.first, due.again
        if first and again and (places == 1 or share == 1):
            # With one place they take turns by chance.
            first, again = (first, []) if self._courier.chance() < 0.5 else ([], again)
        first = first[: share - 1 if again else share]
        return Queue(target.id, first, again[: share - len(first)], places, target.rate)

    def _send(self, prepared: Sequence[Prepared]) -> None:
        timestamp = int(self._courier.clock().timestamp())
        told = self._courier.traceparent
        requests = {one.row.id: request(one, timestamp, traceparent=told) for one in prepared}
        with self._stirred:
            self._under_way.update((one.row.id, one) for one in prepared)
        try:
            self._courier.sender.begin(requests, self._hear)
        except BaseException:
            with self._stirred:
                for key in requests:
                    del self._under_way[key]
            raise

    def _hear(self, answers: Mapping[str, Answer]) -> None:
        with self._stirred:
            for key, answer in answers.items():
                if key in self._under_way:
                    note(self._under_way[key], answer)
            self._news.ended.update(answers)
            self._stirred.notify_all()


def deliver(courier: Courier, delivery_ids: Sequence[str]) -> int:
    """Deliver what is due at the endpoints of these deliveries, until nothing more is; how many attempts were made.

    What the endpoints' limits hold back for others to send is left to them. Raises SQLAlchemy's errors.
    """
    flight = Flight(courier)
    flight.take(delivery_ids)
    return flight.finish()


def _able(target: Target, now: datetime) -> bool:
    """Whether anything can be sent to an endpoint now."""
    held = target.health.held_until is not None and target.health.held_until > now
    return target.health.enabled and target.readable and not held


def sweep(process: Runtime, now: Clock = utcnow) -> int:
    """Ring for the endpoints at which something is due; how many. Who works on one already takes no notice."""
    if ringing(process.redis, process.settings, "deliveries"):
        return 0
    with database.read(process.engine) as connection:
        found = line.one_each(connection, now())
    ring(DELIVER, found)
    RUNG_AGAIN.labels("deliveries").inc(len(found))
    return len(found)


def courier_of(process: Runtime) -> Courier:
    """What a process delivers with, by its settings. Raises VaultError."""
    settings = process.settings
    lease = timedelta(seconds=settings.delivery_timeout + settings.lease_grace)
    return Courier(
        engine=process.engine,
        vault=open_vault(settings),
        sender=Sender(
            user_agent=f"Billhook/{version('billhook')}",
            egress=Egress.of(settings),
            deadline=settings.delivery_timeout,
        ),
        gate=Gate(process.redis, settings.redis_prefix, lease),
        lease=lease,
        defaults=Defaults(places=settings.endpoint_concurrency, rate=settings.endpoint_rate),
        traceparent=settings.delivery_traceparent,
        in_flight=settings.deliveries_in_flight,
    )


@cache
def _flight() -> Flight:
    flight = Flight(courier_of(runtime()))
    flight.start()
    return flight


@signals.worker_process_shutdown.connect
def _land(**_: Any) -> None:
    """The process ends: what it has under way ends first, or is given back."""
    if _flight.cache_info().currsize:
        _flight().close(within=min(runtime().settings.delivery_timeout, _LANDS_WITHIN))


@app.task(name=DELIVER)
def deliver_task(delivery_ids: list[str]) -> None:
    _flight().take(delivery_ids)


@app.task(name="billhook.deliveries.sweep")
def sweep_task() -> None:
    sweep(runtime())
