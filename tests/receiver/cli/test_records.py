from __future__ import annotations

import os
from typing import Any

import pytest
from sqlalchemy import Engine, update

from tests.receiver.cli.conftest import Billhook
from tests.receiver.cli.terminal import at_a_terminal
from tests.workers.test_inbox import arrival
from workers import database, inbox
from workers.models import EventRow

pytestmark = pytest.mark.usefixtures("configured")
once = pytest.mark.parametrize("backend", ["embedded"], indirect=True)  # what is refused before the database is asked

TYPES = ["invoice.paid", "x[/b]y", "[red]paid"]


def store(engine: Engine, count: int = 1, **changes: Any) -> list[str]:
    """Store events; their ids, oldest first."""
    arrivals = [arrival(f"del_{number}", b"%d" % number) for number in range(count)]
    inbox.accept(engine, arrivals)
    if changes:
        with database.write(engine) as connection:
            connection.execute(update(EventRow).values(**changes))
    return [one.id for one in arrivals]


# --- events and audit -----------------------------------------------------------------------------


def test_the_newest_events_are_listed_first(billhook: Billhook, engine: Engine) -> None:
    ids = store(engine, 30)

    ended = billhook("events")

    lines = ended.out.splitlines()
    assert lines[0].split() == ["id", "received_at", "source", "type", "object_id", "status", "runs"]
    assert [line.split()[0] for line in lines[1:]] == sorted(ids, reverse=True)[:20]
    assert lines[1].split()[1:] == ["2026-06-05", "14:00:00Z", "shop", "invoice.paid", "inv_1", "waiting", "0"]


def test_events_are_listed_as_json(billhook: Billhook, engine: Engine) -> None:
    ids = store(engine, 3)

    objects = billhook("events", "--json", "--limit", "2").objects

    assert [row["id"] for row in objects] == sorted(ids, reverse=True)[:-1]
    assert objects[0]["received_at"] == "2026-06-05T14:00:00+00:00"
    assert objects[0]["conflicts"] == 0
    assert "body" not in objects[0]


def test_events_are_chosen_by_status_and_type(billhook: Billhook, engine: Engine) -> None:
    store(engine, 3)
    with database.write(engine) as connection:
        connection.execute(update(EventRow).where(EventRow.delivery_id == "del_1").values(status="ignored"))

    assert len(billhook("events", "--status", "waiting", "--json").objects) == 2
    assert len(billhook("events", "--status", "ignored", "--json").objects) == 1
    assert len(billhook("events", "--type", "invoice.paid", "--json").objects) == 3
    assert len(billhook("events", "--type", "invoice.*", "--json").objects) == 3
    assert billhook("events", "--type", "customer.*", "--json").objects == []
    assert billhook("events", "--type", "invoice.sent", "--json").objects == []
    assert billhook("events", "--status", "ignored", "--type", "invoice.sent", "--json").objects == []


def test_no_events_are_no_error(billhook: Billhook) -> None:
    ended = billhook("events")

    assert (ended.status, ended.out, ended.err) == (0, "", "no events\n")


@once
def test_what_a_sender_calls_an_event_cannot_colour_the_terminal(billhook: Billhook, engine: Engine) -> None:
    store(engine, 1, type="invoice.\x1b[31mred")

    assert r"invoice.\x1b[31mred" in billhook("events").out


@once
def test_an_unknown_status_is_refused(billhook: Billhook) -> None:
    said = billhook("events", "--status", "lost").complaint(2)

    assert "'lost'" in said
    assert "dead, ignored, processed, waiting" in said


@pytest.mark.parametrize("event_type", TYPES)
def test_an_event_is_listed_as_its_provider_named_it(event_type: str, billhook: Billhook, engine: Engine) -> None:
    store(engine, 1, type=event_type, object_id="[i]é—شركة")

    ended = billhook("events")

    assert ended.status == 0, ended.err
    assert event_type in ended.out
    assert "[i]é—شركة" in ended.out


def test_an_empty_inbox_is_in_balance(billhook: Billhook) -> None:
    ended = billhook("audit")

    assert ended.status == 0
    assert ended.out == "received 0 = processed 0 + ignored 0 + dead 0 + waiting 0: in balance\n"


@once
def test_at_a_terminal_an_audit_says_that_it_is_at_work() -> None:
    with at_a_terminal("audit") as (process, terminal):
        shown = b""
        while b"in balance" not in shown:
            shown += os.read(terminal, 4096)
        assert process.wait(20) == 0

    assert b"counting, and looking for what is lost" in shown


def test_an_inbox_in_balance_is_told_as_json(billhook: Billhook, engine: Engine) -> None:
    store(engine, 3)

    ended = billhook("audit", "--json")

    assert ended.status == 0
    assert ended.objects == [
        {"received": 3, "processed": 0, "ignored": 0, "dead": 0, "waiting": 3, "holds": True, "faults": []}
    ]


def test_a_lost_event_is_found_with_its_id(billhook: Billhook, engine: Engine) -> None:
    (lost,) = store(engine, 1, ring_at=None)

    ended, as_json = billhook("audit"), billhook("audit", "--json")

    assert ended.status == as_json.status == 1
    assert "NOT IN BALANCE" in ended.out
    assert lost in ended.err
    (balance,) = as_json.objects
    assert balance["holds"] is False
    assert balance["faults"] == [{"rule": "a waiting event will never be taken up", "ids": [lost]}]
