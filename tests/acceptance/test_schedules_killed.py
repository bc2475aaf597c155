"""Years of recurring invoices, month by month, while workers and beat are killed and the provider fails."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, or_, select

from tests.acceptance.fakes import FAKES, Fake
from tests.acceptance.stack import SECRET, Stack, await_
from tests.services import free_port
from workers import database
from workers.models import EventRow, Occurrence, Schedule
from workers.schedule import rhythm
from workers.schedule.plans import Plan
from workers.schedule.schedules import add
from workers.settings import Settings

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
BEGINNING = date(2026, 1, 1)
SCHEDULES = int(os.environ.get("TEST_SCHEDULES", "30"))
MONTHS = int(os.environ.get("TEST_MONTHS", "4"))
FAULTS = float(os.environ.get("TEST_FAULTS", "0.03"))
"""How often a call fails; so often does one fail after it was done. A fifth as often it is over the limit."""
STROKE = float(os.environ.get("TEST_STROKE", "1"))
"""Seconds from one death to the next."""
WORKERS = ("work", "work-2")
FREQUENCIES = ("monthly",) * 7 + ("quarterly", "biweekly", "yearly")
STANDSTILL = 120.0


@dataclass
class Years:
    """A Billhook and a provider's sandbox that go by the same clock, which is set forward month by month."""

    stack: Stack
    fake: Fake
    chance: random.Random = field(default_factory=lambda: random.Random(SCHEDULES * MONTHS))  # noqa: S311 - a dice
    killed: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def set_clock(self, to: datetime) -> None:
        """Set both clocks forward; nothing may be under way."""
        self.fake.post("/clock", to=to.isoformat())
        ahead = self.stack.folder / "ahead.new"
        ahead.write_text(str((to - datetime.now(UTC)).total_seconds()))
        ahead.rename(self.stack.folder / "ahead")

    def strike(self) -> None:
        """Kill a process of a worker's pool, or a whole worker, or the beat; the last two are started again."""
        what = self.chance.choice(("process", "process", "worker", "beat"))
        self.killed[what] += 1
        if what == "process":
            children = self.stack.children(self.chance.choice(WORKERS))
            with suppress(ProcessLookupError, IndexError):
                os.kill(self.chance.choice(children), signal.SIGKILL)
            return
        name = "beat" if what == "beat" else self.chance.choice(WORKERS)
        self.stack.kill(name)
        self.stack.start(name)

    def left(self, now: datetime) -> int:
        """How much of what is due by then is not done."""
        open_ones = Occurrence.status.in_(("waiting", "running"))
        with database.read(self.stack.engine) as connection:
            due = connection.execute(select(func.count()).where(Schedule.next_run_at <= now)).scalar_one()
            return due + connection.execute(select(func.count()).where(open_ones)).scalar_one()


