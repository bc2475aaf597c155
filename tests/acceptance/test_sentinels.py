"""A whole Billhook on servers that sentinels watch: another becomes the master, and nothing has to be started anew."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx
import pytest

from tests.acceptance.stack import Sink, Stack, await_, delivery
from tests.redis_servers import NAME, PASSWORD, SENTINEL_PASSWORD, Watched, watched
from workers.delivery import endpoints
from workers.delivery.egress import Egress
from workers.delivery.endpoints import EndpointSpec, Rules
from workers.leases import utcnow
from workers.settings import Settings
from workers.vault import open_vault

PACE = 0.05
"""Seconds from one delivery to the next, which leave the machine to the servers."""
HANDLER = """
import pathlib
from handlers import on

@on("invoice.paid")
def noted(event, ctx):
    with (pathlib.Path(__file__).parent / "noted").open("a") as file:
        file.write(f"{event.object_id}\\n")
    ctx.emit("receipt.issued", {"invoice": event.object_id})
"""


@dataclass
class Scene:
    """A Billhook, its Redis servers, and an endpoint that is sent what its handler emits."""

    stack: Stack
    redis: Watched
    sink: Sink
    numbers: Iterator[int] = field(default_factory=itertools.count)
    posted: int = 0

    def post(self, client: httpx.Client) -> None:
        """A delivery, which must be accepted, within a time in which no provider gives up."""
        request = delivery(next(self.numbers))
        answer = client.post(f"{self.stack.url}/webhooks/shop", content=request.body, headers=request.headers)
        assert answer.status_code == 202
        self.posted += 1

    def post_until(self, condition: Callable[[], bool]) -> None:
        with httpx.Client(trust_env=False, timeout=5) as client:
            deadline = time.monotonic() + 20
            while not condition():
                assert time.monotonic() < deadline, "no other server is the master within 20 s"
                self.post(client)
                time.sleep(PACE)

    def all_is_done_once(self) -> None:
        """Each delivery was handled, and what came of it sent, once; by the processes that were started first."""
        await_(lambda: self.stack.events("processed") == self.posted, "all are processed", 60)
        await_(lambda: len(self.sink.received) >= self.posted, "all are sent on", 20)
        noted = (self.stack.folder / "noted").read_text().splitlines()
        assert sorted(noted) == sorted(f"inv_{number}" for number in range(self.posted))
        assert len(self.sink.received) == self.posted
        assert len({headers["webhook-id"] for headers, _ in self.sink.received}) == self.posted
        assert self.stack.balance().holds
        for name, process in self.stack.processes.items():
            assert process.poll() is None
            log = self.stack.log(name)
            assert "anew" not in log
            assert "Traceback" not in log
            assert PASSWORD not in log
            assert SENTINEL_PASSWORD not in log


@pytest.fixture
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("sentinels")
    (folder / "noting_handlers.py").write_text(HANDLER)
    with watched(tmp_path_factory.mktemp("redis")) as redis, Sink() as sink:
        own = f"sentinel_password={quote(SENTINEL_PASSWORD, safe='')}"
        url = f"redis+sentinel://:{quote(PASSWORD, safe='')}@{redis.hosts}/{NAME}/0?{own}"
        stack = Stack(folder, {"BILLHOOK_REDIS_URL": url})
        try:
            stack.start("serve", "work", "beat")
            add(stack, sink)
            await_(lambda: "working on" in stack.log("work"), "the worker takes messages")
            yield Scene(stack, redis, sink)
        finally:
            stack.stop()


def add(stack: Stack, sink: Sink) -> None:
    settings = Settings(state_dir=stack.folder / ".billhook", egress_networks=("127.0.0.0/8",), egress_ports=("*",))
    rules, spec = Rules(Egress.of(settings), ()), EndpointSpec(url=sink.url)
    endpoints.add(stack.engine, open_vault(settings), spec, rules, actor="test", now=utcnow())


def test_masters_come_and_go_and_deliveries_are_accepted_and_worked_off(scene: Scene) -> None:
    # Given a master, and a worker that waits for messages of it
    scene.post_until(lambda: scene.posted == 20)
    scene.all_is_done_once()
    first = scene.redis.master()

    # When that is killed, and with it the sentinel that is asked first
    scene.redis.kill(first)
    scene.redis.kill(scene.redis.sentinels[0])
    scene.post_until(lambda: scene.redis.master() != first)

    # And when the next takes no writes any more, but keeps its connections, so that the sentinels choose again
    second = scene.redis.master()
    scene.redis.start_server(first, of=second)
    await_(scene.redis.complete, "the replica follows", 20)
    with scene.redis.ask(second) as master:
        await_(lambda: master.info("clients")["blocked_clients"] > 0, "the worker waits for messages", 20)
        master.replicaof("127.0.0.1", "1")
    scene.post_until(lambda: scene.redis.master() == first)
    scene.post_until(lambda: scene.posted % 10 == 0)

    # Then nothing is lost, nothing is doubled, and nothing had to be started again
    scene.all_is_done_once()
