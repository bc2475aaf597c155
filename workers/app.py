"""The Celery application, and what a process of the engine holds: settings, database, Redis.

Celery carries hints only ("these rows may be due"), so every option here is chosen for liveness: nothing
depends on a message arriving, or on its arriving once.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery, signals
from kombu.exceptions import OperationalError
from redis import Redis, RedisError
from sqlalchemy import Engine

from workers import broker, database, embedded, redis_url
from workers.logs import log
from workers.metrics import REDIS_ERRORS
from workers.settings import Settings

QUEUES = ("events", "deliveries", "schedules")
CHUNK = 100
"""Ids in one message; beyond it the database decides the speed, not the broker."""
ENOUGH_RUNG = 100
"""Messages in a queue above which the sweep adds none: the bell is ringing already."""

TASKS = (
    "workers.dispatch",
    "workers.delivery.flight",
    "workers.schedule.generate",
    "workers.retention",
    "workers.reconcile",
    "workers.audit",
    "workers.tally",
)
"""The modules with tasks; only a worker imports them."""

app = Celery("billhook", set_as_current=False, include=TASKS)


STOPPING = mmap.mmap(-1, 1)
"""One byte that a worker shares with the processes of its pool: 1 once it is to stop."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the functions of the engine work with in one process."""

    settings: Settings
    engine: Engine
    redis: Redis


_runtimes: list[Runtime] = []


def start(settings: Settings, *, answer_within: float = 10.0) -> Runtime:
    """Connect this process: embedded server if none is set, Celery's configuration, database, Redis.

    `answer_within` (seconds) bounds every wait for Redis. Raises embedded.EmbeddedError, and SettingsError where a file
    that the URL of Redis names cannot be used.
    """
    servers = _servers(settings)
    broker.check(servers)
    _configure(settings, broker.configuration(servers, answer_within))
    runtime = Runtime(settings=settings, engine=database.connect(settings), redis=broker.client(servers, answer_within))
    _runtimes[:] = [runtime]
    return runtime


def client(settings: Settings, *, answer_within: float) -> Redis:
    """A client of Redis beside that of the process, for who waits for an answer less long."""
    return broker.client(_servers(settings), answer_within)


def _servers(settings: Settings) -> redis_url.Servers:
    if settings.redis_url is None:
        return redis_url.parse(embedded.ensure(settings.state_dir).redis_url)
    return redis_url.parse(settings.redis_url.get_secret_value())


def runtime() -> Runtime:
    """What this process was started with."""
    return _runtimes[0]


def _configure(settings: Settings, servers: dict[str, Any]) -> None:
    app.conf.update(
        broker_url=servers["broker_url"],
        broker_use_ssl=servers["broker_use_ssl"],
        broker_transport_options={
            **servers["broker_transport_options"],
            "global_keyprefix": settings.redis_prefix,
            # A worker that was killed: its messages come back at once when their time is up, not 100 s later.
            "visibility_timeout": 900,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A master that was made a replica refuses; its worker must look for the new one, and not end.
        broker_channel_error_retry=True,
        broker_heartbeat=0,
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.2},
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_serializer="json",
        accept_content=["json"],
        task_create_missing_queues=True,
        task_default_queue="events",
        task_routes={f"billhook.{queue}.*": {"queue": queue} for queue in QUEUES},
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_concurrency=settings.worker_processes,
        worker_max_memory_per_child=settings.worker_memory_mb * 1024,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_consumer="workers.worker:Consumer",
        timezone="UTC",
    )


@signals.worker_process_init.connect
def _after_fork(**_: Any) -> None:
    # The parent's connections are not ours to use or to close.
    runtime().engine.dispose(close=False)


PROCESS = "billhook.events.process"
DELIVER = "billhook.deliveries.deliver"
GENERATE = "billhook.schedules.generate"


_NOT_TAKEN = (OperationalError, RedisError, OSError, AttributeError)
"""What sending raises where Redis does not take it; the last where its connection broke while it was tried again, and
the channel that kombu had closed meanwhile has none."""


def ring(task: str, ids: Sequence[str]) -> bool:
    """Tell the workers that these rows may be due. False: Redis did not take it, the sweep will.

    By the task's name, so that who rings need not import who works.
    """
    try:
        for start_at in range(0, len(ids), CHUNK):
            # Celery's rendering of the arguments, for monitors that nobody runs here, costs as much as the sending.
            app.send_task(task, (list(ids[start_at : start_at + CHUNK]),), argsrepr="", kwargsrepr="")
    except _NOT_TAKEN as error:
        REDIS_ERRORS.labels("ring").inc()
        log.warning(
            "could not ring the workers; the sweep will",
            action="ring_failed",
            task=task,
            error=type(error).__name__,
        )
        return False
    return True


def ringing(redis: Redis, settings: Settings, queue: str) -> bool:
    """Whether the queue already holds enough messages to keep every worker busy for a while."""
    try:
        return int(redis.llen(settings.redis_prefix + queue)) > ENOUGH_RUNG
    except RedisError:
        return True
