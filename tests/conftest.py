"""What tests stand on: both pairs of servers, a clean database, and settings for them.

A test that asks for `settings`, `engine` or `runtime` runs twice: on SQLite with the embedded server, and on
PostgreSQL with Redis. Nothing is skipped: without either pair the run fails.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from redis import Redis
from sqlalchemy import Engine

from tests import services
from workers import app, database, embedded
from workers.app import Runtime
from workers.models import Model
from workers.settings import Settings, Source

# How fast the machine is at this moment is no property of the code.
hypothesis_settings.register_profile("billhook", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("billhook")

# A run in the background inherits that Ctrl-C is ignored, and its processes would in turn.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Backend:
    """One pair of servers; `database_url` None stands for a SQLite file in the state folder."""

    name: str
    database_url: str | None
    redis_url: str
    sqlite_template: Path | None = None


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A test sees only the options it sets itself, and leaves no file behind."""
    for name in [name for name in os.environ if name.startswith(("BILLHOOK_", "OTEL_", "SENTRY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server; its URL without a database."""
    with services.postgres() as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis server over TCP."""
    with services.redis() as url:
        yield url


@pytest.fixture(scope="session")
def _embedded(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    folder = tmp_path_factory.mktemp("embedded")
    server = embedded.ensure(folder)
    settings = Settings(state_dir=folder)
    engine = database.connect(settings)
    database.migrate(engine)
    engine.dispose()
    return Backend("embedded", None, server.redis_url, folder / "billhook.db")


@pytest.fixture(scope="session")
def _servers(postgres_url: str, redis_url: str) -> Iterator[Backend]:
    with new_database(postgres_url) as url:
        engine = database.connect(Settings(database_url=url))
        database.migrate(engine)
        engine.dispose()
        yield Backend("servers", url, redis_url)


class new_database:
    """A PostgreSQL database of its own for the block; its URL."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._name = f"billhook_test_{uuid.uuid4().hex[:12]}"

    def __enter__(self) -> str:
        self._execute(f"CREATE DATABASE {self._name}")
        return f"{self._server}/{self._name}"

    def __exit__(self, *_: object) -> None:
        self._execute(f"DROP DATABASE {self._name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(f"{self._server}/postgres", autocommit=True) as connection:
            connection.execute(statement.encode())


@pytest.fixture(params=["embedded", "servers"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each of the two pairs in turn."""
    chosen: Backend = request.getfixturevalue(f"_{request.param}")
    return chosen


SECRET = "whsec_test_secret_key_123456"
LOOPBACK = ("127.0.0.0/8", "::1/128")


@pytest.fixture
def settings(backend: Backend, tmp_path: Path) -> Settings:
    """Settings for an empty, migrated database and Redis keys of the test's own."""
    if backend.sqlite_template is not None:
        (tmp_path / "state").mkdir(mode=0o700)
        shutil.copy(backend.sqlite_template, tmp_path / "state" / "billhook.db")
    return Settings(
        state_dir=tmp_path / "state",
        database_url=backend.database_url,
        redis_url=backend.redis_url,
        redis_prefix=f"billhook-test-{uuid.uuid4().hex[:12]}:",
        encryption_keys="nZ2VzT0m3Sl7H5m3kq7sVQ8n3mQ0o8r1m6Xo3yq5b3E=",
        sources={"shop": Source(provider="hisab", secrets=SECRET, api_key="hisab_test_key")},
        egress_networks=LOOPBACK,
        egress_ports=("*",),
    )


@pytest.fixture
def runtime(settings: Settings) -> Iterator[Runtime]:
    """This process started with `settings`: engine, Redis, Celery's configuration."""
    started = app.start(settings)
    # Celery keeps its connections by application; another test has other options.
    app.app.close()
    vars(app.app).pop("amqp", None)
    yield started
    for key in started.redis.scan_iter(f"{settings.redis_prefix}*", count=5_000):
        started.redis.delete(key)
    started.redis.close()
    if not settings.embedded_database:
        _empty(started.engine)
    started.engine.dispose()


_emptied = itertools.count(1)


def _empty(engine: Engine) -> None:
    """Clear all tables. To delete few rows takes a fiftieth of the time of TRUNCATE, but leaves them for VACUUM."""
    tables = [table.name for table in reversed(Model.metadata.sorted_tables)]
    with database.write(engine) as connection:
        if next(_emptied) % 50:
            connection.exec_driver_sql("; ".join(f"DELETE FROM {table}" for table in tables))  # noqa: S608 - our names
        else:
            connection.exec_driver_sql(f"TRUNCATE {', '.join(tables)} CASCADE")


@pytest.fixture
def engine(runtime: Runtime) -> Engine:
    """The engine of `runtime`."""
    return runtime.engine


@pytest.fixture
def redis(runtime: Runtime) -> Redis:
    """The Redis client of `runtime`."""
    return runtime.redis
