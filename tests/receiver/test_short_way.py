"""The short way of a plain delivery through the server: what it takes, and what it leaves to the ordinary way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pytest

from handlers.event import Headers
from receiver.answers import Answer
from receiver.server import Connection
from tests.receiver.edge import Edge, chunked, delivery, serving, wait_until, wire

TAKEN = Answer(202, b'{"taken":true}')


async def ordinary(scope: Any, receive: Any, send: Any) -> None:
    """Answers 200 when it has read everything."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await Answer(200, b'"%d bytes"' % len(body)).send(send)


@dataclass
class Taker:
    """Takes what is posted to /webhooks/shop; answers at once, or when the test does."""

    at_once: bool = True
    taken: list[tuple[bytes, Headers]] = field(default_factory=list)
    waiting: list[Callable[[], object]] = field(default_factory=list)
    """What answers those that were taken, to be called from any thread."""

    def __call__(self, target: bytes, headers: Headers, body: bytes, reply: Callable[[Answer], None]) -> bool:
        if target != b"/webhooks/shop":
            return False
        self.taken.append((body, headers))
        if self.at_once:
            reply(TAKEN)
        else:
            self.waiting.append(partial(asyncio.get_running_loop().call_soon_threadsafe, reply, TAKEN))
        return True


@pytest.fixture
def taker() -> Taker:
    return Taker()


@pytest.fixture
def edge(taker: Taker) -> Iterator[Edge]:
    with serving(ordinary, lifespan=False, take=taker) as edge:
        yield edge


def test_a_plain_delivery_is_taken_with_its_exact_bytes(taker: Taker, edge: Edge) -> None:
    request = delivery()

    answer = edge.exchange(wire(request))

    assert (answer.status_code, answer.content) == (202, TAKEN.body)
    ((body, headers),) = taker.taken
    assert body == request.body
    assert set(request.wire) <= set(headers)


def test_a_body_in_chunks_that_came_at_once_is_taken_whole(taker: Taker, edge: Edge) -> None:
    edge.exchange(wire(delivery(), b"Transfer-Encoding: chunked", length=None, body=chunked(b"12345", b"X-Late: 1")))

    ((body, headers),) = taker.taken
    assert body == b"12345"
    assert b"x-late" not in dict(headers)


def test_a_connection_serves_one_after_the_other_by_either_way(edge: Edge) -> None:
    with edge.line() as line:
        statuses = []
        for target in (b"/webhooks/shop", b"/webhooks/other", b"/webhooks/shop", b"/livez"):
            line.send(wire(delivery(), target=target))
            statuses.append(line.reply().status_code)

    assert statuses == [202, 200, 202, 200]


def test_a_pipelined_request_waits_for_the_answer_to_the_one_before(taker: Taker, edge: Edge) -> None:
    taker.at_once = False
    with edge.line() as line:
        line.send(wire(delivery()) + wire(delivery(), target=b"/livez") + wire(delivery()))
        wait_until(lambda: len(taker.waiting) == 1)
        taker.waiting[0]()

        assert [line.reply().status_code for _ in range(3)] == [202, 200, 200]


@pytest.mark.parametrize(
    "content",
    [
        wire(delivery(), b"Connection: close"),
        wire(delivery()).replace(b"HTTP/1.1", b"HTTP/1.0"),
        wire(delivery()).replace(b"POST", b"PUT"),
        wire(delivery(), target=b"/webhooks/shop?x=1"),
        wire(delivery(), target=b"/webhooks/sho%70"),
    ],
    ids=["close", "1.0", "put", "query", "escaped"],
)
def test_what_is_not_so_plain_goes_the_ordinary_way(content: bytes, taker: Taker, edge: Edge) -> None:
    assert edge.exchange(content).status_code == 200
    assert taker.taken == []


def test_a_body_that_comes_later_goes_the_ordinary_way_whole(taker: Taker, edge: Edge) -> None:
    request = delivery()
    content = wire(request)
    with edge.line() as line:
        line.send(content[:-20])
        wait_until(lambda: bool(edge.server.server_state.tasks))
        line.send(content[-20:])

        assert line.reply().content == b'"%d bytes"' % len(request.body)


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_who_left_before_the_answer_does_no_harm(leave: str, taker: Taker, edge: Edge) -> None:
    taker.at_once = False
    with edge.line() as line:
        line.send(wire(delivery()))
        wait_until(lambda: len(taker.waiting) == 1)
        if leave == "reset":
            line.reset()
    assert edge.exchange(wire(delivery(), target=b"/livez")).status_code == 200

    taker.waiting[0]()

    assert edge.exchange(wire(delivery(), target=b"/livez")).status_code == 200


def test_what_was_taken_is_answered_before_the_server_ends() -> None:
    taker = Taker(at_once=False)
    with serving(ordinary, lifespan=False, take=taker) as edge, edge.line() as line:
        line.send(wire(delivery()))
        wait_until(lambda: len(taker.waiting) == 1)
        edge.stop()
        (connection,) = cast("set[Connection]", edge.server.server_state.connections)
        wait_until(lambda: not connection.cycle.keep_alive)
        taker.waiting[0]()

        answer = line.reply()

        assert (answer.status_code, answer.headers["connection"]) == (202, "close")
        assert line.ended()


def test_broken_chunks_behind_good_headers_are_refused_and_never_taken(taker: Taker, edge: Edge) -> None:
    content = wire(delivery(), b"Transfer-Encoding: chunked", length=None, body=b"zz\r\nnonsense\r\n")
    with edge.line() as line:
        line.send(content)

        assert line.reply().status_code == 400
        assert line.ended()
    assert taker.taken == []
