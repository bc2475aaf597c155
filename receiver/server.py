"""The HTTP server under the receiver: uvicorn, with what an open port needs beside.

Its parser is httptools, which refuses the ambiguous requests that h11 accepts. Two things it leaves open are closed
here: trailers would pass for headers, and a header without an end would be kept in memory without limit. How long a
sender may take for its headers is for the proxy in front to bound.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import Any, ClassVar, Protocol, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from handlers.event import Headers
from receiver.answers import CLOSE, Answer

MAX_HEAD = 64 * 1024
"""Bytes of a request line and headers after which the connection is closed."""
GRACE = 25
"""Seconds that requests under way get to finish; less than the 30 s after which Kubernetes kills."""


class Joined:
    """A transport that keeps the head of an answer until its body comes: one write, and one waking of the peer."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """uvicorn writes a head, then a body or its chunks; what it writes beside ends otherwise."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.endswith(b"\r\n\r\n") and not data.startswith(b"HTTP/1.1 100"):
            self._head = data
            return
        self._transport.write(data)

    def flush(self) -> None:
        """For answers that have no body."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Close once everything is written."""
        self.flush()
        self._transport.close()


class Take(Protocol):
    def __call__(self, target: bytes, headers: Headers, body: bytes, reply: Callable[[Answer], None]) -> bool:
        """Whether the request is taken: `reply` is then called once, later. Otherwise nothing has happened."""


class Exchange:
    """A request that was taken: what uvicorn's protocol asks of the one under way."""

    message_event: ClassVar[asyncio.Event] = asyncio.Event()  # nobody waits for more of it

    def __init__(self) -> None:
        self.response_complete = False
        self.disconnected = False
        self.keep_alive = True


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, whose headers have an end and whose answers are written at once.

    And with a short way: a plain POST that came in one piece is offered to `take`, which spares it a task, a scope
    and the messages of ASGI; together these cost more than to verify and to parse it. What `take` does not take, or
    what is not so plain, goes the ordinary way as if it had never been offered.
    """

    take: ClassVar[Take | None] = None

    _in_head = False
    _head = 0
    _offered: list[bytes] | None = None
    """The body so far of a request that may go the short way."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Joined(transport))  # type: ignore[arg-type]

    def on_response_complete(self) -> None:
        cast("Joined", self.transport).flush()
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        self._head = self._head + len(data) if self._in_head else 0
        if self._head > MAX_HEAD:
            self.send_400_response("The headers are too large.")
            return
        super().data_received(data)
        if self._offered is not None:  # the rest of it is still to come
            self._go_the_ordinary_way(self._offered)

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # after the body come trailers, which are no headers
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._is_plain():
            self._offered = []
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._offered is None:
            super().on_body(body)
        else:
            self._offered.append(body)

    def on_message_complete(self) -> None:
        if self._offered is not None:
            before, self.cycle = self.cycle, cast("Any", exchange := Exchange())
            reply = partial(self._reply, exchange)
            if self.take is not None and self.take(self.url, self.headers, b"".join(self._offered), reply):
                self._offered = None
                return
            self.cycle = before
            self._go_the_ordinary_way(self._offered)
        super().on_message_complete()

    def _is_plain(self) -> bool:
        return (
            self.take is not None
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and getattr(self.cycle, "response_complete", True)  # there is none before the first
            and not self.flow.write_paused
        )

    def _go_the_ordinary_way(self, parts: list[bytes]) -> None:
        self._offered = None
        if self.transport.is_closing():
            return
        super().on_headers_complete()
        for part in parts:
            super().on_body(part)

    def _reply(self, exchange: Exchange, answer: Answer) -> None:
        exchange.response_complete = True
        if exchange.disconnected or self.transport.is_closing():
            return
        headers = answer.headers if exchange.keep_alive else (*answer.headers, CLOSE)
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        head = b"%bcontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n"
        self.transport.write(head % (STATUS_LINE[answer.status], len(answer.body), lines) + answer.body)
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()


def configuration(
    app: Callable[..., Any], trusted_proxies: Sequence[str] = (), take: Take | None = None
) -> uvicorn.Config:
    """How an application is served; `take` is the short way to it, if it has one."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=type("Connection", (Connection,), {"take": take and staticmethod(take)}),
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        timeout_graceful_shutdown=GRACE,
    )


class Server(uvicorn.Server):
    """uvicorn's, which on SIGTERM first lets whoever balances the load notice, and goes on serving meanwhile.

    What connects in the moment that a socket is closed would be reset: so nobody should connect any more by then.
    """

    def __init__(self, config: uvicorn.Config, drain: float, draining: Callable[[], object]) -> None:
        super().__init__(config)
        self._drain, self._draining = drain, draining
        self._told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGTERM or self._told or not self._drain:
            super().handle_exit(sig, frame)
            return
        self._told = True
        self._draining()
        timer = threading.Timer(self._drain, super().handle_exit, (sig, frame))
        timer.daemon = True
        timer.start()


def serve(
    config: uvicorn.Config,
    listening: socket.socket,
    ready: Callable[[], object],
    *,
    drain: float = 0.0,
    draining: Callable[[], object] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called when these are heeded.

    After SIGTERM `draining` is called, and it goes on for `drain` seconds.
    """
    server = Server(config, drain, draining)

    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn raises the signal again after it has shut down; that is no reason to end by it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    ready()
    if not server.should_exit:
        server.run(sockets=[listening])
