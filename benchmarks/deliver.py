"""How fast messages are delivered, and how soon: as ratios to what was measured beside it, in the same run.

    python -m benchmarks.deliver            everything, about six minutes
    python -m benchmarks.deliver --quick    a look, about one minute; its figures mean little

Four questions: how near one worker process, which signs every delivery and records every attempt, comes to a bare loop
of the same HTTP client; how far it is ahead of a Celery task for each delivery; what an endpoint that is dead or slow
costs the others; and what an endpoint is met with that comes back after an hour.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import psycopg

from benchmarks.consumers import Bare, bare
from benchmarks.crowding import PACE, Lateness, dead_url, lateness, returning
from benchmarks.exchanges import exchanged
from benchmarks.machine import hardware
from benchmarks.outbound import Ours, ours
from benchmarks.servers import ServerError
from benchmarks.services import ServiceError, Services, services
from benchmarks.sink import ADDRESSES, SLOW, Sink, sink
from benchmarks.tasks import TABLE
from workers import app, database
from workers.app import Runtime
from workers.settings import Settings

CONCURRENCY = 200
"""Exchanges at once, of the bare loop and with our one endpoint; the twenty have their usual limits."""
SLOWNESS = 30.0
"""Seconds until the slow endpoint answers; the worker does not wait that long."""


def capacity(found: Sink, messages: int) -> None:
    """Print what the sink takes from the load generator, so that nobody takes it for the limit."""
    measured = found.server.load(messages, 30.0, CONCURRENCY)
    print(f"the sink takes {measured.rate:,.0f}/s, with the load generator at {measured.cpu:.0%} of a core")


def throughput(options: argparse.Namespace, own: Ours, base: Bare) -> None:
    """Deliveries a second of each kind, all kinds in turn each round, warmed up before; and their ratios."""
    messages, few = options.messages, options.messages // 5
    urls = own.sink.urls()
    own.endpoint(urls[0], "one", concurrency=CONCURRENCY, rate=0)
    for url in urls:
        own.endpoint(url, "many", rate=0)
    own.rate("many", 20)
    base.rate(100)
    rates: dict[str, list[float]] = {}
    used: list[float] = []
    for number in range(options.rounds):
        one, many = own.rate("one", messages), own.rate("many", messages // len(ADDRESSES))
        used.append(one[1])
        turn = {
            "bare loop, one endpoint": exchanged(urls[:1], messages, CONCURRENCY).rate,
            "bare loop, 20 endpoints": exchanged(urls, messages, CONCURRENCY).rate,
            "billhook, one endpoint": one[0],
            "billhook, 20 endpoints": many[0],
            "a Celery task for each": base.rate(few),
        }
        for name, rate in turn.items():
            rates.setdefault(name, []).append(rate)
        shown = ", ".join(f"{name} {rate:,.0f}/s" for name, rate in turn.items())
        print(f"round {number + 1} of {options.rounds}: {shown}", file=sys.stderr)
    report(rates)
    print(f"\nCPU of the worker for one delivery: {median(used) * 1e6:,.0f} µs")


def report(rates: dict[str, list[float]]) -> None:
    """Print the medians, and the ratios to the bare loop with as many endpoints and to the Celery task."""
    print(f"\n{'':28}{'deliveries/s':>14}{'of the loop':>22}{'of the task':>22}")
    loops = {name.rpartition(", ")[2]: found for name, found in rates.items() if name.startswith("bare loop")}
    for name, found in rates.items():
        loop = loops.get(name.rpartition(", ")[2], loops["one endpoint"])
        ratios = f"{_ratios(found, loop):>22}{_ratios(found, rates['a Celery task for each']):>22}"
        print(f"{name:28}{median(found):>14,.0f}{ratios}")


def _ratios(found: Sequence[float], base: Sequence[float]) -> str:
    each = [one / other for one, other in zip(found, base, strict=True)]
    return f"{median(each):.2f} ({min(each):.2f}-{max(each):.2f})"


def crowding(options: argparse.Namespace, own: Ours) -> None:
    """Print how late messages arrive alone, and beside endpoints that are dead or slow."""
    for number, url in enumerate(own.sink.urls()[:5]):
        own.endpoint(url, f"good.{number}")
    lateness(own, 20)
    beside = {
        "a dead endpoint": dead_url(),
        f"one that takes {SLOWNESS:g} s": own.sink.urls(SLOW)[-1],
    }
    print(f"\nfrom commit to arrival, {options.trickle} messages, one each {PACE * 1e3:.0f} ms")
    alone = lateness(own, options.trickle)
    _print("alone", alone, alone)
    for name, url in beside.items():
        _print(f"beside {options.queued:,} for {name}", lateness(own, options.trickle, url, options.queued), alone)


def _print(name: str, found: Lateness, alone: Lateness) -> None:
    p99 = f"p99 {found.p99 * 1e3:6.1f} ms  ({found.p99 / alone.p99:.2f} of alone)"
    print(f"{name:44}p50 {found.p50 * 1e3:6.1f} ms  {p99}")


def storm(options: argparse.Namespace, own: Ours) -> None:
    """Print what arrives in each second at an endpoint that was down for an hour."""
    limit = own.runtime.settings.endpoint_rate
    seconds = returning(own, own.sink.urls()[0], options.waiting)
    first = ", ".join(str(count) for count in seconds[:10])
    print(f"\nback after an hour, {options.waiting:,} deliveries due, at most {limit} a second:")
    print(f"arrivals in each second: {first}{', …' if len(seconds) > 10 else ''}; at most {max(seconds)}", end="")
    print(f"; all within {len(seconds)} s")


def run(options: argparse.Namespace, folder: Path, found: Services) -> None:
    """Measure and print."""
    runtime = _runtime(folder, found)
    print(hardware(found, folder))
    with ExitStack() as stack:
        subscribers = stack.enter_context(sink(folder, dict(os.environ), slowness=SLOWNESS))
        capacity(subscribers, options.messages * 2)
        own = stack.enter_context(ours(runtime, folder / "ours", found, subscribers))
        if "throughput" in options.parts:
            with psycopg.connect(found.database_url) as connection:
                connection.execute(TABLE)
            url = subscribers.urls()[0]
            with bare(folder / "bare", found, task="bare.deliver", processes=1, url=url) as base:
                throughput(options, own, base)
        if "crowding" in options.parts:
            crowding(options, own)
        if "storm" in options.parts:
            storm(options, own)


def _runtime(folder: Path, found: Services) -> Runtime:
    settings = Settings(
        state_dir=folder, database_url=found.database_url, redis_url=found.redis_url, redis_prefix=found.prefix
    )
    runtime = app.start(settings)
    database.migrate(runtime.engine)
    return runtime


PARTS = ("throughput", "crowding", "storm")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deliver", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=5_000, help="in one turn; a fifth of them for the Celery task")
    parser.add_argument("--trickle", type=int, default=400, help="messages whose lateness is measured, 20 a second")
    parser.add_argument("--queued", type=int, default=10_000, help="deliveries queued at a dead or slow endpoint")
    parser.add_argument("--waiting", type=int, default=2_000, help="deliveries for an endpoint that comes back")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}, separated by commas")
    parser.add_argument("--quick", action="store_true", help="one short round each")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.messages, options.trickle, options.queued, options.waiting = 1, 1_000, 60, 1_000, 300
    options.parts = options.only.split(",")
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"--only: {unknown.pop()!r} is none of {', '.join(PARTS)}")
    return options


def main() -> None:
    """Measure and print; what goes wrong is one line on stderr and exit 1. Whatever was started is stopped."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="billhook-benchmark-") as folder, services() as found:
            run(options, Path(folder), found)
    except (ServiceError, ServerError) as error:
        sys.exit(f"benchmark: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"took {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
