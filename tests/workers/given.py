"""What tests of the engine are given: a clock to turn, events in the inbox, rows, and what was rung in Redis."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, select, update

from handlers.providers import PROVIDERS
from workers import database, ids, inbox
from workers.app import Runtime
from workers.inbox import Arrival
from workers.models import AnyRow, HandlerRun, Model

NOW = datetime(2026, 6, 5, 14, 0, tzinfo=UTC)
_number = itertools.count(1)


@dataclass
class Clock:
    """A clock that stands until it is turned."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def turn(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def seconds(self) -> float:
        """Unix time."""
        return self.now.timestamp()


def received(engine: Engine, event_type: str = "invoice.paid", *, at: datetime = NOW) -> str:
    """Store an event of its own as the receiver does, and return its id."""
    number = next(_number)
    body = json.dumps(
        {"event": event_type, "data": {"id": f"inv_{number}"}, "created_at": "2026-06-05T14:00:00Z"}
    ).encode()
    event = replace(PROVIDERS["hisab"].parse([], body), id=ids.new("evt"), source="shop", received_at=at)
    digest = hashlib.sha256(body)
    (outcome,) = inbox.accept(engine, [Arrival(event, f"del_{number}", digest.hexdigest(), digest.digest(), {})])
    return outcome.event_id


def waiting_runs(engine: Engine, count: int, *, due: datetime = NOW) -> list[str]:
    """Runs of one event that wait until `due`; their ids."""
    event_id = received(engine)
    runs = [
        {
            "id": f"run_{number:03d}",
            "event_id": event_id,
            "handler": f"handler_{number:03d}",
            "status": "waiting",
            "starts": 0,
            "fence": 0,
            "attempts": 0,
            "next_attempt_at": due,
            "ring_at": due,
            "created_at": NOW,
        }
        for number in range(count)
    ]
    with database.write(engine) as connection:
        connection.execute(database.insert(connection, HandlerRun), runs)
    return [str(run["id"]) for run in runs]


def rows(engine: Engine, table: type[Model]) -> Sequence[AnyRow]:
    """Everything in a table, oldest id first."""
    statement = select(*table.__table__.columns).order_by(table.__table__.columns["id"])
    with database.read(engine) as connection:
        return connection.execute(statement).all()


def only(engine: Engine, table: type[Model]) -> AnyRow:
    """The one row of a table."""
    (row,) = rows(engine, table)
    return row


def change(engine: Engine, table: type[Model], **values: Any) -> None:
    """Write into every row of a table what the product would not."""
    with database.write(engine) as connection:
        connection.execute(update(table).values(**values))


def rung(runtime: Runtime, queue: str) -> list[tuple[str, list[str]]]:
    """Take the messages out of a queue: each one's task, and the ids it carries, oldest first."""
    key = f"{runtime.settings.redis_prefix}{queue}"
    taken: list[tuple[str, list[str]]] = []
    while (raw := runtime.redis.rpop(key)) is not None:
        assert isinstance(raw, bytes)
        message = json.loads(raw)
        arguments = json.loads(base64.b64decode(message["body"]))[0]
        taken.append((message["headers"]["task"], arguments[0] if arguments else []))
    return taken


def fill_queue(runtime: Runtime, queue: str) -> None:
    """More messages than the workers will get to soon."""
    runtime.redis.rpush(f"{runtime.settings.redis_prefix}{queue}", *["busy"] * 101)
