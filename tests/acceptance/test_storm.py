"""A storm: thousands of events, and every second a worker or a process of one is killed, until all is done."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import signal
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select

from handlers.providers import PROVIDERS
from tests.acceptance.stack import Sink, Stack
from workers import database, ids, inbox
from workers.inbox import Arrival
from workers.models import Delivery, HandlerRun, Message

log = logging.getLogger(__name__)

HANDLERS = str(Path(__file__).with_name("storm_handlers.py"))
"""Loaded by the workers only: it changes the engine that loads it."""
EVENTS = int(os.environ.get("TEST_STORM_EVENTS", "400"))
OF_EACH_OBJECT = 40
WORKERS = ("work", "work-2")
STANDSTILL = 120.0
"""Seconds without anything done after which the rest is taken for lost."""


@dataclass
class Storm:
    """Kills a process of a worker's pool three times in four, else a whole worker, which is started again.

    But never twice without anything having been done in between: so it ends on a slow machine too, and does not kill
    what only waits.
    """

    stack: Stack
    chance: random.Random = field(default_factory=lambda: random.Random(EVENTS))  # noqa: S311 - a dice
    processes: int = 0
    workers: int = 0
    done: int = 0

    def strike(self, done: int) -> None:
        """Kill one, if there is one to be killed; `done` is how much is done by now."""
        name = self.chance.choice(WORKERS)
        children = self.stack.children(name)
        if done == self.done or not children:
            return
        self.done = done
        if self.processes < 3 * (self.workers + 1):
            self.processes += 1
            with suppress(ProcessLookupError):
                os.kill(self.chance.choice(children), signal.SIGKILL)
        else:
            self.workers += 1
            self.stack.kill(name)
            self.stack.start(name)


def test_nothing_is_lost_doubled_or_disordered_in_a_storm(server_stack: Stack) -> None:
    # Given that many events of objects that each have 40 of them, two handlers for each, and an endpoint
    stack, storm = server_stack, Storm(server_stack)
    stack.environment |= {
        "BILLHOOK_HANDLERS": HANDLERS,
        "BILLHOOK_DELIVERY_TIMEOUT": "3",
        "BILLHOOK_SWEEP_INTERVAL": "1",
        "BILLHOOK_LEASE_GRACE": "2",
        "TMPDIR": str(stack.folder),
    }
    with Sink() as sink:
        assert stack.run("endpoints", "add", sink.url).returncode == 0
        store(stack)
        stack.start("beat", *WORKERS)

        # When every second one of the processes that work on them is killed, until all is done
        began = moved = time.monotonic()
        before = 0
        while (done := ended(stack)) < 3 * EVENTS:
            before, moved = (done, time.monotonic()) if done > before else (before, moved)
            assert time.monotonic() - moved < STANDSTILL, f"nothing moves any more: {done} of {3 * EVENTS} are done"
            assert [name for name, process in stack.processes.items() if process.poll() is not None] == []
            time.sleep(1)
            storm.strike(done)
            log.info("after %.0f s: %d of %d", time.monotonic() - began, done, 3 * EVENTS)
        took = time.monotonic() - began

    report(stack, sink, storm, took)
    # Then every event was handled, and every message was sent, under one id
    assert stack.events("processed") == EVENTS
    assert stack.balance().holds
    sent = {headers["webhook-id"]: json.loads(body)["data"]["number"] for headers, body in sink.received}
    assert sorted(sent.values()) == list(range(EVENTS))
    assert count(stack, Message) == count(stack, Delivery) == EVENTS
    # And of each object nothing was begun before all that happened earlier was done
    handled = calls(stack)
    assert sorted({number for numbers in handled.values() for number in numbers}) == list(range(EVENTS))
    assert {about: numbers for about, numbers in handled.items() if numbers != sorted(numbers)} == {}


def store(stack: Stack) -> None:
    """Store the events as the receiver does, a thousand in a commit."""
    arrivals = [arrival(number) for number in range(EVENTS)]
    for first in range(0, EVENTS, 1_000):
        inbox.accept(stack.engine, arrivals[first : first + 1_000])


def arrival(number: int) -> Arrival:
    """An event that tells its number, in which they happened."""
    sample = PROVIDERS["hisab"].sample("invoice.paid")
    about = number % (EVENTS // OF_EACH_OBJECT)
    at = datetime(2026, 6, 5, tzinfo=UTC) + timedelta(seconds=number)
    data = {**sample["data"], "id": f"inv_{about}", "number": number}
    content = json.dumps({**sample, "data": data, "created_at": at.isoformat()}).encode()
    digest = hashlib.sha256(content)
    return Arrival(
        id=ids.new("evt"),
        source="shop",
        received_at=datetime.now(UTC),
        event=PROVIDERS["hisab"].inbound({}).parse([], content),
        delivery_id=f"del_{number}",
        event_key=digest.hexdigest(),
        body_hash=digest.digest(),
        headers={},
    )


def ended(stack: Stack) -> int:
    """How many runs and deliveries have ended: of each event two runs, and one delivery."""
    with database.read(stack.engine) as connection:
        return sum(
            connection.execute(select(func.count()).where(table.status == "succeeded")).scalar_one()
            for table in (HandlerRun, Delivery)
        )


def count(stack: Stack, table: type[Message] | type[Delivery]) -> int:
    with database.read(stack.engine) as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def calls(stack: Stack) -> dict[str, list[int]]:
    """By object, the numbers of its events in the order in which the ordered handler was called with them."""
    found: dict[str, list[int]] = defaultdict(list)
    for line in (stack.folder / "calls").read_text().splitlines():
        about, number = line.split()
        found[about].append(int(number))
    return found


def report(stack: Stack, sink: Sink, storm: Storm, took: float) -> None:
    """For who runs this with --log-cli-level=info: how it went."""
    with database.read(stack.engine) as connection:
        starts = connection.execute(select(func.sum(HandlerRun.starts))).scalar_one()
    log.info("%d events in %.0f s", EVENTS, took)
    log.info("killed: %d workers, %d processes", storm.workers, storm.processes)
    log.info(
        "repeated: %d starts, %d calls of the ordered handler, %d deliveries",
        starts - 2 * EVENTS,
        sum(map(len, calls(stack).values())) - EVENTS,
        len(sink.received) - EVENTS,
    )
