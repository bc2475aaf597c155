"""The demo's stack: Billhook's processes with a configuration of their own, and servers that stand beside them.

Everything is told where it is by one file, `billhook.toml` in the demo's folder; no BILLHOOK_ variable of the user
reaches it. Whatever is started here is stopped at the end of its `with` block, however that ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TypeVar

import uvicorn
from starlette.types import ASGIApp

from receiver.demo.page import Missing
from workers import settings
from workers.settings import Settings

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds that each single thing may take to happen."""
LOOK = 0.03
"""Seconds between two looks for it."""
_STOPPING = 20.0
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Where everything is, and the made-up secrets it uses."""

    folder: Path
    receiver: int
    """Its port on loopback."""
    sandbox: int
    endpoint: int
    secret: str = field(repr=False)
    api_key: str = field(repr=False)
    endpoint_secret: str = field(repr=False)

    theirs: tuple[str, ...] = ()
    """The user's own BILLHOOK_ variables, which have no place in this."""

    @property
    def command(self) -> str:
        """What to type in a shell of the user's to run `billhook` with this configuration."""
        without = "".join(f" -u {name}" for name in self.theirs)
        return f"{f'env{without} ' if without else ''}BILLHOOK_CONFIG={shlex.quote(str(self.file))} billhook"

    @property
    def file(self) -> Path:
        return self.folder / "billhook.toml"

    @property
    def webhook_url(self) -> str:
        return f"http://127.0.0.1:{self.receiver}/webhooks/hisab"

    @property
    def sandbox_url(self) -> str:
        return f"http://127.0.0.1:{self.sandbox}"

    @property
    def api_url(self) -> str:
        return f"{self.sandbox_url}/api/v1"

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.endpoint}/"

    def write(self) -> None:
        """Write the file; for our eyes only, because the folder is."""
        # A JSON string is a TOML string.
        lines = [
            "# The configuration of one `billhook demo`.",
            f"state_dir = {json.dumps(str(self.folder / 'state'))}",
            f'listen = "127.0.0.1:{self.receiver}"',
            'handlers = ["handlers.examples"]',
            "schedule_interval = 1.0",
            'egress_networks = ["127.0.0.0/8"]  # the endpoint is on this machine',
            'egress_ports = ["*"]',
            "",
            "[sources.hisab]",
            'provider = "hisab"',
            f"secrets = [{json.dumps(self.secret)}]",
            f"api_key = {json.dumps(self.api_key)}",
            f"api_url = {json.dumps(self.api_url)}",
            'timezone = "Africa/Casablanca"',
        ]
        self.file.write_text("\n".join(lines) + "\n", "utf-8")


class Stack:
    """Billhook's processes: in a `with` block, stopped at its end, the embedded server included."""

    def __init__(self, folder: Path, state_dir: Path) -> None:
        self._folder, self._state_dir = folder, state_dir
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        with signals_wait():
            self._stop()

    def start(self, command: str) -> None:
        """Start `billhook COMMAND`, with a log of its own."""
        with signals_wait(), self.log(command).open("wb") as log:
            self._children[command] = subprocess.Popen(
                [sys.executable, "-m", "receiver.cli", command],
                cwd=self._folder,
                env={**os.environ, "TMPDIR": str(self._folder)},  # what a killed one leaves goes with the folder
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C at the terminal is for the demo, which then stops them in order
            )

    def said(self, command: str, words: str) -> str | None:
        """The line of its log that begins with these words; None until there is one."""
        lines = self.log(command).read_text("utf-8", "replace").splitlines()
        return next((line for line in lines if line.startswith(words)), None)

    def log(self, command: str) -> Path:
        return self._folder / f"{command}.log"

    def wait(self, happening: str, what: str, look: Callable[[], T | None]) -> T:
        """Look until there is something, and return it. Raises Missing after PATIENCE, or when a process has ended."""
        deadline = time.monotonic() + PATIENCE
        while not (found := look()):
            self.check()
            if time.monotonic() > deadline:
                raise Missing(happening, f"{what}: not within {PATIENCE:g} s")
            time.sleep(LOOK)
        return found

    def check(self) -> None:
        """Raise Missing where a process has ended."""
        for command, child in self._children.items():
            if child.poll() is not None:
                said = self.log(command).read_text("utf-8", "replace").strip().rpartition("\n")[2]
                raise Missing("started", f"`billhook {command}` ended with status {child.returncode}: {said[:200]}")

    def _stop(self) -> None:
        for child in self._children.values():
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + _STOPPING
        for child in self._children.values():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)  # its pool of processes too
                child.wait()
        # The embedded server ends with its last user; its keeper holds this lock for as long as either lives.
        while not _free(self._state_dir / "server.keeper"):
            if time.monotonic() > deadline + _STOPPING:
                raise Missing("stopped", "the embedded server does not stop")
            time.sleep(LOOK)


def _free(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


@contextmanager
def configured(configuration: Configuration) -> Iterator[Settings]:
    """This process, and every one that it starts, has this configuration and none of the user's."""
    theirs = {name: os.environ.pop(name) for name in configuration.theirs}
    os.environ[settings.CONFIG] = str(configuration.file)
    try:
        yield settings.load()
    finally:
        del os.environ[settings.CONFIG]
        os.environ.update(theirs)


@contextmanager
def serving(app: ASGIApp, listener: socket.socket) -> Iterator[None]:
    """Serve `app` in a thread of this process, on a socket that is bound already, for as long as the block."""
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        yield
    finally:
        with signals_wait():
            server.should_exit = True
            thread.join(10)
            listener.close()


def listen() -> socket.socket:
    """A socket on a free port of loopback."""
    return socket.create_server(("127.0.0.1", 0))


def free_port() -> int:
    """A port of loopback that was free a moment ago."""
    with listen() as found:
        return port_of(found)


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


@contextmanager
def signals_end() -> Iterator[None]:
    """SIGTERM and SIGHUP leave the block as an exception, as Ctrl-C does, so that everything is stopped on the way."""

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {
        number: signal.signal(number, end)
        for number in _ENDING[1:]
        if signal.getsignal(number) is not signal.SIG_IGN  # nohup
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_wait() -> Iterator[None]:
    """What comes during the block is acted on at its end: nothing is left half started, or half stopped."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: came.append(number))
        for number in _ENDING
        if signal.getsignal(number) not in {signal.SIG_IGN, None}
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])
