"""What planning invoices costs when many are due, and when none is: as ratios, measured side by side in the same run.

    python -m benchmarks.schedule                                       everything, about three minutes
    python -m benchmarks.schedule --schedules 20000 --due 200           a look; its figures mean little

Four questions: how long one worker takes to plan all that is due at once, of many schedules and of few; how far that is
ahead of planning one by one; what a tick costs that finds nothing, with many schedules and with few; and what it costs
to take an occurrence, and to look for where any waits, when many do. No provider is called.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import date, datetime, timedelta
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median

from redis import Redis

from benchmarks.contracts import SOURCES, Store, Stores, noon, one_by_one, store
from benchmarks.machine import hardware
from benchmarks.measured import Measured, seconds_of
from benchmarks.servers import ServerError
from benchmarks.services import ServiceError
from workers.clients import Clients
from workers.schedule import generate
from workers.schedule.generator import Generator
from workers.schedule.tick import tick

FEW = 1_000
"""Schedules in the store that many are compared with where the work is the same; a tenth of them is due."""
IDLE = 200
"""Ticks of each store in a round that find nothing."""
CLAIMS = 60
"""Occurrences taken from each store in a round, and looks for where any waits."""
_FIRST_DAY = date(2030, 6, 1)


def planning(measured: Measured, stores: Stores, now: datetime) -> tuple[float, float]:
    """Note how long planning takes: of few, of many, one by one. CPU seconds for each, ours and PostgreSQL's."""
    count, alone = stores.due.due, stores.many.due - stores.due.due
    single = seconds_of(lambda: one_by_one(stores.many.engine, now, alone)) / alone
    names = [f"tick, {count:,} due of {found.stored:,}" for found in (stores.due, stores.many)]
    for name, found in zip(names, (stores.due, stores.many), strict=True):
        served, used, began = found.cpu(), time.process_time(), time.perf_counter()
        planned = len(tick(found.engine, now=now))
        measured.note(name, time.perf_counter() - began, names[0])
        used, served = time.process_time() - used, found.cpu() - served
        if planned != count:
            raise ServerError(f"{name}: {planned:,} were planned")
    measured.note(f"one by one, {count:,} due of {stores.many.stored:,}", single * count, names[1])
    return used / count, served / count


def idling(measured: Measured, stores: Stores, now: datetime) -> None:
    """Note what a tick costs that finds nothing, behind one that found all that was due."""
    tick(stores.few.engine, now=now)
    both = (stores.few, stores.many)
    measured.in_turn(IDLE, {f"idle tick, {found.stored:,} stored": partial(_idle, found, now) for found in both})


def _idle(found: Store, now: datetime) -> None:
    if tick(found.engine, now=now):
        raise ServerError("a tick that should be idle found something")


def taking(measured: Measured, stores: Stores, now: datetime) -> None:
    """Note what it costs to take an occurrence, and to look for the sources where any waits."""
    claims, looks = {}, {}
    for found, waiting in ((stores.few, stores.few.due), (stores.many, stores.due.due)):
        found.settle()
        generator = Generator(
            engine=found.engine,
            settings=found.settings,
            clients=Clients(found.settings),
            redis=Redis.from_url(found.services.redis_url),
            clock=lambda: now,
        )
        claims[f"taking one of {waiting:,}"] = partial(_take, generator, cycle(SOURCES))
        looks[f"looking where any of {waiting:,} waits"] = partial(generate.waiting_at, found.engine, now)
    measured.in_turn(min(CLAIMS, stores.few.due // 2), claims)
    measured.in_turn(CLAIMS, looks)


def _take(generator: Generator, sources: cycle[str]) -> None:
    if generate._take(generator, next(sources)).row is None:
        raise ServerError("nothing was there to be taken")


def run(options: argparse.Namespace, folder: Path) -> None:
    """Measure and print."""
    count, alone, few = options.due, options.due // 10, min(FEW, options.schedules // 2)
    with ExitStack() as stack:
        stores = Stores(
            many=stack.enter_context(store("many", folder, options.schedules, count + alone)),
            due=stack.enter_context(store("due", folder, count, count)),
            few=stack.enter_context(store("few", folder, few, min(count // 2, few // 10))),
        )
        print(hardware(stores.many.services, folder))
        measured, used = Measured(), []
        for number in range(options.rounds):
            # Another day each time: what was computed in the round before is of no use.
            day = _FIRST_DAY + timedelta(days=number % 28)
            filled = sum(seconds_of(partial(found.fill, day)) for found in stores.all())
            used.append(planning(measured, stores, noon(day)))
            idling(measured, stores, noon(day))
            taking(measured, stores, noon(day))
            print(f"round {number + 1}, filled in {filled:.0f} s: {measured.last()}", file=sys.stderr)
        measured.report()
        ours, theirs = (median(each) * 1e6 for each in zip(*used, strict=True))
        print(f"\nCPU for one schedule that is due: {ours:,.0f} µs of the worker and {theirs:,.0f} µs of PostgreSQL")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schedule", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--schedules", type=int, default=1_000_000, help="that are stored")
    parser.add_argument("--due", type=int, default=10_000, help="of these at the same time; a tenth more, one by one")
    options = parser.parse_args()
    if options.rounds < 1 or options.due < 20 or options.schedules < 2 * options.due:
        parser.error("at least one round, at least 20 due, and twice as many schedules as are due")
    return options


def main() -> None:
    """Measure and print; what goes wrong is one line on stderr and exit 1. The databases are dropped."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="billhook-benchmark-") as folder:
            run(options, Path(folder))
    except (ServiceError, ServerError) as error:
        sys.exit(f"benchmark: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"took {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
