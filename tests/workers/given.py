"""What tests of the engine are given: a clock to turn, events in the inbox, rows, and what was rung in Redis."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from cryptography.fernet import Fernet, MultiFernet
from kombu import pools
from sqlalchemy import Engine, delete, select, update
from sqlalchemy import event as hooks

from handlers.providers import PROVIDERS
from workers import app, claims, database, ids, inbox, planning
from workers.app import Runtime
from workers.delivery import endpoints
from workers.delivery.egress import Egress
from workers.delivery.endpoints import EndpointSpec, Rules
from workers.dispatch import Dispatcher, process
from workers.inbox import Arrival
from workers.models import AnyRow, EventRow, HandlerRun, Model, Step
from workers.settings import Settings
from workers.vault import open_vault

T = TypeVar("T")

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


def received(
    engine: Engine,
    event_type: str = "invoice.paid",
    *,
    object_id: str | None = "inv_{}",
    occurred_at: datetime = NOW,
    source: str = "shop",
    at: datetime = NOW,
) -> str:
    """Store an event of its own as the receiver does, and return its id.

    `{}` in the object's id stands for a number that no other event has; None: the event is about no object.
    """
    number = next(_number)
    data = {"invoice_number": number} | ({} if object_id is None else {"id": object_id.format(number)})
    body = json.dumps({"event": event_type, "data": data, "created_at": occurred_at.isoformat()}).encode()
    digest = hashlib.sha256(body)
    arrival = Arrival(
        id=f"{ids.first('evt', at)[:-8]}{number:08d}",
        source=source,
        received_at=at,
        event=PROVIDERS["hisab"].inbound({}).parse([], body),
        delivery_id=f"del_{number}",
        event_key=digest.hexdigest(),
        body_hash=digest.digest(),
        headers={},
    )
    (outcome,) = inbox.accept(engine, [arrival])
    return outcome.event_id


class CountingVault(MultiFernet):
    """A vault with a key of its own, which counts what it is asked to open."""

    def __init__(self) -> None:
        super().__init__([Fernet(Fernet.generate_key())])
        self.decrypted = 0

    def decrypt(self, msg: bytes | str, ttl: int | None = None) -> bytes:
        self.decrypted += 1
        return super().decrypt(msg, ttl)


def endpoint(runtime: Runtime, *event_types: str, url: str = "http://127.0.0.1:9/", **fields: Any) -> str:
    """Add an endpoint that wants these types, or all; its id."""
    spec = EndpointSpec(url=url, event_types=event_types or ("*",), **fields)
    rules = Rules(Egress.of(runtime.settings), spec.sources)
    vault = open_vault(runtime.settings)
    return endpoints.add(runtime.engine, vault, spec, rules, actor="tester", now=NOW).id


def planned(dispatcher: Dispatcher, *event_ids: str) -> None:
    """Give events their runs, none of them started."""
    with database.write(dispatcher.engine) as connection:
        plan = planning.plan(dispatcher, connection, event_ids)
        claims.give_back(dispatcher, connection, plan.taken)


@contextmanager
def another_process(dispatcher: Dispatcher) -> Iterator[Dispatcher]:
    """The dispatcher of another process: it has connections of its own."""
    engine = database.connect(dispatcher.settings)
    try:
        yield replace(dispatcher, engine=engine)
    finally:
        engine.dispose()


def process_elsewhere(dispatcher: Dispatcher, *event_ids: str) -> None:
    """Another process works on these events, to its end, while the caller waits."""
    with another_process(dispatcher) as other, ThreadPoolExecutor(1) as thread:
        thread.submit(process, other, event_ids).result(30)


def killed(dispatcher: Dispatcher, *event_ids: str) -> None:
    """A process works on these events until a handler ends it with `KeyboardInterrupt`; what it has in hand is lost."""
    with pytest.raises(KeyboardInterrupt):
        process(dispatcher, event_ids)


def sent_back(engine: Engine, run_id: str, *, now: datetime = NOW, plan_anew: bool = False) -> None:
    """Have a run that ended wait anew, as a replay does; `plan_anew`: as one of all handlers does."""
    mine = HandlerRun.id == run_id
    its_event = EventRow.id == select(HandlerRun.event_id).where(mine).scalar_subquery()
    values = {"status": "waiting", "starts": 0, "attempts": 0, "pauses": 0, "slot": None, "ended_at": None}
    anew = {"fence": HandlerRun.fence + 1, "replays": HandlerRun.replays + 1, "next_attempt_at": now, "ring_at": now}
    with database.write(engine) as connection:
        succeeded = select(HandlerRun.id).where(mine, HandlerRun.status == "succeeded")
        connection.execute(delete(Step).where(Step.run_id.in_(succeeded)))
        connection.execute(update(HandlerRun).where(mine).values(**values, **anew))
        connection.execute(
            update(EventRow).where(its_event).values(status="waiting", ring_at=now if plan_anew else None)
        )


def until(condition: Callable[[], T], seconds: float = 60.0) -> T:
    """Wait until something is so; what the condition gave."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.002)
    return found


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """What the database is asked meanwhile."""
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    hooks.listen(engine, "before_cursor_execute", note)
    yield asked
    hooks.remove(engine, "before_cursor_execute", note)


def waits_for_a_lock(engine: Engine) -> bool:
    """Whether somebody at this PostgreSQL database waits for what another transaction holds."""
    statement = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with database.read(engine) as connection:
        return connection.exec_driver_sql(statement).first() is not None


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


def restarted(settings: Settings) -> Runtime:
    """This process started anew, with no connection left from before."""
    started = app.start(settings, answer_within=1.0)
    # Celery keeps its connections by application and, whatever is said of TLS, by address.
    app.app.close()
    vars(app.app).pop("amqp", None)
    pools.reset()
    return started


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
