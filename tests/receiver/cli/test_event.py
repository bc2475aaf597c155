from __future__ import annotations

import json
import subprocess

import pytest
from sqlalchemy import Engine

from tests.receiver.cli.conftest import Billhook
from tests.receiver.cli.terminal import COMMAND
from tests.workers.given import NOW, change, only, received
from tests.workers.history import ended, followed
from workers import database
from workers.delivery.messages import Outgoing, publish
from workers.models import EventRow, HandlerRun

pytestmark = pytest.mark.usefixtures("configured")
once = pytest.mark.parametrize("backend", ["embedded"], indirect=True)  # where one database is as good as the other

TRACEBACK = 'Traceback (most recent call last):\n  File "/srv/shop.py", line 7, in receipt\nValueError: no customer'


def shown(billhook: Billhook, event_id: str) -> list[str]:
    """The lines that people see."""
    told = billhook("event", event_id)
    assert (told.status, told.err) == (0, "")
    return told.out.splitlines()


def test_a_dead_event_is_shown_with_its_body_and_its_traceback(billhook: Billhook, engine: Engine) -> None:
    (event_id,) = ended(engine, headers='{"user-agent": "Hisab/2"}', conflicts=2, acknowledged_at=NOW)
    change(engine, HandlerRun, error=TRACEBACK, replays=1, attempts=3, starts=4, pauses=1)
    row, run = only(engine, EventRow), only(engine, HandlerRun)

    assert shown(billhook, event_id) == [
        f"{event_id}  invoice.paid  dead",
        "  source        shop (hisab)",
        "  received      2026-06-05 14:00:00Z",
        "  occurred      2026-06-05 14:00:00Z",
        f"  object        invoice {row.object_id}",
        f"  delivery id   {row.delivery_id}",
        "  header        user-agent: Hisab/2",
        "  conflicts     2 times its delivery id came with another body",
        "  acknowledged  2026-06-05 14:00:00Z",
        "",
        "body",
        "  {",
        '    "event": "invoice.paid",',
        '    "data": {',
        f'      "id": "{row.object_id}"',
        "    },",
        '    "created_at": "2026-06-05T14:00:00Z"',
        "  }",
        "",
        f"run {run.id}  shop.receipt  dead",
        "  3 attempts, 4 starts, 1 pause, 1 replay",
        "  ended 2026-06-05 14:00:00Z",
        "    Traceback (most recent call last):",
        '      File "/srv/shop.py", line 7, in receipt',
        "    ValueError: no customer",
    ]


def test_what_came_of_an_event_is_shown(billhook: Billhook, engine: Engine) -> None:
    (event_id,) = ended(engine, run="succeeded")
    followed(engine, [event_id], delivery="waiting")

    lines = "\n".join(shown(billhook, event_id))

    assert "  step pdf: 2 bytes, 2026-06-05 14:00:00Z\n" in lines
    assert "receipt.issued\n  delivery dlv_" in lines
    assert lines.endswith("waiting, 1 attempt, next 2026-06-05 14:00:00Z")


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ("waiting", "  next attempt 2026-06-05 14:00:00Z"),
        ("running", "  leased until 2026-06-05 14:00:00Z"),
    ],
)
def test_a_run_that_has_not_ended_says_when_it_goes_on(
    status: str, line: str, billhook: Billhook, engine: Engine
) -> None:
    (event_id,) = ended(engine)
    change(engine, HandlerRun, status=status, ended_at=None, ring_at=NOW)

    assert line in shown(billhook, event_id)


def test_an_event_without_a_run_or_an_object_is_shown(billhook: Billhook, engine: Engine) -> None:
    event_id = received(engine)
    change(engine, EventRow, object_id=None, object_kind=None, reconciled=True, organization="org_1")

    lines = shown(billhook, event_id)

    assert lines[0] == f"{event_id}  invoice.paid  waiting"
    assert "  organization  org_1" in lines
    assert "  reconciled    found at the provider; no delivery of it came" in lines
    assert not [line for line in lines if line.startswith(("  object", "run ", "message "))]


