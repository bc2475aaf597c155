"""Cursors: each list goes on behind its own, and takes none of another."""

from __future__ import annotations

from typing import Any

from receiver.api.answers import cursor_of
from tests.receiver.api.conftest import Caller, refused
from tests.receiver.api.given import once
from tests.workers.schedule.given import added
from workers import ids
from workers.app import Runtime

BELONGS = {
    "/events": "evt",
    "/runs": "run",
    "/messages": "msg",
    "/deliveries": "dlv",
    "/endpoints": "ep",
    "/audit-log": "log",
    "/recurring-invoices": "sch",
    "/recurring-invoices/{schedule_id}/history": "occ",
}
"""What the ids of each list begin with."""


def paged(description: dict[str, Any]) -> set[str]:
    """The lists that have pages."""
    return {
        path.removeprefix("/api/v1")
        for path, operations in description["paths"].items()
        if any(one["name"] == "cursor" for one in operations.get("get", {}).get("parameters", ()))
    }


@once
def test_a_list_takes_a_cursor_of_its_own_and_of_no_other(caller: Caller, runtime: Runtime) -> None:
    schedule_id = added(runtime.engine, runtime.settings)
    assert paged(caller.call("GET", "/openapi.json").json()) == set(BELONGS)

    for path, own in BELONGS.items():
        for prefix in BELONGS.values():
            cursor = cursor_of(ids.new(prefix))
            answer = caller.call("GET", path.format(schedule_id=schedule_id), params={"cursor": cursor})
            if prefix == own:
                assert answer.status_code == 200, path
            else:
                error = refused(answer, 400, "VALIDATION_ERROR")
                assert error["details"] == [{"field": "cursor", "message": "is none that this list gave"}]
