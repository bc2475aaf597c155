"""To send an endpoint what failed there, or what it never got, over the API."""

from __future__ import annotations

from typing import Any

import pytest

from receiver.api import recovering
from receiver.api.answers import cursor_of
from tests.receiver.api.conftest import Caller, refused
from tests.receiver.api.given import ended, once, published
from tests.workers.given import endpoint, rows
from workers import ids
from workers.app import Runtime
from workers.models import AuditEntry, Delivery

SINCE = {"since": "2026-06-01T00:00:00Z"}


def waiting(runtime: Runtime) -> int:
    return sum(row.status == "waiting" for row in rows(runtime.engine, Delivery))


def noted(runtime: Runtime) -> list[dict[str, Any]]:
    entries = rows(runtime.engine, AuditEntry)
    return [one.detail for one in entries if one.action in ("endpoint.recover", "endpoint.missing")]


@pytest.fixture
def by_twos(monkeypatch: pytest.MonkeyPatch) -> None:
    """So little is looked at in one call that three of something need two."""
    monkeypatch.setattr(recovering, "AT_ONCE", 2)


@pytest.mark.usefixtures("by_twos")
def test_what_failed_is_counted_and_sent_again_part_by_part(caller: Caller, runtime: Runtime) -> None:
    path = f"/endpoints/{endpoint(runtime)}/recover"
    ended(runtime.engine, published(runtime.engine, 3))

    assert caller.post(path, SINCE | {"dry_run": True}) == {"deliveries": 3, "dry_run": True, "next_cursor": None}
    assert waiting(runtime) == 0
    first = caller.post(path, SINCE, idempotency_key="one")
    assert caller.post(path, SINCE, idempotency_key="one") == first
    assert (first["deliveries"], waiting(runtime)) == (2, 2)
    rest = caller.post(path, SINCE | {"cursor": first["next_cursor"]})

    assert rest == {"deliveries": 1, "dry_run": False, "next_cursor": None}
    assert waiting(runtime) == 3
    assert [(one["deliveries"], one["finished"]) for one in noted(runtime)] == [(2, True), (1, True)]


@pytest.mark.usefixtures("by_twos")
def test_what_an_endpoint_never_got_is_counted_and_sent_part_by_part(caller: Caller, runtime: Runtime) -> None:
    published(runtime.engine, 3)
    path = f"/endpoints/{endpoint(runtime)}/missing"

    first = caller.post(path, SINCE | {"dry_run": True})
    assert (first["deliveries"], waiting(runtime)) == (2, 0)
    cursor = first["next_cursor"]
    assert caller.post(path, SINCE | {"dry_run": True, "cursor": cursor})["deliveries"] == 1
    assert caller.post(path, SINCE | {"cursor": cursor}) == {"deliveries": 1, "dry_run": False, "next_cursor": None}
    assert caller.post(path, SINCE)["deliveries"] == 2

    assert waiting(runtime) == 3


def test_nothing_is_sent_to_an_endpoint_that_is_disabled_or_forwards_nothing(caller: Caller, runtime: Runtime) -> None:
    endpoint_id = endpoint(runtime)
    forwarded = caller.call("POST", f"/endpoints/{endpoint_id}/missing", json=SINCE | {"forwarded": True})
    assert "gets nothing forwarded" in refused(forwarded, 409, "INVALID_STATE")["message"]

    caller.post(f"/endpoints/{endpoint_id}/disable")
    for verb in ("recover", "missing"):
        for dry_run in (True, False):
            answer = caller.call("POST", f"/endpoints/{endpoint_id}/{verb}", json=SINCE | {"dry_run": dry_run})
            refused(answer, 409, "INVALID_STATE")
    assert noted(runtime) == []


@once
def test_what_is_asked_wrong_is_refused(caller: Caller, runtime: Runtime) -> None:
    endpoint_id = endpoint(runtime)
    wrong: list[Any] = [
        {},
        None,
        {"since": "yesterday"},
        {"since": "2026-06-01T00:00:00"},
        SINCE | {"until": "2026-05-01T00:00:00Z"},
        SINCE | {"cursor": "x"},
        SINCE | {"cursor": "\x00"},
        SINCE | {"cursor": cursor_of(ids.new("evt"))},
        SINCE | {"dry_run": "perhaps"},
        SINCE | {"colour": "red"},
    ]
    for verb in ("recover", "missing"):
        for body in wrong:
            answer = caller.call("POST", f"/endpoints/{endpoint_id}/{verb}", json=body)
            refused(answer, 400, "VALIDATION_ERROR")
        refused(caller.call("POST", f"/endpoints/ep_none/{verb}", json=SINCE), 404, "NOT_FOUND")
