"""A little of everything, for the console to show: events that went well and ill, endpoints, deliveries, schedules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update

from handlers.context import Context
from handlers.event import Event
from handlers.registry import Registry
from tests.workers.given import endpoint, received, rows
from tests.workers.schedule.given import plan
from workers import database, ids
from workers.app import Runtime
from workers.clients import Clients
from workers.delivery import endpoints
from workers.dispatch import process
from workers.dispatcher import Dispatcher
from workers.leases import utcnow
from workers.models import Attempt, Delivery, EventRow, Message
from workers.schedule import schedules, verbs

LEDGER_DOWN = "the ledger does not answer"


@dataclass
class World:
    """What is in it, and whether the ledger answers by now."""

    runtime: Runtime
    dispatcher: Dispatcher
    mended: bool = False
    events: list[str] = field(default_factory=list)
    dead: str = ""
    waiting: str = ""
    endpoint: str = ""
    broken: str = ""
    schedule: str = ""
    paused: str = ""

    def work(self) -> None:
        """What the workers would do now: every event is taken up."""
        while open_ones := self._open():
            process(self.dispatcher, open_ones)

    def _open(self) -> Sequence[str]:
        with database.read(self.runtime.engine) as connection:
            return connection.execute(select(EventRow.id).where(EventRow.status == "waiting")).scalars().all()

    def bustle(self, now: datetime) -> None:
        """An hour of some traffic."""
        for minutes in range(60):
            for second in range((minutes * 7) % 5 + (3 if minutes % 11 < 4 else 0)):
                _received(self, "invoice.paid", "inv_{}", now - timedelta(minutes=minutes, seconds=second))
        self.work()

    @property
    def delivery(self) -> str:
        """The delivery that failed."""
        return next(str(row.id) for row in rows(self.runtime.engine, Delivery) if row.status == "exhausted")


@contextmanager
def world(runtime: Runtime) -> Iterator[World]:
    """Two handlers, of which one fails for good until the world is mended, and what comes of that."""
    registry = Registry()
    with Clients(runtime.settings) as clients:
        dispatcher = Dispatcher(
            engine=runtime.engine, settings=runtime.settings, registry=registry, clients=clients, chance=lambda: 0.0
        )
        made = World(runtime, dispatcher)

        @registry.on("invoice.*", name="receipts.send_receipt")
        def send_receipt(event: Event, ctx: Context) -> None:
            ctx.step("pdf", lambda: "%PDF")
            ctx.emit("receipt.issued", {"invoice": event.object_id})

        @registry.on("invoice.paid", name="ledger.book", retries=0)
        def book(event: Event, ctx: Context) -> None:
            if event.object_id == "inv_2210" and not made.mended:
                raise ConnectionError(LEDGER_DOWN)

        _fill(made)
        yield made


def _fill(made: World) -> None:
    engine, settings, now = made.runtime.engine, made.runtime.settings, utcnow()
    made.endpoint = endpoint(made.runtime, "receipt.*", url="http://127.0.0.1:9/accounting", description="Accounting")
    for minutes in (3, 4, 9, 12, 13, 21, 30, 31, 32, 44, 58):
        made.events.append(_received(made, "invoice.paid", "inv_{}", now - timedelta(minutes=minutes)))
    made.events.append(_received(made, "customer.created", "cus_{}", now - timedelta(minutes=6)))
    made.dead = _received(made, "invoice.paid", "inv_2210", now - timedelta(minutes=5))
    made.work()
    _deliver(made, now)
    made.waiting = _received(made, "invoice.created", "inv_{}", now)
    made.broken = endpoint(made.runtime, "invoice.*", url="http://127.0.0.1:9/old", description="Old shop")
    endpoints.switch_off(engine, made.broken, "the shop has moved", actor="Ada", now=now)
    start = now.date() + timedelta(days=2)
    made.schedule = schedules.add(
        engine, settings, plan(start_date=start, name="Support, monthly"), actor="Ada", now=now
    )
    made.paused = schedules.add(
        engine, settings, plan(start_date=start, name="Hosting, yearly", frequency="yearly"), actor="Ada", now=now
    )
    verbs.pause(engine, made.paused, actor="Ada", now=now)


def _received(made: World, event_type: str, object_id: str, at: datetime) -> str:
    """An event that came at that time, with an id of that time."""
    event_id = received(made.runtime.engine, event_type, object_id=object_id, at=at, occurred_at=at)
    with database.write(made.runtime.engine) as connection:
        then = ids.derived("evt", at, event_id)
        connection.execute(update(EventRow).where(EventRow.id == event_id).values(id=then))
    return then


def _deliver(made: World, now: datetime) -> None:
    """All deliveries succeeded but the last one, which was given up after two attempts."""
    deliveries = rows(made.runtime.engine, Delivery)
    with database.write(made.runtime.engine) as connection:
        for delivery in deliveries:
            failed = delivery.id == deliveries[-1].id
            statuses = (500, 500) if failed else (204,)
            attempts: list[dict[str, Any]] = [
                {
                    "id": ids.new("att"),
                    "delivery_id": delivery.id,
                    "number": number,
                    "started_at": now + timedelta(seconds=number),
                    "duration_ms": 12,
                    "status": status,
                    "error": None,
                    "response": b'{"error":"<script>alert(1)</script>"}' if status == 500 else b"",
                }
                for number, status in enumerate(statuses, 1)
            ]
            connection.execute(database.insert(connection, Attempt), attempts)
            ended = {
                "status": "exhausted" if failed else "succeeded",
                "attempts": len(statuses),
                "starts": len(statuses),
            }
            change = update(Delivery).where(Delivery.id == delivery.id)
            connection.execute(change.values(**ended, again=failed, ended_at=now, ring_at=None))
    assert rows(made.runtime.engine, Message)
