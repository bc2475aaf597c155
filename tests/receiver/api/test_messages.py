"""Messages over the API."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from sqlalchemy import update

from tests.receiver.api.conftest import Caller, CallerWith, ok, refused
from tests.receiver.api.given import once, published
from tests.workers.given import endpoint, only, received, rows, rung
from workers import database
from workers.app import DELIVER, Runtime
from workers.models import AuditEntry, Delivery, Message


def listed(caller: Caller, **params: object) -> list[str]:
    return [one["id"] for one in ok(caller.call("GET", "/messages", params=params))]


def test_messages_are_found_by_what_is_given(caller: Caller, runtime: Runtime) -> None:
    engine = runtime.engine
    published(engine)
    published(engine, kind="receipt.voided", ago=3600)
    new, old = sorted(rows(engine, Message), key=lambda row: row.type)
    event_id = received(engine)
    with database.write(engine) as connection:
        connection.execute(update(Message).where(Message.id == old.id).values(event_id=event_id))
    hour_ago = (datetime.now(UTC) - timedelta(minutes=30)).isoformat()

    assert listed(caller) == sorted([new.id, old.id], reverse=True)
    assert listed(caller, type="receipt.issued") == listed(caller, since=hour_ago) == [new.id]
    assert listed(caller, event_id=event_id) == listed(caller, until=hour_ago) == [old.id]
    assert listed(caller, type="receipt") == listed(caller, event_id="evt_none") == []


def test_a_message_is_shown_with_its_bytes_and_where_it_went(caller: Caller, runtime: Runtime) -> None:
    endpoint_id = endpoint(runtime)
    (delivery_id,) = published(runtime.engine)
    stored = only(runtime.engine, Message)

    shown = caller.get(f"/messages/{stored.id}")

    assert shown["body"].encode() == stored.body
    assert shown["size"] == len(stored.body)
    went = {"id": delivery_id, "endpoint_id": endpoint_id, "status": "waiting", "attempts": 0}
    assert shown["deliveries"] == [went]
    assert caller.call("GET", f"/messages/{stored.id}/body").content == stored.body


@once
def test_a_body_that_is_no_text_is_shown_as_base64(caller: Caller, runtime: Runtime) -> None:
    published(runtime.engine)
    stored = only(runtime.engine, Message)
    with database.write(runtime.engine) as connection:
        connection.execute(update(Message).values(body=b"\xff\x00"))

    shown = caller.get(f"/messages/{stored.id}")

    assert (shown["body"], shown["body_base64"], shown["size"]) == (None, "/wA=", 2)


def test_what_is_published_goes_to_who_wants_it_once(caller: Caller, runtime: Runtime) -> None:
    wants = endpoint(runtime, "stock.*")
    endpoint(runtime, "receipt.*")
    endpoint(runtime, "*", sources=("shop",))
    body = {"type": "stock.low", "data": {"item": "\u0642\u0644\u0645", "left": 10**25, "price": "1.50", "deep": [{}]}}

    message = caller.post("/messages", body, status=202, idempotency_key="one")
    assert caller.post("/messages", body, status=202, idempotency_key="one") == message

    assert json.loads(message["body"])["data"] == body["data"]
    (sent,) = message["deliveries"]
    assert (sent["endpoint_id"], message["source"], message["event_id"]) == (wants, None, None)
    assert only(runtime.engine, Delivery).id == sent["id"]
    assert rung(runtime, "deliveries") == [(DELIVER, [sent["id"]])]
    (entry,) = [one for one in rows(runtime.engine, AuditEntry) if one.action == "message.publish"]
    assert entry.detail == {"message": message["id"], "type": "stock.low"}


def test_what_nobody_wants_is_stored(caller: Caller) -> None:
    message = caller.post("/messages", {"type": "stock.low", "data": {}}, status=202)

    assert message["deliveries"] == []
    assert listed(caller) == [message["id"]]


@once
def test_what_cannot_be_published_is_refused(caller: Caller, caller_with: CallerWith) -> None:
    for kind in ("", "stock", "Stock.low", "billhook.test", "stock.low\x00", "stock." + "x" * 128):
        refused(caller.call("POST", "/messages", json={"type": kind, "data": {}}), 400, "VALIDATION_ERROR")
    for raw in (
        b'{"type": "stock.low"}',
        b'{"type": "stock.low", "data": null}',
        b'{"type": "stock.low", "data": []}',
        b'{"type": "stock.low", "data": {"a": NaN}}',
        b'{"type": "stock.low", "data": {"a": 1e999}}',
        b'{"type": "stock.low", "data": {"a": "\\ud800"}}',
        b'{"type": "stock.low", "data": {"\\ud800": 1}}',
        b'{"type": "stock.low", "data": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"type": "stock.low", "data": {"a": ' + b"[" * 900 + b"]" * 900 + b"}}",
    ):
        answer = caller.call("POST", "/messages", content=raw, headers={"content-type": "application/json"})
        assert answer.status_code in ((202, 400) if b"[" * 900 in raw else (400,)), answer.text
    refused(caller_with("deliveries:read").call("POST", "/messages", json={}), 403, "FORBIDDEN")


def test_what_is_not_there(caller: Caller) -> None:
    refused(caller.call("GET", "/messages/msg_none"), 404, "NOT_FOUND")
    refused(caller.call("GET", "/messages/msg_none/body"), 404, "NOT_FOUND")
    assert caller.call("GET", "/messages", params={"type": "a\x00b"}).status_code in (200, 400)
    refused(caller.call("GET", "/messages", params={"colour": "red"}), 400, "VALIDATION_ERROR")
