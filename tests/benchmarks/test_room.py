from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack

import psycopg
import pytest

from benchmarks.room import TABLES, Watch, family, sizes
from tests.conftest import new_database
from workers import database
from workers.settings import Settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")


def test_the_connections_and_the_memory_of_a_process_are_counted_and_the_most_is_kept(postgres_url: str) -> None:
    with new_database(postgres_url) as url:
        watch = Watch(url, {"mine": os.getpid()})
        with ExitStack() as stack:
            for name in ("billhook", "billhook", "psql"):
                stack.enter_context(psycopg.connect(url, application_name=name))
            watch.look()
        watch.look()

    assert watch.connections == {"mine": 2}
    assert watch.memory["mine"] > 10


def test_a_process_is_counted_with_those_it_has_started() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in family(os.getpid())
        child.communicate(b"\n")

    assert family(child.pid) == []


def test_the_size_of_each_table_and_of_its_indexes_is_told(postgres_url: str) -> None:
    with new_database(postgres_url) as url:
        engine = database.connect(Settings(database_url=url))
        database.migrate(engine)
        engine.dispose()
        with psycopg.connect(url) as connection:
            found = sizes(connection)

    assert tuple(found) == TABLES
    assert all(indexes >= 8192 for _, indexes in found.values()), "each index has a page when it is empty"
