"""The workers that are measured: Billhook's, and a bare Celery one; for events each has two pool processes."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis
from sqlalchemy import select

from benchmarks import backlog
from benchmarks.servers import BILLHOOK, ServerError, announced, billhook_environment
from benchmarks.services import Services
from workers import app, database
from workers.app import Runtime
from workers.models import EventRow

PROCESSES = 2
HANDLERS = """
from handlers import on

@on("*"{options})
def nothing(event, ctx):
    pass
"""
_LONGEST = 600.0


class Queue:
    """A queue in Redis that some worker empties."""

    def __init__(self, services: Services, name: str) -> None:
        self.redis = Redis.from_url(services.redis_url)
        self.key = f"{services.prefix}{name}"
        self._unacknowledged = f"{services.prefix}unacked"

    def drain(self) -> float:
        """Seconds until it is empty and all that was taken from it is done. Raises ServerError after ten minutes."""
        began = time.perf_counter()
        while self.redis.llen(self.key) or self.redis.hlen(self._unacknowledged):
            if time.perf_counter() - began > _LONGEST:
                raise ServerError(f"{self.key}: not empty within {_LONGEST:g} s")
            time.sleep(0.01)
        return time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class Ours:
    """`billhook work`, with a handler that does nothing."""

    queue: Queue
    runtime: Runtime

    def rate(self, count: int) -> float:
        """Events processed in a second, of so many stored before. Raises ServerError unless each was."""
        event_ids = backlog.store(self.runtime.engine, count)
        app.ring(app.PROCESS, event_ids)
        rate = count / self.queue.drain()
        with database.read(self.runtime.engine) as connection:
            left = connection.execute(select(EventRow.id).where(EventRow.status != "processed").limit(1)).scalar()
        if left is not None:
            raise ServerError(f"{left} was not processed")
        return rate


@dataclass(frozen=True, slots=True)
class Bare:
    """A Celery worker of `benchmarks.tasks`, with one message for each event or delivery."""

    queue: Queue
    task: str

    def rate(self, count: int) -> float:
        """Tasks done in a second, of so many enqueued before."""
        from benchmarks.tasks import QUEUE, app

        redis, staged = self.queue.redis, f"{self.queue.key}.staged"
        app.send_task(self.task, ("evt_0",), queue=f"{QUEUE}.staged")
        sample: dict[str, Any] = json.loads(redis.lpop(staged))  # type: ignore[arg-type]
        for first in range(0, count, 1_000):
            redis.lpush(staged, *(_another(sample, number) for number in range(first, min(first + 1_000, count))))
        redis.rename(staged, self.queue.key)
        return count / self.queue.drain()


def _another(message: dict[str, Any], number: int) -> str:
    """A copy of a message under ids of its own, as if Celery had sent it."""
    task_id = f"00000000-0000-4000-8000-{number:012d}"
    headers = message["headers"] | {"id": task_id, "root_id": task_id}
    properties = message["properties"] | {"correlation_id": task_id, "delivery_tag": task_id}
    arguments = [[f"evt_{number}"], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    body = base64.b64encode(json.dumps(arguments).encode()).decode()
    return json.dumps(message | {"headers": headers, "properties": properties, "body": body})


@contextmanager
def ours(runtime: Runtime, folder: Path, services: Services, options: str = "") -> Iterator[Ours]:
    """A Billhook worker; `options` are those of the handler, such as `, ordered=True`."""
    folder.mkdir()
    (folder / "bench_handlers.py").write_text(HANDLERS.format(options=options))
    environment = billhook_environment(folder, services) | {
        "BILLHOOK_HANDLERS": str(folder / "bench_handlers.py"),
        "BILLHOOK_WORKER_PROCESSES": str(PROCESSES),
    }
    command = [*BILLHOOK, "work", "--queues", "events"]
    with announced("billhook work", command, environment, folder, re.compile("working on")):
        yield Ours(Queue(services, "events"), runtime)


@contextmanager
def bare(
    folder: Path, services: Services, *, task: str = "bare.nothing", processes: int = PROCESSES, url: str = ""
) -> Iterator[Bare]:
    """A bare Celery worker, under a prefix of its own; `url` is where its task delivers to, if it does."""
    from benchmarks import tasks

    folder.mkdir()
    own = Services(services.database_url, services.redis_url, f"{services.prefix}bare:", services.versions)
    tasks.app.conf.update(broker_url=own.redis_url, broker_transport_options={"global_keyprefix": own.prefix})
    environment = os.environ | {
        "BENCHMARK_DATABASE_URL": own.database_url,
        "BENCHMARK_REDIS_URL": own.redis_url,
        "BENCHMARK_PREFIX": own.prefix,
        "BENCHMARK_URL": url,
    }
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.tasks", "worker", "-c", str(processes)]
    with announced("celery", [*command, "-Q", tasks.QUEUE], environment, folder, re.compile("key=bare")):
        yield Bare(Queue(own, tasks.QUEUE), task)
