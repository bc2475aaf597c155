"""The commands about deliveries, and those that send an endpoint what failed or what it never got."""

from __future__ import annotations

import os
import pwd
import socket
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from tests.receiver.cli.conftest import Billhook
from tests.receiver.cli.test_replay import at_a_terminal
from tests.workers.given import NOW, change, endpoint, only, rows, rung
from workers import database, ids
from workers.app import DELIVER, Runtime
from workers.delivery.messages import Outgoing, publish
from workers.models import Attempt, AuditEntry, Delivery, Endpoint, Message

pytestmark = pytest.mark.usefixtures("configured")
once = pytest.mark.parametrize("backend", ["embedded"], indirect=True)  # what does not hang on the servers
SINCE = "2026-06-05T13:00Z"


@pytest.fixture
def endpoint_id(runtime: Runtime) -> str:
    return endpoint(runtime)


def published(engine: Engine, count: int = 1, *, kind: str = "receipt.issued", later: int = 0) -> list[str]:
    """Messages for every endpoint there is; the deliveries' ids."""
    outgoing = [Outgoing(ids.new("msg"), None, kind, b"{}") for _ in range(count)]
    with database.write(engine) as connection:
        publish(connection, outgoing, now=NOW + timedelta(hours=later))
        mine = Delivery.message_id.in_([one.id for one in outgoing])
        return list(connection.execute(select(Delivery.id).where(mine).order_by(Delivery.id)).scalars())


def ended(engine: Engine, *delivery_ids: str, status: str = "exhausted") -> None:
    """Have deliveries be as if they had ended so after an attempt."""
    went = {"attempts": 1, "starts": 1, "again": True, "ring_at": None, "ended_at": NOW}
    with database.write(engine) as connection:
        connection.execute(update(Delivery).where(Delivery.id.in_(delivery_ids)).values(status=status, **went))


def attempted(engine: Engine, delivery_id: str, number: int = 1, **answer: Any) -> None:
    attempt = {"status": None, "error": None, "response": b"", **answer}
    made = {"id": ids.new("att"), "delivery_id": delivery_id, "number": number, "started_at": NOW, "duration_ms": 12}
    with database.write(engine) as connection:
        connection.execute(database.insert(connection, Attempt), [made | attempt])


def statuses(engine: Engine) -> list[str]:
    return [row.status for row in rows(engine, Delivery)]


# --- list -----------------------------------------------------------------------------------------


def test_the_newest_are_listed_with_how_they_went_last(billhook: Billhook, endpoint_id: str, engine: Engine) -> None:
    (first,) = published(engine)
    (second,) = published(engine, kind="invoice.noted")
    ended(engine, first, second)
    attempted(engine, first, status=503)
    attempted(engine, second, error="timeout")
    published(engine)

    table = billhook("deliveries", "list")
    listed = billhook("deliveries", "list", "--json").objects

    assert [one["last"] for one in listed] == [None, "timeout", "503"]
    assert [one["type"] for one in listed] == ["receipt.issued", "invoice.noted", "receipt.issued"]
    assert listed[2]["id"] == first
    assert listed[2]["endpoint_id"] == endpoint_id
    assert [line.split()[0] for line in table.out.splitlines()] == ["id", *(one["id"] for one in listed)]
    assert "503" in table.out


@once
def test_only_those_that_are_meant_are_listed(billhook: Billhook, endpoint_id: str, runtime: Runtime) -> None:
    engine = runtime.engine
    failed, gone, waiting = published(engine, 3)
    (late,) = published(engine, later=2)
    ended(engine, failed)
    ended(engine, gone, status="cancelled")
    endpoint(runtime)
    message = {row.id: row.message_id for row in rows(engine, Delivery)}[waiting]

    def listed(*options: str) -> list[str]:
        return sorted(one["id"] for one in billhook("deliveries", "list", *options, "--json").objects)

    assert listed("--endpoint", endpoint_id, "--status", "exhausted", "--status", "cancelled") == sorted([failed, gone])
    assert listed("--message", message) == [waiting]
    assert listed("--since", "2026-06-05T15:00") == listed("--limit", "1") == [late]
    assert billhook("deliveries", "list", "--endpoint", "ep_1").err == "no deliveries\n"


@once
def test_what_cannot_be_meant_is_refused(billhook: Billhook) -> None:
    said = billhook("deliveries", "list", "--status", "failed").complaint(2)
    assert said == "--status: 'failed' is none of cancelled, exhausted, refused, running, succeeded, waiting"
    assert "--since: 'soon' is not a date" in billhook("deliveries", "list", "--since", "soon").complaint(2)


# --- show -----------------------------------------------------------------------------------------


