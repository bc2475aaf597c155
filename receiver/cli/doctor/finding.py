"""What the doctor finds: how it is, what there is to say, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from redis import Redis, RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

from receiver.cli.output import Failure
from workers.settings import Settings

Level = Literal["ok", "warning", "fault"]
LIMIT = 3.0
"""Seconds that each check may take."""

S = TypeVar("S", Engine, Redis)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, what there is to say, and what to do."""

    name: str
    level: Level
    said: str
    todo: str = ""


@dataclass(frozen=True, slots=True)
class Site:
    """What is looked at. `engine` and `redis` are None where there is nothing yet to connect to."""

    settings: Settings
    engine: Engine | None
    redis: Redis | None
    online: bool = False
    """Whether providers' APIs may be asked."""


Check = Callable[[Site], Iterable[Finding]]


class NothingYet(Exception):
    """What a check looks at is not there before Billhook has run for the first time."""


def needed(server: S | None) -> S:
    """The server that a check asks. Raises NothingYet."""
    if server is None:
        raise NothingYet
    return server


def failed(name: str, error: Exception) -> Finding:
    """What to say where a check could not be made. That a server is down, its own check says."""
    match error:
        case OperationalError() if "timeout" in str(error.orig):
            return late(name)
        case ProgrammingError():
            return Finding(name, "warning", "not looked at: the schema is another one")
        case DBAPIError():
            return Finding(name, "warning", "not looked at: the database does not answer")
        case RedisError():
            return Finding(name, "warning", "not looked at: Redis does not answer")
    return Finding(name, "fault", Failure.of(error).message)


def late(name: str) -> Finding:
    """What to say where a check took too long."""
    return Finding(name, "warning", f"not known after {LIMIT:g} s", "run it again; a server or this machine is slow")


def milliseconds(seconds: float) -> str:
    """As in `0.4 ms`."""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"
