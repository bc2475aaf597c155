from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from celery import signals

from workers.app import STOPPING
from workers.worker import Watch, why_lost


@pytest.fixture(autouse=True)
def _watches_end() -> Iterator[None]:
    """A watch looks until the worker stops."""
    yield
    STOPPING[0] = 1
    for thread in threading.enumerate():
        if isinstance(thread, Watch):
            thread.join(5)
    STOPPING[0] = 0


def watch(remedy: Callable[[], object], *, waiting: bool = True, idle: bool = True) -> Watch:
    """A watch that looks often and loses patience after a fifth of a second."""
    started = Watch(lambda: waiting, lambda: idle, remedy, look_every=0.01, deaf_after=0.2)
    started.start()
    return started


def test_an_idle_worker_that_hears_none_of_the_waiting_messages_is_started_anew() -> None:
    remedied = threading.Event()

    watch(remedied.set)

    assert remedied.wait(30)


@pytest.mark.parametrize(("waiting", "idle"), [(False, True), (True, False), (False, False)])
def test_a_worker_that_is_busy_or_has_nothing_to_hear_is_left_alone(waiting: bool, idle: bool) -> None:
    remedied = threading.Event()

    watch(remedied.set, waiting=waiting, idle=idle)

    assert not remedied.wait(0.6)


def test_a_worker_that_hears_messages_is_left_alone() -> None:
    remedied = threading.Event()
    done = threading.Event()
    watch(remedied.set)

    for _ in range(60):
        signals.task_received.send(sender=None)
        done.wait(0.01)

    assert not remedied.is_set()


def test_a_worker_that_is_to_stop_is_not_started_anew() -> None:
    remedied = threading.Event()
    STOPPING[0] = 1

    watching = watch(remedied.set)

    watching.join(5)
    assert not watching.is_alive()
    assert not remedied.is_set()


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (0x9B, "memory"),  # as billiard ends one that has grown too much
        (-signal.SIGKILL, "killed"),
        (-signal.SIGSEGV, "crashed"),
        (1, "exited"),  # as faulthandler ends one whose handler does not
        (0, "exited"),  # as os._exit(0) does in a handler
    ],
)
def test_a_process_that_is_gone_says_why_by_its_status(status: int, reason: str) -> None:
    assert why_lost(status) == reason
