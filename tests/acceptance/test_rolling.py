"""Processes are told to stop while they work: they end in time, nothing is lost, nothing doubled, nobody gets a 5xx."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.acceptance.proxy import Proxy
from tests.acceptance.stack import Sink, Stack, await_, delivery

GRACE = 30.0
"""Seconds that Kubernetes gives by default."""
HANDLERS = """
from handlers import Context, Event, on

@on("invoice.paid")
def receipt(event: Event, ctx: Context) -> None:
    ctx.emit("receipt.issued", {"invoice": event.object_id})
"""


READY = {"work": "working on ", "beat": "ticking"}
"""What they say when they have begun."""


class Load:
    """Deliveries, each another one, posted by some threads as fast as they are answered."""

    def __init__(self, url: str, threads: int = 4) -> None:
        self._url = url
        self._numbers = itertools.count()
        self._stopping = threading.Event()
        self.answers: Counter[int] = Counter()
        self._threads = [threading.Thread(target=self._post) for _ in range(threads)]

    def _post(self) -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            while not self._stopping.is_set():
                request = delivery(next(self._numbers))
                answer = client.post(f"{self._url}/webhooks/shop", content=request.body, headers=request.headers)
                self.answers[answer.status_code] += 1

    @contextmanager
    def going(self) -> Iterator[None]:
        """On for the block."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join(40)

    @property
    def posted(self) -> int:
        return sum(self.answers.values())


def stopped(stack: Stack, name: str) -> float:
    """Tell a process to stop; seconds until it has ended, well."""
    process = stack.processes.pop(name)
    began = time.monotonic()
    process.terminate()
    assert process.wait(GRACE) == 0, stack.log(name)
    return time.monotonic() - began


def test_receivers_that_are_restarted_one_after_the_other_answer_every_delivery(server_stack: Stack) -> None:
    first = server_stack
    first.environment["BILLHOOK_DRAIN_SECONDS"] = "2"
    second = Stack(first.folder, first.environment)
    receivers = (first, second)
    for receiver in receivers:
        receiver.start("serve")
    with Proxy([receiver.port for receiver in receivers]) as proxy:
        load = Load(proxy.url)
        with load.going():
            for receiver in receivers * 2:
                await_(lambda before=load.posted: load.posted > before + 100, "deliveries come")  # type: ignore[misc]
                assert 2 <= stopped(receiver, "serve") < GRACE
                receiver.start("serve")
                await_(lambda: len(proxy.ready) == 2, "both are in the rotation")
    second.stop()

    assert load.answers == {202: load.posted}
    assert first.events() == load.posted


@pytest.mark.parametrize("name", ["work", "beat"])
def test_what_is_told_to_stop_under_load_ends_in_time_and_loses_and_doubles_nothing(
    server_stack: Stack, name: str
) -> None:
    stack = server_stack
    (stack.folder / "my_handlers.py").write_text(HANDLERS)
    with Sink() as sink:
        assert stack.run("endpoints", "add", sink.url).returncode == 0
        stack.start("serve", "work", "beat")
        load = Load(stack.url, threads=1)
        with load.going():
            for turn in range(2):
                await_(lambda starts=turn: stack.log(name).count(READY[name]) > starts, "it has begun")  # type: ignore[misc]
                await_(lambda before=load.posted: load.posted > before + 50, "deliveries come")  # type: ignore[misc]
                assert stopped(stack, name) < GRACE
                stack.start(name)
        await_(lambda: stack.events("processed") == load.posted, "all is handled", 120)
        await_(lambda: len(sink.received) >= load.posted, "all is sent on", 120)

    assert load.answers == {202: load.posted}
    ids = [headers["webhook-id"] for headers, _ in sink.received]
    assert len(set(ids)) == load.posted
    assert Counter(ids).most_common(1)[0][1] == 1, "what is under way is let end, and not sent again"
    assert stack.balance().holds
