"""What watches a process from outside it: its traces and the reports of its faults, begun and ended with the process.

A worker's pool is forked, and no thread survives a fork: so each of its processes begins for itself, and ends when what
it had under way has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
from celery import signals

from handlers.providers.http import watch
from workers import faults, tracing
from workers.app import runtime
from workers.execution import within
from workers.logs import hidden, masked
from workers.settings import Settings


def start(settings: Settings, process: str) -> None:
    """Have this process watched, as the settings and the environment say. Raises SettingsError."""
    mask = partial(masked, secrets=hidden(settings))
    tracing.start(process, mask)
    watch(_calling if tracing.is_on() else None)
    faults.start(settings, process, mask)


def start_parent(settings: Settings, process: str) -> None:
    """As `start`, for a process that works on nothing itself: it has no spans, and refuses what its children would."""
    if tracing.wanted() is not None:
        import workers.telemetry  # noqa: F401 - once, for all that are forked
    faults.start(settings, process, partial(masked, secrets=hidden(settings)))


def stop() -> None:
    """Send what has not been sent, for a few seconds at most."""
    tracing.stop()
    faults.stop()


@contextmanager
def _calling(request: httpx.Request) -> Iterator[Callable[[int], object]]:
    """A span around a call of a provider's API. Not of its path: there are ids in it, and of some a secret.

    No `traceparent` is sent along: what a provider could make of it is not ours to know.
    """
    about: tracing.Attributes = {
        "http.request.method": request.method,
        "server.address": request.url.host,
        "server.port": request.url.port or (443 if request.url.scheme == "https" else 80),
    }
    span = tracing.inside(request.method, "client", about)

    def answered(status: int) -> None:
        span.note({"http.response.status_code": status})
        if status >= 400:
            span.fail(str(status))

    with within(span):
        yield answered


@signals.worker_process_init.connect
def _after_fork(**_: Any) -> None:
    start(runtime().settings, "work")
    # Connected here, so that it is called after those that bring to an end what is under way.
    signals.worker_process_shutdown.connect(_before_end, weak=False)


def _before_end(**_: Any) -> None:
    stop()


@signals.task_failure.connect
def _failed(sender: Any = None, exception: BaseException | None = None, **_: Any) -> None:
    if exception is not None:
        faults.report(exception, task=str(getattr(sender, "name", "")))
