"""Which workers and beats there are, and since when they have said nothing, for who looks from anywhere.

Each says so in Redis. Key: `{prefix}alive`, a sorted set of who was there at which moment.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis import Redis, RedisError

WITHIN = 60.0
"""Seconds after which a process that has said nothing is taken for stuck."""

_SAYS_EVERY = 10.0
_KEPT = 86_400.0
"""Seconds after which who has said nothing is forgotten."""
_said_at: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class Process:
    """A worker (`work`) or beat (`beat`) that has said that it is there, and for how many seconds it has not since."""

    name: str
    host: str
    silent: float


def announce(redis: Redis, prefix: str, name: str, now: Callable[[], float] = time.time) -> None:
    """Say in Redis that this process does its work; at most every ten seconds. Without Redis nobody is told."""
    if time.monotonic() - _said_at.get(name, float("-inf")) < _SAYS_EVERY:
        return
    _said_at[name] = time.monotonic()
    try:
        with redis.pipeline(transaction=False) as asked:
            asked.zadd(f"{prefix}alive", {_member(name): now()})
            asked.zremrangebyscore(f"{prefix}alive", "-inf", now() - _KEPT)
            asked.expire(f"{prefix}alive", int(_KEPT))
            asked.execute()
    except RedisError:
        return


def withdraw(redis: Redis, prefix: str, name: str) -> None:
    """Say in Redis that this process is about to end, within a second. Who cannot say so is missed after a while."""

    def forget() -> None:
        with suppress(RedisError):
            redis.zrem(f"{prefix}alive", _member(name))

    # A Redis that hangs must not hold up the end.
    thread = threading.Thread(target=forget, daemon=True)
    thread.start()
    thread.join(1.0)


def _member(name: str) -> str:
    return f"{name} {socket.gethostname()} {os.getpid()}"


def announced(redis: Redis, prefix: str, now: Callable[[], float] = time.time) -> list[Process]:
    """Who has said within a day that it is there, the last first. Raises RedisError."""
    found: Any = redis.zrange(f"{prefix}alive", 0, -1, desc=True, withscores=True)
    processes = []
    for member, at in found:
        name, _, rest = member.decode("utf-8", "replace").partition(" ")
        processes.append(Process(name, rest.rpartition(" ")[0], max(0.0, now() - at)))
    return processes
