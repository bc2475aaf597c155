"""The PostgreSQL and Redis that are measured with: a database and a prefix of our own, removed in the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from redis import Redis, RedisError
from sqlalchemy import make_url

DATABASE_URL = "postgresql://postgres@127.0.0.1:5432/postgres"
REDIS_URL = "redis://127.0.0.1:6379/0"
_NAME = f"billhook_benchmark_{os.getpid()}"
_TOGETHER = 5_000


class ServiceError(Exception):
    """A server is not there, or does not let us; the message is one line with what to do."""


@dataclass(frozen=True, slots=True)
class Services:
    """Where both are; the URLs may hold passwords."""

    database_url: str
    redis_url: str
    prefix: str
    versions: str


@contextmanager
def services(name: str = "") -> Iterator[Services]:
    """A fresh database and an unused prefix, gone at the end of the block; a `name` for each of several.

    Raises ServiceError.
    """
    url = os.environ.get("BILLHOOK_DATABASE_URL", DATABASE_URL).replace("postgresql+psycopg://", "postgresql://", 1)
    redis_url = os.environ.get("BILLHOOK_REDIS_URL", REDIS_URL)
    if not url.startswith("postgresql://"):
        raise ServiceError("BILLHOOK_DATABASE_URL: not a postgresql:// URL; --only sqlite measures without one")
    database = f"{_NAME}_{name}" if name else _NAME
    prefix = f"{database}:"
    try:
        redis = Redis.from_url(redis_url, socket_connect_timeout=5)
        redis_version = redis.info("server")["redis_version"]
    except (RedisError, OSError, ValueError) as error:
        raise ServiceError(f"Redis: {_line(error)}; see BILLHOOK_REDIS_URL, or use --only sqlite") from None
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
            postgres_version = _postgres_version(connection)
            connection.execute(f"CREATE DATABASE {database}")
    except psycopg.Error as error:
        raise ServiceError(f"PostgreSQL: {_line(error)}; see BILLHOOK_DATABASE_URL, or use --only sqlite") from None
    try:
        own = make_url(url).set(database=database).render_as_string(hide_password=False)
        yield Services(own, redis_url, prefix, f"{postgres_version}; Redis {redis_version}")
    finally:
        clear(redis, prefix)
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")


def clear(redis: Redis, prefix: str) -> None:
    """Delete every key that starts with the prefix."""
    found: list[bytes] = []
    for key in redis.scan_iter(match=f"{prefix}*", count=_TOGETHER):
        found.append(key)
        if len(found) == _TOGETHER:
            redis.unlink(*found)
            found.clear()
    if found:
        redis.unlink(*found)


def empty_queues(services: Services) -> None:
    """Throw away what was enqueued: nobody consumes it, and Redis keeps it in memory."""
    with Redis.from_url(services.redis_url) as redis:
        redis.unlink(f"{services.prefix}events", f"{services.prefix}celery")


def _postgres_version(connection: psycopg.Connection[tuple[str]]) -> str:
    def shown(name: str) -> str:
        row = connection.execute(f"SHOW {name}").fetchone()
        return row[0] if row else "?"

    version = shown("server_version").split()[0]
    return f"PostgreSQL {version}, fsync {shown('fsync')}, synchronous_commit {shown('synchronous_commit')}"


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