def test_one_is_shown_with_each_attempt(billhook: Billhook, endpoint_id: str, engine: Engine) -> None:
    (delivery_id,) = published(engine)
    ended(engine, delivery_id)
    change(engine, Delivery, attempts=3, prior=1)
    change(engine, Endpoint, status="disabled")
    attempted(engine, delivery_id, error="connect")
    attempted(engine, delivery_id, 2, status=400, response=b"no \x1b[2J such\r\nreceipt \xff \xe2\x80\xae")
    attempted(engine, delivery_id, 3, status=500, response=b"x" * 301)

    shown = billhook("deliveries", "show", delivery_id)

    assert shown.out.splitlines() == [
        f"{delivery_id}  exhausted",
        f"  message   {only(engine, Message).id}  receipt.issued",
        f"  endpoint  {endpoint_id}  disabled",
        "  made      2026-06-05 14:00:00Z",
        "  attempts  3, 1 of them before it was asked for again",
        "  ended     2026-06-05 14:00:00Z",
        "",
        "attempt 1  2026-06-05 14:00:00Z  connect  12 ms",
        "",
        "attempt 2  2026-06-05 14:00:00Z  400  12 ms",
        "  no \\x1b[2J such receipt \\xff \\u202e",
        "",
        "attempt 3  2026-06-05 14:00:00Z  500  12 ms",
        f"  {'x' * 300} … (301 bytes)",
    ]


def test_one_is_shown_as_json_with_whole_answers(billhook: Billhook, endpoint_id: str, engine: Engine) -> None:
    (delivery_id,) = published(engine)
    attempted(engine, delivery_id, status=500, response=b"x" * 301 + b"\xff")

    (shown,) = billhook("deliveries", "show", delivery_id, "--json").objects

    assert (shown["id"], shown["type"], shown["endpoint_id"]) == (delivery_id, "receipt.issued", endpoint_id)
    assert shown["attempts_made"] == [
        {
            "number": 1,
            "started_at": "2026-06-05T14:00:00+00:00",
            "duration_ms": 12,
            "status": 500,
            "error": None,
            "response": "x" * 301 + "\\xff",
        }
    ]


@once
def test_it_is_shown_when_it_goes_on(billhook: Billhook, endpoint_id: str, engine: Engine) -> None:
    (delivery_id,) = published(engine)
    change(engine, Message, event_id=None)

    def line(name: str) -> str:
        (found,) = [one for one in billhook("deliveries", "show", delivery_id).out.splitlines() if f"  {name} " in one]
        return " ".join(found.split())

    assert line("next") == "next 2026-06-05 14:00:00Z"
    change(engine, Endpoint, held_until=NOW + timedelta(minutes=5))
    assert line("next") == "next 2026-06-05 14:05:00Z, for until then nothing is sent to the endpoint"
    change(engine, Delivery, status="running")
    assert line("leased") == "leased until 2026-06-05 14:00:00Z"


@once
def test_one_that_is_not_there_is_one_line(billhook: Billhook) -> None:
    said = billhook("deliveries", "show", "dlv_1").complaint()
    assert said == "there is no delivery dlv_1; `billhook deliveries list` shows the newest"


# --- retry ----------------------------------------------------------------------------------------


def test_some_are_sent_now_and_rung_for(billhook: Billhook, endpoint_id: str, runtime: Runtime, engine: Engine) -> None:
    failed, waiting, left = published(engine, 3)
    ended(engine, failed)

    assert billhook("deliveries", "retry", failed, waiting).out == "2 deliveries due now\n"

    assert rung(runtime, "deliveries") == [(DELIVER, sorted([failed, waiting]))]
    assert {row.id: row.again for row in rows(engine, Delivery)} == {failed: True, waiting: False, left: False}
    assert only_entry(engine).actor == f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"


def only_entry(engine: Engine) -> Any:
    (entry,) = [row for row in rows(engine, AuditEntry) if row.action != "endpoint.add"]
    return entry


def test_a_success_is_repeated_only_where_that_is_said(billhook: Billhook, endpoint_id: str, engine: Engine) -> None:
    (delivery_id,) = published(engine)
    ended(engine, delivery_id, status="succeeded")

    refused = billhook("deliveries", "retry", delivery_id).complaint()
    (done,) = billhook("deliveries", "retry", delivery_id, "--succeeded", "--json").objects

    assert refused == f"{delivery_id} succeeded: say --succeeded to send the same message once more"
    assert done == {"due": [delivery_id], "under_way": [], "rung": True}


