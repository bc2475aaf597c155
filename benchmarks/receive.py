"""How fast deliveries are accepted, as ratios to a bare route that were measured in the same run.

    python -m benchmarks.receive            everything, about five minutes
    python -m benchmarks.receive --quick    a look, under half a minute; its figures mean little

Requests per second drift with the machine and with what else it does, within seconds. So the servers take many short
turns, each round compares them with the bare route of that round, and what is printed are medians over the rounds.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.load import Measured
from benchmarks.machine import hardware
from benchmarks.servers import Server, ServerError, billhook, comparison, stored
from benchmarks.services import ServiceError, Services, empty_queues, services


@dataclass(frozen=True, slots=True)
class Column:
    """One of what is measured. `serve(name, folder, services)` runs it."""

    name: str
    title: str
    serve: Callable[[str, Path, Services | None], AbstractContextManager[Server]]
    needs_services: bool = False
    is_ours: bool = False


COLUMNS = (
    Column("raw", "raw ASGI function", comparison),
    Column("bare", "bare Starlette route", comparison),
    Column("naive", "naive design", comparison, needs_services=True),
    Column("ours", "billhook, PostgreSQL + Redis", billhook, needs_services=True, is_ours=True),
    Column("sqlite", "billhook, SQLite + embedded", billhook, is_ours=True),
)
_WARM_UP = 2_000
_LARGEST_RUN = 50_000
"""Requests signed in advance at a time; 1.4 KB of memory each."""


@dataclass(slots=True)
class Trial:
    """A running server and what was measured of it."""

    column: Column
    server: Server
    folder: Path
    services: Services | None
    rounds: list[Measured] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Seconds of the server's CPU for one request, by round."""
    accepted: int = 0
    settled: float = 0.0

    def run(self, count: int, seconds: float, connections: int) -> Measured:
        before = self.server.cpu()
        measured = self.server.load(count, seconds, connections)
        self.accepted += measured.answered
        self.settled = self.server.settle()
        self.cpu.append((self.server.cpu() - before) / measured.answered)
        if self.services:
            empty_queues(self.services)
        return measured


def measure(trials: Sequence[Trial], options: argparse.Namespace) -> None:
    """Warm each up, then let them take turns, then go on with ours until it has had all deliveries."""
    expected = {}
    for trial in trials:
        warm = trial.run(_WARM_UP, options.seconds, options.connections)
        expected[trial.column.name] = warm.rate
        trial.cpu.clear()
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        for trial in trials:
            count = min(_LARGEST_RUN * 2, int(expected[trial.column.name] * options.seconds * 1.5) + 500)
            trial.rounds.append(trial.run(count, options.seconds, options.connections))
    for trial in trials:
        while trial.column.is_ours and trial.accepted < options.deliveries:
            print(f"{trial.column.title}: {trial.accepted:,} deliveries so far", file=sys.stderr)
            trial.run(min(_LARGEST_RUN, options.deliveries - trial.accepted), 600.0, options.connections)


def report(trials: Sequence[Trial], options: argparse.Namespace, hardware: str) -> None:
    """Print what was measured."""
    print(hardware)
    print(
        f"{options.connections} connections, each with one request at a time; unique signed 1 KB bodies; "
        f"{options.rounds} rounds of {options.seconds:g} s in turn; medians (ratios: least-most)"
    )
    print()
    print(f"{'':30}{'req/s':>8}{'ratio':>8}{'':>14}{'p50 ms':>8}{'p99 ms':>8}{'CPU µs':>8}{'load':>7}")
    base = next(trial for trial in trials if trial.column.name == "bare").rounds
    for trial in trials:
        ratios = [ours.rate / bare.rate for ours, bare in zip(trial.rounds, base, strict=True)]
        rounds = trial.rounds
        print(
            f"{trial.column.title:30}{median(r.rate for r in rounds):>8,.0f}{median(ratios):>8.3f}"
            f"{f'({min(ratios):.3f}-{max(ratios):.3f})':>14}"
            f"{median(r.p50 for r in rounds) * 1e3:>8.1f}{median(r.p99 for r in rounds) * 1e3:>8.1f}"
            f"{median(trial.cpu) * 1e6:>8.0f}{median(r.cpu for r in rounds):>7.0%}"
        )
    print()
    print("CPU: of the server's process, for one request. load: the load generator's share of one core.")
    for trial in (trial for trial in trials if trial.column.is_ours):
        kept = stored(trial.folder, trial.services)
        print(
            f"{trial.column.title}: after {trial.accepted:,} deliveries {trial.server.memory():.0f} MiB resident, "
            f"idle {trial.settled:.1f} s after the last answer, {kept:,} stored"
        )
        if kept != trial.accepted:
            raise ServerError(f"{trial.column.title}: {trial.accepted:,} were accepted, {kept:,} are stored")


def _options() -> argparse.Namespace:
    names = [column.name for column in COLUMNS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.receive", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(names), help=f"some of {','.join(names)}; bare is always measured")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one server's turn")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--deliveries", type=int, default=100_000, help="at least so many to ours before its memory")
    parser.add_argument("--quick", action="store_true", help="one round of short turns, few deliveries")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.deliveries = 1, 0.3, 0
    chosen = {name.strip() for name in options.only.split(",")}
    if unknown := chosen - set(names):
        parser.error(f"--only: {unknown.pop()!r} is none of {', '.join(names)}")
    options.columns = [column for column in COLUMNS if column.name in chosen | {"bare"}]
    return options


def main() -> None:
    """Measure and print; what goes wrong is one line on stderr and exit 1. Whatever was started is stopped."""
    options = _options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="billhook-benchmark-")))
            needed = any(column.needs_services for column in options.columns)
            found = stack.enter_context(services()) if needed else None
            trials = []
            for column in options.columns:
                own = found if column.needs_services else None
                (place := folder / column.name).mkdir()
                server = stack.enter_context(column.serve(column.name, place, own))
                trials.append(Trial(column, server, place, own))
            measure(trials, options)
            report(trials, options, hardware(found, folder))
    except (ServiceError, ServerError) as error:
        sys.exit(f"benchmark: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
