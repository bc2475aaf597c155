"""What outlives one start of a run: steps and once keys, written under the run's lease the moment they are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, exists, select

from handlers.errors import LeaseLost
from workers import database, tracing
from workers.dispatcher import Dispatcher, Lease
from workers.execution import undisturbed, within
from workers.models import RUNNING, HandlerRun, OnceKey, Step


class Kept:
    """The `handlers.context.Durable` of one start, in the database."""

    def __init__(self, dispatcher: Dispatcher, lease: Lease, source: str, settle: Callable[[], None]) -> None:
        """`settle` writes the results of the runs that this process ended before."""
        self._dispatcher = dispatcher
        self._lease = lease
        self._source = source
        self._settle = settle
        self.asked_once = False

    def now(self) -> datetime:
        return self._dispatcher.clock()

    def client(self, source: str | None) -> Any:
        return self._dispatcher.clients.meant(source, self._source)

    def recall(self, step: str) -> bytes | None:
        return self._steps.get(step)

    @cached_property
    def _steps(self) -> dict[str, bytes]:
        if self._lease.first:
            return {}
        with undisturbed(), database.read(self._dispatcher.engine) as connection:
            found = connection.execute(select(Step.name, Step.value).where(Step.run_id == self._lease.id))
            return {row.name: row.value for row in found}

    @contextmanager
    def stepping(self, step: str) -> Iterator[Callable[[], object]]:
        later: list[None] = []
        with within(tracing.inside(f"step {step}", "internal", {}), ends=lambda: not later):
            yield lambda: later.append(None)

    def record(self, step: str, value: bytes) -> None:
        row = {"run_id": self._lease.id, "name": step, "value": value, "created_at": self.now()}
        with undisturbed(), database.write(self._dispatcher.engine) as connection:
            self._hold(connection)
            connection.execute(database.insert(connection, Step), row)
        self._steps[step] = value

    def once(self, key: str) -> bool:
        self.asked_once = True
        row = {
            "handler": self._lease.handler,
            "key": key,
            "run_id": self._lease.id,
            "done": False,
            "created_at": self.now(),
        }
        mine = (OnceKey.handler == self._lease.handler, OnceKey.key == key)
        with undisturbed(), database.write(self._dispatcher.engine) as connection:
            self._hold(connection)
            connection.execute(database.insert(connection, OnceKey).on_conflict_do_nothing(), row)
            holder = connection.execute(select(OnceKey.run_id, OnceKey.done).where(*mine)).one()
        return holder.run_id == self._lease.id and not holder.done

    def is_stale(self) -> bool:
        if self._lease.lane is None:
            return False
        with undisturbed():
            self._settle()
        newer = exists().where(
            HandlerRun.lane == self._lease.lane,
            HandlerRun.handler == self._lease.handler,
            HandlerRun.occurred_at > self._lease.occurred_at,
            HandlerRun.status == "succeeded",
        )
        with undisturbed(), database.read(self._dispatcher.engine) as connection:
            return bool(connection.execute(select(newer)).scalar_one())

    def _hold(self, connection: Connection) -> None:
        """Keep the lease from passing to another until this transaction ends."""
        mine = (HandlerRun.id == self._lease.id, HandlerRun.fence == self._lease.fence, HandlerRun.status == RUNNING)
        if connection.execute(select(HandlerRun.id).where(*mine).with_for_update()).first() is None:
            raise LeaseLost(f"the run of {self._lease.handler} took too long and was given to another process")
