"""How much room a Billhook takes: disk for each event, Redis for each event, connections and memory of each process.

    python -m benchmarks.room --events 20000        about one minute

Deliveries of 1 KB go through `billhook serve`, and through `billhook work` with two processes and a handler that sends
one message of each event on to one endpoint. What is left in PostgreSQL is read with `pg_total_relation_size`: rows,
indexes and what belongs to them. They come in ten parts, with a VACUUM behind each, as over days there is one again and
again. Connections are counted all the while, and the most of them is told.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from cryptography.fernet import Fernet, MultiFernet
from redis import Redis
from sqlalchemy import make_url

from benchmarks.exchanges import HERE
from benchmarks.machine import hardware
from benchmarks.outbound import until
from benchmarks.servers import BILLHOOK, ServerError, announced, billhook, billhook_environment
from benchmarks.services import ServiceError, Services, services
from benchmarks.sink import Sink, sink
from workers import database
from workers.delivery import endpoints
from workers.delivery.specs import EndpointSpec, Rules
from workers.leases import utcnow
from workers.settings import Settings

HANDLERS = """
from handlers import on

@on("*")
def send_on(event, ctx):
    ctx.emit("receipt.issued", {"invoice": event.object_id})
"""
CONNECTIONS = 64
TABLES = ("events", "handler_runs", "messages", "deliveries", "attempts")
_KEY = Fernet.generate_key()


@dataclass
class Watch:
    """What the processes of each name hold at most, looked at five times a second."""

    database_url: str
    processes: dict[str, int]
    """By name, the id of the first of them."""
    connections: Counter[str] = field(default_factory=Counter)
    memory: dict[str, float] = field(default_factory=dict)
    """MiB of a process and its children, what they share counted once (PSS)."""

    @contextmanager
    def going(self) -> Iterator[None]:
        """On for the block."""
        done = threading.Event()

        def look() -> None:
            while not done.wait(0.2):
                self.look()

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.look()

    def look(self) -> None:
        """Count, and keep what is most."""
        address = make_url(self.database_url)
        with psycopg.connect(self.database_url) as connection:
            statement = "SELECT client_port FROM pg_stat_activity WHERE datname = %s AND application_name = 'billhook'"
            ports = {port for (port,) in connection.execute(statement, (address.database,))}
        for name, pid in self.processes.items():
            each = [_connected(one, ports) for one in family(pid)]
            self.connections[name] = max(self.connections[name], sum(each))
            self.memory[name] = max(self.memory.get(name, 0.0), sum(map(_memory, family(pid))))


def family(pid: int) -> list[int]:
    """A process and those it has started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


def _memory(pid: int) -> float:
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


def _connected(pid: int, ports: set[int]) -> int:
    """How many of these client ports are sockets of the process."""
    inodes = set()
    with suppress(OSError):  # it has ended
        for link in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):  # it was closed meanwhile
                inodes.add(os.readlink(f"/proc/{pid}/fd/{link}"))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(f"socket:[{row[9]}]" in inodes and int(row[1].rpartition(":")[2], 16) in ports for row in rows)


@contextmanager
def running(folder: Path, found: Services, subscribers: Sink) -> Iterator[tuple[Any, dict[str, int]]]:
    """A receiver, and the ids of it, a worker and a beat."""
    (folder / "room_handlers.py").write_text(HANDLERS)
    environment = billhook_environment(folder, found) | {
        "BILLHOOK_HANDLERS": str(folder / "room_handlers.py"),
        "BILLHOOK_ENCRYPTION_KEYS": _KEY.decode(),
        "BILLHOOK_EGRESS_NETWORKS": "127.0.0.0/8",
        "BILLHOOK_EGRESS_PORTS": "*",
    }
    with ExitStack() as stack:
        receiver = stack.enter_context(billhook("serve", folder, found))
        engine = database.connect(Settings(database_url=found.database_url))
        spec = EndpointSpec(url=subscribers.urls()[0], event_types=("receipt.issued",), rate=0, concurrency=200)
        endpoints.add(engine, MultiFernet([Fernet(_KEY)]), spec, Rules(HERE, ()), actor="benchmark", now=utcnow())
        engine.dispose()
        says = {"work": "working on", "beat": "ticking"}
        pids = {
            name: stack.enter_context(announced(name, [*BILLHOOK, name], environment, folder, re.compile(said)))[0]
            for name, said in says.items()
        }
        yield receiver, {"serve": receiver.pid, **pids}


