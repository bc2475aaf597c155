"""The ceiling of delivering: the sender's own exchanges in a bare loop, with nothing read, signed or written down.

Run as a program of its own, so that it has an interpreter for itself, as a worker's process has.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from ipaddress import ip_network

from benchmarks.load import BODY_BYTES
from benchmarks.servers import ServerError
from workers.delivery.egress import Egress
from workers.delivery.exchange import Request, Terms, exchange
from workers.delivery.wires import Wires

HERE = Egress(networks=(ip_network("127.0.0.0/8"),), ports=None)
_HEADERS = (
    ("content-type", "application/json"),
    ("webhook-id", "msg_" + "0" * 26),
    ("webhook-timestamp", "1700000000"),
    ("webhook-signature", "v1," + "0" * 43 + "="),
)


@dataclass(frozen=True, slots=True)
class Exchanged:
    """One run; `cpu` in seconds."""

    count: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        return self.count / self.seconds


def exchanged(urls: list[str], count: int, concurrency: int) -> Exchanged:
    """Exchange so many requests with these endpoints, in a process of its own. Raises ServerError."""
    command = [sys.executable, "-m", "benchmarks.exchanges", str(count), str(concurrency), *urls]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerError(f"the bare loop: {''.join(done.stderr.strip().splitlines()[-1:]) or 'it failed'}")
    return Exchanged(**json.loads(done.stdout))


async def _exchange(urls: list[str], count: int, concurrency: int) -> Exchanged:
    terms = Terms(user_agent="Billhook/benchmark", egress=HERE, deadline=20.0, connect=5.0, now=time.time)
    wires = Wires(egress=HERE, deadline=20.0, connect=5.0, tls=None, lookup=None)
    requests = [Request(url, _HEADERS, b"n" * BODY_BYTES) for url in urls]

    async def loop(numbers: range) -> None:
        for number in numbers:
            answer = await exchange(wires, requests[number % len(requests)], terms)
            if not answer.ok:
                raise ServerError(answer.detail)

    try:
        await loop(range(len(urls)))  # the first one reads the authorities that are trusted
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(loop(range(first, count, concurrency)) for first in range(concurrency)))
        return Exchanged(count, time.perf_counter() - began, time.process_time() - cpu)
    finally:
        await wires.close()


def main() -> None:
    """Send what the arguments say; print an `Exchanged` as JSON, or one line on stderr and exit 1."""
    parser = argparse.ArgumentParser(description="Exchange requests with endpoints on this machine.")
    parser.add_argument("count", type=int)
    parser.add_argument("concurrency", type=int)
    parser.add_argument("urls", nargs="+")
    options = parser.parse_args()
    try:
        print(json.dumps(asdict(asyncio.run(_exchange(options.urls, options.count, options.concurrency)))))
    except ServerError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
