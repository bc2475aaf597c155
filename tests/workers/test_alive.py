from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.workers.given import until
from workers import alive
from workers.worker import Watch


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_who_never_said_so_is_silent_for_ever() -> None:
    assert alive.silent_for("work") is None


def test_who_said_so_is_silent_since_then() -> None:
    alive.touch("work")
    past = time.time() - 100
    os.utime(alive.path("work"), (past, past))

    assert 99 < (alive.silent_for("work") or 0) < 110
    alive.touch("work")
    assert (alive.silent_for("work") or 99) < 10


def test_a_disk_that_cannot_be_written_ends_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc/nowhere")

    alive.touch("beat")

    assert alive.silent_for("beat") is None


def watching(waiting: list[bool], remedied: list[bool], turned: float) -> Watch:
    """The watch of an idle worker."""
    watch = Watch(
        lambda: bool(waiting),
        lambda: True,
        lambda: remedied.append(True),
        look_every=0.01,
        deaf_after=0.3,
        turned=lambda: turned,
    )
    watch.start()
    return watch


def test_a_worker_that_hears_is_alive_and_one_that_is_deaf_is_not() -> None:
    waiting: list[bool] = []
    remedied: list[bool] = []
    watch = watching(waiting, remedied, turned=float("inf"))
    until(lambda: alive.silent_for("work") is not None)

    waiting.append(True)
    until(lambda: remedied)
    watch.join(5)
    alive.path("work").unlink()

    assert not watch.is_alive()
    assert alive.silent_for("work") is None


def test_a_worker_whose_loop_does_not_turn_is_not_alive() -> None:
    waiting: list[bool] = []
    remedied: list[bool] = []
    watch = watching(waiting, remedied, turned=time.monotonic() - 3600)

    waiting.append(True)
    until(lambda: remedied)
    watch.join(5)

    assert alive.silent_for("work") is None