def run(options: argparse.Namespace, folder: Path, found: Services) -> None:
    """Measure and print."""
    print(hardware(found, folder))
    with ExitStack() as stack:
        subscribers = stack.enter_context(sink(folder, dict(billhook_environment(folder, None)), slowness=0.0))
        receiver, pids = stack.enter_context(running(folder, found, subscribers))
        watch, count = Watch(found.database_url, pids), 0
        connection = stack.enter_context(psycopg.connect(found.database_url, autocommit=True))
        used = _server_cpu(connection)
        with watch.going():
            for _ in range(options.parts):
                count += receiver.load(options.events // options.parts, 300.0, CONNECTIONS).answered
                until(lambda upto=count: _delivered(connection) == upto)  # type: ignore[misc]
                connection.execute("VACUUM ANALYZE")
        _print_disk(connection, count)
        _print_redis(found)
        each = (_server_cpu(connection) - used) / count * 1e6
        print(f"PostgreSQL: {each:,.0f} µs of CPU for an event, and for whatever else it did meanwhile")
    print("\nat most          connections    MiB")
    for name in pids:
        print(f"{name:16}{watch.connections[name]:>12}{watch.memory[name]:>7.0f}")


def _server_cpu(connection: psycopg.Connection[Any]) -> float:
    """Seconds of CPU that a PostgreSQL of this machine has used, with the processes that it has had; else 0."""
    status = Path(f"/proc/{connection.info.backend_pid}/stat")
    if not status.exists() or "(postgres" not in (told := status.read_text()):
        return 0.0
    seconds = 0.0
    for pid in family(int(told.rpartition(") ")[2].split()[1])):
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            seconds += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return seconds


def _delivered(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT count(*) FROM deliveries WHERE status = 'succeeded'").fetchone()
    return int(row[0]) if row else 0


def sizes(connection: psycopg.Connection[Any]) -> dict[str, tuple[int, int]]:
    """Bytes of the rows and of the indexes of each table."""
    statement = "SELECT pg_total_relation_size(%s) - pg_indexes_size(%s), pg_indexes_size(%s)"
    return {table: connection.execute(statement, (table,) * 3).fetchone() or (0, 0) for table in TABLES}


def _print_disk(connection: psycopg.Connection[Any], count: int) -> None:
    print(f"\n{'bytes an event':24}{'rows':>8}{'indexes':>9}{'all':>8}    after {count:,} events")
    found = sizes(connection)
    for table, (rows, indexes) in found.items():
        print(f"{table:24}{rows / count:>8,.0f}{indexes / count:>9,.0f}{(rows + indexes) / count:>8,.0f}")
    print(f"{'all':41}{sum(map(sum, found.values())) / count:>8,.0f}")


def _print_redis(found: Services) -> None:
    with Redis.from_url(found.redis_url) as redis:
        keys = list(redis.scan_iter(f"{found.prefix}seen:*", count=5_000))
        sample = keys[:200]
        size = sum(redis.memory_usage(key) or 0 for key in sample) / max(len(sample), 1)
    print(f"\nRedis: {size:,.0f} bytes for each of {len(keys):,} remembered events")


def main() -> None:
    """Measure and print; what goes wrong is one line on stderr and exit 1. Whatever was started is stopped."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.room", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=20_000, help="deliveries in all")
    parser.add_argument("--parts", type=int, default=10, help="in how many parts they come, with a VACUUM behind each")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="billhook-benchmark-") as folder, services() as found:
            run(options, Path(folder), found)
    except (ServiceError, ServerError) as error:
        sys.exit(f"benchmark: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
