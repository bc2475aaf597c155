"""A whole Billhook as real processes, to be used, killed and started again by acceptance tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from redis import Redis
from sqlalchemy import Engine, func, select

from handlers.providers import PROVIDERS
from handlers.testing import SignedRequest, signed_request
from tests.conftest import new_database
from tests.services import free_port
from workers import database
from workers.audit import Balance, audit
from workers.models import EventRow
from workers.settings import Settings

SECRET = "whsec_acceptance_secret_123456"
DEADLINE = 120.0


def await_(condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """Wait until `condition` is truthy and return what it gave."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:g} s: {what}")


@dataclass
class Stack:
    """One Billhook in `folder`; `environment` holds its options."""

    folder: Path
    environment: dict[str, str]
    port: int = field(default_factory=free_port)
    module: str = "receiver.cli"
    """What its processes run."""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, *names: str) -> None:
        """Start commands; each logs to a file of its name. Of one command there may be several: `work`, `work-2`."""
        for name in names:
            with (self.folder / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-m", self.module, name.partition("-")[0]],
                    env=self.environ,
                    cwd=self.folder,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        if "serve" in names:
            await_(self.receives, "the receiver answers")

    def kill(self, name: str) -> None:
        """SIGKILL a process with all its children."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def children(self, name: str) -> list[int]:
        """The process ids of a process's children, such as those of a worker's pool."""
        listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        pairs = [line.split() for line in listed.splitlines()]
        return [int(pid) for pid, parent in pairs if int(parent) == self.processes[name].pid]

    def stop(self) -> None:
        """End everything, however it stands."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for name, process in list(self.processes.items()):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill(name)
        self.engine.dispose()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "receiver.cli", *arguments],
            env=self.environ,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def log(self, name: str) -> str:
        """What a process has written so far."""
        return (self.folder / f"{name}.log").read_text()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @cached_property
    def engine(self) -> Engine:
        """An engine of the test's own on the same database."""
        settings = Settings(
            state_dir=self.folder / ".billhook",
            database_url=self.environment.get("BILLHOOK_DATABASE_URL"),
        )
        return database.connect(settings)

    def balance(self) -> Balance:
        return audit(self.engine)

    def events(self, status: str | None = None) -> int:
        """How many events there are, of one status or all."""
        statement = select(func.count()).select_from(EventRow)
        if status is not None:
            statement = statement.where(EventRow.status == status)
        with database.read(self.engine) as connection:
            return connection.execute(statement).scalar_one()

    def receives(self) -> bool:
        """Whether the receiver is ready."""
        assert "serve" not in self.processes or self.processes["serve"].poll() is None, self.log("serve")
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def environ(self) -> dict[str, str]:
        """The environment of its processes."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BILLHOOK_")}
        return {
            **inherited,
            "BILLHOOK_SOURCES": json.dumps({"shop": {"provider": "hisab", "secrets": [SECRET]}}),
            "BILLHOOK_LISTEN": f"127.0.0.1:{self.port}",
            "BILLHOOK_LEASE_GRACE": "1",
            "BILLHOOK_SWEEP_INTERVAL": "0.3",
            "BILLHOOK_EGRESS_NETWORKS": "127.0.0.0/8",
            "BILLHOOK_EGRESS_PORTS": "*",
            "BILLHOOK_HANDLERS": str(self.folder / "*_handlers.py"),
            "PYTHONWARNINGS": "default",
            **self.environment,
        }


@contextmanager
def embedded(folder: Path) -> Iterator[Stack]:
    """A Billhook with nothing configured: SQLite and the embedded server."""
    stack = Stack(folder, {})
    try:
        yield stack
    finally:
        stack.stop()


@contextmanager
def servers(folder: Path, postgres_url: str, redis_url: str) -> Iterator[Stack]:
    """A Billhook on PostgreSQL, with a database of its own, and on Redis."""
    prefix = f"billhook-acceptance-{uuid.uuid4().hex[:12]}:"
    with new_database(postgres_url) as database_url:
        stack = Stack(
            folder,
            {
                "BILLHOOK_DATABASE_URL": database_url,
                "BILLHOOK_REDIS_URL": redis_url,
                "BILLHOOK_REDIS_PREFIX": prefix,
                "BILLHOOK_ENCRYPTION_KEYS": "G0jP2vqcdPz6m2nV7FvH1k9H0Xx0vVn3vUoS4yqcF2U=",
            },
        )
        assert stack.run("migrate").returncode == 0
        try:
            yield stack
        finally:
            stack.stop()
    with Redis.from_url(redis_url) as redis:
        for key in redis.scan_iter(f"{prefix}*"):
            redis.delete(key)


def delivery(number: int, event_type: str = "invoice.paid", delivery_id: str | None = None) -> SignedRequest:
    """A signed delivery that differs from all others by its number."""
    body = dict(PROVIDERS["hisab"].sample(event_type))
    body["data"] = {**body["data"], "id": f"inv_{number}"}
    return signed_request(PROVIDERS["hisab"], event_type, SECRET, body=body, delivery_id=delivery_id or f"del_{number}")


class Sink(ThreadingHTTPServer):
    """An endpoint that keeps what it got and answers 204, or what `status` gives."""

    daemon_threads = True

    def __init__(self, status: Callable[[], int] = lambda: 204) -> None:
        super().__init__(("127.0.0.1", 0), _SinkHandler)
        self.status = status
        self.received: list[tuple[dict[str, str], bytes]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def server_close(self) -> None:
        self.shutdown()
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """That a sender was killed is no news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class _SinkHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.server, Sink)
        self.server.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
        status = self.server.status()
        self.send_response(status)
        if status != 204:
            self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        pass
