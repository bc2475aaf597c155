"""How many calls a key has made in the current minute. Not kept on disk: a restart forgives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 60
"""Seconds; the windows begin with the minutes of the clock."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The state after a call was counted."""

    limit: int
    used: int
    reset: int
    """Unix seconds at which the next window begins."""
    retry_after: int
    """Seconds until then, rounded up."""

    @property
    def exceeded(self) -> bool:
        return self.used > self.limit

    @property
    def headers(self) -> dict[str, str]:
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(max(0, self.limit - self.used)),
            "X-RateLimit-Reset": str(self.reset),
        }


class Limits:
    """Counts by key; `wall` gives Unix seconds."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._window = 0
        self._used: dict[str, int] = {}

    def count(self, key: str, limit: int) -> Usage:
        """Count a call, refused or not."""
        now = self._wall()
        window = int(now // WINDOW)
        if window != self._window:
            self._window, self._used = window, {}
        self._used[key] = self._used.get(key, 0) + 1
        reset = (window + 1) * WINDOW
        return Usage(limit, self._used[key], reset, math.ceil(reset - now))
