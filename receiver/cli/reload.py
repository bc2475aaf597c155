"""`billhook work --reload`: a worker that starts anew whenever a Python file beside its handlers changes."""

from __future__ import annotations

import glob
import importlib.util
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO

LOOK_EVERY = 1.0
"""Seconds between two looks at the files."""
_STEP = 0.1
_NOT_THEIRS = frozenset({"__pycache__", "node_modules"})


def supervise(command: Sequence[str], names: Sequence[str]) -> int:
    """Run `billhook COMMAND` until told to stop, anew after each change; its exit status.

    `names` are the modules and files of handlers. A worker that cannot load them says so and ends; the next change
    starts another one. A second signal while it stops kills it with what it runs.
    """
    told: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: told.append(number))
    # What the workers read ends when this process does, in whatever way: its other end is open nowhere else.
    reading, writing = os.pipe()
    with open(reading, "rb", 0) as alive, open(writing, "wb", 0):
        return _keep_going(command, names, told, alive)


def end_with_parent() -> None:
    """Have this process, which was started by `supervise`, stop as if told to once that one is gone."""

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)  # to which nothing is ever written
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _keep_going(command: Sequence[str], names: Sequence[str], told: Sequence[int], alive: IO[bytes]) -> int:
    while True:
        # Before the start, so that what changes while the worker loads is a change.
        seen = _watched(names)
        worker = _start(command, alive)
        changed = _wait(worker, names, seen, told)
        if changed is not None:
            print(f"{os.path.relpath(changed)} changed: starting the worker anew", file=sys.stderr, flush=True)
        _stop(worker, told)
        if changed is None or told:
            return worker.returncode


def _start(command: Sequence[str], alive: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "receiver.cli", *command],
        stdin=alive,
        # Compiled files go by the second of a change; two changes may be in one.
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        # A group of its own, so that a Ctrl-C reaches it once, from here.
        process_group=0,
    )


def _wait(
    worker: subprocess.Popen[bytes], names: Sequence[str], seen: Mapping[str, int], told: Sequence[int]
) -> str | None:
    """The file that changed; None where this process or its worker was told to stop."""
    ended, look_at = False, time.monotonic() + LOOK_EVERY
    while not told:
        time.sleep(_STEP)
        if not ended and worker.poll() is not None:
            ended = True
            if worker.returncode == 0:
                return None
            said = f"the worker ended with status {worker.returncode}; the next change of a file starts it anew"
            print(said, file=sys.stderr, flush=True)
        if time.monotonic() >= look_at:
            found = _watched(names)
            changed = sorted(file for file in found.keys() | seen.keys() if found.get(file) != seen.get(file))
            if changed:
                return changed[0]
            look_at = time.monotonic() + LOOK_EVERY
    return None


def _stop(worker: subprocess.Popen[bytes], told: Sequence[int]) -> None:
    """End it as `billhook work` ends: it finishes the handlers that run."""
    if worker.poll() is None:
        worker.terminate()
    while worker.poll() is None:
        if len(told) > 1:
            os.killpg(worker.pid, signal.SIGKILL)
        time.sleep(_STEP)


def _watched(names: Iterable[str]) -> dict[str, int]:
    """Every Python file in the folders of the handlers and below, and when it was changed, in nanoseconds."""
    found = {}
    for folder in set(_folders(names)):
        for inner, folders, files in os.walk(folder):
            folders[:] = [name for name in folders if _is_theirs(os.path.join(inner, name))]
            for file in files:
                if file.endswith(".py"):
                    path = os.path.join(inner, file)
                    try:
                        found[path] = os.stat(path).st_mtime_ns
                    except FileNotFoundError:
                        continue  # an editor writes a new one in its place
    return found


def _is_theirs(folder: str) -> bool:
    name = os.path.basename(folder)
    return not name.startswith(".") and name not in _NOT_THEIRS and not os.path.exists(f"{folder}/pyvenv.cfg")


def _folders(names: Iterable[str]) -> Iterator[str]:
    """Where the modules of handlers stand; a package's own folder."""
    for name in names:
        if name.endswith(".py") or "/" in name:
            folder = os.path.dirname(name)
            while glob.has_magic(folder):
                folder = os.path.dirname(folder)
            yield os.path.abspath(folder)
        else:
            yield from _of_module(name)
    for entry in entry_points(group="billhook.handlers"):
        yield from _of_module(entry.module)


def _of_module(name: str) -> Iterator[str]:
    try:
        # Of the outermost package: finding a module inside of it would import it here.
        spec = importlib.util.find_spec(name.partition(".")[0])
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        yield os.getcwd()
        return
    folders = spec.submodule_search_locations or [str(Path(spec.origin or ".").parent)]
    libraries = tuple(sysconfig.get_path(where) for where in ("stdlib", "purelib", "platlib"))
    yield from (os.path.abspath(folder) for folder in folders if not folder.startswith(libraries))
