"""Redis as a platform has it: a master, a replica and sentinels, which tests may kill; and TLS in front of a server.

The server that comes with Billhook speaks no TLS. So a door in front of it does, for whoever begins with TLS;
others are let through as they are, as the sentinels and the replica must be.
"""

from __future__ import annotations

import select
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from redis import Redis, RedisError

from tests.services import free_port
from workers import embedded

NAME = "billing-cache"
PASSWORD = "data-s3cret+/?"
SENTINEL_PASSWORD = "sentinel-s3cret+&"
_TLS_BEGINS_WITH = b"\x16"


@dataclass
class Watched:
    """Two servers and the sentinels that watch them, each by its port."""

    folder: Path
    servers: tuple[int, int] = field(default_factory=lambda: (free_port(), free_port()))
    sentinels: tuple[int, ...] = field(default_factory=lambda: (free_port(), free_port(), free_port()))
    doors: dict[int, int] = field(default_factory=dict)
    """Ports that clients are told of, in place of some of the above."""
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def hosts(self) -> str:
        """The sentinels, as they stand in a URL."""
        return ",".join(f"127.0.0.1:{self.doors.get(port, port)}" for port in self.sentinels)

    def start(self) -> None:
        """The first of the servers is the master."""
        master, replica = self.servers
        self.start_server(master)
        self.start_server(replica, of=master)
        self._await(lambda: self._follows(master), "the replica follows")
        for port in self.sentinels:
            self._run(port, _of_a_sentinel(self.doors.get(master, master)), "--sentinel")
        for port in self.sentinels:
            self._await(partial(self._hurried, port), "a sentinel answers")
        self._await(self.complete, "the sentinels find one another and the replica")

    def start_server(self, port: int, of: int | None = None) -> None:
        """Start one of the two, empty; `of`: as the replica of the other."""
        lines = [
            f'requirepass "{PASSWORD}"',
            f'masterauth "{PASSWORD}"',
            'save ""',
            "repl-diskless-sync-delay 0",
            f"dbfilename {port}.rdb",
            *([f"replicaof 127.0.0.1 {of}"] if of else []),
        ]
        self._run(port, "\n".join(lines))

    def kill(self, port: int) -> None:
        """SIGKILL one of them."""
        process = self.processes.pop(port)
        process.kill()
        process.wait(10)

    def stop(self) -> None:
        for port in list(self.processes):
            self.kill(port)

    def ask(self, port: int) -> Redis:
        """A client of one server or sentinel."""
        password = SENTINEL_PASSWORD if port in self.sentinels else PASSWORD
        return Redis(port=port, password=password, socket_timeout=1, decode_responses=True)

    def master(self) -> int:
        """Which server it is, as the last of the sentinels says."""
        with self.ask(self.sentinels[-1]) as sentinel:
            return int(sentinel.sentinel_get_master_addr_by_name(NAME)[1])

    def complete(self) -> bool:
        """Whether every sentinel that runs knows of the others, and the replica follows."""
        for port in set(self.sentinels) & self.processes.keys():
            with self.ask(port) as sentinel:
                known = sentinel.sentinel_masters()[NAME]
            if (known["num-other-sentinels"], known["num-slaves"]) != (len(self.sentinels) - 1, 1):
                return False
        return self._follows(self.master())

    def _follows(self, master: int) -> bool:
        with self.ask(master) as client:
            return str(client.info("replication").get("slave0", "")).find("'online'") > 0

    def _hurried(self, port: int) -> bool:
        """Let a sentinel look around more often than every 10 s, and tell the others of itself."""
        with self.ask(port) as sentinel:
            return bool(sentinel.execute_command("SENTINEL", "DEBUG", "info-period", 200, "publish-period", 200))

    def _await(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            assert all(process.poll() is None for process in self.processes.values()), "a server ended at once"
            with suppress(RedisError):
                if condition():
                    return
            time.sleep(0.02)
        raise AssertionError(f"not within 20 s: {what}")

    def _run(self, port: int, configuration: str, *options: str) -> None:
        path = self.folder / f"{port}.conf"
        path.write_text(f"port {port}\nbind 127.0.0.1\ndir {self.folder}\n{configuration}\n")
        with (self.folder / f"{port}.log").open("ab") as log:
            self.processes[port] = subprocess.Popen([embedded.binary(), path, *options], stdout=log, stderr=log)


def _of_a_sentinel(master: int) -> str:
    return "\n".join(
        (
            f"sentinel monitor {NAME} 127.0.0.1 {master} 2",
            f"sentinel down-after-milliseconds {NAME} 500",
            f"sentinel failover-timeout {NAME} 2000",
            f'sentinel auth-pass {NAME} "{PASSWORD}"',
            f'requirepass "{SENTINEL_PASSWORD}"',
            f'sentinel sentinel-pass "{SENTINEL_PASSWORD}"',
        )
    )


@contextmanager
def watched(folder: Path, tls: ssl.SSLContext | None = None) -> Iterator[Watched]:
    """A master, its replica, and three sentinels with passwords of their own; all behind doors if `tls` is given."""
    servers = Watched(folder)
    with ExitStack() as stack:
        if tls is not None:
            servers.doors = {port: stack.enter_context(door(port, tls)) for port in servers.servers + servers.sentinels}
        stack.callback(servers.stop)
        servers.start()
        yield servers


@contextmanager
def door(target: int, tls: ssl.SSLContext) -> Iterator[int]:
    """A port in front of another of this machine, that also speaks TLS."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        threading.Thread(target=_open, args=(listening, target, tls), daemon=True).start()
        yield int(listening.getsockname()[1])
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


def _open(listening: socket.socket, target: int, tls: ssl.SSLContext) -> None:
    with suppress(OSError):
        while True:
            threading.Thread(target=_pass, args=(listening.accept()[0], target, tls), daemon=True).start()


def _pass(visitor: socket.socket, target: int, tls: ssl.SSLContext) -> None:
    """Both ways until either ends. A handshake that fails ends it too: the visitor sees why."""
    with visitor, suppress(OSError):
        begins = visitor.recv(1, socket.MSG_PEEK)
        inside = tls.wrap_socket(visitor, server_side=True) if begins == _TLS_BEGINS_WITH else visitor
        with inside, socket.create_connection(("127.0.0.1", target)) as server:
            while True:
                # What TLS has read ahead, select does not see.
                waiting = isinstance(inside, ssl.SSLSocket) and inside.pending()
                ready = [inside] if waiting else select.select([inside, server], [], [])[0]
                for one in ready:
                    data = one.recv(65536)
                    if not data:
                        return
                    (server if one is inside else inside).sendall(data)
