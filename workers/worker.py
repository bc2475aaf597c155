"""The Celery worker of `billhook work`: it stops soon, it does not stay deaf, and it counts the processes it loses.

Three things Celery leaves to us. Its shutdown either waits for whole tasks or for a fixed time; ours asks the processes
to hand back what they have not begun. A connection to Redis that breaks under load can end or deafen its consumer (seen
with 5.7: closing the broken connection fails in turn); then this process starts itself anew. And of a process of the
pool that died it says so in its log alone, before it starts another one.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import billiard
from billiard import pool
from celery import signals
from celery.apps import worker as celery_worker
from celery.concurrency import asynpool, prefork
from celery.exceptions import SecurityWarning
from celery.worker import consumer, state
from redis import Redis, RedisError

from workers import alive, presence
from workers.app import STOPPING, Runtime, app
from workers.logs import log
from workers.metrics import PROCESSES_LOST

STOPS_WITHIN = 25.0
"""Seconds that running handlers get after SIGTERM; less than the 30 s after which Kubernetes kills."""
DEAF_AFTER = 20.0
"""Seconds without a message, idle, while messages wait, after which the worker starts anew."""
_ASKS_AGAIN = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 5.0}
_REFUSED_PAUSE = 1.0
"""Seconds between attempts to reach Redis: where it does not answer, ever longer; where it refuses to be written to."""
_TURNS_EVERY, _STUCK_AFTER = 2.0, 30.0
"""Seconds: how often the loop of the consumer says that it turns, and after which silence it is taken for stuck."""
_turned_at: list[float] = [time.monotonic()]
"""When that loop last said so."""
_TENTHS_FOR_A_RESULT = 20
"""Tenths of a second that an ending pool process waits for its last result to be read."""


class Consumer(consumer.Consumer):
    """Celery's consumer, which reconnects soon, even if it cannot close what broke, and says that it turns."""

    def on_ready(self) -> None:
        super().on_ready()
        hub = getattr(self, "hub", None)
        if hub is not None:
            hub.call_repeatedly(_TURNS_EVERY, _turned)

    def ensure_connected(self, conn: Any) -> Any:
        # Celery asks after 2, 4, 6 and at last every 30 s; a new master is there after a few.
        conn.ensure_connection = partial(conn.ensure_connection, **_ASKS_AGAIN)
        return super().ensure_connected(conn)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        super().on_connection_error_before_connected(exc)
        # A server that takes connections and refuses to write (a replica, for now) would be asked without a pause.
        time.sleep(_REFUSED_PAUSE)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        try:
            super().on_connection_error_after_connected(exc)
        except Exception as error:
            log.warning(
                "the broken connection to Redis could not be closed; reconnecting",
                action="close_failed",
                error=type(error).__name__,
            )


class Processes(asynpool.AsynPool):
    """Celery's processes, which are counted when they are gone."""

    def _join_exited_workers(self, shutdown: bool = False) -> list[int]:
        codes: list[int] = super()._join_exited_workers(shutdown)  # type: ignore[misc]
        if not shutdown and not STOPPING[0]:
            for code in codes:
                _lost(code)
        return codes


class Pool(prefork.TaskPool):
    """Celery's pool of those."""

    Pool = Processes


def _lost(code: int) -> None:
    reason = why_lost(code)
    PROCESSES_LOST.labels(reason).inc()
    level = "info" if reason == "memory" else "error"
    getattr(log, level)("a process of the pool is gone", action="process_lost", reason=reason, status=code)


def why_lost(code: int) -> str:
    """Why a process of the pool is gone, by its exit status.

    `memory`: it ended after its task, since it had come to hold more than it may. `killed`: by SIGKILL, as the kernel
    does where memory is short. `crashed`: by another signal. `exited`: by itself, as when a handler would not end.
    """
    if code == pool.EX_RECYCLE:
        return "memory"
    if code == -signal.SIGKILL:
        return "killed"
    return "crashed" if code < 0 else "exited"


