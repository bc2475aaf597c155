"""Deliveries over the API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.receiver.api.conftest import Caller, CallerWith, ok, refused
from tests.receiver.api.given import attempted, ended, once, published
from tests.workers.given import endpoint, rows, rung
from workers import database
from workers.app import DELIVER, Runtime
from workers.delivery.deliveries import STATUSES, Wanted, newest_ids
from workers.models import Delivery


def listed(caller: Caller, **params: object) -> list[str]:
    return [one["id"] for one in ok(caller.call("GET", "/deliveries", params=params))]


def test_deliveries_are_found_by_what_is_given(caller: Caller, runtime: Runtime) -> None:
    engine, first = runtime.engine, endpoint(runtime, "receipt.*")
    other = endpoint(runtime, "invoice.*")
    each = published(engine, 6)
    for delivery_id, status in zip(each, STATUSES, strict=True):
        ended(engine, [delivery_id], status)
    (elsewhere,) = published(engine, kind="invoice.noted")
    (old,) = published(engine, ago=3600)
    message = {row.id: row.message_id for row in rows(engine, Delivery)}
    hour_ago = (datetime.now(UTC) - timedelta(minutes=30)).isoformat()

    assert listed(caller) == sorted([*each, elsewhere, old], reverse=True)
    assert listed(caller, endpoint_id=first) == sorted([*each, old], reverse=True)
    assert listed(caller, endpoint_id=other) == listed(caller, message_id=message[elsewhere]) == [elsewhere]
    for delivery_id, status in zip(each[1:], STATUSES[1:], strict=True):
        assert listed(caller, status=status) == listed(caller, endpoint_id=first, status=status) == [delivery_id]
        assert listed(caller, endpoint_id=other, status=status) == []
    assert listed(caller, status=["exhausted", "refused"]) == [each[4], each[3]]
    assert listed(caller, message_id=message[old], status="succeeded") == []
    assert listed(caller, until=hour_ago) == listed(caller, endpoint_id=first, until=hour_ago) == [old]
    assert old not in listed(caller, since=hour_ago)
    assert listed(caller, endpoint_id="ep_none") == []


def test_deliveries_of_an_endpoint_come_page_by_page(caller: Caller, runtime: Runtime) -> None:
    endpoint_id = endpoint(runtime)
    made = published(runtime.engine, 5)
    ended(runtime.engine, made[1:4], "succeeded")
    ended(runtime.engine, made[:1])

    seen, cursor = list[str](), None
    for _ in range(3):
        params = {"limit": 2, "endpoint_id": endpoint_id} | ({"cursor": cursor} if cursor else {})
        answer = caller.call("GET", "/deliveries", params=params).json()
        seen += [one["id"] for one in answer["data"]]
        cursor = answer["meta"]["pagination"]["next_cursor"]

    assert (seen, cursor) == (made[::-1], None)


def test_each_status_is_looked_for_in_its_index(runtime: Runtime) -> None:
    """As a plan, since a table this small is read whole otherwise."""
    wanted = {
        "ix_deliveries_line": Wanted(endpoint_id="ep_1", statuses=("waiting",)),
        "ix_deliveries_ended": Wanted(endpoint_id="ep_1", statuses=("succeeded",)),
        "ix_deliveries_failed": Wanted(statuses=("refused",)),
    }
    for index, meant in wanted.items():
        with database.read(runtime.engine) as connection:
            asked = newest_ids(meant, limit=50).compile(
                connection, compile_kwargs={"literal_binds": True, "render_postcompile": True}
            )
            sqlite = connection.dialect.name == "sqlite"
            if not sqlite:
                connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            explain = "EXPLAIN QUERY PLAN" if sqlite else "EXPLAIN"
            plan = connection.exec_driver_sql(f"{explain} {asked}").all()
        assert index in str(plan)


def test_a_delivery_is_shown_with_what_it_sends_and_how_that_went(caller: Caller, runtime: Runtime) -> None:
    endpoint_id = endpoint(runtime, url="https://books.example.com/in", headers={"X-Token": "s3cret"})
    (delivery_id,) = published(runtime.engine)
    attempted(runtime.engine, delivery_id, error="timeout")
    attempted(runtime.engine, delivery_id, 2, status=500, response=b"no\xff")
    attempted(runtime.engine, delivery_id, 3, status=404, response="\u0644\u0627".encode())

    shown = caller.get(f"/deliveries/{delivery_id}")

    assert (shown["endpoint_id"], shown["type"], shown["status"]) == (endpoint_id, "receipt.issued", "waiting")
    request = shown["request"]
    assert request["body"].endswith('"data":{"total":"12.50"}}')
    assert (request["url"], request["webhook_id"]) == ("https://books.example.com/in", shown["message_id"])
    made = [(one["number"], one["status"], one["error"], one["response"]) for one in shown["attempts_made"]]
    assert made == [(1, None, "timeout", ""), (2, 500, None, None), (3, 404, None, "\u0644\u0627")]
    assert shown["attempts_made"][1]["response_base64"] == "bm//"
    assert "s3cret" not in str(shown)


def test_deliveries_are_sent_again_and_rung_for(caller: Caller, runtime: Runtime) -> None:
    endpoint(runtime)
    one, two, three = published(runtime.engine, 3)
    ended(runtime.engine, [one, two])
    ended(runtime.engine, [three], "succeeded")

    assert caller.post(f"/deliveries/{one}/retry", idempotency_key="a") == {"due": [one], "under_way": []}
    assert caller.post("/deliveries/retry", {"ids": [two, two]}) == {"due": [two], "under_way": []}
    refusal = refused(caller.call("POST", f"/deliveries/{three}/retry"), 409, "INVALID_STATE")
    assert refusal["message"].startswith(f'{three} succeeded: say "succeeded": true')
    caller.post(f"/deliveries/{three}/retry", {"succeeded": True})

    assert {row.status for row in rows(runtime.engine, Delivery)} == {"waiting"}
    assert rung(runtime, "deliveries") == [(DELIVER, [one]), (DELIVER, [two]), (DELIVER, [three])]


def test_all_are_sent_again_or_none(caller: Caller, runtime: Runtime) -> None:
    endpoint_id = endpoint(runtime)
    one, two = published(runtime.engine, 2)
    ended(runtime.engine, [one, two])

    refused(caller.call("POST", "/deliveries/retry", json={"ids": [one, "dlv_none"]}), 404, "NOT_FOUND")
    caller.post(f"/endpoints/{endpoint_id}/disable")
    refused(caller.call("POST", "/deliveries/retry", json={"ids": [one, two]}), 409, "INVALID_STATE")

    assert {row.status for row in rows(runtime.engine, Delivery)} == {"exhausted"}
    assert rung(runtime, "deliveries") == []


def test_what_is_asked_wrong_is_refused(caller: Caller, caller_with: CallerWith) -> None:
    refused(caller.call("GET", "/deliveries/dlv_none"), 404, "NOT_FOUND")
    refused(caller.call("POST", "/deliveries/dlv_none/retry"), 404, "NOT_FOUND")
    for params in (
        {"status": "failed"},
        {"since": "soon"},
        {"since": "2026-06-01"},
        {"until": "0001-01-01T00:00:00+14:00"},
        {"endpoint_id": "x" * 41},
        {"colour": "red"},
    ):
        refused(caller.call("GET", "/deliveries", params=params), 400, "VALIDATION_ERROR")
    assert listed(caller, since="0001-01-01T00:00:00Z", until="9999-12-31T23:59:59Z", status=STATUSES) == []
    assert caller.call("GET", "/deliveries", params={"endpoint_id": "\x00"}).status_code in (200, 400)
    bodies: list[Any] = [{"ids": []}, {"ids": ["x"] * 101}, {"ids": [1]}, {"ids": "x"}, {"ids": ["x" * 41]}, [], None]
    for body in bodies:
        refused(caller.call("POST", "/deliveries/retry", json=body), 400, "VALIDATION_ERROR")
    refused(caller_with("deliveries:read").call("POST", "/deliveries/dlv_none/retry"), 403, "FORBIDDEN")


@once
def test_an_answer_of_years_ago_is_none(caller: Caller) -> None:
    assert listed(caller, until="1970-01-01T00:00:00Z", endpoint_id="ep_none") == []
