"""The HTTP server under the receiver: uvicorn, with what an open port needs beside.

Its parser is httptools, which refuses the ambiguous requests that h11 accepts. Two things it leaves open are closed
here: trailers would pass for headers, and a header without an end would be kept in memory without limit. How long a
sender may take for its headers is for the proxy in front to bound.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 * 1024
"""Bytes of a request line and headers after which the connection is closed."""
GRACE = 25
"""Seconds that requests under way get to finish; less than the 30 s after which Kubernetes kills."""


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, whose headers have an end."""

    _in_head = False
    _head = 0

    def data_received(self, data: bytes) -> None:
        self._head = self._head + len(data) if self._in_head else 0
        if self._head > MAX_HEAD:
            self.send_400_response("The headers are too large.")
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # after the body come trailers, which are no headers
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()


def configuration(app: Callable[..., Any], trusted_proxies: Sequence[str] = ()) -> uvicorn.Config:
    """How an application is served."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=Protocol,
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        timeout_graceful_shutdown=GRACE,
    )


def serve(config: uvicorn.Config, listening: socket.socket, ready: Callable[[], object]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called when these are heeded."""
    server = uvicorn.Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn raises the signal again after it has shut down; that is no reason to end by it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    ready()
    if not server.should_exit:
        server.run(sockets=[listening])
