from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

import benchmarks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")

ROOT = Path(benchmarks.__file__).parents[1]


def test_a_look_asks_each_list_and_leaves_no_database_behind(
    monkeypatch: pytest.MonkeyPatch, postgres_url: str, redis_url: str
) -> None:
    monkeypatch.setenv("BILLHOOK_DATABASE_URL", f"{postgres_url}/postgres")
    monkeypatch.setenv("BILLHOOK_REDIS_URL", redis_url)
    command = [sys.executable, "-m", "benchmarks.browse", "--rounds", "2", "--events", "400", "--days", "0.5"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as look:
        output, complaint = look.communicate(timeout=120)

    assert look.returncode == 0, complaint
    asked = re.findall(r"^(/[a-z1/-]+)\S* +[\d.]+ +[\d.]+", output, re.MULTILINE)
    lists = {"/events", "/runs", "/handlers", "/sources", "/audit-log", "/stats/now", "/stats/events"}
    pages = {"/console/", "/console/events/list", "/console/runs/list", "/console/deliveries/list"}
    assert {f"/api/v1{path}" for path in lists} | pages <= set(asked)
    with psycopg.connect(f"{postgres_url}/postgres") as connection:
        name = f"billhook_benchmark_{look.pid}"
        assert connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None
