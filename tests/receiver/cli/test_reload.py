from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from receiver.cli import reload
from tests.acceptance.stack import Stack, await_
from tests.receiver.cli.terminal import run

HANDLER = """
from handlers import on
from amounts import WORD

@on("invoice.paid")
def handle(event, ctx):
    pass

print("loaded", WORD, flush=True)
"""


HANGING = """
import signal, time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("hanging", flush=True)
time.sleep(600)
"""


class Reloading:
    """`billhook work --reload` in a folder of its own, and what it and its workers say."""

    def __init__(self, stack: Stack) -> None:
        self.folder = stack.folder
        self.log = stack.folder / "reload.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "receiver.cli", "work", "--queues", "events", "--reload"],
                env=stack.environ | {"BILLHOOK_HANDLERS": "my_handlers.py", "BILLHOOK_WORKER_PROCESSES": "1"},
                cwd=stack.folder,
                stdout=log,
                stderr=log,
            )
        self.read = 0

    def says(self, text: str) -> str:
        """Wait until it says this; what it said before that since the last time."""

        def said() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return text in self.log.read_text()[self.read :]

        try:
            await_(said, text)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text()}") from None
        before, _, _ = self.log.read_text()[self.read :].partition(text)
        self.read += len(before) + len(text)
        return before

    def write(self, file: str, text: str) -> None:
        """Write a file as editors do: at once, and later than all before."""
        new = self.folder / f"{file}.new"
        new.write_text(text)
        newest = max((path.stat().st_mtime for path in self.folder.glob("*.py")), default=0.0)
        os.utime(new, (newest + 1, newest + 1))
        new.replace(self.folder / file)


@contextmanager
def reloading(stack: Stack) -> Iterator[Reloading]:
    started = Reloading(stack)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.send_signal(signal.SIGTERM)
            started.process.wait(60)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path, {})
    (tmp_path / "my_handlers.py").write_text(HANDLER)
    (tmp_path / "amounts.py").write_text("WORD = 'one'")
    yield stack
    stack.stop()


def test_a_worker_starts_anew_with_each_change_and_survives_a_broken_one(stack: Stack) -> None:
    with reloading(stack) as worker:
        worker.says("loaded one")
        worker.says("working on events with 1 handler\n")

        worker.write("amounts.py", "WORD = (")
        worker.says("amounts.py changed: starting the worker anew")
        worker.says("amounts.py:1: does not load: SyntaxError: ")
        worker.says("the worker ended with status 1; the next change of a file starts it anew")

        worker.write("amounts.py", "WORD = 'two'")
        worker.says("loaded two")
        worker.says("working on events with 1 handler\n")

        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(60) == 0
    assert "Traceback" not in worker.log.read_text()


def test_a_second_signal_kills_a_worker_that_does_not_stop(stack: Stack) -> None:
    (stack.folder / "amounts.py").write_text(HANGING)
    with reloading(stack) as worker:
        worker.says("hanging")

        worker.process.send_signal(signal.SIGTERM)
        worker.process.send_signal(signal.SIGINT)

        assert worker.process.wait(60) != 0


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def has_ended(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"  # of which nobody has asked how it ended


def test_a_worker_whose_parent_was_killed_stops_by_itself(stack: Stack) -> None:
    with reloading(stack) as worker:
        worker.says("working on events with 1 handler\n")
        (child,) = children(worker.process.pid)

        worker.process.kill()
        worker.process.wait()

        try:
            await_(lambda: has_ended(child), "the worker ends", seconds=30)
        finally:
            if not has_ended(child):
                os.killpg(child, signal.SIGKILL)
    assert "Traceback" not in worker.log.read_text()


def test_a_worker_that_ends_well_by_itself_is_not_started_again(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    assert reload.supervise(["settings"], []) == 0
    assert capfd.readouterr().out.count("BILLHOOK_STATE_DIR") == 1


def test_a_queue_that_is_none_is_refused_before_anything_starts() -> None:
    said = run("work", "--reload", "--queues", "nothing").complaint(2)

    assert said == "--queues: 'nothing' is none of events, deliveries, schedules"


def watched(*names: str) -> set[str]:
    return {os.path.relpath(file) for file in reload._watched(names)}


def test_the_files_beside_the_handlers_and_below_are_watched(tmp_path: Path) -> None:
    files = ("shop/a.py", "shop/deep/b.py", "shop/c.txt", "shop/.hidden/d.py", "shop/__pycache__/e.py", "other/f.py")
    for file in (*files, "shop/env/lib/g.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "shop" / "env" / "pyvenv.cfg").touch()
    (tmp_path / "shop" / "gone.py").symlink_to("nowhere.py")  # as an editor's lock

    assert watched("shop/a.py") == watched("shop/*.py") == watched("shop/**/*.py") == {"shop/a.py", "shop/deep/b.py"}
    assert watched("other/f.py", "shop/deep/b.py") == {"other/f.py", "shop/deep/b.py"}
    assert watched("*/a.py") == {"shop/a.py", "shop/deep/b.py", "other/f.py"}


def test_a_package_is_watched_and_a_library_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("parcel/__init__.py", "parcel/handlers.py", "beside.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    monkeypatch.syspath_prepend(tmp_path)

    assert watched("parcel.handlers") == {"parcel/__init__.py", "parcel/handlers.py"}
    assert watched("beside") == {"parcel/__init__.py", "parcel/handlers.py", "beside.py"}
    assert watched("httpx") == watched("json") == set()


def test_where_a_module_is_not_there_yet_its_coming_is_seen(tmp_path: Path) -> None:
    assert watched("not_there_yet", "..strange") == set()

    (tmp_path / "not_there_yet.py").touch()

    assert watched("not_there_yet") == {"not_there_yet.py"}


def test_the_modules_that_entry_points_name_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parcel").mkdir()
    (tmp_path / "parcel" / "__init__.py").touch()
    dist = tmp_path / "parcel-1.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Name: parcel\nVersion: 1\n")
    (dist / "entry_points.txt").write_text("[billhook.handlers]\nparcel = parcel\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert watched() == {"parcel/__init__.py"}
