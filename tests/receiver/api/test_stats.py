"""Statistics over the API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.receiver.api.conftest import Caller, CallerWith, refused
from tests.receiver.api.stored import ended, ignored
from tests.receiver.edge import Edge, accepted, delivery
from tests.workers.schedule.given import added
from workers import database, ids
from workers.app import Runtime
from workers.models import Attempt, Delivery, Endpoint, Message
from workers.tally import tally


@pytest.fixture
def events(edge: Edge, runtime: Runtime) -> None:
    """One event of each fate."""
    good, bad, unwanted, _ = (accepted(edge.post(delivery(number))) for number in range(4))
    ended(runtime.engine, good)
    ended(runtime.engine, bad, status="dead")
    ignored(runtime.engine, unwanted)


def attempted(runtime: Runtime, *attempts: tuple[int, int]) -> None:
    """Attempts just now, each with its HTTP status and duration in milliseconds."""
    now = datetime.now(UTC)
    work = {"status": "succeeded", "starts": 1, "fence": 1, "next_attempt_at": now, "attempts": 1, "created_at": now}
    with database.write(runtime.engine) as connection:
        for model, row in (
            (Endpoint, {"id": "ep_1", "url": "https://example.com", "event_types": ["*"], "created_at": now}),
            (Message, {"id": "msg_1", "type": "receipt.issued", "body": b"{}", "created_at": now}),
            (Delivery, {"id": "dlv_1", "message_id": "msg_1", "endpoint_id": "ep_1", **work}),
        ):
            connection.execute(database.insert(connection, model), [row])
        rows = [
            {"id": ids.new("att"), "delivery_id": "dlv_1", "number": number, "started_at": now,
             "duration_ms": duration, "status": status, "response": b""}
            for number, (status, duration) in enumerate(attempts)
        ]  # fmt: skip
        connection.execute(database.insert(connection, Attempt), rows)


@pytest.mark.usefixtures("events")
def test_how_things_are_now(caller: Caller) -> None:
    now = caller.get("/stats/now")

    assert {queue["queue"] for queue in now["queues"]} == {"events", "deliveries", "schedules"}
    assert now["dead_events"] == 1
    assert now["endpoints"] == {"enabled": 0, "held": 0, "disabled": 0}
    assert now["last_day"] == {"received": 4, "processed": 1, "ignored": 1, "dead": 1, "waiting": 1}
    assert now["last_hour"] == now["last_day"]


@pytest.mark.usefixtures("events")
@pytest.mark.parametrize("is_tallied", [False, True])
@pytest.mark.parametrize(("step", "steps"), [("minute", 24 * 60), ("hour", 24)])
def test_events_by_time(caller: Caller, runtime: Runtime, step: str, steps: int, is_tallied: bool) -> None:
    if is_tallied:
        tally(runtime.engine, datetime.now(UTC) + timedelta(hours=3), runtime.settings)

    found = caller.get("/stats/events", step=step)

    assert steps <= len(found) <= steps + 1
    assert sum(one["received"] for one in found) == 4
    assert sum(one["dead"] for one in found) == sum(one["ignored"] for one in found) == 1
    assert found == sorted(found, key=lambda one: one["at"])
    assert sum(one["received"] for one in caller.get("/stats/events", step=step, source="shop")) == 4
    assert sum(one["received"] for one in caller.get("/stats/events", step=step, type="invoice.sent")) == 0


@pytest.mark.parametrize("is_tallied", [False, True])
def test_attempts_by_time(caller: Caller, runtime: Runtime, is_tallied: bool) -> None:
    attempted(runtime, *[(200, 45)] * 18, (500, 4_900), (404, 4_900))
    if is_tallied:
        tally(runtime.engine, datetime.now(UTC) + timedelta(hours=3), runtime.settings)

    [hour] = [one for one in caller.get("/stats/deliveries") if one["attempts"]]

    assert (hour["attempts"], hour["succeeded"], hour["failed"]) == (20, 18, 2)
    assert 40 < hour["p50_ms"] <= 50
    assert 3_000 < hour["p95_ms"] <= 5_000


@pytest.mark.usefixtures("events")
def test_runs_by_handler(caller: Caller) -> None:
    [receipts] = caller.get("/stats/handlers")

    assert receipts == {
        "handler": "receipts.send", "runs": 2, "succeeded": 1, "discarded": 0, "dead": 1, "waiting": 0,
        "p50_ms": None, "p95_ms": None,
    }  # fmt: skip
    assert caller.get("/stats/handlers", handler="nobody") == []


@pytest.mark.parametrize("is_tallied", [False, True])
def test_how_long_runs_took(caller: Caller, edge: Edge, runtime: Runtime, is_tallied: bool) -> None:
    for number, duration in enumerate([45] * 8 + [90_000, None]):
        ended(runtime.engine, accepted(edge.post(delivery(number))), duration_ms=duration)
    if is_tallied:
        tally(runtime.engine, datetime.now(UTC) + timedelta(hours=3), runtime.settings)

    [receipts] = caller.get("/stats/handlers")

    assert receipts["runs"] == 10
    assert 40 < receipts["p50_ms"] <= 50
    assert 60_000 < receipts["p95_ms"] <= 120_000


def test_the_schedules_that_are_due_next_are_named_to_who_may_see_them(
    caller: Caller, caller_with: CallerWith, runtime: Runtime
) -> None:
    due = added(runtime.engine, runtime.settings)

    assert [one["id"] for one in caller.get("/stats/now")["due_next"]] == [due]
    assert caller_with("stats:read").get("/stats/now")["due_next"] is None


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("/stats/events", {"step": "day"}, "step"),
        ("/stats/events", {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "since"),
        ("/stats/events", {"since": "2026-01-01T00:00:00Z", "until": "2026-04-01T00:00:00Z"}, "since"),
        (
            "/stats/events",
            {"since": "2026-01-01T00:00:00Z", "until": "2026-01-03T00:00:00Z", "step": "minute"},
            "since",
        ),
        ("/stats/events", {"until": "0001-01-01T00:00:00Z"}, "until"),
        ("/stats/events", {"source": "\0"}, "source"),
        ("/stats/deliveries", {"since": "yesterday"}, "since"),
        ("/stats/deliveries", {"source": "shop"}, "source"),
        ("/stats/handlers", {"since": "2020-01-01T00:00:00Z"}, "since"),
    ],
)
def test_what_cannot_be_told_is_refused(caller: Caller, path: str, query: dict[str, str], field: str) -> None:
    error = refused(caller.call("GET", path, params=query), 400, "VALIDATION_ERROR")

    assert [one["field"] for one in error["details"]] == [field]


def test_times_at_the_ends_of_the_calendar_have_nothing(caller: Caller) -> None:
    for first, last in (
        ("0001-01-01T00:00:00Z", "0001-01-02T00:00:00Z"),
        ("9999-12-31T00:00:00Z", "9999-12-31T23:59:59Z"),
    ):
        assert not any(one["received"] for one in caller.get("/stats/events", since=first, until=last))
        assert not any(one["attempts"] for one in caller.get("/stats/deliveries", since=first, until=last))
        assert caller.get("/stats/handlers", since=first, until=last) == []


def test_who_may_not_see_statistics(caller_with: CallerWith) -> None:
    other = caller_with("events:read")

    for path in ("now", "events", "deliveries", "handlers"):
        refused(other.call("GET", f"/stats/{path}"), 403, "FORBIDDEN")
