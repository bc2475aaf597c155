from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")

ROOT = Path(benchmarks.__file__).parents[1]


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BILLHOOK_")}
    command = [sys.executable, "-m", "benchmarks.receive", *arguments]
    environment |= {"TMPDIR": str(folder), **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_quick_look_prints_ratios_and_leaves_nothing_behind(tmp_path: Path) -> None:
    look = run(tmp_path, "--quick", "--only", "sqlite")

    assert look.returncode == 0, look.stderr
    ratios = dict(re.findall(r"^(\w.*?) {2,}[\d,]+ +(\d\.\d{3}) ", look.stdout, re.MULTILINE))
    assert list(ratios) == ["bare Starlette route", "billhook, SQLite + embedded"]
    assert float(ratios["bare Starlette route"]) == 1
    assert float(ratios["billhook, SQLite + embedded"]) > 0
    accepted, stored = re.search(r"after ([\d,]+) deliveries .* ([\d,]+) stored", look.stdout).groups()  # type: ignore[union-attr]
    assert accepted == stored
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_does_not_answer_is_said_in_one_line(tmp_path: Path) -> None:
    look = run(tmp_path, "--only", "ours", BILLHOOK_DATABASE_URL="postgresql://postgres@127.0.0.1:1/postgres")

    assert look.returncode == 1
    assert re.fullmatch(r"benchmark: (PostgreSQL|Redis): .*--only sqlite\n", look.stderr), look.stderr