def run(runtime: Runtime, queues: Sequence[str], ready: Callable[[], object]) -> int:
    """Work until told to stop; the exit status. Does not return when the worker has to start anew.

    `ready` is called once messages are being taken.
    """
    signals.worker_ready.connect(lambda **_: ready(), weak=False)
    # No connection of ours may cross the fork.
    runtime.engine.dispose()
    # It writes to the terminal past every log, from within a signal handler.
    celery_worker.safe_say = lambda *_: None  # type: ignore[attr-defined]
    # A pool process that ends waits for its last result to be read, up to 30 s. A shutdown may have stopped to read
    # results it has not heard begin; nothing of ours is lost with one, so the wait is short.
    pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = _TENTHS_FOR_A_RESULT
    # Celery warns of root because of pickle, which we never read.
    warnings.simplefilter("ignore", SecurityWarning)
    worker = app.Worker(
        hostname=f"billhook-{os.getpid()}@{socket.gethostname()}",
        queues=list(queues),
        pool=Pool,
        loglevel="WARNING",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    keys = [f"{runtime.settings.redis_prefix}{queue}" for queue in queues]
    known_as = (runtime.redis, runtime.settings.redis_prefix, "work")
    said = partial(presence.announce, *known_as)
    Watch(lambda: _waiting(runtime.redis, keys), _idle, _start_anew, said=said).start()
    worker.start()
    presence.withdraw(*known_as)
    log.info("the worker has stopped", action="worker_stopped")
    status = int(worker.exitcode or 0)
    if status and not STOPPING[0]:
        log.error("the worker ended by itself; starting it anew", action="worker_ended", status=status)
        time.sleep(1)
        _start_anew()
    return status


class Watch(threading.Thread):
    """Calls `remedy` when an idle worker has heard none of the messages that wait, for `deaf_after` seconds.

    As long as it hears them, and its loop turns, it says that the worker is alive.
    """

    def __init__(
        self,
        waiting: Callable[[], bool],
        idle: Callable[[], bool],
        remedy: Callable[[], object],
        *,
        look_every: float = 2.0,
        deaf_after: float = DEAF_AFTER,
        turned: Callable[[], float] = lambda: _turned_at[0],
        said: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(name="watch", daemon=True)
        self._waiting = waiting
        self._idle = idle
        self._remedy = remedy
        self._look_every = look_every
        self._deaf_after = deaf_after
        self._turned = turned
        self._said = said
        self._received = time.monotonic()
        signals.task_received.connect(self._heard)

    def run(self) -> None:
        well = time.monotonic()
        while not STOPPING[0]:
            time.sleep(self._look_every)
            now = time.monotonic()
            if not self._idle() or self._received > well or not self._waiting():
                well = now
                if now - self._turned() < _STUCK_AFTER:
                    alive.touch("work")
                    if not STOPPING[0]:
                        self._said()
            elif now - well > self._deaf_after:
                log.error("messages wait and the worker hears none; starting it anew", action="worker_deaf")
                self._remedy()
                return

    def _heard(self, **_: Any) -> None:
        self._received = time.monotonic()


def _turned() -> None:
    _turned_at[0] = time.monotonic()


def _idle() -> bool:
    return not state.active_requests and not state.reserved_requests


def _waiting(redis: Redis, keys: Sequence[str]) -> bool:
    try:
        return any(int(redis.llen(key)) for key in keys)
    except RedisError:
        return False  # Celery waits for Redis by itself


def _start_anew() -> None:
    """Replace this process by a fresh one of the same command, whichever that was, and process id."""
    for child in billiard.active_children():
        if child.pid is not None:
            os.kill(child.pid, signal.SIGKILL)
    shutil.rmtree(os.environ.pop("PROMETHEUS_MULTIPROC_DIR", ""), ignore_errors=True)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own command


@signals.worker_shutting_down.connect
def _stop_soon(**_: Any) -> None:
    # In memory that the pool's processes share: they hand back what they have not begun.
    STOPPING[0] = 1
    timer = threading.Timer(STOPS_WITHIN, os.kill, (os.getpid(), signal.SIGQUIT))
    timer.daemon = True
    timer.start()
