"""API keys over the API: shown once, and never more than their maker has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.receiver.api.conftest import Caller, CallerWith, refused


def test_a_key_is_shown_once(caller: Caller) -> None:
    made = caller.post("/keys", {"name": "reports", "scopes": ["read"]}, status=201)

    assert made["key"].startswith("bh_live_")
    assert made["key"][-4:] == made["hint"]
    assert made["key"] not in caller.call("GET", "/keys").text
    assert made["key"] not in caller.call("GET", f"/keys/{made['id']}").text


def test_nobody_gives_what_he_has_not(caller_with: CallerWith) -> None:
    small = caller_with("keys:write", "keys:read")

    answer = small.call("POST", "/keys", json={"name": "more", "scopes": ["keys:write", "events:write"]})

    assert refused(answer, 403, "FORBIDDEN")["details"] == {"required_scopes": ["events:write"]}
    assert len(small.get("/keys")) == 1


def test_a_key_that_ends_makes_none_that_outlives_it(caller: Caller) -> None:
    soon, later = datetime.now(UTC) + timedelta(hours=1), datetime.now(UTC) + timedelta(hours=2)
    wanted = {"name": "short", "scopes": ["keys:write"]}
    made = caller.post("/keys", wanted | {"expires_at": soon.isoformat()}, status=201)
    short = Caller(caller.client, made["key"])

    for ends in ({}, {"expires_at": later.isoformat()}):
        refused(short.call("POST", "/keys", json=wanted | ends), 400, "VALIDATION_ERROR")
    short.post("/keys", wanted | {"expires_at": (soon - timedelta(minutes=1)).isoformat()}, status=201)


def test_a_request_sent_again_makes_one_key(caller: Caller) -> None:
    body = {"name": "reports", "scopes": ["read"]}

    first = caller.post("/keys", body, status=201, idempotency_key="one")
    second = caller.post("/keys", body, status=201, idempotency_key="one")

    assert first == second
    assert len(caller.get("/keys")) == 2


def test_the_same_key_for_another_request_is_refused(caller: Caller) -> None:
    caller.post("/keys", {"name": "one", "scopes": ["read"]}, status=201, idempotency_key="one")

    answer = caller.call("POST", "/keys", json={"name": "two", "scopes": ["read"]}, headers={"idempotency-key": "one"})

    refused(answer, 409, "IDEMPOTENCY_CONFLICT")
    assert len(caller.get("/keys")) == 2


def test_what_was_refused_may_be_asked_again_under_its_key(caller: Caller) -> None:
    headers = {"idempotency-key": "one"}
    refused(
        caller.call("POST", "/keys", json={"name": "x", "scopes": ["none"]}, headers=headers), 400, "VALIDATION_ERROR"
    )

    caller.post("/keys", {"name": "x", "scopes": ["read"]}, status=201, idempotency_key="one")