@contextmanager
def provider(name: str) -> Iterator[Fake]:
    """Its sandbox, as a process."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.acceptance.fakes", name, str(port), BEGINNING.isoformat()], cwd=ROOT
    )

    def answers() -> bool:
        assert process.poll() is None
        with suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{port}/sandbox", trust_env=False).is_success
        return False

    try:
        await_(answers, "the sandbox answers")
        yield FAKES[name](port)
    finally:
        process.terminate()
        process.wait(20)


SIZES = {"hisab": SCHEDULES, "hibr": max(10, SCHEDULES // 5), "hesabe": max(10, SCHEDULES // 5)}


@pytest.mark.parametrize("name", list(SIZES))
def test_every_due_date_has_exactly_one_invoice_whoever_is_killed_meanwhile(name: str, server_stack: Stack) -> None:
    with provider(name) as fake:
        years = given(server_stack, fake, SIZES[name])
        for kind, rate in (("error", FAULTS), ("error_after", FAULTS), ("too_many", FAULTS / 5)):
            fake.post("/faults", kind=kind, times=None, rate=rate, seed=7)
        server_stack.start("beat", *WORKERS)

        # When month after month comes, while processes are killed
        began = time.monotonic()
        for month in range(1, MONTHS + 1):
            now = datetime(BEGINNING.year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
            years.set_clock(now)
            live(years, now)
            log.info("%s %s: %d s", name, now.date(), time.monotonic() - began)

        httpx.delete(f"{fake.url}/sandbox/faults", trust_env=False)
        check(years, now, f"{time.monotonic() - began:.0f} s")


def given(stack: Stack, fake: Fake, count: int) -> Years:
    """Schedules of every kind, whose first due dates are in the first month."""
    years = Years(stack, fake)
    stack.module = "tests.acceptance.clocked"
    source = {"secrets": [SECRET], "calls_a_minute": 1_000_000, **fake.source}
    stack.environment |= {
        "BILLHOOK_SOURCES": json.dumps({"shop": source}),
        "BILLHOOK_SCHEDULE_INTERVAL": "0.3",
        "BILLHOOK_HANDLERS": "",
        "BILLHOOK_MAX_STARTS": "50",
        "PYTHONPATH": str(ROOT),
        "TEST_AHEAD": str(stack.folder / "ahead"),
        "TMPDIR": str(stack.folder),
    }
    # The sandbox's clock began at midnight, and has gone on since; it cannot be set back.
    start = datetime.combine(BEGINNING, datetime.min.time(), UTC) + timedelta(minutes=5)
    years.set_clock(start)
    settings = Settings(sources={"shop": source})
    customers = fake.customers(20)
    for number in range(count):
        fields: dict[str, Any] = {
            "source": "shop",
            "frequency": FREQUENCIES[number % len(FREQUENCIES)],
            "start_date": BEGINNING + timedelta(days=1 + number * 7 % 30),
            "items": [{"description": f"Service {number}", "quantity": "1", "unit_price": f"{1000 + number}.00"}],
            "auto_finalize": True,
            "auto_send": True,
            **customers[number % len(customers)],
        }
        add(stack.engine, settings, Plan(**fields), actor="tester", now=start)
    return years


def live(years: Years, now: datetime) -> None:
    """Until all that is due is done; again and again a process is killed."""
    least, moved = 10**9, time.monotonic()
    struck = moved
    while (left := years.left(now)) > 0:
        if left < least:
            least, moved = left, time.monotonic()
        assert time.monotonic() - moved < STANDSTILL, f"nothing moves any more: {left} are left"
        assert [name for name, process in years.stack.processes.items() if process.poll() is not None] == []
        time.sleep(min(STROKE, 1))
        if left > 2 and time.monotonic() - struck > STROKE:  # who is alone may finish
            struck = time.monotonic()
            years.strike()


def check(years: Years, now: datetime, took: str) -> None:
    """Every due date has exactly one invoice, sent, in their order, under numbers without a gap; the audit balances."""
    stack = years.stack
    reported = or_(EventRow.status == "ignored", EventRow.status == "processed")
    with database.read(stack.engine) as connection:
        schedules = connection.execute(select(*Schedule.__table__.columns)).all()
        occurrences = connection.execute(select(*Occurrence.__table__.columns)).all()
        starts = sum(row.starts for row in occurrences)
    expected = {(row.id, due_on) for row in schedules for due_on in due_dates(row, now)}
    made = years.fake.made()
    log.info(
        "%s: %d schedules, %d invoices in %s; killed: %s; starts again: %d",
        type(years.fake).__name__, len(schedules), len(made), took, dict(years.killed), starts - len(occurrences),
    )  # fmt: skip

    assert {(row.schedule_id, row.due_on) for row in occurrences} == expected
    assert {row.status for row in occurrences} == {"generated"}
    by_id = {row.id: row for row in occurrences}
    assert sorted(one.occurrence_id for one in made) == sorted(by_id)
    assert all(one.sent for one in made)
    assert all(one.issue_date in {None, by_id[one.occurrence_id].due_on} for one in made)
    numbers = sorted(int(one.number) for one in made)
    assert numbers == list(range(numbers[0], numbers[0] + len(made)))
    in_order(made, by_id)
    await_(lambda: count(stack, reported) == len(made), "every event is dealt with")
    assert stack.balance().holds, stack.balance()


def due_dates(row: Any, now: datetime) -> list[date]:
    """The due dates of a schedule up to then, by its rule alone."""
    found = []
    index = 0
    while (due_on := rhythm.due(row, index)) is not None and rhythm.start_of_day(due_on, row.timezone) <= now:
        found.append(due_on)
        index += 1
    return found


def in_order(made: list[Any], by_id: dict[str, Any]) -> None:
    """The numbers of a schedule follow its due dates."""
    of_schedule = defaultdict(list)
    for one in made:
        if one.issue_date is not None:
            of_schedule[by_id[one.occurrence_id].schedule_id].append((one.issue_date, int(one.number)))
    for pairs in of_schedule.values():
        assert all(before[1] < after[1] for before, after in pairwise(sorted(pairs)))


def count(stack: Stack, condition: Any) -> int:
    with database.read(stack.engine) as connection:
        return connection.execute(select(func.count()).select_from(EventRow).where(condition)).scalar_one()
