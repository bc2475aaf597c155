"""The gate: how many deliveries an endpoint has under way and begins in a second, counted over all processes in Redis.

One atomic script decides for an endpoint. What failed before may take half of its places at most, and always gets one
of several, so that first attempts never wait behind old ones, nor old ones for ever. A place that its process does not
give back, because it died, is free when the delivery's lease ends. Without Redis each process counts its own
places and no rate is kept: then more may be under way than the limits say, but nothing stands still.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from redis import Redis, RedisError

from workers.metrics import REDIS_ERRORS

# KEYS: deliveries under way, those of them that failed before, tokens.
# ARGV: lease in ms, places, places for what failed before, deliveries a second, how many are first attempts, ids.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease, places, again_places, rate, first = unpack(ARGV, 1, 5)
lease, places, again_places, rate, first =
    tonumber(lease), tonumber(places), tonumber(again_places), tonumber(rate), tonumber(first)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local free = places - redis.call('ZCARD', KEYS[1])
local again = #ARGV - 5 - first
local again_free = math.min(again, again_places - redis.call('ZCARD', KEYS[2]))
local tokens, wait = free, 0
if rate > 0 then
  local kept = redis.call('HMGET', KEYS[3], 'tokens', 'at')
  local deep = math.max(1, rate / 10)
  tokens = tonumber(kept[1]) or deep
  tokens = math.min(deep, tokens + math.max(0, now - (tonumber(kept[2]) or now)) * rate / 1000)
end
local whole = math.min(free, math.floor(tokens))
local reserved = 0
-- Where only one may begin, each fourth time by chance: under a rate it is always only one.
if again_free > 0 and places > 1 and (whole > 1 or whole == 1 and time[2] % 4 == 0) then reserved = 1 end
local got_first = math.max(0, math.min(first, whole - reserved))
local got_again = math.max(0, math.min(again_free, whole - got_first))
for i = 1, got_first do redis.call('ZADD', KEYS[1], now + lease, ARGV[5 + i]) end
for i = 1, got_again do
  redis.call('ZADD', KEYS[1], now + lease, ARGV[5 + first + i])
  redis.call('ZADD', KEYS[2], now + lease, ARGV[5 + first + i])
end
if got_first + got_again > 0 then
  redis.call('PEXPIRE', KEYS[1], lease)
  if got_again > 0 then redis.call('PEXPIRE', KEYS[2], lease) end
end
if rate > 0 then
  tokens = tokens - got_first - got_again
  redis.call('HSET', KEYS[3], 'tokens', tostring(tokens), 'at', now)
  redis.call('PEXPIRE', KEYS[3], 2000)
  if free > got_first + got_again and tokens < 1 then wait = math.ceil((1 - tokens) * 1000 / rate) end
end
return {got_first, got_again, wait}
"""


@dataclass(frozen=True, slots=True)
class Queue:
    """What is due at one endpoint, longest due first, and the endpoint's limits."""

    endpoint_id: str
    first: Sequence[str]
    """Deliveries that were never attempted."""
    again: Sequence[str]
    """Deliveries that failed before."""
    places: int
    """Deliveries under way at once."""
    rate: int
    """Deliveries begun in a second, a tenth of them at once; 0 is without limit."""


@dataclass(frozen=True, slots=True)
class Let:
    """The deliveries that may begin now, and in how many seconds to ask again, where the rate holds others back."""

    ids: Sequence[str]
    wait: float = 0.0


class Gate:
    """The gate as one process sees it."""

    def __init__(self, redis: Redis, prefix: str, lease: timedelta) -> None:
        self._redis = redis
        self._prefix = f"{prefix}gate:"
        self._lease = round(lease.total_seconds() * 1000)
        self._own: dict[str, set[str]] = {}
        self._mark = f":{os.urandom(6).hex()}"
        """Stands behind the ids in Redis: two processes may ask for one delivery, and only one of them gets it."""

    def enter(self, queues: Sequence[Queue]) -> dict[str, Let]:
        """Let in as many as the limits allow; by endpoint."""
        if not queues:
            return {}
        pipeline = self._redis.pipeline(transaction=False)
        for queue in queues:
            limits = (self._lease, queue.places, _for_again(queue.places), queue.rate, len(queue.first))
            ids = self._marked([*queue.first, *queue.again])
            pipeline.eval(_TAKE, 3, *self._keys(queue.endpoint_id), *limits, *ids)
        try:
            answers = cast("list[list[int]]", pipeline.execute())
        except RedisError:
            REDIS_ERRORS.labels("gate").inc()
            let = {queue.endpoint_id: self._alone(queue) for queue in queues}
        else:
            let = {queue.endpoint_id: _let(queue, answer) for queue, answer in zip(queues, answers, strict=True)}
        for endpoint_id, one in let.items():
            self._own.setdefault(endpoint_id, set()).update(one.ids)
        return let

    def leave(self, delivery_ids: Iterable[tuple[str, str]]) -> None:
        """Give back the places of these pairs of endpoint and delivery."""
        ended: dict[str, list[str]] = {}
        for endpoint_id, delivery_id in delivery_ids:
            ended.setdefault(endpoint_id, []).append(delivery_id)
        if not ended:
            return
        pipeline: Any = self._redis.pipeline(transaction=False)
        for endpoint_id, ids in ended.items():
            own = self._own.get(endpoint_id, set())
            own.difference_update(ids)
            if not own:
                self._own.pop(endpoint_id, None)
            for key in self._keys(endpoint_id)[:2]:
                pipeline.zrem(key, *self._marked(ids))
        try:
            pipeline.execute()
        except RedisError:
            REDIS_ERRORS.labels("gate").inc()  # the places are free when their leases end

    def _marked(self, ids: Iterable[str]) -> list[str]:
        return [one + self._mark for one in ids]

    def _alone(self, queue: Queue) -> Let:
        free = max(0, queue.places - len(self._own.get(queue.endpoint_id, ())))
        return Let([*queue.first, *queue.again][:free])

    def _keys(self, endpoint_id: str) -> tuple[str, str, str]:
        # The braces keep an endpoint's keys in one slot of a cluster.
        key = f"{self._prefix}{{{endpoint_id}}}"
        return key, f"{key}:again", f"{key}:tokens"


def _for_again(places: int) -> int:
    return max(1, places // 2)


def _let(queue: Queue, answer: Sequence[int]) -> Let:
    first, again, wait = answer
    return Let([*queue.first[:first], *queue.again[:again]], wait / 1000)
