"""How fast events are processed, as ratios to a bare Celery task for each event, measured in the same run.

    python -m benchmarks.process            everything, about ten minutes
    python -m benchmarks.process --quick    a look, under two minutes; its figures mean little

Three questions: how many events a second two worker processes get through, with every guarantee on; whether that stays
so when a million events are stored; and how long after a delivery's 202 its handler starts, when it is quiet.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from sqlalchemy import text

from benchmarks import backlog
from benchmarks.consumers import Bare, Ours, bare, ours
from benchmarks.latency import quiet_latencies
from benchmarks.machine import hardware
from benchmarks.servers import ServerError
from benchmarks.services import ServiceError, Services, services
from workers import app, database
from workers.app import Runtime
from workers.settings import Settings


def throughput(options: argparse.Namespace, kinds: Sequence[tuple[str, Ours | Bare]]) -> dict[str, list[float]]:
    """Events a second by kind, all kinds in turn each round; warmed up before."""
    rates: dict[str, list[float]] = {name: [] for name, _ in kinds}
    for _, kind in kinds:
        kind.rate(1_000)
    for number in range(options.rounds):
        for name, kind in kinds:
            count = options.events if isinstance(kind, Ours) else options.events // 5
            rates[name].append(kind.rate(count))
        shown = ", ".join(f"{name} {rates[name][-1]:,.0f}/s" for name, _ in kinds)
        print(f"round {number + 1} of {options.rounds}: {shown}", file=sys.stderr)
    return rates


def report(title: str, rates: dict[str, list[float]]) -> dict[str, float]:
    """Print the medians and their ratios to `bare`; the ratios."""
    print(f"\n{title:44}{'events/s':>10}{'ratio':>8}")
    ratios = {}
    for name, found in rates.items():
        each = [one / base for one, base in zip(found, rates["bare"], strict=True)]
        ratios[name] = median(each)
        print(f"{name:44}{median(found):>10,.0f}{median(each):>8.2f}  ({min(each):.2f}-{max(each):.2f})")
    return ratios


def run(options: argparse.Namespace, folder: Path, found: Services) -> None:
    """Measure and print."""
    runtime = _runtime(folder, found)
    print(hardware(found, folder))
    ratios = {}
    with ExitStack() as stack:
        plain = stack.enter_context(ours(runtime, folder / "plain", found))
        base = stack.enter_context(bare(folder / "bare", found))
        for stored in options.stored:
            _forget(runtime)
            print(f"{stored:,} events are stored before", file=sys.stderr)
            backlog.age(runtime.engine, stored)
            rates = throughput(options, (("bare", base), ("billhook", plain)))
            ratios[stored] = report(f"{stored:,} events stored", rates)["billhook"]
    if len(ratios) > 1:
        first, last = ratios[options.stored[0]], ratios[options.stored[-1]]
        print(f"\nfrom {options.stored[0]:,} to {options.stored[-1]:,} stored events: {last / first - 1:+.0%}")
    _forget(runtime)
    with ExitStack() as stack:
        base = stack.enter_context(bare(folder / "bare-again", found))
        lined = stack.enter_context(ours(runtime, folder / "ordered", found, ", ordered=True"))
        report("in order, each event of its own object", throughput(options, (("bare", base), ("ordered", lined))))
    latencies = sorted(quiet_latencies(folder, found, options.deliveries))
    p50, p99 = (latencies[int(len(latencies) * share)] * 1e3 for share in (0.5, 0.99))
    print(f"\nquiet, one delivery each 100 ms: from the 202 to the handler's start p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def _runtime(folder: Path, found: Services) -> Runtime:
    settings = Settings(
        state_dir=folder, database_url=found.database_url, redis_url=found.redis_url, redis_prefix=found.prefix
    )
    runtime = app.start(settings)
    database.migrate(runtime.engine)
    return runtime


def _forget(runtime: Runtime) -> None:
    with database.write(runtime.engine) as connection:
        connection.execute(text("TRUNCATE events CASCADE"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.process", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--events", type=int, default=20_000, help="in one turn of ours; a fifth of it for the bare one"
    )
    parser.add_argument("--stored", default="1000,1000000", help="events stored before, one size after the other")
    parser.add_argument("--deliveries", type=int, default=400, help="for the latency")
    parser.add_argument("--quick", action="store_true", help="one short round each")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.events, options.stored, options.deliveries = 1, 5_000, "1000,20000", 50
    options.stored = [int(stored) for stored in options.stored.split(",")]
    return options


def main() -> None:
    """Measure and print; what goes wrong is one line on stderr and exit 1. Whatever was started is stopped."""
    options = _options()
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
