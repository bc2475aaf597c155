"""The budget of an API key: how many calls a minute all workers together make with it, counted in Redis.

A bucket of tokens that holds a tenth of the limit and gets nine tenths of it each minute (a small limit: that holds the
calls of one invoice): so no minute, wherever it begins, has more calls than the limit. What the API itself says of its
limit is believed: how much it grants, how much of that is left (others may use the key too), and how long it wants to
be left alone. Without Redis nothing is counted, and the API's own refusals are what is left.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import cast

from redis import Redis, RedisError

from handlers.providers import PROVIDERS
from workers.metrics import REDIS_ERRORS
from workers.settings import Settings

_KEPT = 24 * 3600 * 1000
"""Milliseconds after which what was learnt of a key that nobody uses is forgotten."""
_LONGEST = 24 * 3600.0
"""Seconds that an API is left alone at most."""

# KEYS: the bucket. ARGV: the limit if it is set, the limit until one is learnt, calls wanted. What is in it by now, and
# for how many ms it is left alone.
_FILLED = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at', 'limit', 'held')
local calls = tonumber(ARGV[3])
local limit = tonumber(ARGV[1])
if limit == 0 then limit = tonumber(kept[3]) or tonumber(ARGV[2]) end
local deep = math.max(calls, limit / 10)
local rate = math.max(limit - deep, math.min(limit, calls) * 0.999) / 60000
local tokens = math.min(deep, (tonumber(kept[1]) or deep) + math.max(0, now - (tonumber(kept[2]) or now)) * rate)
local wait = math.max(0, (tonumber(kept[4]) or 0) - now)
"""

# ARGV, after those: what is kept in ms.
_TAKE = f"""{_FILLED}
if tokens < calls then wait = math.max(wait, math.ceil((calls - tokens) / rate)) end
if wait == 0 then tokens = tokens - calls end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', now)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return wait
"""

# Writes nothing, so that what was learnt of a key that nobody uses is forgotten all the same.
_LOOK = f"""{_FILLED}
if wait > 0 then tokens = 0 end
return {{math.floor(limit), math.floor(tokens)}}
"""

# KEYS: the bucket. ARGV: what is kept in ms; limit, calls left, and ms to be left alone; -1 for what was not said.
_TOLD = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limit, left, held = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if limit > 0 then redis.call('HSET', KEYS[1], 'limit', limit) end
if left >= 0 then
  -- What was saved up since the last call is gone with the rest.
  local tokens = tonumber(redis.call('HGET', KEYS[1], 'tokens')) or left
  redis.call('HSET', KEYS[1], 'tokens', tostring(math.min(tokens, left)), 'at', now)
end
if held >= 0 then
  local until_then = tonumber(redis.call('HGET', KEYS[1], 'held')) or 0
  redis.call('HSET', KEYS[1], 'held', math.max(until_then, now + held))
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Calls a minute: as they are set, and what is assumed where they are not and the API has not said."""

    fixed: int | None
    assumed: int


@dataclass(frozen=True, slots=True)
class Left:
    """Calls a minute as they are known, and how many of them may be made at once now."""

    limit: int
    calls: int


def of_source(redis: Redis, settings: Settings, name: str) -> Budget | None:
    """What the API key of a source may be used for; None where it has none, or makes no invoices.

    Sources that have the same key share its budget.
    """
    source = settings.sources.get(name)
    billing = None if source is None else PROVIDERS[source.provider].billing
    if source is None or billing is None or source.api_key is None:
        return None
    limit = Limit(fixed=source.calls_a_minute, assumed=billing.calls_a_minute)
    key = f"{source.provider}:{source.api_key.get_secret_value()}"
    return Budget(redis, settings.redis_prefix, key, limit, of_an_invoice=billing.calls(True, True))


class Budget:
    """The budget of one API key, shared by all that call with it."""

    def __init__(self, redis: Redis, prefix: str, api_key: str, limit: Limit, *, of_an_invoice: int = 1) -> None:
        """`of_an_invoice`: calls that one takes at most, which even a small budget holds."""
        # Not the key itself, which is nobody's business in Redis.
        self._key = f"{prefix}budget:{hashlib.sha256(api_key.encode()).hexdigest()[:24]}"
        self._redis = redis
        self._limit = limit
        self._of_an_invoice = of_an_invoice

    def take(self, calls: int) -> float:
        """Take so many calls; 0 if they may be made now, else in how many seconds to ask again."""
        arguments = (self._limit.fixed or 0, self._limit.assumed, calls, _KEPT)
        try:
            return cast("int", self._redis.eval(_TAKE, 1, self._key, *map(str, arguments))) / 1000
        except RedisError:
            REDIS_ERRORS.labels("budget").inc()
            return 0.0

    def look(self) -> Left | None:
        """What is left, none of it taken; None where Redis does not answer."""
        arguments = (self._limit.fixed or 0, self._limit.assumed, self._of_an_invoice)
        try:
            limit, calls = cast("list[int]", self._redis.eval(_LOOK, 1, self._key, *map(str, arguments)))
        except RedisError:
            REDIS_ERRORS.labels("budget").inc()
            return None
        return Left(limit, calls)

    def told(self, *, limit: int | None = None, left: int | None = None, leave_alone: float | None = None) -> None:
        """Note what the API said: calls a minute, how many of them are left, and seconds to be left alone."""
        held = None if leave_alone is None else round(min(leave_alone, _LONGEST) * 1000)
        said = [str(-1 if value is None else value) for value in (limit, left, held)]
        try:
            self._redis.eval(_TOLD, 1, self._key, str(_KEPT), *said)
        except RedisError:
            REDIS_ERRORS.labels("budget").inc()
