"""`billhook tail` as a process, at a terminal and for programs."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from receiver.cli.tail import _happenings, _line
from tests.receiver.cli.conftest import Billhook
from tests.receiver.cli.terminal import at_a_terminal, running
from tests.workers.given import NOW, change, received
from workers.leases import utcnow
from workers.models import EventRow
from workers.watching import Happening

once = pytest.mark.parametrize("backend", ["embedded"], indirect=True)


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize("backend", ["servers"], indirect=True)
def test_what_happens_is_one_object_a_line_until_ctrl_c(engine: Engine) -> None:
    before = received(engine, at=utcnow())
    with running("tail", "--json", "--since", "1d") as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        change(engine, EventRow, status="ignored", ring_at=None)
        second = json.loads(process.stdout.readline())
        event = received(engine, "customer.created", at=utcnow())
        third = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=20)

    assert [(one["what"], one["id"]) for one in (first, second, third)] == [
        ("received", before),
        ("ignored", before),
        ("received", event),
    ]
    assert (third["type"], third["source"]) == ("customer.created", "shop")
    assert (process.returncode, rest, errors) == (0, "", "")


@pytest.mark.usefixtures("configured")
@once
def test_at_a_terminal_what_is_dead_is_red_and_the_type_can_be_chosen(engine: Engine) -> None:
    received(engine, "customer.created", at=utcnow())
    event = received(engine, at=utcnow())
    change(engine, EventRow, status="dead", ring_at=None)
    with at_a_terminal("tail", "--since", "1h", "--type", "invoice.*", "--status", "dead") as (process, terminal):
        shown = b""
        while b"\n" not in shown:
            shown += os.read(terminal, 4096)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0

    assert f"\x1b[1;31mdead       \x1b[0m  {event}  invoice.paid  shop" in shown.decode()
    assert b"customer" not in shown


WRONG = [
    (["--status", "red"], "--status: 'red' is none of received, processed, "),
    (["--type", "inv*"], "--type: 'inv*' is not an event type"),
    (["--source", "shp"], "--source: there is no source 'shp'; did you mean shop?"),
    (["--since", "never"], "--since: 'never' is not a date"),
]


@pytest.mark.usefixtures("configured")
@once
@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_a_value_that_is_none_is_refused(billhook: Billhook, arguments: list[str], said: str) -> None:
    assert billhook("tail", *arguments).complaint(2).startswith(said)


def test_a_database_that_does_not_answer_is_said_once_and_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("receiver.cli.tail._PATIENCE", 0.0)
    looks: list[Any] = [OperationalError("SELECT", {}, Exception("gone")) for _ in range(2)]

    class Failing:
        behind = False

        def look(self, _at: object) -> list[Happening]:
            if looks:
                raise looks.pop()
            return [Happening(what="received", **BASE)]

    assert next(_happenings(Failing())).what == "received"  # type: ignore[arg-type]
    assert capsys.readouterr().err == (
        "billhook: the database does not answer: gone; see BILLHOOK_DATABASE_URL; trying again\n"
    )


BASE: dict[str, Any] = {"at": NOW, "id": "evt_1", "type": "invoice.paid", "source": "shop"}


@pytest.mark.parametrize(
    ("happening", "rest"),
    [
        (Happening(what="processed", runs=2, object_id="inv_1", **BASE), "shop  inv_1  2 runs"),
        (
            Happening(
                what="failed",
                handler="receipts.send",
                attempt=1,
                next_attempt_at=NOW,
                error="KeyError: 'x'\x1b[2J",
                **BASE,
            ),
            "shop  receipts.send: KeyError: 'x'\\x1b[2J; attempt 1, again at 14:00:00Z",
        ),
        (
            Happening(what="undelivered", endpoint="ep_1", attempt=2, duration_ms=31, error="no connection", **BASE),
            "shop  to ep_1: no answer in 31 ms; attempt 2; no connection",
        ),
    ],
)
def test_a_line_says_what_there_is_to_say_and_cannot_act_on_the_terminal(happening: Happening, rest: str) -> None:
    assert _line(happening).plain == f"14:00:00Z  {happening.what:<11}  evt_1  invoice.paid  {rest}"


def test_an_id_tells_when_it_was_made() -> None:
    from workers import ids

    assert ids.moment(ids.derived("evt", NOW, "one")) == NOW