@once
@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b'{"total":10400.00,"big":12345678901234567890}', '{|  "total": 10400.00,|  "big": 12345678901234567890|}'),
        (b'{"a":{},"b":[],"c":[ ]}', '{|  "a": {},|  "b": [],|  "c": []|}'),
        (b'[{"a":[1,-2.5e3]},null]', '[|  {|    "a": [|      1,|      -2.5e3|    ]|  },|  null|]'),
        (b'{"a":"x, {\\"y\\": [1]}","a":2}', '{|  "a": "x, {\\"y\\": [1]}",|  "a": 2|}'),
        ('"شركة—é"'.encode(), '"شركة—é"'),
        (b"total=1\r\ntoken=2", "total=1|token=2"),
        (b'{"a":', '{"a":'),
        (bytes(range(120, 160)), bytes(range(120, 152)).hex(" ") + " |" + bytes(range(152, 160)).hex(" ")),
        ("a\x1b[31mred\u202etxt".encode(), "a\\x1b[31mred\\u202etxt"),
        (b"[" * 5000 + b"]" * 5000, "[" * 5000 + "]" * 5000),
    ],
    ids=["numbers", "empty", "nested", "strings", "words", "form", "broken", "bytes", "controls", "deep"],
)
def test_a_body_is_shown_as_it_was_written(body: bytes, lines: str, billhook: Billhook, engine: Engine) -> None:
    (event_id,) = ended(engine, run=None, body=body)

    seen = shown(billhook, event_id)

    assert seen[seen.index("body") + 1 :] == [f"  {line}" for line in lines.split("|")]


@once
def test_the_body_alone_is_what_was_signed_byte_for_byte(engine: Engine) -> None:
    body = bytes(range(256)) + b"\r\n"
    (event_id,) = ended(engine, run=None, body=body)

    told = subprocess.run([*COMMAND, "event", event_id, "--body"], capture_output=True, timeout=60, check=True)

    assert told.stdout == body


def test_an_event_is_told_as_json(billhook: Billhook, engine: Engine) -> None:
    (event_id,) = ended(engine, run="succeeded", headers='{"user-agent": "Hisab/2"}')
    followed(engine, [event_id])
    row, run = only(engine, EventRow), only(engine, HandlerRun)

    (told,) = billhook("event", event_id, "--json").objects

    assert (told["id"], told["status"], told["received_at"]) == (event_id, "processed", "2026-06-05T14:00:00+00:00")
    assert json.loads(told["body"])["data"] == {"id": row.object_id}
    assert (told["body_hex"], told["body_hash"]) == (None, row.body_hash.hex())
    assert told["headers"] == {"user-agent": "Hisab/2"}
    (run_told,) = told["runs"]
    assert (run_told["id"], run_told["handler"], run_told["error"]) == (run.id, "shop.receipt", None)
    assert [(step["name"], step["size"]) for step in run_told["steps"]] == [("pdf", 2)]
    ((delivery,),) = [message["deliveries"] for message in told["messages"]]
    assert (delivery["status"], delivery["attempts"]) == ("succeeded", 1)


@once
def test_a_body_that_is_no_text_is_hexadecimal_in_json(billhook: Billhook, engine: Engine) -> None:
    (event_id,) = ended(engine, run=None, body=b"\xff\x00")

    (told,) = billhook("event", event_id, "--json").objects

    assert (told["body"], told["body_hex"]) == (None, "ff00")


def test_an_event_that_is_not_there_is_one_line(billhook: Billhook) -> None:
    for options in ([], ["--json"], ["--body"]):
        said = billhook("event", "evt_1", *options).complaint()

        assert said == "there is no event evt_1; `billhook events` lists the newest"


@once
@pytest.mark.parametrize("event_id", ["", " "])
def test_an_empty_id_is_said_to_be_missing(event_id: str, billhook: Billhook) -> None:
    said = billhook("event", event_id).complaint(2)

    assert said == "ID: the id of an event is missing; `billhook events` lists the newest"


@once
def test_one_attempt_is_no_attempts(billhook: Billhook, engine: Engine) -> None:
    (event_id,) = ended(engine, conflicts=1)
    change(engine, HandlerRun, attempts=1, starts=1)

    lines = shown(billhook, event_id)

    assert "  1 attempt, 1 start" in lines
    assert "  conflicts     1 time its delivery id came with another body" in lines


@once
def test_an_error_cannot_colour_the_terminal(billhook: Billhook, engine: Engine) -> None:
    (event_id,) = ended(engine)
    change(engine, HandlerRun, error="ValueError: \x1b[31mred")

    assert shown(billhook, event_id)[-1] == r"    ValueError: \x1b[31mred"


@once
def test_how_to_see_one_is_told_where_many_are_listed(billhook: Billhook) -> None:
    assert "`billhook event ID`" in " ".join(billhook("events", "--help").out.split())


def test_messages_that_nobody_wanted_are_shown(billhook: Billhook, engine: Engine) -> None:
    (event_id,) = ended(engine, run="succeeded")
    with database.write(engine) as connection:
        publish(connection, [Outgoing("msg_1", event_id, "receipt.issued", b"{}")], now=NOW)

    assert shown(billhook, event_id)[-2:] == ["message msg_1  receipt.issued", "  no endpoint wanted it"]
