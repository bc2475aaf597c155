"""Who says in Redis that it is there, and who has not for a while."""

from __future__ import annotations

import time

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from workers import presence
from workers.app import Runtime


def test_who_ends_is_not_taken_for_alive_any_more(runtime: Runtime) -> None:
    known_as = (runtime.redis, runtime.settings.redis_prefix)
    presence._said_at.clear()
    presence.announce(*known_as, "work")
    assert [one.name for one in presence.announced(*known_as)] == ["work"]

    presence.withdraw(*known_as, "work")

    assert presence.announced(*known_as) == []


def test_without_redis_nobody_is_told_and_nobody_waits() -> None:
    gone = Redis(port=1, retry=Retry(NoBackoff(), 0))
    presence._said_at.clear()
    started = time.monotonic()

    presence.announce(gone, "", "work")
    presence.withdraw(gone, "", "work")

    assert time.monotonic() - started < 5
