"""Schedules to be measured with, written past what adds them, for speed; and the design that everybody writes first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from math import nan
from pathlib import Path

from sqlalchemy import Engine, insert, select, text, update

from benchmarks.servers import cpu_of_family
from benchmarks.services import Services, services
from workers import database
from workers.models import Occurrence, Schedule
from workers.schedule import rhythm
from workers.schedule.tick import occurrence
from workers.settings import Settings

SOURCES = ("casablanca", "dubai", "kuwait")
# What is due lies scattered among the others, in equal parts at each source; a hash of the number decides all else, so
# that nothing goes together. No day is beyond the 28th: from there months lead back to a start and forth again.
_SCHEDULES = """
INSERT INTO schedules (id, source, name, customer_id, frequency, interval_count, day_of_month, day_of_week, start_date,
                       max_occurrences, timezone, auto_finalize, auto_send, days_until_due, currency, items, status,
                       next_index, next_run_at, planned, created_at)
SELECT 'sch_00' || lpad(n::text, 24, '0'), source, 'Contract ' || n, 'cus_' || n, frequency, every,
       CASE WHEN named AND months > 0 THEN extract(day FROM first) END,
       CASE WHEN named AND months = 0 THEN extract(dow FROM first) END,
       first - CASE WHEN named THEN hash / 17 % 5 ELSE 0 END,
       CASE hash / 19 % 25 WHEN 0 THEN past + 1 WHEN 1 THEN past + 12 END,
       zone, hash % 2 = 0, false, 30, 'KWD',
       '[{"description": "Rent", "quantity": "1", "unit_price": "100.000"}]', 'active',
       past, due_on::timestamp AT TIME ZONE zone, past, first
FROM (SELECT *, (due_on - past * every * make_interval(months => months, days => days))::date AS first
      FROM (SELECT n, hash, hash / 3 % 12 AS past, hash / 5 % 3 + 1 AS every, hash / 7 % 2 = 0 AS named,
                   hash / 11 % 6 AS f, n / :apart % 3 AS z,
                   CASE WHEN n % :apart = 0 AND n / :apart < :due THEN CAST(:day AS date)
                        ELSE (CAST(:next_month AS date) + make_interval(months => n % 12, days => n / 12 % 28))::date
                   END AS due_on
            FROM (SELECT n, hashint4(n) & 2147483647 AS hash FROM generate_series(0, :last) AS n) AS numbered) AS drawn
      JOIN (VALUES (0, 'weekly', 0, 7), (1, 'biweekly', 0, 14), (2, 'monthly', 1, 0), (3, 'quarterly', 3, 0),
                   (4, 'biannually', 6, 0), (5, 'yearly', 12, 0)) AS rhythms (f, frequency, months, days) USING (f)
      JOIN (VALUES (0, 'casablanca', 'Africa/Casablanca'), (1, 'dubai', 'Asia/Dubai'),
                   (2, 'kuwait', 'Asia/Kuwait')) AS zones (z, source, zone) USING (z)) AS contracts
ORDER BY n
"""


@dataclass(frozen=True, slots=True)
class Store:
    """A database with so many schedules, of which so many are due."""

    engine: Engine
    services: Services
    settings: Settings
    stored: int
    due: int

    def fill(self, day: date) -> None:
        """Have it hold its schedules, some due on that day and the others later, and no occurrence."""
        written = {
            "apart": self.stored // self.due,
            "due": self.due,
            "day": day,
            "next_month": (day.replace(day=1) + timedelta(days=31)).replace(day=1),
            "last": self.stored - 1,
        }
        with database.write(self.engine) as connection:
            connection.execute(text("TRUNCATE schedules, occurrences"))
            connection.execute(text(_SCHEDULES), written)
        self._run("VACUUM ANALYZE schedules")
        self.settle()

    def settle(self) -> None:
        """What autovacuum does within a minute, here at a time of our own."""
        self._run("VACUUM ANALYZE occurrences")

    def cpu(self) -> float:
        """CPU seconds of the process that serves us in PostgreSQL; not a number where that is on another machine."""
        with self.engine.connect() as connection:
            pid = int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
        return cpu_of_family(pid) if Path(f"/proc/{pid}").exists() else nan

    def _run(self, statement: str) -> None:
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(statement))


@dataclass(frozen=True, slots=True)
class Stores:
    """Many schedules, of which some are due; as many as those, all due; and a few."""

    many: Store
    due: Store
    few: Store

    def all(self) -> tuple[Store, ...]:
        return self.many, self.due, self.few


@contextmanager
def store(name: str, folder: Path, stored: int, due: int) -> Iterator[Store]:
    """An empty store in a database of its own, which is dropped in the end. Raises ServiceError."""
    with services(name) as found:
        settings = Settings(
            state_dir=folder, database_url=found.database_url, redis_url=found.redis_url, redis_prefix=found.prefix
        )
        engine = database.connect(settings)
        try:
            database.migrate(engine)
            yield Store(engine, found, settings, stored, due)
        finally:
            engine.dispose()


def noon(day: date) -> datetime:
    """A moment at which that day has begun at every source."""
    return datetime.combine(day, time(12), UTC)


def one_by_one(engine: Engine, now: datetime, count: int) -> int:
    """Plan the next occurrence of so many due schedules, each in a transaction of its own; how many."""
    with database.read(engine) as connection:
        waiting = select(Schedule.id).where(Schedule.next_run_at <= now, Schedule.status == "active")
        found = connection.execute(waiting.order_by(Schedule.next_run_at).limit(count)).scalars().all()
    for schedule_id in found:
        with database.write(engine) as connection:
            mine = Schedule.id == schedule_id
            row = connection.execute(select(*Schedule.__table__.columns).where(mine).with_for_update()).one()
            due_on, following = rhythm.due(row, row.next_index), rhythm.due(row, row.next_index + 1)
            assert due_on is not None
            connection.execute(insert(Occurrence).values(occurrence(row, due_on, now)))
            change = {
                "next_index": row.next_index + 1,
                "next_run_at": None if following is None else rhythm.start_of_day(following, row.timezone),
                "status": "completed" if following is None else "active",
                "ended_at": now if following is None else None,
                "planned": row.planned + 1,
            }
            connection.execute(update(Schedule).where(mine).values(change))
    return len(found)
