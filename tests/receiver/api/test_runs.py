"""Handlers and runs over the API."""

from __future__ import annotations

from tests.receiver.api.conftest import Caller, CallerWith, refused
from tests.receiver.api.stored import ended
from tests.receiver.edge import Edge, accepted, delivery
from workers.app import Runtime


def test_handlers_are_those_that_had_runs(caller: Caller, edge: Edge, runtime: Runtime) -> None:
    first, second = (accepted(edge.post(delivery(number))) for number in (1, 2))
    ended(runtime.engine, first)
    ended(runtime.engine, second, status="dead")
    ended(runtime.engine, second, "ledger.book")

    ledger, receipts = caller.get("/handlers")

    assert (ledger["name"], ledger["dead"], ledger["waiting"]) == ("ledger.book", 0, 0)
    assert (receipts["name"], receipts["dead"]) == ("receipts.send", 1)
    assert receipts["last_day"] == {"runs": 2, "succeeded": 1, "discarded": 0, "dead": 1, "waiting": 0}
    assert caller.get("/handlers/receipts.send") == receipts


def test_runs_are_found_by_what_they_are(caller: Caller, edge: Edge, runtime: Runtime) -> None:
    first, second = (accepted(edge.post(delivery(number))) for number in (1, 2))
    good = ended(runtime.engine, first)
    bad = ended(runtime.engine, second, status="dead", error="ValueError: no")

    def found(**filters: str) -> list[str]:
        return [run["id"] for run in caller.get("/runs", **filters)]

    assert set(found()) == {good, bad}
    assert found(status="dead") == found(event_id=second) == [bad]
    assert found(handler="receipts.send", status="succeeded") == [good]
    assert found(handler="nobody") == found(until="2020-01-01T00:00:00Z") == []
    assert set(found(since="2020-01-01T00:00:00Z")) == {good, bad}


def test_a_run_is_shown_with_its_error(caller: Caller, edge: Edge, runtime: Runtime) -> None:
    event_id = accepted(edge.post(delivery()))
    run_id = ended(runtime.engine, event_id, status="dead", error="ValueError: no", duration_ms=12)

    run = caller.get(f"/runs/{run_id}")

    assert (run["event_id"], run["status"], run["error"], run["steps"]) == (event_id, "dead", "ValueError: no", [])
    assert run["duration_ms"] == 12


def test_what_is_not_there(caller: Caller, caller_with: CallerWith) -> None:
    refused(caller.call("GET", "/runs/run_none"), 404, "NOT_FOUND")
    refused(caller.call("GET", "/runs/%00"), 400, "VALIDATION_ERROR")
    refused(caller.call("GET", "/handlers/nobody"), 404, "NOT_FOUND")
    refused(caller.call("GET", "/runs", params={"handler": "\0"}), 400, "VALIDATION_ERROR")
    refused(caller.call("GET", "/runs", params={"status": "lost"}), 400, "VALIDATION_ERROR")
    refused(caller_with("events:read").call("GET", "/runs"), 403, "FORBIDDEN")
    refused(caller_with("events:read").call("GET", "/handlers"), 403, "FORBIDDEN")


def test_times_at_the_ends_of_the_calendar_find_everything_or_nothing(caller: Caller, edge: Edge) -> None:
    accepted(edge.post(delivery()))

    for path in ("/events", "/runs", "/audit-log"):
        assert caller.get(path, since="9999-12-31T23:59:59Z", until="9999-12-31T23:59:59Z") == []
        assert caller.get(path, until="0001-01-01T00:00:00Z") == []
    assert len(caller.get("/events", since="0001-01-01T00:00:00Z", until="9999-12-31T23:59:59Z")) == 1
