"""Replays and acknowledgements over the API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.receiver.api.conftest import Caller, CallerWith, refused
from tests.receiver.api.stored import ended, ignored
from tests.receiver.edge import Edge, accepted, delivery
from workers.app import Runtime

JSON = {"content-type": "application/json"}


@pytest.fixture
def dead(edge: Edge, runtime: Runtime) -> list[str]:
    """Three dead events, the oldest first."""
    events = [accepted(edge.post(delivery(number))) for number in range(3)]
    for event_id in events:
        ended(runtime.engine, event_id, status="dead")
    return sorted(events)


def statuses(caller: Caller) -> list[str]:
    return [one["status"] for one in reversed(caller.get("/events"))]


def test_one_event_is_handled_again(caller: Caller, dead: list[str]) -> None:
    answer = caller.post(f"/events/{dead[0]}/replay")

    assert answer == {"events": 1, "runs": 1, "new": 0, "waiting": None, "more": False, "dry_run": False}
    assert statuses(caller) == ["waiting", "dead", "dead"]
    assert caller.post(f"/events/{dead[0]}/replay")["events"] == 0  # it has not ended


def test_only_the_run_of_one_handler(caller: Caller, runtime: Runtime, dead: list[str]) -> None:
    ended(runtime.engine, dead[0], "ledger.book", "dead")

    assert caller.post(f"/events/{dead[0]}/replay", {"handler": "ledger.book"})["runs"] == 1
    assert [run["status"] for run in caller.get("/runs", handler="ledger.book")] == ["waiting"]


def test_many_are_handled_again_as_far_as_the_limit_goes(caller: Caller, dead: list[str]) -> None:
    wish = {"status": "dead", "limit": 2}

    assert caller.post("/events/replay", wish | {"dry_run": True}) == {
        "events": 2, "runs": 2, "new": 0, "waiting": 0, "more": True, "dry_run": True,
    }  # fmt: skip
    assert statuses(caller) == ["dead"] * 3
    assert caller.post("/events/replay", wish)["more"] is True
    assert statuses(caller) == ["waiting", "waiting", "dead"]
    assert caller.post("/events/replay", wish) == {
        "events": 1,
        "runs": 1,
        "new": 0,
        "waiting": None,
        "more": False,
        "dry_run": False,
    }


def test_an_ignored_event_is_planned_anew(caller: Caller, edge: Edge, runtime: Runtime) -> None:
    ignored(runtime.engine, accepted(edge.post(delivery(9))))

    assert caller.post("/events/replay", {"status": "ignored"})["events"] == 1
    assert statuses(caller) == ["waiting"]


def test_a_replay_sent_again_under_its_key_is_one(caller: Caller, dead: list[str]) -> None:
    wish = {"ids": dead[:1]}

    first = caller.post("/events/replay", wish, idempotency_key="one")

    assert caller.post("/events/replay", wish, idempotency_key="one") == first
    assert len(caller.get("/audit-log", action="replay")) == 1


def test_dead_events_are_let_go(caller: Caller, dead: list[str]) -> None:
    answers = [caller.post("/events/acknowledge", {"source": "shop", "limit": 2}) for _ in range(2)]

    assert [(one["events"], one["more"]) for one in answers] == [(2, True), (1, False)]
    assert all(one["acknowledged_at"] for one in caller.get("/events"))


def test_letting_go_can_be_tried(caller: Caller, dead: list[str]) -> None:
    wish = {"ids": dead, "limit": 2, "dry_run": True}

    assert caller.post("/events/acknowledge", wish) == {"events": 2, "more": True, "dry_run": True}
    assert not any(one["acknowledged_at"] for one in caller.get("/events"))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"limit": 5}, "body"),
        ({"status": "waiting"}, "status"),
        ({"source": "shop", "limit": 10_001}, "limit"),
        ({"source": "shop", "rate": 0}, "rate"),
        ({"source": "sh\0p"}, "source"),
        ({"source": 5}, "source"),
        ({"ids": []}, "ids"),
        ({"ids": ["evt_\0"]}, "ids[0]"),
        ({"since": "yesterday"}, "since"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "since"),
        ({"handler": "nobody"}, "handler"),
        ({"source": "shop", "colour": "red"}, "colour"),
    ],
)
def test_what_is_not_meant_is_refused(caller: Caller, body: Any, field: str) -> None:
    error = refused(caller.call("POST", "/events/replay", json=body), 400, "VALIDATION_ERROR")

    assert [one["field"] for one in error["details"]] == [field]


def test_what_is_not_there(caller: Caller) -> None:
    refused(caller.call("POST", "/events/evt_none/replay"), 404, "NOT_FOUND")
    refused(caller.call("POST", "/events/replay", json={"ids": ["evt_none"]}), 404, "NOT_FOUND")
    refused(caller.call("POST", "/events/acknowledge", json={"ids": ["evt_none"]}), 404, "NOT_FOUND")
    refused(
        caller.call("POST", "/events/replay", content=b'{"source": "\\ud800"}', headers=JSON), 400, "VALIDATION_ERROR"
    )
    refused(caller.call("POST", "/events/replay", content=b"{", headers=JSON), 400, "INVALID_JSON")
    refused(caller.call("POST", "/events/replay", content=b'{"\\ud800": 1}', headers=JSON), 400, "VALIDATION_ERROR")
    refused(caller.call("POST", "/events/replay"), 400, "VALIDATION_ERROR")
    endless = b'{"source": "shop", "rate": 1e400}'
    refused(caller.call("POST", "/events/replay", content=endless, headers=JSON), 400, "VALIDATION_ERROR")


def test_who_may_only_read_replays_nothing(caller_with: CallerWith) -> None:
    reader = caller_with("read")

    for path in ("/events/replay", "/events/acknowledge", "/events/evt_1/replay"):
        refused(reader.call("POST", path, json={"source": "shop"}), 403, "FORBIDDEN")
