"""What is reported, and what of it; sent to a real server that takes Sentry's envelopes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sentry_sdk
from pydantic import SecretStr

from handlers import Context, Event
from handlers.registry import Registry
from receiver.app import Receiver
from tests.acceptance.watchers import Sentry
from tests.conftest import SECRET
from tests.services import free_port
from tests.workers.given import received
from workers import faults, logs, observing
from workers.app import Runtime
from workers.dispatch import Dispatcher, process
from workers.settings import Settings, SettingsError, Source

ROOT = Path(__file__).parent.parent.parent
TRACEBACK = """Traceback (most recent call last):
  File "/app/receipts.py", line 1, in first
    pass
ValueError: first

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/app/receipts.py", line 7, in send
    post(invoice)
    ~~~~^^^^^^^^^
  File "/app/mail.py", line 30, in post
    raise mail.Refused(text)
mail.Refused: no such box
"""


def reporting(dsn: str) -> None:
    source = Source(provider="hisab", secrets=(SecretStr(SECRET),))
    settings = Settings(sources={"shop": source}, sentry_dsn=SecretStr(dsn))
    observing.start(settings, "test")


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    """Faults of this process are reported there, with `faults.stop` at the latest."""
    with Sentry() as server:
        reporting(server.dsn)
        yield server
        silence()


def silence() -> None:
    faults.stop()
    faults._on.clear()
    sentry_sdk.get_client().close()


def fail(token: str) -> None:
    raise LookupError(f"nobody knows {token}")


def test_an_exception_is_reported_without_variables_and_secrets(sentry: Sentry) -> None:
    try:
        fail(SECRET)
    except LookupError as error:
        faults.report(error, task="billhook.events.sweep")
    faults.stop()

    (event,) = sentry.events
    assert event["exception"]["values"][0]["value"] == "nobody knows ********"
    assert event["tags"] == {"process": "test", "task": "billhook.events.sweep"}
    assert "vars" not in event["exception"]["values"][0]["stacktrace"]["frames"][0]
    assert SECRET not in json.dumps(event)
    assert {"request", "user", "modules", "extra"} & {key for key in event if event[key]} == set()
    assert event.get("breadcrumbs", {}).get("values", []) == []


LOGGING = """
import sys
from pydantic import SecretStr
from workers import faults, logs
from workers.settings import Settings

settings = Settings(sentry_dsn=SecretStr(sys.argv[1]))
logs.configure(settings)
faults.start(settings, "test", str)
try:
    raise LookupError("nobody knows it")
except LookupError:
    logs.log.bind(handler="receipts.send").exception("it will be tried again")
    logs.log.exception("a turn of the deliveries failed", action="flight_failed")
faults.stop()
"""


def test_what_our_code_logs_with_its_traceback_is_a_fault_and_what_a_handler_logs_is_none() -> None:
    with Sentry() as sentry:
        subprocess.run([sys.executable, "-c", LOGGING, sentry.dsn], cwd=ROOT, check=True, timeout=60)

    (event,) = sentry.events
    assert event["tags"] == {"process": "test", "action": "flight_failed"}
    assert event["exception"]["values"][0]["type"] == "LookupError"


def test_what_ends_a_thread_is_reported(sentry: Sentry) -> None:
    thread = threading.Thread(target=fail, args=("it",), name="flight")
    before, threading.excepthook = threading.excepthook, lambda _: None
    thread.start()
    thread.join()
    threading.excepthook = before
    faults.stop()

    assert [event["exception"]["values"][0]["type"] for event in sentry.events] == ["LookupError"]


def test_a_request_that_fails_by_our_fault_is_reported(sentry: Sentry) -> None:
    async def broken(*_: object) -> None:
        fail("it")

    receiver = Receiver(broken, broken)  # type: ignore[arg-type]
    with pytest.raises(LookupError):
        asyncio.run(receiver({"type": "http", "path": "/webhooks/shop"}, broken, broken))  # type: ignore[arg-type]
    faults.stop()

    assert len(sentry.events) == 1


def test_a_run_is_reported_once_it_is_dead(
    dispatcher: Dispatcher, registry: Registry, runtime: Runtime, sentry: Sentry
) -> None:
    @registry.on("invoice.paid", retries=1, backoff=0.001)
    def receipt(event: Event, ctx: Context) -> None:
        fail(SECRET)

    event_id = received(runtime.engine)
    process(dispatcher, [event_id])
    sentry_sdk.flush(2)
    assert sentry.events == []

    dispatcher.clock.turn(60)  # type: ignore[attr-defined]
    process(dispatcher, [event_id])
    faults.stop()

    (event,) = sentry.events
    assert event["exception"]["values"][0]["value"] == "nobody knows ********"
    assert event["tags"]["event_id"] == event_id
    assert event["level"] == "error"


@pytest.mark.parametrize(
    ("error", "kind", "value", "functions"),
    [
        (TRACEBACK, "mail.Refused", "no such box", ["send", "post"]),
        ("its process died 5 times while it ran", "DeadRun", "its process died 5 times while it ran", []),
        ("TimeUp: the handler ran longer than 30 s", "TimeUp", "the handler ran longer than 30 s", []),
        ("handler a is not loaded: see X", "DeadRun", "handler a is not loaded: see X", []),
        ("KeyError", "KeyError", "KeyError", []),
        ("", "DeadRun", "", []),
    ],
)
def test_a_dead_run_is_known_by_its_last_failure(
    sentry: Sentry, error: str, kind: str, value: str, functions: list[str]
) -> None:
    faults.dead(error, {"handler": "receipts.send"})
    faults.stop()

    (event,) = sentry.events
    (found,) = event["exception"]["values"]
    assert (found["type"], found["value"]) == (kind, value)
    assert [frame["function"] for frame in found.get("stacktrace", {}).get("frames", [])] == functions
    assert event["fingerprint"] == ["receipts.send", kind]


def test_without_a_dsn_nothing_happens_and_without_the_extra_it_is_said_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faults, "find_spec", lambda _name: None)
    faults.start(Settings(), "test", str)
    faults.report(ValueError())
    faults.dead("x", {"handler": "x"})
    faults.stop()

    with pytest.raises(SettingsError, match=r"^BILLHOOK_SENTRY_DSN: .* pip install 'billhook\[sentry\]'"):
        faults.start(Settings(sentry_dsn=SecretStr("https://key@sentry.test/1")), "test", str)


def test_a_sentry_that_is_down_is_waited_for_two_seconds_at_the_end() -> None:
    reporting(f"http://0123456789abcdef@127.0.0.1:{free_port()}/1")
    began = time.monotonic()
    for _ in range(200):
        faults.report(ValueError("x"))
    assert time.monotonic() - began < 10, "nobody waits for it"

    silence()

    assert time.monotonic() - began < 20


def test_the_key_of_the_dsn_is_masked_in_log_lines() -> None:
    settings = Settings(sentry_dsn=SecretStr("https://0123456789abcdef@sentry.test/1"))

    assert logs.masked("at 0123456789abcdef@", logs.hidden(settings)) == "at ********@"
