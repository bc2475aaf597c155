"""The worker whose deliveries are measured, with one process, and the messages that it is given."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from cryptography.fernet import Fernet, MultiFernet
from sqlalchemy import Select, func, select, update

from benchmarks.exchanges import HERE
from benchmarks.load import BODY_BYTES
from benchmarks.servers import BILLHOOK, ServerError, announced, billhook_environment, cpu_of_family
from benchmarks.services import Services
from benchmarks.sink import Sink
from workers import app, database, ids
from workers.app import Runtime
from workers.delivery import endpoints
from workers.delivery.messages import Outgoing, publish
from workers.delivery.specs import EndpointSpec, Rules
from workers.leases import utcnow
from workers.models import RUNNING, WAITING, Attempt, Delivery, Endpoint

_KEY = Fernet.generate_key()
_DATA = orjson.dumps({"invoice": "inv_1", "notes": "n" * (BODY_BYTES - 100)})
_TOGETHER = 500
_LONGEST = 300.0
_OPEN = Delivery.status.in_((WAITING, RUNNING))


@dataclass(frozen=True, slots=True)
class Ours:
    """`billhook work` with one process, and `billhook beat`."""

    runtime: Runtime
    sink: Sink
    pid: int

    def endpoint(self, url: str, wants: str, **fields: Any) -> str:
        """Add an endpoint for messages of one type; its id."""
        spec = EndpointSpec(url=url, event_types=(wants,), **fields)
        vault = MultiFernet([Fernet(_KEY)])
        return endpoints.add(self.runtime.engine, vault, spec, Rules(HERE, ()), actor="benchmark", now=utcnow()).id

    def publish(self, type_: str, count: int) -> tuple[list[str], list[str]]:
        """Commit messages, all at once, and ring for none of them yet: their ids, and what to ring for."""
        messages = [Outgoing(ids.new("msg"), None, type_, _DATA) for _ in range(count)]
        rung: list[str] = []
        with database.write(self.runtime.engine) as connection:
            for first in range(0, count, _TOGETHER):
                rung += publish(connection, messages[first : first + _TOGETHER], now=utcnow())
        return [message.id for message in messages], rung

    def rate(self, type_: str, messages: int) -> tuple[float, float]:
        """Deliveries a second of so many messages, and CPU seconds of one. Raises ServerError unless all succeed."""
        self.sink.arrivals()
        message_ids, rung = self.publish(type_, messages)
        mine = database.among("postgresql", Delivery.message_id, message_ids)
        count = self._counted(select(func.count()).where(mine))
        cpu, began = cpu_of_family(self.pid), time.perf_counter()
        app.ring(app.DELIVER, rung)
        until(lambda: self.sink.count() >= count)
        until(lambda: not self._counted(select(func.count()).where(_OPEN)))
        seconds, used = time.perf_counter() - began, cpu_of_family(self.pid) - cpu
        recorded = select(func.count()).select_from(Attempt).join(Delivery)
        if self._counted(recorded.where(mine, Delivery.status == "succeeded")) != count:
            raise ServerError("not every delivery has succeeded with one attempt")
        return count / seconds, used / count

    def give_up(self, endpoint_id: str) -> None:
        """Disable an endpoint and cancel what waits for it."""
        endpoints.switch_off(self.runtime.engine, endpoint_id, "it was measured", actor="benchmark", now=utcnow())
        with database.write(self.runtime.engine) as connection:
            mine = (Delivery.endpoint_id == endpoint_id, _OPEN)
            connection.execute(
                update(Delivery).where(*mine).values(status="cancelled", ring_at=None, ended_at=utcnow())
            )

    def fail(self, endpoint_id: str, since: datetime, *, held_until: datetime) -> None:
        """Have an endpoint, and what waits for it, be as failing since then leaves them."""
        with database.write(self.runtime.engine) as connection:
            failed = {"failing_since": since, "failures": 50, "held_until": held_until}
            connection.execute(update(Endpoint).where(Endpoint.id == endpoint_id).values(**failed))
            due = {"attempts": 3, "again": True, "next_attempt_at": held_until, "ring_at": held_until}
            connection.execute(update(Delivery).where(Delivery.endpoint_id == endpoint_id, _OPEN).values(**due))

    def _counted(self, counting: Select[Any]) -> int:
        with database.read(self.runtime.engine) as connection:
            return int(connection.execute(counting).scalar_one())


def until(condition: Callable[[], bool], longest: float = _LONGEST) -> None:
    """Wait for something. Raises ServerError when it does not come."""
    deadline = time.monotonic() + longest
    while not condition():
        if time.monotonic() > deadline:
            raise ServerError(f"the worker did not get through within {longest:g} s")
        time.sleep(0.05)


@contextmanager
def ours(runtime: Runtime, folder: Path, services: Services, sink: Sink) -> Iterator[Ours]:
    """A Billhook worker that delivers to this machine, otherwise as it is shipped."""
    folder.mkdir()
    environment = billhook_environment(folder, services) | {
        "BILLHOOK_WORKER_PROCESSES": "1",
        "BILLHOOK_ENCRYPTION_KEYS": _KEY.decode(),
        "BILLHOOK_EGRESS_NETWORKS": "127.0.0.0/8",
        "BILLHOOK_EGRESS_PORTS": "*",
    }
    work = [*BILLHOOK, "work", "--queues", "deliveries"]
    with ExitStack() as stack:
        pid, _ = stack.enter_context(announced("work", work, environment, folder, re.compile("working on")))
        stack.enter_context(announced("beat", [*BILLHOOK, "beat"], environment, folder, re.compile("ticking")))
        yield Ours(runtime, sink, pid)
