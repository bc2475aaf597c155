"""`billhook doctor`: each thing that can be wrong is one line that says what to do, and no secret stands in it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from redis import Redis
from sqlalchemy import Engine, text

from handlers.providers.hisab.sandbox import create_app
from handlers.registry import REGISTRY
from receiver.cli.doctor import bell, rounds
from receiver.cli.doctor.finding import Finding, Site, failed
from tests.handlers.providers.sandbox.served import serving
from tests.receiver.cli.conftest import Billhook
from tests.services import free_port
from tests.workers.given import NOW, change, received
from workers import audited, database, diagnosis, presence
from workers.app import Runtime
from workers.audited import Audited
from workers.models import EventRow
from workers.settings import Settings

once = pytest.mark.parametrize("backend", ["embedded"], indirect=True)
on_servers = pytest.mark.parametrize("backend", ["servers"], indirect=True)
GOOD = "xK8pQ2vR9mT4wZ7bN3cF6hJ1"
HANDLER = 'from handlers import on\n\n\n@on("invoice.paid")\ndef receipt(event, ctx): ...\n'


def found(billhook: Billhook, *arguments: str, status: int = 0) -> dict[str, list[tuple[str, str, str]]]:
    """What was found: level, what was said and what to do, by the name of what was looked at."""
    ended = billhook("doctor", "--json", *arguments)
    assert (ended.status, "unexpected" in ended.out) == (status, False), ended
    by_name: dict[str, list[tuple[str, str, str]]] = {}
    for one in ended.objects:
        by_name.setdefault(one["name"], []).append((one["level"], one["said"], one["todo"]))
    return by_name


def levels(lines: list[tuple[str, str, str]]) -> list[str]:
    return [level for level, _, _ in lines]


@pytest.fixture
def well(configured: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Settings]:
    """All is as it should be, and the receiver is ready."""
    handlers = Path(f"of_{tmp_path.name}.py")  # a module of its own: what is loaded stays
    handlers.write_text(HANDLER)
    with answering(200, b'{"status": "ok"}') as port:
        monkeypatch.setenv("BILLHOOK_LISTEN", f"127.0.0.1:{port}")
        monkeypatch.setenv("BILLHOOK_HANDLERS", str(handlers))
        monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__SECRETS", GOOD)
        for name in ("work", "beat"):
            presence._said_at.clear()
            presence.announce(runtime.redis, configured.redis_prefix, name)
        yield configured
        REGISTRY.forget([one.name for one in REGISTRY])


class answering:
    """A server that answers everything so; its port."""

    def __init__(self, status: int, body: bytes) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> int:
        self._thread.start()
        return self._server.server_port

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.mark.usefixtures("well")
def test_where_all_is_well_every_line_says_so(billhook: Billhook) -> None:
    ended = billhook("doctor")

    assert ended.status == 0
    assert {line[0] for line in ended.out.splitlines()} == {"✓"}, ended.out
    assert ended.err == "0 faults, 0 warnings\n"
    assert "answers in" in ended.out
    assert "1 `billhook work` on" in ended.out
    assert GOOD not in ended.out


@pytest.mark.usefixtures("configured")
@once
def test_what_is_missing_is_a_warning_with_what_to_do(
    billhook: Billhook, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    monkeypatch.setenv("BILLHOOK_LISTEN", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("BILLHOOK_LISTN", "typo")
    received(engine)
    change(engine, EventRow, status="dead", ring_at=None)

    lines = found(billhook)

    assert ("warning", "BILLHOOK_LISTN is no option, and has no effect", "correct its name or unset it") in lines[
        "settings"
    ]
    assert "set BILLHOOK_HANDLERS" in lines["handlers"][0][1]
    assert "it looks like a placeholder" in lines["sources"][0][1]
    assert [todo for _, _, todo in lines["processes"]] == [
        f"start `billhook {name}`, or `billhook up` for all of them" for name in ("work", "beat")
    ]
    assert lines["receiver"][0][2] == "start `billhook serve`, unless it runs on another machine"
    assert lines["dead events"][0][1] == "1 that nobody has acknowledged"


def test_before_the_first_start_nothing_is_made_and_nothing_is_wrong(billhook: Billhook, tmp_path: Path) -> None:
    lines = found(billhook)

    assert lines["database"][0][1] == "none yet; the first command that needs it makes it in .billhook"
    assert "does not run now" in lines["redis"][0][1]
    assert "set BILLHOOK_SOURCES" in lines["sources"][0][2]
    assert list(tmp_path.iterdir()) == []


def test_settings_that_cannot_be_read_are_one_fault(billhook: Billhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLHOOK_LISTEN", "nowhere")

    lines = found(billhook, status=1)

    assert list(lines) == ["settings"]
    assert lines["settings"][0][1].startswith("BILLHOOK_LISTEN: ")


@pytest.mark.usefixtures("well")
@once
def test_a_handler_that_does_not_load_is_named_with_its_line(
    billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("broken.py").write_text("import nothing_there\n")
    monkeypatch.setenv("BILLHOOK_HANDLERS", "broken.py")

    ((level, said, _),) = found(billhook, status=1)["handlers"]

    assert (level, said) == (
        "fault",
        (
            "broken.py:1: does not load: ModuleNotFoundError: No module named 'nothing_there'; "
            "is it installed where Billhook runs?"
        ),
    )


@once
def test_a_schema_of_another_version_says_which_way(well: Settings, billhook: Billhook, engine: Engine) -> None:
    assert well.embedded_database
    for revision, todo in (("0001", "run `billhook migrate`"), ("9999", "run a newer billhook")):
        with database.write(engine) as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})

        assert found(billhook, status=1)["schema"][0][2] == todo


@on_servers
def test_servers_that_do_not_answer_are_one_fault_each_and_the_rest_is_looked_at(
    well: Settings, billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert well.database_url is not None
    nowhere = free_port()
    monkeypatch.setenv("BILLHOOK_DATABASE_URL", f"postgresql://billhook:s3cret-word@127.0.0.1:{nowhere}/billhook")
    monkeypatch.setenv("BILLHOOK_REDIS_URL", f"redis://:s3cret-word@127.0.0.1:{nowhere}")

    ended = billhook("doctor")
    lines = found(billhook, status=1)

    assert [name for name, some in lines.items() if "fault" in levels(some)] == ["database", "redis"]
    assert lines["schema"][0][1] == "not looked at: the database does not answer"
    assert lines["processes"][0][1] == "not looked at: Redis does not answer"
    assert levels(lines["handlers"]) == levels(lines["receiver"]) == ["ok"]
    assert "s3cret-word" not in ended.out + ended.err


@on_servers
def test_a_stored_secret_that_no_key_opens_is_a_fault(
    well: Settings, billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    (added,) = billhook("endpoints", "add", "https://example.com/hook", "--json").objects
    key, other = well.encryption_keys[0].get_secret_value(), Fernet.generate_key().decode()

    monkeypatch.setenv("BILLHOOK_ENCRYPTION_KEYS", f"{other},{key}")
    assert "run `billhook reencrypt`" in found(billhook)["encryption"][0][2]

    monkeypatch.setenv("BILLHOOK_ENCRYPTION_KEYS", other)
    ((level, said, _),) = found(billhook, status=1)["encryption"]
    assert (level, said) == ("fault", f"no key opens what is stored of {added['id']}")

    monkeypatch.delenv("BILLHOOK_ENCRYPTION_KEYS")
    assert "make a key with" in found(billhook, status=1)["encryption"][0][1]


@once
def test_endpoints_are_connected_to_and_sent_nothing(
    well: Settings, billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert well.sources
    monkeypatch.setenv("BILLHOOK_EGRESS_NETWORKS", "127.0.0.0/8")
    monkeypatch.setenv("BILLHOOK_EGRESS_PORTS", "*")
    silent = f"http://127.0.0.1:{free_port()}/hook?token=t0ken"
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        good = f"http://127.0.0.1:{listening.getsockname()[1]}/hook"
        ids = [billhook("endpoints", "add", url, "--json").objects[0]["id"] for url in (good, silent, silent)]
        billhook("endpoints", "disable", ids[2])

        lines = found(billhook)["endpoints"]

        connection, _ = listening.accept()
        with connection:
            connection.settimeout(5)
            assert connection.recv(1) == b""
    assert lines[0][:2] == ("ok", "1 of 2 enabled ones can be connected to")
    assert lines[1][:2] == ("warning", f"{ids[1]}: no connection: connection refused")
    assert lines[2][1].startswith(f"{ids[2]} is disabled")
    assert "t0ken" not in json.dumps(lines)

    monkeypatch.setenv("BILLHOOK_EGRESS_NETWORKS", "10.0.0.0/8")
    assert "fault" in levels(found(billhook, status=1)["endpoints"])


@once
def test_a_receiver_that_is_not_ready_is_a_fault(
    well: Settings, billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert well.sources
    with answering(503, b'{"status": "unavailable", "database": "does not answer"}') as port:
        monkeypatch.setenv("BILLHOOK_LISTEN", f"0.0.0.0:{port}")
        ((level, said, _),) = found(billhook, status=1)["receiver"]

    assert level == "fault"
    assert said.endswith("/readyz answers 503: unavailable does not answer")


@once
def test_only_online_is_the_api_asked_whether_it_takes_the_key(
    well: Settings, billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert well.sources
    with serving(create_app()) as url:
        monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__API_URL", f"{url}/api/v1")
        monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__API_KEY", "hisab_test_sandbox")
        assert "api keys" not in found(billhook)
        assert levels(found(billhook, "--online")["api keys"]) == ["ok"]

        monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__API_KEY", "hisab_wrong")
        ((level, said, todo),) = found(billhook, "--online", status=1)["api keys"]

    assert (level, todo) == ("fault", "correct BILLHOOK_SOURCES__SHOP__API_KEY")
    assert "hisab_wrong" not in said


@once
def test_what_the_last_audit_found_is_told(well: Settings, billhook: Billhook, redis: Redis) -> None:
    audited.note(redis, well.redis_prefix, Audited(NOW, 2))

    ((level, said, _),) = found(billhook, status=1)["books"]

    assert (level, said) == ("fault", "the audit of 2026-06-05 14:00Z found 2 faults")


@once
def test_what_will_never_be_taken_up_is_a_fault(well: Settings, billhook: Billhook, engine: Engine) -> None:
    assert well.sources
    event = received(engine)
    change(engine, EventRow, ring_at=None)

    ((level, said, _),) = found(billhook, status=1)["books"]

    assert (level, said) == ("fault", f"a waiting event will never be taken up: {event}")


def test_what_is_due_for_long_is_told_with_its_queue(well: Settings, billhook: Billhook, engine: Engine) -> None:
    assert well.sources
    received(engine)  # long ago, and nobody has planned it

    (events, *others) = found(billhook)["queues"]

    assert events[0] == "warning"
    assert events[1].startswith("events: 1 due, the oldest for ")
    assert levels(others) == ["ok", "ok"]


@on_servers
def test_a_clock_that_differs_is_told_once_no_delay_can_explain_it(runtime: Runtime) -> None:
    ahead = [
        diagnosis.of_database(runtime.engine, lambda: time.time() - 100).ahead,
        diagnosis.of_redis(runtime.redis, lambda: time.time() - 100).ahead,
        diagnosis.of_redis(runtime.redis, lambda: time.time() + 5).ahead,
    ]

    assert [round(one or 0) for one in ahead] == [100, 100, -5]
    assert diagnosis.of_database(runtime.engine).ahead == pytest.approx(0, abs=0.5)


@on_servers
@pytest.mark.parametrize(("lease_grace", "level"), [(15.0, "fault"), (1000.0, "warning")])
def test_a_clock_is_a_fault_once_leases_suffer(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, lease_grace: float, level: str
) -> None:
    wrong = diagnosis.Server("Redis 7", 0.001, 100.0)
    monkeypatch.setattr(diagnosis, "of_redis", lambda _redis: wrong)
    settings = runtime.settings.model_copy(update={"lease_grace": lease_grace})

    (clocks,) = bell.of_clocks(Site(settings, runtime.engine, runtime.redis))

    assert clocks.level == level
    assert "Redis 100.000 s ahead" in clocks.said


@pytest.mark.parametrize(
    ("server", "level", "said"),
    [
        (diagnosis.Server("Redis 7", 0.001, 0.0, unsafe_policy="allkeys-lru", full_at=100), "warning", "allkeys-lru"),
        (diagnosis.Server("Redis 7", 0.001, 0.0, writable=False), "fault", "is a replica"),
        (diagnosis.Server("Redis 7", 0.5, 0.0), "warning", "answers in 500 ms"),
    ],
)
@once
def test_a_redis_that_endangers_the_queue_is_told_of(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, server: diagnosis.Server, level: str, said: str
) -> None:
    monkeypatch.setattr(diagnosis, "of_redis", lambda _redis: server)

    *_, last = bell.of_redis(Site(runtime.settings, None, runtime.redis))

    assert last.level == level
    assert said in last.said


def test_who_was_last_heard_of_long_ago_is_named(runtime: Runtime) -> None:
    presence._said_at.clear()
    presence.announce(runtime.redis, runtime.settings.redis_prefix, "work", lambda: time.time() - 300)

    work, beat = bell.of_processes(Site(runtime.settings, runtime.engine, runtime.redis))

    assert (work.level, beat.level) == ("warning", "warning")
    assert f"the last was heard 300 s ago, on {socket.gethostname()}" in work.said


@once
def test_a_check_that_does_not_end_is_late_and_holds_up_no_other(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "LIMIT", 0.1)
    released = threading.Event()

    def never(_site: Site) -> list[Finding]:
        released.wait(30)
        return []

    def broken(_site: Site) -> list[Finding]:
        raise RuntimeError("a bug")

    checks = {"never": never, "broken": broken, "here": lambda _site: [Finding("here", "ok", "well")]}
    site = Site(runtime.settings, None, None)
    try:
        lines = rounds.examine(checks, site, here="here")
    finally:
        released.set()

    assert [(one.name, one.level) for one in lines] == [("never", "warning"), ("broken", "fault"), ("here", "ok")]


@on_servers
def test_a_question_that_takes_too_long_is_given_up_by_the_server(settings: Settings) -> None:
    engine = diagnosis.connect(settings, within=0.05)
    with pytest.raises(Exception, match="statement timeout") as raised, database.read(engine) as connection:
        connection.execute(text("SELECT pg_sleep(10)"))
    engine.dispose()

    assert isinstance(raised.value, Exception)
    assert failed("books", raised.value).said.startswith("not known after")


SECRETS = {
    GOOD: "",
    "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw": "",
    "whpk_short": "",
    "short1": "shorter than 16",
    "the secret from Hisab": "placeholder",
    "abababababababababababab": "repeat",
}


@pytest.mark.parametrize(("secret", "doubt"), SECRETS.items())
def test_a_secret_that_can_be_guessed_is_told_from_one_of_a_generator(secret: str, doubt: str) -> None:
    from receiver.cli.doctor.configured import _weakness

    assert doubt in _weakness(secret)
    assert bool(doubt) == bool(_weakness(secret))


@once
def test_processes_are_forgotten_after_a_day(redis: Redis, settings: Settings) -> None:
    for name, at in (("work", NOW.timestamp()), ("beat", NOW.timestamp() + 90_000)):
        presence._said_at.clear()
        presence.announce(redis, settings.redis_prefix, name, lambda at=at: at)  # type: ignore[misc]

    (beat,) = presence.announced(redis, settings.redis_prefix, lambda: NOW.timestamp() + 90_010)

    assert (beat.name, beat.silent) == ("beat", 10.0)
