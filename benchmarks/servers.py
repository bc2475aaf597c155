"""The servers that are measured, as processes: started, watched, put under load, stopped."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.apps import SECRET
from benchmarks.load import Measured
from benchmarks.services import Services

_ROOT = Path(__file__).parents[1]
_STARTING = 30.0
_STOPPING = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")


class ServerError(Exception):
    """A server did not start, or did not do its work; the message says which."""


@dataclass(frozen=True, slots=True)
class Server:
    """A process that receives deliveries on 127.0.0.1."""

    name: str
    port: int
    pid: int

    def load(self, count: int, seconds: float, connections: int) -> Measured:
        """Send it at most `count` deliveries for at most `seconds`. Raises ServerError unless each is accepted."""
        arguments = {"port": self.port, "count": count, "seconds": seconds, "connections": connections}
        words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "benchmarks.load", *words]
        with process(command, os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as generator:
            output, complaint = generator.communicate()
        if generator.returncode:
            last = complaint.decode(errors="replace").strip().splitlines()[-1:]
            raise ServerError(f"{self.name}: {''.join(last) or 'the load generator failed'}")
        measured = Measured(**json.loads(output))
        if set(measured.statuses) != {"202"}:
            raise ServerError(f"{self.name}: not every delivery was accepted: {measured.statuses}")
        return measured

    def cpu(self) -> float:
        """Seconds of CPU it has used."""
        return _cpu(self.pid)

    def memory(self) -> float:
        """MiB it occupies now (resident set size)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(found[1]) / 1024 if found else 0.0

    def settle(self, longest: float = 30.0) -> float:
        """Wait until it has nothing more to do; how many seconds that took after the last answer."""
        began = last = time.monotonic()
        used = self.cpu()
        while time.monotonic() - last < 0.3 and time.monotonic() - began < longest:
            time.sleep(0.05)
            now = self.cpu()
            if now - used > 1.5 / _TICKS:
                last = time.monotonic()
                used = now
        return last - began


def cpu_of_family(pid: int) -> float:
    """Seconds of CPU that a process and its children have used."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return _cpu(pid) + sum(_cpu(int(child)) for child in children)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def comparison(name: str, folder: Path, services: Services | None) -> Iterator[Server]:
    """One of `benchmarks.apps`, running."""
    environment = dict(os.environ)
    if services:
        environment["BENCHMARK_DATABASE_URL"] = _driver(services.database_url)
        environment["BENCHMARK_REDIS_URL"] = services.redis_url
        environment["BENCHMARK_PREFIX"] = services.prefix
    with _serving(name, [sys.executable, "-m", "benchmarks.apps", name], environment, folder) as server:
        yield server


@contextmanager
def billhook(name: str, folder: Path, services: Services | None) -> Iterator[Server]:
    """`billhook serve` as it is shipped: with the services, or with the embedded database and server."""
    environment = billhook_environment(folder, services)
    if services:
        subprocess.run([*BILLHOOK, "migrate"], env=environment, cwd=_ROOT, check=True, capture_output=True)
    with _serving(name, [*BILLHOOK, "serve"], environment, folder) as server:
        yield server
    if services is None:
        # Its keeper stops the embedded server when nobody uses it; only then the folder may go.
        with (folder / "state" / "server.keeper").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)


def stored(folder: Path, services: Services | None) -> int:
    """How many events `billhook audit` finds."""
    environment = billhook_environment(folder, services)
    audit = subprocess.run([*BILLHOOK, "audit", "--json"], env=environment, cwd=_ROOT, check=True, capture_output=True)
    return int(json.loads(audit.stdout)["received"])


BILLHOOK = (sys.executable, "-m", "receiver.cli")


def billhook_environment(folder: Path, services: Services | None) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BILLHOOK_")}
    environment |= {
        "BILLHOOK_CONFIG": os.devnull,
        "BILLHOOK_STATE_DIR": str(folder / "state"),
        "BILLHOOK_LISTEN": "127.0.0.1:0",
        "BILLHOOK_SOURCES__SHOP__PROVIDER": "hisab",
        "BILLHOOK_SOURCES__SHOP__SECRETS": SECRET,
    }
    if services:
        environment |= {
            "BILLHOOK_DATABASE_URL": services.database_url,
            "BILLHOOK_REDIS_URL": services.redis_url,
            "BILLHOOK_REDIS_PREFIX": services.prefix,
        }
    return environment


@contextmanager
def _serving(name: str, command: list[str], environment: Mapping[str, str], folder: Path) -> Iterator[Server]:
    announcement = re.compile(r"receiving on http://[\d.]+:(\d+)/")
    with announced(name, command, environment, folder, announcement) as (pid, found):
        yield Server(name, int(found[1]), pid)


@contextmanager
def announced(
    name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path, announcement: re.Pattern[str]
) -> Iterator[tuple[int, re.Match[str]]]:
    """A process that has said on stderr that it is ready: its id, and what it said. Raises ServerError."""
    log = folder / f"{name}.log"
    with log.open("wb") as stderr, process(command, environment, stdout=stderr, stderr=stderr) as started:
        deadline = time.monotonic() + _STARTING
        while (found := announcement.search(log.read_text(errors="replace"))) is None:
            if started.poll() is not None or time.monotonic() > deadline:
                last = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise ServerError(f"{name} does not start: {''.join(last) or 'it says nothing'}")
            time.sleep(0.02)
        yield started.pid, found


@contextmanager
def process(
    command: Sequence[str], environment: Mapping[str, str], stdout: IO[bytes] | int, stderr: IO[bytes] | int
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, so that Ctrl-C reaches only us; it is ended with the block."""
    process = subprocess.Popen(
        command,
        env=dict(environment),
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOPPING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)
