"""The load generator: connections that each send their next request when the last is answered.

Run as a program of its own, so that it never shares an interpreter with what it measures. Every request is
signed and laid out in memory before the first is sent; of an answer only its end and its status are looked for.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import orjson
import uvloop

from benchmarks.apps import PATH, SECRET
from handlers.providers import PROVIDERS
from handlers.testing import signed_request

BODY_BYTES = 1024
_EVENT = "invoice.sent"
_LONGEST_ANSWER = 10.0
"""Seconds without an answer after which the server is given up."""


class LoadError(Exception):
    """The server did not answer as it should; the message says how."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run. Times in seconds, `statuses` by HTTP status; `cpu` is this process's share of one core."""

    answered: int
    seconds: float
    p50: float
    p99: float
    cpu: float
    statuses: dict[str, int]

    @property
    def rate(self) -> float:
        return self.answered / self.seconds


def requests(count: int, port: int) -> list[bytes]:
    """Requests as they go over the wire: distinct deliveries of distinct Hisab events, signed now."""
    provider, run = PROVIDERS["hisab"], secrets.token_hex(6)
    sample = dict(provider.sample(_EVENT))
    built = []
    for number in range(count):
        sample["data"] = {**sample["data"], "id": f"inv_{run}_{number}", "notes": ""}
        sample["data"]["notes"] = "n" * (BODY_BYTES - len(orjson.dumps(sample)))
        signed = signed_request(provider, _EVENT, SECRET, body=sample, delivery_id=f"del_{run}_{number}")
        headers = {
            "host": f"127.0.0.1:{port}",
            "user-agent": "Hisab-Webhooks/1.0",
            "content-length": str(len(signed.body)),
            **signed.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        built.append(f"POST {PATH} HTTP/1.1\r\n{lines}\r\n".encode() + signed.body)
    return built


class _Run:
    """What the connections share: the requests left, when to stop, and what was measured."""

    def __init__(self, pending: list[bytes], seconds: float, done: asyncio.Future[None]) -> None:
        self.pending: Iterator[bytes] = iter(pending)
        self.started = time.perf_counter()
        self.deadline = self.started + seconds
        self.done = done
        self.open = 0
        self.latencies: list[float] = []
        self.statuses: Counter[bytes] = Counter()

    def closed(self, error: Exception | None = None) -> None:
        self.open -= 1
        if self.done.done():
            return
        if error:
            self.done.set_exception(error)
        elif self.open == 0:
            self.done.set_result(None)


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._transport: Any = None
        self._answer = b""
        self._sent = 0.0
        self._finished = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._run.open += 1
        self._send(time.perf_counter())

    def data_received(self, data: bytes) -> None:
        if self._answer:
            data = self._answer + data
        if not _complete(data):
            self._answer = data
            return
        self._answer = b""
        now = time.perf_counter()
        run = self._run
        run.latencies.append(now - self._sent)
        run.statuses[data[9:12]] += 1
        self._send(now)

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.closed(None if self._finished else LoadError("the server closed a connection"))

    def _send(self, now: float) -> None:
        request = next(self._run.pending, None) if now < self._run.deadline else None
        if request is None:
            self._finished = True
            self._transport.close()
            return
        self._sent = now
        self._transport.write(request)


def _complete(data: bytes) -> bool:
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return False
    at = data.find(b"content-length: ", 0, head)
    if at < 0:
        raise LoadError("an answer without content-length")
    return len(data) >= head + 4 + int(data[at + 16 : data.index(b"\r", at)])


async def _generate(pending: list[bytes], port: int, connections: int, seconds: float) -> Measured:
    loop = asyncio.get_running_loop()
    run = _Run(pending, seconds, loop.create_future())
    cpu = time.process_time()
    for _ in range(connections):
        await loop.create_connection(lambda: _Connection(run), "127.0.0.1", port)
    try:
        await asyncio.wait_for(run.done, seconds + _LONGEST_ANSWER)
    except TimeoutError:
        raise LoadError(f"no answer within {_LONGEST_ANSWER:g} s") from None
    elapsed = time.perf_counter() - run.started
    latencies = sorted(run.latencies)
    return Measured(
        answered=len(latencies),
        seconds=elapsed,
        p50=latencies[len(latencies) // 2],
        p99=latencies[len(latencies) * 99 // 100],
        cpu=(time.process_time() - cpu) / elapsed,
        statuses={status.decode(): count for status, count in run.statuses.items()},
    )


def main() -> None:
    """Send what the arguments say; print a `Measured` as JSON, or one line on stderr and exit 1."""
    parser = argparse.ArgumentParser(description="Send signed deliveries to 127.0.0.1.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, required=True, help="at most so many requests")
    parser.add_argument("--seconds", type=float, required=True, help="for at most so long")
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    pending = requests(options.count, options.port)
    gc.freeze()
    gc.disable()
    try:
        measured = uvloop.run(_generate(pending, options.port, options.connections, options.seconds))
    except (LoadError, OSError) as error:
        sys.exit(f"{error}")
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