@once
def test_what_is_under_way_is_told(
    billhook: Billhook, endpoint_id: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = published(engine, 2)
    with database.write(engine) as connection:
        connection.execute(update(Delivery).where(Delivery.id == one).values(status="running"))
    monkeypatch.setenv("BILLHOOK_REDIS_URL", "redis://127.0.0.1:1/0")

    (told,) = billhook("deliveries", "retry", *(row.id for row in rows(engine, Delivery))).out.splitlines()

    assert told.startswith("1 delivery due now; 1 delivery under way already; the workers could not be told")


@once
def test_what_cannot_be_sent_is_one_line(billhook: Billhook, endpoint_id: str, engine: Engine) -> None:
    (delivery_id,) = published(engine)
    ended(engine, delivery_id)
    billhook("endpoints", "disable", endpoint_id)

    assert billhook("deliveries", "retry", "dlv_1").complaint() == "there is no delivery dlv_1"
    for command in (
        ["deliveries", "retry", delivery_id],
        ["endpoints", "recover", endpoint_id, "--since", SINCE, "--dry-run"],
        ["endpoints", "missing", endpoint_id, "--since", SINCE, "--yes"],
    ):
        assert billhook(*command).complaint().endswith("is disabled and would get nothing: enable it first")


# --- endpoints recover ----------------------------------------------------------------------------


def test_what_failed_is_counted_and_sent_again(billhook: Billhook, endpoint_id: str, engine: Engine) -> None:
    ended(engine, *published(engine, 2))
    asked = ("endpoints", "recover", endpoint_id, "--since", SINCE)

    assert billhook(*asked, "--dry-run").out == f"would send 2 deliveries to {endpoint_id} again\n"
    assert statuses(engine) == ["exhausted"] * 2
    assert billhook(*asked, "--yes").out == f"2 deliveries to {endpoint_id} are due again\n"
    assert statuses(engine) == ["waiting"] * 2
    assert billhook(*asked, "--yes").out == f"nothing failed at {endpoint_id} in that time\n"
    assert only_entry(engine).detail["deliveries"] == 2


@once
def test_how_much_it_is_is_told_as_json(billhook: Billhook, endpoint_id: str, engine: Engine) -> None:
    ended(engine, *published(engine))
    told = {"endpoint": endpoint_id, "deliveries": 1}

    asked = ("endpoints", "recover", endpoint_id, "--since", SINCE, "--json")

    assert billhook(*asked, "--until", "2026-06-05T14:00", "--dry-run").objects == [
        told | {"deliveries": 0, "dry_run": True}
    ]
    assert billhook(*asked, "--dry-run").objects == [told | {"dry_run": True}]
    assert billhook(*asked, "--yes").objects == [told | {"dry_run": False}]


@once
def test_at_a_terminal_it_is_asked_first(endpoint_id: str, engine: Engine) -> None:
    ended(engine, *published(engine, 2))

    shown = at_a_terminal("endpoints", "recover", endpoint_id, "--since", SINCE, typed="y\n")

    assert f"2 deliveries to {endpoint_id} failed. Send again? [y/N]:" in shown
    assert f"2 deliveries to {endpoint_id} are due again" in shown
    assert statuses(engine) == ["waiting"] * 2


@once
@pytest.mark.parametrize("command", ["recover", "missing"])
def test_what_is_asked_wrongly_is_refused(command: str, billhook: Billhook, endpoint_id: str) -> None:
    asked = ("endpoints", command, endpoint_id)

    assert "Missing option '--since'" in billhook(*asked, "--yes").misuse()
    assert "--since: 'soon' is not" in billhook(*asked, "--since", "soon", "--yes").complaint(2)
    backwards = billhook(*asked, "--since", "1d", "--until", "2d", "--yes").complaint(2)
    assert backwards == "--until: '2d' is not later than --since"
    assert "there is no terminal to ask at" in billhook(*asked, "--since", SINCE).complaint(2)
    nobody = billhook("endpoints", command, "ep_1", "--since", SINCE, "--yes").complaint()
    assert nobody == "there is no endpoint ep_1"


# --- endpoints missing ----------------------------------------------------------------------------


def test_what_an_endpoint_never_got_is_counted_and_sent(billhook: Billhook, runtime: Runtime, engine: Engine) -> None:
    published(engine)
    endpoint_id = endpoint(runtime)
    asked = ("endpoints", "missing", endpoint_id, "--since", SINCE)

    assert billhook(*asked, "--dry-run").out == f"would send 1 message to {endpoint_id}\n"
    assert rows(engine, Delivery) == []
    assert billhook(*asked, "--yes").out == f"1 message to {endpoint_id} is due\n"
    assert statuses(engine) == ["waiting"]
    assert billhook(*asked, "--yes").out == f"nothing of that time is missing at {endpoint_id}\n"


@once
def test_what_was_forwarded_is_sent_where_that_is_said(billhook: Billhook, runtime: Runtime, engine: Engine) -> None:
    published(engine)
    change(engine, Message, forwarded=True)
    plain, forwarding = endpoint(runtime), endpoint(runtime, forward=True)

    def missing(endpoint_id: str, *options: str) -> Any:
        return billhook("endpoints", "missing", endpoint_id, "--since", SINCE, "--yes", "--json", *options)

    assert missing(forwarding).objects[0]["deliveries"] == 0
    assert missing(forwarding, "--forwarded").objects[0]["deliveries"] == 1
    assert missing(plain, "--forwarded").complaint().endswith("gets nothing forwarded: change it to forward first")
