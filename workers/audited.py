"""What the last audit by the workers found, and when it ended: noted in Redis, because nobody of them lasts.

The beat reads it when it starts, so that being started anew puts off no audit, and tells it to Prometheus.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from redis import Redis, RedisError

from workers.metrics import REDIS_ERRORS


@dataclass(frozen=True, slots=True)
class Audited:
    """An audit that has ended: when, and how many rules it found broken."""

    at: datetime
    faults: int


def note(redis: Redis, prefix: str, audited: Audited) -> None:
    """Remember this audit as the last one. Without Redis it is as if there had been none, and counted."""
    try:
        redis.hset(_key(prefix), mapping={"at": audited.at.timestamp(), "faults": audited.faults})
    except RedisError:
        REDIS_ERRORS.labels("audit").inc()


def last(redis: Redis, prefix: str) -> Audited | None:
    """The last audit that is known of. Raises RedisError."""
    at, faults = redis.hmget(_key(prefix), ("at", "faults"))
    if at is None or faults is None:
        return None
    return Audited(datetime.fromtimestamp(float(at), UTC), int(faults))


def _key(prefix: str) -> str:
    return f"{prefix}audited"
