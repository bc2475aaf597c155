"""What running handlers needs in one process, and the values that its parts pass to each other."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Engine

from handlers.context import Context
from handlers.event import Event
from handlers.registry import Handler, Registry
from workers.app import STOPPING
from workers.clients import Clients
from workers.execution import Result
from workers.leases import Clock, utcnow
from workers.models import AnyRow
from workers.settings import Settings

SLICE = 1.0
"""Seconds of running handlers after which a process hands the rest of its batch back, for others to take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatcher:
    """What running handlers needs in one process."""

    engine: Engine
    settings: Settings
    registry: Registry
    clients: Clients
    clock: Clock = utcnow
    chance: Callable[[], float] = field(default=random.random)
    stopping: Callable[[], bool] = lambda: bool(STOPPING[0])
    """Whether to begin nothing more."""

    @property
    def slice(self) -> float:
        """Seconds that one batch may take; short against the grace, so that whoever begins last ends in its lease."""
        return min(SLICE, self.settings.lease_grace / 4)

    def lease(self, timeout: float) -> timedelta:
        """How long runs are leased whose handlers have this timeout at most."""
        return timedelta(seconds=timeout + self.settings.lease_grace + self.slice)

    def last_resort(self, timeout: float) -> float:
        """Seconds after taking such runs when a process that is still not done with one must end.

        Before the lease ends, so that no second start runs beside one that cannot be interrupted.
        """
        return timeout + self.slice + self.settings.lease_grace / 2


@dataclass(frozen=True, slots=True)
class Reading:
    """An event as it is stored, and as its handlers see it; `error` where they cannot see it."""

    row: AnyRow
    event: Event
    error: str | None = None
    final: bool = False
    """Whether no other worker would see it either."""

    @property
    def received_at(self) -> datetime:
        """UTC."""
        at: datetime = self.row.received_at
        return at


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A run as it was when this process took it."""

    id: str
    event_id: str
    handler: str
    fence: int
    starts: int
    attempts: int
    pauses: int
    replays: int
    lane: str | None
    ordered: bool
    occurred_at: datetime | None

    @classmethod
    def of(cls, row: AnyRow) -> Lease:
        """From a row of `handler_runs`."""
        return cls(**{name: getattr(row, name) for name in cls.__slots__})

    @property
    def deaths(self) -> int:
        """Starts before this one that never ended: their process died."""
        return self.starts - self.attempts - self.pauses - 1

    @property
    def first(self) -> bool:
        """Whether nothing of an earlier start can be there."""
        return self.starts == 1 and self.replays == 0


@dataclass(frozen=True, slots=True)
class Taken:
    """A run that this process has leased, and what it takes to start it."""

    lease: Lease
    handler: Handler | None
    """None where this worker has not loaded it."""
    reading: Reading

    @property
    def timeout(self) -> float:
        """Seconds one start may take."""
        return self.handler.timeout if self.handler else 0.0


@dataclass(frozen=True, slots=True)
class Done:
    """How a start of a taken run went, not yet written."""

    taken: Taken
    context: Context
    result: Result
    asked_once: bool = False
    """Whether it asked for a once key."""
    traceparent: str | None = None
    """Its span, for what it emitted."""
