"""How many calls of the management API each key may make in a minute, over all receivers.

Redis: `{prefix}calls:{key id}:{minute}` counts them and ends with its minute. Without Redis every call is allowed: the
limit keeps a script from crowding out the others, and guards nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from redis import Redis, RedisError

from workers.metrics import REDIS_ERRORS

_WINDOW = 60


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a minute's calls; `reset` is when the next begins (Unix seconds)."""

    limit: int
    remaining: int
    reset: int
    allowed: bool = True


def count(redis: Redis, prefix: str, caller: str, limit: int, now: float) -> Allowance:
    """Count one call at `now` (Unix seconds)."""
    minute = int(now // _WINDOW)
    reset = (minute + 1) * _WINDOW
    key = f"{prefix}calls:{caller}:{minute}"
    try:
        pipeline = redis.pipeline(transaction=False)
        pipeline.incr(key)
        pipeline.expire(key, 2 * _WINDOW)
        made = int(pipeline.execute()[0])
    except RedisError:
        REDIS_ERRORS.labels("calls").inc()
        return Allowance(limit, limit, reset)
    return Allowance(limit, max(0, limit - made), reset, made <= limit)
