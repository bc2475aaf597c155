"""Who may call the API, and how those who may not are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from tests.receiver.api.conftest import Caller, CallerWith, ok, refused
from tests.receiver.conftest import Serve
from tests.receiver.edge import Edge
from workers import api_keys, database
from workers.app import Runtime
from workers.models import ApiKey


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer bh_live_" + "0" * 48},
        {"authorization": "Bearer whatever"},
        {"authorization": "Bearer bh_live_" + "0" * 48 + "\xe9"},
        {"authorization": "Basic dXNlcjpwYXNz"},
    ],
)
def test_who_has_no_key_is_refused(edge: Edge, header: dict[str, str]) -> None:
    answer = edge.client.get(
        "/api/v1/events", headers=[(name.encode(), value.encode("latin-1")) for name, value in header.items()]
    )

    refused(answer, 401, "UNAUTHORIZED")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_the_body_of_a_stranger_is_not_read(edge: Edge) -> None:
    for body in (b"{", b"{}", b"\xff", b'{"name": "x", "scopes": ["full"]}'):
        headers = {"content-type": "application/json"}
        refused(edge.client.post("/api/v1/keys", content=body, headers=headers), 401, "UNAUTHORIZED")


def test_a_key_without_the_scope_is_told_which_it_needs(caller_with: CallerWith) -> None:
    answer = caller_with("keys:read").call("GET", "/events")

    assert refused(answer, 403, "FORBIDDEN")["details"] == {"required_scopes": ["events:read"]}


def test_calls_that_a_key_may_not_make_are_counted_too(serve: Serve, caller_with: CallerWith, runtime: Runtime) -> None:
    client = serve(runtime, api_rate=2).client
    other = Caller(client, caller_with("keys:read").key)

    for _ in range(2):
        refused(other.call("GET", "/events"), 403, "FORBIDDEN")

    refused(other.call("GET", "/events"), 429, "RATE_LIMIT_EXCEEDED")


def test_a_revoked_key_ends_at_once(caller: Caller, caller_with: CallerWith, runtime: Runtime) -> None:
    other = caller_with("events:read")
    assert other.get("/events") == []

    [key] = [one for one in caller.get("/keys") if one["scopes"] == ["events:read"]]
    caller.post(f"/keys/{key['id']}/revoke")

    refused(other.call("GET", "/events"), 401, "UNAUTHORIZED")


def test_a_key_ends_by_itself(caller: Caller, runtime: Runtime) -> None:
    with database.write(runtime.engine) as connection:
        connection.execute(update(ApiKey).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))

    refused(caller.call("GET", "/events"), 401, "UNAUTHORIZED")


def test_keys_cannot_be_tried_without_end(serve: Serve, runtime: Runtime) -> None:
    edge = serve(runtime, failed_verifications=3)
    answers = [edge.client.get("/api/v1/events", headers={"authorization": f"Bearer {n}"}) for n in range(8)]

    assert {answer.status_code for answer in answers} == {401, 429}
    assert int(answers[-1].headers["retry-after"]) <= 60 or answers[-1].status_code == 401
    made = api_keys.create(runtime.engine, "good", ["read"], actor="test", now=datetime.now(UTC))
    ok(edge.client.get("/api/v1/events", headers={"authorization": f"Bearer {made.key}"}))


def test_a_key_has_so_many_calls_a_minute(serve: Serve, runtime: Runtime) -> None:
    made = api_keys.create(runtime.engine, "busy", ["read"], actor="test", now=datetime.now(UTC))
    caller = Caller(serve(runtime, api_rate=2).client, made.key)

    answers = [caller.call("GET", "/events") for _ in range(6)]

    assert answers[0].headers["x-ratelimit-limit"] == "2"
    assert answers[0].headers["x-ratelimit-remaining"] == "1"
    assert int(answers[0].headers["x-ratelimit-reset"]) > 1_700_000_000
    over = [answer for answer in answers if answer.status_code == 429]
    assert over
    refused(over[0], 429, "RATE_LIMIT_EXCEEDED")
    assert 1 <= int(over[0].headers["retry-after"]) <= 60


def test_the_use_of_a_key_is_noted(caller: Caller) -> None:
    assert caller.get("/keys")[0]["last_used_at"] is not None


def test_every_answer_has_an_id(caller: Caller) -> None:
    answer = caller.call("GET", "/nothing")

    refused(answer, 404, "NOT_FOUND")
    assert answer.headers["x-request-id"].startswith("req_")


def test_management_can_be_left_out(serve: Serve, runtime: Runtime) -> None:
    assert serve(runtime, management=False).client.get("/api/v1/events").status_code == 404
