from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.acceptance.stack import Stack
from tests.conftest import new_database


@pytest.fixture
def embedded_stack(tmp_path: Path) -> Iterator[Stack]:
    """A Billhook with nothing configured: SQLite and the embedded server."""
    stack = Stack(tmp_path, {})
    yield stack
    stack.stop()


@pytest.fixture
def server_stack(tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Stack]:
    """A Billhook on PostgreSQL and Redis."""
    prefix = f"billhook-acceptance-{tmp_path.name}:"
    with new_database(postgres_url) as database_url:
        stack = Stack(
            tmp_path,
            {
                "BILLHOOK_DATABASE_URL": database_url,
                "BILLHOOK_REDIS_URL": redis_url,
                "BILLHOOK_REDIS_PREFIX": prefix,
                "BILLHOOK_ENCRYPTION_KEYS": "G0jP2vqcdPz6m2nV7FvH1k9H0Xx0vVn3vUoS4yqcF2U=",
            },
        )
        assert stack.run("migrate").returncode == 0
        yield stack
        stack.stop()
    with Redis.from_url(redis_url) as redis:
        for key in redis.scan_iter(f"{prefix}*"):
            redis.delete(key)


@pytest.fixture(params=["embedded", "servers"])
def stack(request: pytest.FixtureRequest) -> Stack:
    """Each of the two in turn."""
    name = "embedded_stack" if request.param == "embedded" else "server_stack"
    chosen: Stack = request.getfixturevalue(name)
    return chosen
