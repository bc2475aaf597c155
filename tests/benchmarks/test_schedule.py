from __future__ import annotations

import re
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import func, select

import benchmarks
from benchmarks.contracts import SOURCES, Store, noon, one_by_one, store
from benchmarks.measured import Measured
from workers import database
from workers.models import AnyRow, Occurrence, Schedule
from workers.schedule import rhythm
from workers.schedule.tick import tick

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")

ROOT = Path(benchmarks.__file__).parents[1]
DAY = date(2030, 6, 1)


@pytest.fixture(autouse=True)
def _servers(monkeypatch: pytest.MonkeyPatch, postgres_url: str, redis_url: str) -> None:
    monkeypatch.setenv("BILLHOOK_DATABASE_URL", f"{postgres_url}/postgres")
    monkeypatch.setenv("BILLHOOK_REDIS_URL", redis_url)


def schedules(found: Store) -> list[AnyRow]:
    with database.read(found.engine) as connection:
        return list(connection.execute(select(*Schedule.__table__.columns).order_by(Schedule.id)))


def test_a_look_compares_each_kind_of_work_and_leaves_no_database_behind(postgres_url: str) -> None:
    command = [sys.executable, "-m", "benchmarks.schedule", "--rounds", "1", "--schedules", "200", "--due", "20"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as look:
        output, complaint = look.communicate(timeout=120)

    assert look.returncode == 0, complaint
    rows = re.findall(r"^(\w.*?) {2,}[\d,.]+ +[\d,.]+(?: +\d.*\) of (.*))?$", output, re.MULTILINE)
    assert dict(rows) == {
        "tick, 20 due of 20": "",
        "tick, 20 due of 200": "tick, 20 due of 20",
        "one by one, 20 due of 200": "tick, 20 due of 200",
        "idle tick, 100 stored": "",
        "idle tick, 200 stored": "idle tick, 100 stored",
        "taking one of 10": "",
        "taking one of 20": "taking one of 10",
        "looking where any of 10 waits": "",
        "looking where any of 20 waits": "looking where any of 10 waits",
    }
    with psycopg.connect(f"{postgres_url}/postgres") as connection:
        name = f"billhook_benchmark_{look.pid}_many"
        assert connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None


def test_the_schedules_are_such_as_billhook_itself_stores(tmp_path: Path) -> None:
    with store("test", tmp_path, 600, 60) as found:
        found.fill(DAY)
        rows = schedules(found)

        for row in rows:
            due_on = rhythm.due(row, row.next_index)
            assert due_on is not None
            assert row.next_run_at == rhythm.start_of_day(due_on, row.timezone)
        due = [row for row in rows if row.next_run_at <= noon(DAY)]
        assert len(due) == 60
        assert {row.source for row in due} == set(SOURCES)
        assert len({(row.frequency, row.interval_count) for row in due}) > 10
        assert not [row for row in rows if row.next_run_at <= noon(DAY - timedelta(days=1))]


def test_one_by_one_leaves_what_a_tick_leaves(tmp_path: Path) -> None:
    states = []
    for how in (one_by_one, lambda engine, now, _count: len(tick(engine, now=now))):
        with store("test", tmp_path, 200, 20) as found:
            found.fill(DAY)

            assert how(found.engine, noon(DAY), 20) == 20

            with database.read(found.engine) as connection:
                assert connection.execute(select(func.count()).select_from(Occurrence)).scalar_one() == 20
            states.append(schedules(found))
    assert states[0] == states[1]


def test_a_ratio_is_that_to_the_base_in_the_same_round(capsys: pytest.CaptureFixture[str]) -> None:
    measured = Measured()
    for base, other in ((0.1, 0.2), (0.2, 0.2), (0.4, 2.0)):
        measured.note("few", base, "few")
        measured.note("many", other, "few")

    measured.report()

    lines = {line[:44].strip(): line[44:].split() for line in capsys.readouterr().out.splitlines()}
    assert lines["few"] == ["200.00", "100.00"]
    assert lines["many"] == ["200.00", "200.00", "2.00", "(1.00-5.00)", "of", "few"]
