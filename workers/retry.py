"""When to try again: pure arithmetic on attempts, seconds and a random number."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

DELIVERY_SCHEDULE = tuple(
    timedelta(seconds=seconds)
    for seconds in (0, 5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
)
"""Waits before attempt 1, 2, …: the example schedule of Standard Webhooks, 10 attempts in 75 hours."""

JITTER = 0.2
MAX_BACKOFF = 6 * 3600.0
MAX_RETRY_AFTER = 24 * 3600.0
MAX_WISH = 366 * 24 * 3600.0
"""The longest wait that a handler can ask for."""


def backoff(attempt: int, *, first: float, chance: float) -> timedelta:
    """The wait after failed attempt `attempt` (from 1): `first` seconds, doubling, at most six hours.

    `chance` in [0, 1) spreads it upward by up to a fifth, never below the plain value.
    """
    seconds = min(first * 2.0 ** min(attempt - 1, 40), MAX_BACKOFF)
    return timedelta(seconds=seconds * (1 + JITTER * chance))


def next_delivery(
    attempt: int,
    *,
    chance: float,
    retry_after: float | None = None,
    schedule: Sequence[timedelta] = DELIVERY_SCHEDULE,
) -> timedelta | None:
    """The wait after failed attempt `attempt` (from 1) at an endpoint; None when it was the last.

    `retry_after` (seconds, the endpoint's wish) is a floor, itself capped at a day.
    """
    if attempt >= len(schedule):
        return None
    wait = schedule[attempt].total_seconds() * (1 + JITTER * chance)
    return timedelta(seconds=max(wait, min(retry_after or 0.0, MAX_RETRY_AFTER)))
