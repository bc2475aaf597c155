"""The subscribers that are delivered to: one process, which notes what arrived when, and is not the limit itself.

It listens on twenty addresses of this machine, so that twenty endpoints have twenty pools of connections, as real ones.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvloop

from benchmarks.servers import Server, announced

ADDRESSES = tuple(f"127.0.0.{number}" for number in range(1, 21))
SLOW = "/slow"
"""The path that is answered late."""
_TAKEN = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_ID = re.compile(rb"\r\nwebhook-id: *([^\r]+)", re.IGNORECASE)


class Sink:
    """The sink, as those see it who ask it."""

    def __init__(self, server: Server, client: httpx.Client) -> None:
        self.server = server
        self._client = client

    def urls(self, path: str = "/hook") -> list[str]:
        """The same path on each address."""
        return [f"http://{address}:{self.server.port}{path}" for address in ADDRESSES]

    def count(self) -> int:
        """Deliveries that arrived since `arrivals` was last asked."""
        return int(self._ask("/count"))

    def arrivals(self) -> list[tuple[str, float]]:
        """`webhook-id` and Unix time of what arrived since this was last asked, in the order of arrival."""
        return [(message_id, at) for message_id, at in self._ask("/arrivals")]

    def _ask(self, path: str) -> Any:
        return self._client.get(f"http://127.0.0.1:{self.server.port}{path}").json()


@contextmanager
def sink(folder: Path, environment: dict[str, str], *, slowness: float) -> Iterator[Sink]:
    """A sink, running; `slowness` in seconds is for its slow path. Raises ServerError."""
    command = [sys.executable, "-m", "benchmarks.sink", "--slowness", str(slowness)]
    with (
        announced("sink", command, environment, folder, re.compile(r"receiving on port (\d+)")) as (pid, found),
        httpx.Client(trust_env=False) as client,
    ):
        yield Sink(Server("sink", int(found[1]), pid), client)


class _Connection(asyncio.Protocol):
    def __init__(self, arrivals: list[tuple[str, float]], slowness: float) -> None:
        self._arrivals = arrivals
        self._slowness = slowness
        self._transport: Any = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._received + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head = data[:end]
            length = _LENGTH.search(head)
            end += 4 + (int(length[1]) if length else 0)
            if len(data) < end:
                break
            self._answer(head)
            data = data[end:]
        self._received = data

    def _answer(self, head: bytes) -> None:
        if head.startswith(b"GET"):
            self._tell(head)
            return
        if found := _ID.search(head):
            self._arrivals.append((found[1].decode(), time.time()))
        if head.startswith(b"POST " + SLOW.encode()):
            asyncio.get_running_loop().call_later(self._slowness, self._transport.write, _TAKEN)
        else:
            self._transport.write(_TAKEN)

    def _tell(self, head: bytes) -> None:
        if head.startswith(b"GET /count"):
            said = json.dumps(len(self._arrivals)).encode()
        else:
            said = json.dumps(self._arrivals).encode()
            self._arrivals.clear()
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(said) + said)


async def _serve(slowness: float) -> None:
    loop = asyncio.get_running_loop()
    arrivals: list[tuple[str, float]] = []
    first = socket.create_server((ADDRESSES[0], 0), backlog=2048)
    port = first.getsockname()[1]
    for listening in (first, *(socket.create_server((one, port), backlog=2048) for one in ADDRESSES[1:])):
        await loop.create_server(lambda: _Connection(arrivals, slowness), sock=listening)
    print(f"receiving on port {port}", file=sys.stderr, flush=True)
    await loop.create_future()


def main() -> None:
    """Listen on a free port, which is said on stderr, until told to end."""
    parser = argparse.ArgumentParser(description="Take deliveries on 127.0.0.1 to 127.0.0.20.")
    parser.add_argument("--slowness", type=float, required=True, help="seconds before /slow is answered")
    options = parser.parse_args()
    gc.freeze()
    uvloop.run(_serve(options.slowness))


if __name__ == "__main__":
    main()
