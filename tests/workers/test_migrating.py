"""The schema of PostgreSQL changes under processes that are at work: none of them waits for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from tests.conftest import new_database
from workers import database, migrating
from workers.database import SCHEMA, migrate, revision
from workers.settings import Settings

WRITTEN = "events, handler_runs, messages, deliveries"
"""The tables that every delivery is written to, sooner or later."""
WAITING = "FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE datname = current_database() AND NOT granted"
AT_WORK = sorted(revision for revision in database.known() if revision > "0004")
"""The first four were made before processes went on over the schema of a newer version."""


@pytest.fixture
def engine(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A database at the newest revision; who changes its schema is patient for shorter than elsewhere."""
    monkeypatch.setattr(migrating, "LOCK_WAIT", 0.2)
    monkeypatch.setattr(migrating, "PAUSE", 0.2)
    with new_database(postgres_url) as url:
        connected = database.connect(Settings(database_url=url))
        migrate(connected)
        yield connected
        connected.dispose()


def back_to(engine: Engine, before: str) -> None:
    """The schema as it was before this revision."""
    to = max(revision for revision in database.known() if revision < before)
    database.alter(engine, lambda config: command.downgrade(config, to))


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes to every one of these tables, and fails where it has to wait for long."""
    with database.write(engine) as connection:
        connection.execute(text("SET LOCAL lock_timeout = 5000"))
        connection.execute(text(f"LOCK TABLE {WRITTEN} IN ROW EXCLUSIVE MODE"))
        yield connection


def waits(engine: Engine, migration: Future[Any]) -> bool:
    """Whether the migration waits for somebody, once it has come so far; False: it had to wait for nobody."""
    looking = text(f"SELECT count(*) {WAITING}")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with database.read(engine) as connection:
            if connection.execute(looking).scalar():
                return True
        if migration.done():
            return False
    raise AssertionError("it neither waits nor ends")


@pytest.mark.parametrize("to", AT_WORK)
def test_deliveries_are_stored_while_a_migration_waits(engine: Engine, to: str) -> None:
    back_to(engine, to)

    with ThreadPoolExecutor(1) as thread:
        with writing(engine):
            migration = thread.submit(database.alter, engine, lambda config: command.upgrade(config, to))
            waited = waits(engine, migration)
            with writing(engine):
                pass
            assert migration.done() is not waited
        migration.result(60)

    assert revision(engine) == to


def test_those_that_wait_are_the_ones_that_change_large_tables(engine: Engine) -> None:
    back_to(engine, "0005")

    with ThreadPoolExecutor(1) as thread:
        with writing(engine):
            migration = thread.submit(migrate, engine)
            assert waits(engine, migration)
        assert migration.result(60) == ("0004", SCHEMA)


def test_an_index_that_was_broken_off_is_made_again(engine: Engine) -> None:
    back_to(engine, "0007")
    broken = text("SELECT count(*) FROM pg_index WHERE NOT indisvalid")
    end = text(f"SELECT pg_terminate_backend(pid) {WAITING}")

    with ThreadPoolExecutor(1) as thread, writing(engine):
        migration = thread.submit(migrate, engine)
        assert waits(engine, migration)
        with database.read(engine) as connection:
            connection.execute(end)
        with pytest.raises(OperationalError):
            migration.result(60)
    with database.read(engine) as connection:
        assert connection.execute(broken).scalar() == 1
    assert migrate(engine) == ("0006", SCHEMA)

    with database.read(engine) as connection:
        assert connection.execute(broken).scalar() == 0


def test_a_limit_that_the_platform_set_for_requests_ends_no_migration(engine: Engine) -> None:
    back_to(engine, "0007")
    with database.write(engine) as connection:
        name = connection.execute(text("SELECT current_database()")).scalar()
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET statement_timeout = 500")
    engine.dispose()

    with ThreadPoolExecutor(1) as thread:
        with writing(engine):
            migration = thread.submit(migrate, engine)
            assert waits(engine, migration)
            with pytest.raises(TimeoutError):
                migration.result(1.0)
        assert migration.result(60) == ("0006", SCHEMA)


def test_two_at_once_wait_for_each_other_and_not_for_ever(engine: Engine) -> None:
    back_to(engine, "0007")

    with ThreadPoolExecutor(2) as threads:
        with writing(engine):
            first = threads.submit(migrate, engine)
            assert waits(engine, first)
            second = threads.submit(migrate, engine)
            with pytest.raises(TimeoutError):
                second.result(0.5)
        assert first.result(60) == ("0006", SCHEMA)
        assert second.result(60)[1] == SCHEMA
