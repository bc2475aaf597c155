"""The audit log over the API."""

from __future__ import annotations

from tests.receiver.api.conftest import Caller, CallerWith, refused


def test_what_was_done_is_found_by_who_and_what(caller: Caller) -> None:
    made = caller.post("/keys", {"name": "one", "scopes": ["read"]}, status=201)
    caller.post(f"/keys/{made['id']}/revoke")

    revoked = caller.get("/audit-log", action="keys.revoke")
    mine = caller.get("/audit-log", actor=revoked[0]["actor"])

    assert [entry["detail"] for entry in revoked] == [{"key": made["id"]}]
    assert [entry["action"] for entry in mine] == ["keys.revoke", "keys.create"]
    assert made["key"] not in str(mine)
    assert caller.get("/audit-log", actor="nobody") == []
    assert caller.get("/audit-log", until="2020-01-01T00:00:00Z") == []


def test_it_comes_page_by_page(caller: Caller) -> None:
    for number in range(3):
        caller.post("/keys", {"name": f"n{number}", "scopes": ["read"]}, status=201)

    first = caller.call("GET", "/audit-log", params={"limit": 2}).json()
    rest = caller.get("/audit-log", limit=200, cursor=first["meta"]["pagination"]["next_cursor"])

    assert len(first["data"]) == 2
    assert {entry["id"] for entry in first["data"]}.isdisjoint(entry["id"] for entry in rest)


def test_who_may_not_see_it(caller: Caller, caller_with: CallerWith) -> None:
    refused(caller_with("keys:read").call("GET", "/audit-log"), 403, "FORBIDDEN")
    refused(caller.call("GET", "/audit-log", params={"actor": "\0"}), 400, "VALIDATION_ERROR")
