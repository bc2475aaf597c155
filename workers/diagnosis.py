"""What the database and Redis are asked to find out how they are. Nothing is changed by it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis
from redis.sentinel import SentinelConnectionPool
from sqlalchemy import Engine, event, text

from workers import broker, database
from workers.app import QUEUES
from workers.redis_url import Servers
from workers.settings import Settings


@dataclass(frozen=True, slots=True)
class Server:
    """A server that has answered."""

    product: str
    """Its name and version."""
    latency: float
    """Seconds that a question and its answer took, on a connection that was there."""
    ahead: float | None
    """Seconds that its clock is ahead of ours beyond all doubt, negative behind; None where it has ours."""
    unsafe_policy: str = ""
    """Of Redis: what it does when its memory is full, where that is to throw keys away."""
    full_at: int = 0
    """Of Redis: the bytes at which it is full; 0: never."""
    writable: bool = True
    """Of Redis: whether it is no replica."""


def connect(settings: Settings, within: float) -> Engine:
    """An engine for questions: PostgreSQL gives up what takes longer than `within` seconds."""
    engine = database.connect(settings)
    if engine.dialect.name == "postgresql":

        @event.listens_for(engine, "connect")
        def limit(connection: Any, _record: object) -> None:
            connection.execute(f"SET statement_timeout = {round(within * 1000)}")
            connection.commit()

    return engine


def of_database(engine: Engine, now: Callable[[], float] = time.time) -> Server:
    """Raises OperationalError where it does not answer."""
    with database.read(engine) as connection:
        if connection.dialect.name != "postgresql":
            began = time.perf_counter()
            version = connection.execute(text("SELECT sqlite_version()")).scalar_one()
            return Server(f"SQLite {version}", time.perf_counter() - began, None)
        version = str(connection.execute(text("SHOW server_version")).scalar_one())
        asked = text("SELECT extract(epoch FROM clock_timestamp())")
        before, began = now(), time.perf_counter()
        theirs = float(connection.execute(asked).scalar_one())
        latency = time.perf_counter() - began
        return Server(f"PostgreSQL {version.split()[0]}", latency, _ahead(theirs, before, latency))


def of_redis(redis: Redis, now: Callable[[], float] = time.time) -> Server:
    """Raises RedisError where it does not answer."""
    redis.ping()
    before, began = now(), time.perf_counter()
    seconds, microseconds = redis.time()
    latency = time.perf_counter() - began
    found = {name: value for part in ("server", "memory", "replication") for name, value in _info(redis, part).items()}
    policy = str(found.get("maxmemory_policy", "noeviction"))
    product = "Valkey" if "valkey_version" in found else "Redis"
    return Server(
        f"{product} {found.get('valkey_version') or found.get('redis_version', '')}".strip(),
        latency,
        _ahead(seconds + microseconds / 1e6, before, latency),
        unsafe_policy="" if policy == "noeviction" else policy,
        full_at=int(found.get("maxmemory", 0)),
        writable=found.get("role", "master") == "master",
    )


def master(redis: Redis) -> str:
    """Where sentinels say that the master is. Raises RedisError."""
    host, port = cast("SentinelConnectionPool", redis.connection_pool).get_master_address()  # type: ignore[no-untyped-call]
    return f"{host}:{port}"


def silent_sentinels(servers: Servers, within: float) -> list[str]:
    """Those of the sentinels that do not answer."""
    asked = zip(servers.hosts, broker.sentinels(servers, within), strict=True)
    return [f"{host}:{port}" for (host, port), answers in asked if not answers]


def queue_lengths(redis: Redis, settings: Settings) -> dict[str, int]:
    """Messages in each of Celery's queues. Raises RedisError."""
    return {queue: int(redis.llen(settings.redis_prefix + queue)) for queue in QUEUES}


def _ahead(theirs: float, before: float, latency: float) -> float:
    """What no delay can explain of the difference: they looked at some moment between question and answer."""
    if theirs < before:
        return theirs - before
    return max(0.0, theirs - (before + latency))


def _info(redis: Redis, section: str) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", redis.info(section))
