"""How long the lists and statistics of the management API and the pages of the console take with a million events.

    python -m benchmarks.browse                 a million events on PostgreSQL; about five minutes, most of it to fill
    python -m benchmarks.browse --events 50000  a look

Calls take turns, so that none has the machine's better moments. They go through the application, without a socket.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

import httpx
from cryptography.fernet import Fernet
from pydantic import SecretStr

from benchmarks.history import write_history
from benchmarks.machine import hardware
from benchmarks.services import ServiceError, services
from receiver.api import PREFIX
from receiver.app import create_app
from workers import api_keys, app, database, logs, tally
from workers.settings import Settings

Call = tuple[str, Mapping[str, str | int]]


def calls(now: datetime) -> list[Call]:
    """What is asked: each filter alone, frequent and rare, and together, also what never goes together."""

    def ago(**time: float) -> str:
        return (now - timedelta(**time)).isoformat()

    return [
        ("/events", {}),
        ("/events", {"limit": 200}),
        ("/events", {"status": "processed"}),
        ("/events", {"status": "dead"}),
        ("/events", {"status": "ignored"}),
        ("/events", {"status": "waiting"}),
        ("/events", {"source": "shop"}),
        ("/events", {"source": "rare"}),
        ("/events", {"source": "none"}),
        ("/events", {"type": "invoice.paid"}),
        ("/events", {"type": "invoice.*"}),
        ("/events", {"type": "customer.merged"}),
        ("/events", {"type": "nothing"}),
        ("/events", {"object_id": "inv_4711"}),
        ("/events", {"object_id": "inv_0"}),
        ("/events", {"object_id": "inv_0", "status": "dead"}),
        ("/events", {"type": "invoice.paid", "source": "shop", "status": "processed"}),
        ("/events", {"type": "invoice.paid", "source": "shop", "status": "dead"}),
        ("/events", {"type": "invoice.paid", "source": "kiosk"}),
        ("/events", {"type": "charge.captured", "source": "shop"}),
        ("/events", {"source": "shop", "until": ago(days=33)}),
        ("/events", {"type": "invoice.paid", "since": ago(days=20), "until": ago(days=19.9)}),
        ("/events", {"since": ago(days=20), "until": ago(days=19.9)}),
        ("/runs", {}),
        ("/runs", {"handler": "receipts.send"}),
        ("/runs", {"handler": "crm.sync"}),
        ("/runs", {"status": "dead"}),
        ("/runs", {"handler": "crm.sync", "status": "dead"}),
        ("/runs", {"handler": "receipts.send", "since": ago(days=20), "until": ago(days=19.9)}),
        ("/runs", {"event_id": "evt_01KAVP5WQ000000000000000000"}),
        ("/handlers", {}),
        ("/sources", {}),
        ("/audit-log", {}),
        ("/stats/now", {}),
        ("/stats/events", {}),
        ("/stats/events", {"step": "minute"}),
        ("/stats/events", {"since": ago(days=61)}),
        ("/stats/events", {"since": ago(days=61), "source": "shop", "type": "invoice.paid"}),
        ("/stats/deliveries", {"step": "minute"}),
        ("/stats/deliveries", {"since": ago(days=61)}),
        ("/stats/handlers", {}),
        ("/stats/handlers", {"since": ago(days=61)}),
    ]


PAGES: list[Call] = [
    ("/console/", {}),
    ("/console/events/list", {}),
    ("/console/events/list", {"status": "dead"}),
    ("/console/events/list", {"status": "ignored"}),
    ("/console/events/list", {"source": "shop"}),
    ("/console/events/list", {"type": "customer.merged"}),
    ("/console/events/list", {"type": "nothing"}),
    ("/console/events/list", {"q": "inv_4711"}),
    ("/console/runs/list", {}),
    ("/console/runs/list", {"status": "dead"}),
    ("/console/runs/list", {"handler": "crm.sync"}),
    ("/console/deliveries/list", {}),
    ("/console/endpoints/list", {}),
    ("/console/schedules/list", {}),
    ("/console/keys/list", {}),
    ("/console/audit/list", {}),
]
"""What somebody at the console looks at."""
_TOKEN = re.compile(r'name="csrftoken" value="([^"]+)"')


async def sign_in(client: httpx.AsyncClient, key: str) -> None:
    """Have the client go on as somebody at the console, who came in with this key."""
    token = _TOKEN.search((await client.get("/console/login")).text)
    assert token is not None
    answer = await client.post("/console/login", data={"csrftoken": token[1], "name": "", "secret": key})
    assert answer.status_code == 303, answer.status_code


async def measure(settings: Settings, rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round, by what is asked."""
    runtime = app.start(settings)
    now = datetime.now(UTC)
    key = api_keys.create(runtime.engine, "benchmark", ["read"], actor="benchmark", now=now).key
    asked = [(PREFIX + path, query) for path, query in calls(now)] + PAGES
    gc.set_threshold(50_000, 50, 50)  # as the receiver does at its start
    taken: list[list[float]] = [[] for _ in asked]
    transport = httpx.ASGITransport(create_app(runtime))
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
        await sign_in(client, key)
        for number in range(rounds + 1):
            for (path, query), found in zip(asked, taken, strict=True):
                began = time.perf_counter()
                answer = await client.get(path, params=dict(query))
                seconds = time.perf_counter() - began
                answer.raise_for_status()
                if number:  # the first round fills the caches
                    found.append(seconds)
    runtime.engine.dispose()
    return {_name(call): found for call, found in zip(asked, taken, strict=True)}


def _name(call: Call) -> str:
    path, query = call
    return path + ("?" if query else "") + "&".join(f"{name}={str(value)[:16]}" for name, value in query.items())


def report(taken: Mapping[str, list[float]]) -> None:
    """Print p50 and p95 of each call."""
    print(f"{'ms':100}{'p50':>8}{'p95':>8}")
    for name, seconds in taken.items():
        p95 = quantiles(seconds, n=20)[-1]
        print(f"{name:100}{median(seconds) * 1e3:>8.1f}{p95 * 1e3:>8.1f}{'  over 200' if p95 > 0.2 else ''}")


def main() -> None:
    """Fill, tally, measure and print; what goes wrong is one line on stderr and exit 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.browse", description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--days", type=float, default=34.0, help="over which they were received")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    try:
        with services() as found, TemporaryDirectory(prefix="billhook-benchmark-") as folder:
            settings = Settings(
                state_dir=Path(folder),
                database_url=SecretStr(found.database_url),
                redis_url=SecretStr(found.redis_url),
                redis_prefix=found.prefix,
                api_rate=1_000_000,
                encryption_keys=(SecretStr(Fernet.generate_key().decode()),),  # the console's cookies are signed
                log_level="error",
            )
            logs.configure(settings)
            engine = database.connect(settings)
            database.migrate(engine)
            began = time.monotonic()
            write_history(found.database_url, options.events, datetime.now(UTC), options.days)
            print(f"{options.events:,} events written in {time.monotonic() - began:.0f} s", file=sys.stderr)
            began = time.monotonic()
            tally.tally(engine, datetime.now(UTC), settings)
            print(f"tallied in {time.monotonic() - began:.0f} s", file=sys.stderr)
            engine.dispose()
            taken = asyncio.run(measure(settings, options.rounds))
            print(hardware(found, Path(folder)))
            print(f"{options.events:,} events over {options.days:g} days; {options.rounds} rounds")
            report(taken)
    except ServiceError as error:
        sys.exit(f"benchmark: {error}")


if __name__ == "__main__":
    main()
