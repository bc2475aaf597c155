from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy import Engine

from tests.conftest import SECRET, new_database
from tests.receiver.cli.conftest import Billhook
from tests.receiver.cli.terminal import run, running
from tests.receiver.edge import Line, accepted, delivery, held, refused, stored, wire
from workers import api_keys, database
from workers.leases import utcnow
from workers.settings import Settings


@pytest.fixture
def empty(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty PostgreSQL database, which the settings name; its URL."""
    with new_database(postgres_url) as url:
        monkeypatch.setenv("BILLHOOK_DATABASE_URL", url)
        yield url


# --- migrate and the schema -----------------------------------------------------------------------

COMMANDS = [
    ["events"],
    ["audit"],
    ["endpoints", "list"],
    ["endpoints", "add", "https://example.com/"],
    ["schedules", "list"],
    ["serve"],
    ["beat"],
]


def test_a_database_without_a_schema_is_refused_with_the_command_to_run(
    billhook: Billhook, empty: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_REDIS_URL", redis_url)
    for command in COMMANDS:
        assert billhook(*command).complaint() == "the database has no schema yet: run `billhook migrate`"

    with psycopg.connect(empty) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert tables == (0,)


def test_a_worker_refuses_a_database_without_a_schema(
    empty: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_REDIS_URL", redis_url)

    assert run("work").complaint() == "the database has no schema yet: run `billhook migrate`"


def test_migrating_makes_the_schema_and_again_changes_nothing(billhook: Billhook, empty: str) -> None:
    first, second = billhook("migrate"), billhook("migrate")

    assert (first.status, first.out) == (0, f"migrated the schema: none -> {database.SCHEMA}\n")
    assert (second.status, second.out) == (0, f"the schema is at {database.SCHEMA}\n")
    assert billhook("events").status == 0


def test_the_schema_of_a_newer_version_is_worked_with(billhook: Billhook, empty: str) -> None:
    billhook("migrate")
    with psycopg.connect(empty) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")

    assert billhook("events").status == 0
    assert (
        billhook("migrate").out
        == f"the schema is at 9999, newer than this version's {database.SCHEMA}: nothing to do\n"
    )


def test_an_older_schema_is_refused(billhook: Billhook, empty: str) -> None:
    billhook("migrate")
    with psycopg.connect(empty) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0003'")

    assert billhook("events").complaint().endswith(f"this version needs {database.SCHEMA}: run `billhook migrate`")


def test_the_embedded_database_is_made_when_it_is_first_asked(billhook: Billhook, tmp_path: Path) -> None:
    ended = billhook("events")

    assert (ended.status, ended.err) == (0, "no events\n")
    assert (tmp_path / ".billhook" / "billhook.db").exists()
    assert (tmp_path / ".billhook").stat().st_mode & 0o077 == 0


# --- serve ----------------------------------------------------------------------------------------


@contextmanager
def receiver() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`billhook serve` and its port."""
    with running("serve") as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.fullmatch(r"receiving on http://127\.0\.0\.1:(\d+)/webhooks/\{source\}\n", said)
        assert found, said + process.stderr.read()
        yield process, int(found[1])


def stopped(process: subprocess.Popen[str], number: int = signal.SIGTERM, seconds: float = 30) -> str:
    """End it by a signal; what it had said on stderr."""
    process.send_signal(number)
    _, err = process.communicate(timeout=seconds)
    return err


def test_a_receiver_serves_until_it_is_told_to_end(
    configured: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_LISTEN", "127.0.0.1:0")
    with receiver() as (process, port):
        forged = delivery(forged=True)
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, trust_env=False) as client:
            refused(client.post("/webhooks/shop", content=forged.body, headers=forged.headers), 401, "UNAUTHORIZED")
            assert client.get("/readyz").json() == {"status": "ok"}
            assert "server" not in client.get("/livez").headers
        # A parser that joins folded lines, or believes a length beside chunks, must not stand here.
        for bad in (b"X: a\r\n b", b"Transfer-Encoding: chunked"):
            with Line(port) as line:
                line.send(wire(delivery(), bad))
                assert line.reply().status_code == 400
        with Line(port) as line:
            with held(engine):
                line.send(wire(delivery()))
                with httpx.Client(base_url=url, trust_env=False) as client:
                    client.get("/livez")
                process.send_signal(signal.SIGTERM)
                time.sleep(0.2)
            # What was under way when the signal came is stored and answered.
            event_id = accepted(line.reply())
        err = stopped(process)

    assert process.returncode == 0, err
    assert stored(engine) == 1
    lines = [json.loads(line) for line in err.splitlines() if not line.startswith("nobody can sign in")]
    assert [line["event_ids"] for line in lines if line.get("action") == "accepted"] == [[event_id]]
    assert "Traceback" not in err
    for secret in (SECRET, forged.headers["x-webhook-signature"], "12480", "pa55word"):
        assert secret not in err


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_a_receiver_that_nobody_can_sign_in_to_says_how_to_make_the_first_key(
    configured: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_LISTEN", "127.0.0.1:0")
    with receiver() as (process, _):
        assert process.stderr is not None
        assert "`billhook keys create --scopes full` makes the first" in process.stderr.readline()
        stopped(process)

    api_keys.create(engine, "first", ["full"], actor="test", now=utcnow())

    with receiver() as (process, _):
        assert "billhook keys create" not in stopped(process)


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_a_receiver_that_is_told_to_end_while_it_starts_ends_too(
    configured: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_LISTEN", "127.0.0.1:0")
    for name in ("PROVIDER", "SECRETS", "API_KEY", "TIMEZONE"):
        monkeypatch.delenv(f"BILLHOOK_SOURCES__SHOP__{name}")
    with receiver() as (process, _):
        err = stopped(process, signal.SIGINT, seconds=8)

    assert process.returncode in {0, 130}
    assert [line for line in err.splitlines() if not line.startswith(("no source is", "nobody can sign in"))] == []


def test_a_port_that_is_taken_is_named(
    billhook: Billhook, configured: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("BILLHOOK_LISTEN", address)

        said = billhook("serve").complaint()

    assert said.startswith(f"cannot listen on {address}: Address already in use")
    assert said.endswith("; set BILLHOOK_LISTEN")


@pytest.mark.parametrize("address", ["203.0.113.1:8000", "no.such.host.invalid:8000", "a..b:80", f"{'x' * 70}.com:80"])
@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_an_address_that_is_not_ours_is_named(
    address: str, billhook: Billhook, configured: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_LISTEN", address)

    assert billhook("serve").complaint().startswith(f"cannot listen on {address}: ")


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_a_port_for_metrics_that_is_taken_is_named(
    billhook: Billhook, configured: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("BILLHOOK_METRICS_LISTEN", address)

        said = billhook("beat").complaint()

    assert said.startswith(f"cannot listen on {address}: ")
    assert "BILLHOOK_METRICS_LISTEN" in said


def test_an_unknown_queue_is_refused() -> None:
    said = run("work", "--queues", "events,nothing").complaint(2)

    assert said == "--queues: 'nothing' is none of events, deliveries, schedules"
