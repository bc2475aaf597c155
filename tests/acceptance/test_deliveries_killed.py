"""Workers that die by SIGKILL at every phase of delivering: each message arrives everywhere, under one id."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

from redis import Redis
from sqlalchemy import func, select

from tests.acceptance.stack import Sink, Stack, await_
from tests.workers.given import rows
from workers import database, ids
from workers.delivery import endpoints
from workers.delivery.egress import Egress
from workers.delivery.messages import Outgoing, publish
from workers.delivery.specs import EndpointSpec, Rules
from workers.leases import utcnow
from workers.models import Attempt, Delivery, Endpoint, Message
from workers.settings import Settings
from workers.vault import open_vault

log = logging.getLogger(__name__)

ENGINE = str(Path(__file__).with_name("deadly_deliveries.py"))
"""Loaded by the workers only: it changes the engine that loads it."""
MESSAGES = int(os.environ.get("TEST_DELIVERIES", "144"))
FULL = MESSAGES >= 1_000
PORTION = 100 if FULL else 18
"""Messages published for each death."""
POINTS = ("unclaimed", "claim_uncommitted", "claimed", "under_way", "answered", "record_uncommitted", "recorded")
DEATHS = [
    *(f"{point}.process" for point in POINTS),
    *(f"{point}.worker" for point in (POINTS if FULL else POINTS[4:5])),
]
WORKERS = ("work", "work-2") if FULL else ("work",)
STANDSTILL = 120.0
"""Seconds without anything done after which the rest is taken for lost."""
SCHEDULE = (0.0, *[0.2] * 9)


@dataclass
class Subscribers:
    """Three endpoints: a fast one, one that answers 503 at random, and a slow one."""

    fast: Sink
    failing: Sink
    slow: Sink

    def __iter__(self) -> Iterator[Sink]:
        return iter((self.fast, self.failing, self.slow))

    @property
    def requests(self) -> int:
        return sum(len(one.received) for one in self)


@contextmanager
def subscribing() -> Iterator[Subscribers]:
    dice = random.Random(MESSAGES)  # noqa: S311 - a dice

    def slowly() -> int:
        time.sleep(0.05)
        return 204

    with Sink() as fast, Sink(lambda: 503 if dice.random() < 0.2 else 204) as failing, Sink(slowly) as slow:
        yield Subscribers(fast, failing, slow)


@dataclass
class Deaths:
    """Orders processes to die, sees that it happens, and starts the workers anew that died as a whole."""

    stack: Stack
    subscribers: Subscribers
    carried_out: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def one(self, order: str) -> Iterator[None]:
        """Have the order carried out while what the block publishes is on its way, and much be done before the next."""
        ordered, before = self.stack.folder / f"order.{order}", ended(self.stack)
        ordered.touch()
        yield
        self.keep_on(lambda: not ordered.exists() and ended(self.stack) >= before + PORTION)
        self.carried_out[order] += 1

    def keep_on(self, until: Callable[[], bool]) -> None:
        """Wait until something is so, while anything moves."""
        moved, before = time.monotonic(), -1
        while not until():
            done = self.subscribers.requests + ended(self.stack)
            moved, before = (time.monotonic(), done) if done != before else (moved, before)
            assert time.monotonic() - moved < STANDSTILL, f"nothing moves any more: {done} requests and deliveries"
            self.revive()
            time.sleep(0.05)

    def revive(self) -> None:
        for name, process in list(self.stack.processes.items()):
            if process.poll() is not None:
                assert process.returncode == -signal.SIGKILL, self.stack.log(name)
                self.stack.start(name)


def test_every_message_arrives_everywhere_whenever_processes_die(server_stack: Stack) -> None:
    stack = server_stack
    stack.environment |= {
        "BILLHOOK_HANDLERS": ENGINE,
        "BILLHOOK_DELIVERY_TIMEOUT": "1",
        "BILLHOOK_LEASE_GRACE": "0.5",
        "BILLHOOK_WORKER_PROCESSES": "3",
        "BILLHOOK_ENDPOINT_RATE": "0",
        "BILLHOOK_LOG_LEVEL": "warning",
        "TMPDIR": str(stack.folder),
    }
    with subscribing() as subscribers:
        # Given three endpoints
        deaths = Deaths(stack, subscribers)
        added = {add(stack, one): one for one in subscribers}
        stack.start("beat", *WORKERS)

        # When processes die at every point, each while messages are on their way
        began = time.monotonic()
        published: list[str] = []
        for order in islice(cycle(DEATHS), MESSAGES // PORTION):
            with deaths.one(order):
                published += publish_some(stack, len(published), PORTION)
            log.info("after %.0f s: %s, %d ended", time.monotonic() - began, order, ended(stack))
        deaths.keep_on(lambda: ended(stack) == 3 * len(published))
        report(stack, deaths, len(published), time.monotonic() - began)

        # Then every message arrived at every endpoint, under its own id, with the same bytes each time
        sent = {row.id: row.body for row in rows(stack.engine, Message)}
        assert sorted(sent) == sorted(published)
        for one in subscribers:
            assert {headers["webhook-id"] for headers, _ in one.received} == set(published)
            assert all(body == sent[headers["webhook-id"]] for headers, body in one.received)

        # And what is written down is what happened
        assert_what_is_recorded_was_made(stack, added)
        assert {row.status for row in rows(stack.engine, Endpoint)} == {"enabled"}
        audit = stack.run("audit")
        assert audit.returncode == 0, audit.stdout
        await_(lambda: places_kept(stack) == 0, "no place at an endpoint is kept for who died")


def assert_what_is_recorded_was_made(stack: Stack, added: dict[str, Sink]) -> None:
    """Attempts have the numbers 1, 2, …, each once; one succeeded; no more were answered than there were requests."""
    numbers: dict[str, list[int]] = defaultdict(list)
    answered: Counter[str] = Counter()
    succeeded: Counter[str] = Counter()
    for attempt in rows(stack.engine, Attempt):
        numbers[attempt.delivery_id].append(attempt.number)
        answered[attempt.delivery_id] += attempt.status is not None
        succeeded[attempt.delivery_id] += attempt.status == 204
    requests = {key: Counter(headers["webhook-id"] for headers, _ in sink.received) for key, sink in added.items()}
    for row in rows(stack.engine, Delivery):
        assert (row.status, succeeded[row.id]) == ("succeeded", 1)
        assert sorted(numbers[row.id]) == list(range(1, row.attempts + 1))
        assert answered[row.id] <= requests[row.endpoint_id][row.message_id]
        assert row.attempts <= row.starts


def add(stack: Stack, sink: Sink) -> str:
    """The id of the endpoint that is this sink."""
    settings = Settings(
        database_url=stack.environment["BILLHOOK_DATABASE_URL"],
        encryption_keys=stack.environment["BILLHOOK_ENCRYPTION_KEYS"],
        egress_networks=("127.0.0.0/8",),
        egress_ports=("*",),
    )
    rules, spec = Rules(Egress.of(settings), ()), EndpointSpec(url=sink.url, schedule=SCHEDULE)
    return endpoints.add(stack.engine, open_vault(settings), spec, rules, actor="test", now=utcnow()).id


def publish_some(stack: Stack, first: int, count: int) -> list[str]:
    """Publish messages with numbers from `first` on; their ids."""
    outgoing = [
        Outgoing(ids.new("msg"), None, "invoice.numbered", json.dumps({"number": number}).encode())
        for number in range(first, first + count)
    ]
    with database.write(stack.engine) as connection:
        publish(connection, outgoing, now=utcnow())
    return [one.id for one in outgoing]


def ended(stack: Stack) -> int:
    """How many deliveries have ended well."""
    with database.read(stack.engine) as connection:
        return connection.execute(select(func.count()).where(Delivery.status == "succeeded")).scalar_one()


def places_kept(stack: Stack) -> int:
    """At how many endpoints the gate counts places that are taken."""
    prefix = stack.environment["BILLHOOK_REDIS_PREFIX"]
    with Redis.from_url(stack.environment["BILLHOOK_REDIS_URL"]) as redis:
        return sum(redis.type(key) == b"zset" for key in redis.scan_iter(f"{prefix}gate:*"))


def report(stack: Stack, deaths: Deaths, messages: int, took: float) -> None:
    """For who runs this with --log-cli-level=info: how it went."""
    with database.read(stack.engine) as connection:
        starts, attempts = connection.execute(select(func.sum(Delivery.starts), func.sum(Delivery.attempts))).one()
    who = Counter(order.partition(".")[2] for order in deaths.carried_out.elements())
    log.info("%d messages, %d deliveries in %.0f s", messages, 3 * messages, took)
    log.info("killed: %d workers, %d processes", who["worker"], who["process"])
    requests = deaths.subscribers.requests
    log.info("%d starts, %d attempts, %d requests: %d repeated", starts, attempts, requests, requests - attempts)
