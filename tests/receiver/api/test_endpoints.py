"""Endpoints over the API."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import update

from tests.receiver.api.conftest import Caller, CallerWith, ok, refused
from tests.receiver.api.given import attempted, ended, once, published
from tests.receiver.conftest import Serve
from tests.workers.given import endpoint, only, rows, rung
from workers import api_keys, database
from workers.app import DELIVER, Runtime
from workers.models import AuditEntry, Delivery, Endpoint, Message

WANTED = {"url": "https://books.example.com/in?token=t0ken", "event_types": ["receipt.*"], "description": "Books"}


def patched(caller: Caller, endpoint_id: str, body: Any, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return caller.call("PATCH", f"/endpoints/{endpoint_id}", json=body, headers=named)


def told(runtime: Runtime, endpoint_id: str, **health: Any) -> None:
    with database.write(runtime.engine) as connection:
        connection.execute(update(Endpoint).where(Endpoint.id == endpoint_id).values(**health))


# --- create and show ------------------------------------------------------------------------------


def test_a_secret_is_shown_once(caller: Caller) -> None:
    made = caller.post("/endpoints", WANTED | {"headers": {"Authorization": "Bearer s3cret"}}, status=201)

    assert made["secret"].startswith("whsec_")
    assert (made["url"], made["event_types"], made["signing"]) == (WANTED["url"], ["receipt.*"], "v1")
    for path in ("/endpoints", f"/endpoints/{made['id']}", f"/endpoints/{made['id']}/health"):
        text = caller.call("GET", path).text
        assert made["secret"] not in text
        assert "s3cret" not in text
    shown = caller.get(f"/endpoints/{made['id']}")
    assert shown["header_names"] == ["Authorization"]
    assert [(one["kind"], one["expires_at"]) for one in shown["secrets"]] == [("v1", None)]
    assert made == shown | {"secret": made["secret"], "public_key": None}


def test_a_request_that_is_sent_again_makes_one_endpoint_and_shows_its_secret_again(caller: Caller) -> None:
    first = caller.post("/endpoints", WANTED, status=201, idempotency_key="one")

    assert caller.post("/endpoints", WANTED, status=201, idempotency_key="one") == first
    assert len(caller.get("/endpoints")) == 1


@once
def test_a_secret_can_be_brought(caller: Caller) -> None:
    brought = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

    assert caller.post("/endpoints", WANTED | {"secret": brought}, status=201)["secret"] == brought


@once
def test_what_cannot_be_is_refused(caller: Caller) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"url": "http://169.254.169.254/latest"}, "deliveries to metadata addresses are refused"),
        ({"url": "http://10.1.2.3/"}, "private addresses are refused unless BILLHOOK_EGRESS_NETWORKS names"),
        ({"url": "ftp://books.example.com/"}, "must begin with http"),
        ({"url": "https://books.example.com/\x00"}, "control character"),
        ({"url": ""}, "must begin with http"),
        ({"event_types": ["Receipt Issued"]}, "is not an event type"),
        ({"sources": ["nowhere"]}, "there is no source 'nowhere'; configured: shop"),
        ({"headers": {"Host": "x"}}, "cannot be set"),
        ({"headers": {"X-Token": "\u0640"}}, "printable ASCII"),
        ({"ca": "-----BEGIN"}, "no certificate in PEM"),
        ({"client_certificate": "\x00"}, "no certificate in PEM"),
        ({"secret": "whsec_short"}, ""),
        ({"signing": "v1a", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, "for v1 only"),
    ]
    for changed, says in wrong:
        answer = caller.call("POST", "/endpoints", json=WANTED | changed)
        assert says in refused(answer, 400, "VALIDATION_ERROR")["message"]
    assert caller.get("/endpoints") == []


@once
def test_a_field_that_cannot_be_is_named(caller: Caller) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"url": None}, "url"),
        ({"url": "https://x.example/" + "x" * 2048}, "url"),
        ({"event_types": []}, "event_types"),
        ({"schedule": [-1]}, "schedule[0]"),
        ({"schedule": []}, "schedule"),
        ({"rate": 10**30}, "rate"),
        ({"rate": "many"}, "rate"),
        ({"concurrency": 0}, "concurrency"),
        ({"signing": "v2"}, "signing"),
        ({"headers": {"X-A": 1}}, "headers.X-A"),
        ({"description": "x" * 1001}, "description"),
        ({"colour": "red"}, "colour"),
    ]
    for changed, field in wrong:
        answer = caller.call("POST", "/endpoints", json=WANTED | changed)
        assert refused(answer, 400, "VALIDATION_ERROR")["details"][0]["field"] == field


@once
def test_a_body_that_is_none_is_refused(caller: Caller) -> None:
    for body in (b"", b"null", b"[]", b"{", b'{"url": "\\ud800"}', b'{"url": ' + b"[" * 100_000):
        answer = caller.call("POST", "/endpoints", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text


def test_text_that_a_database_cannot_hold_is_written_out(caller: Caller) -> None:
    made = caller.post("/endpoints", WANTED | {"description": "a\x00b"}, status=201)
    caller.post(f"/endpoints/{made['id']}/disable", {"reason": "no\x00thing"})

    shown = caller.get(f"/endpoints/{made['id']}")
    assert (shown["description"], shown["disabled_reason"]) == ("a\\x00b", "no\\x00thing")


def test_what_is_not_there(caller: Caller) -> None:
    for name in ("ep_none", "ep_01M802JFQ4BKP1Z2J476R6XRE8", "%00", "%F0%9F%92%A5"):
        assert caller.call("GET", f"/endpoints/{name}").status_code in (400, 404)
    for verb in ("rotate", "test", "enable", "disable"):
        refused(caller.call("POST", f"/endpoints/ep_none/{verb}"), 404, "NOT_FOUND")
    refused(patched(caller, "ep_none", {"rate": 1}), 404, "NOT_FOUND")
    refused(caller.call("GET", "/endpoints/ep_none/health"), 404, "NOT_FOUND")


@once
def test_an_endpoint_is_never_deleted(caller: Caller, runtime: Runtime) -> None:
    refused(caller.call("DELETE", f"/endpoints/{endpoint(runtime)}"), 405, "METHOD_NOT_ALLOWED")


@once
def test_reading_and_changing_are_scopes_of_their_own(caller_with: CallerWith, runtime: Runtime) -> None:
    endpoint_id, reader = endpoint(runtime), caller_with("endpoints:read")

    assert reader.get(f"/endpoints/{endpoint_id}")["id"] == endpoint_id
    for path in ("", f"/{endpoint_id}/rotate", f"/{endpoint_id}/test", f"/{endpoint_id}/enable"):
        refused(reader.call("POST", f"/endpoints{path}", json={"url": "https://x.example"}), 403, "FORBIDDEN")
    answer = reader.call("POST", f"/endpoints/{endpoint_id}/recover", json={"since": "2026-06-01T00:00:00Z"})
    assert refused(answer, 403, "FORBIDDEN")["details"] == {"required_scopes": ["deliveries:write"]}


@pytest.mark.parametrize("backend", ["servers"], indirect=True)  # beside the embedded database a key is made
def test_without_a_key_to_encrypt_with_it_is_said_what_to_set(serve: Serve, runtime: Runtime) -> None:
    endpoint_id = endpoint(runtime)
    made = api_keys.create(runtime.engine, "test", ["full"], actor="test", now=datetime.now(UTC))

    for keys in ((), (SecretStr("none"),)):
        caller = Caller(serve(runtime, encryption_keys=keys).client, made.key)
        for answer in (
            caller.call("POST", "/endpoints", json=WANTED),
            caller.call("GET", f"/endpoints/{endpoint_id}"),
            caller.call("POST", f"/endpoints/{endpoint_id}/rotate"),
        ):
            assert "BILLHOOK_ENCRYPTION_KEYS" in refused(answer, 503, "UNAVAILABLE")["message"]
        assert [one["id"] for one in caller.get("/endpoints")] == [endpoint_id]


# --- list -----------------------------------------------------------------------------------------


def test_endpoints_are_found_by_how_they_are_and_what_they_are_called(caller: Caller, runtime: Runtime) -> None:
    sound = endpoint(runtime, url="https://a.example/100%25", description="Books_one")
    failing, held, disabled = endpoint(runtime), endpoint(runtime), endpoint(runtime)
    now = datetime.now(UTC)
    told(runtime, failing, failures=3, failing_since=now, held_until=now - timedelta(seconds=1))
    told(runtime, held, failures=9, failing_since=now, held_until=now + timedelta(hours=1))
    told(runtime, disabled, failures=9, status="disabled", disabled_reason="it answered 410 Gone")

    def listed(**params: str) -> list[str]:
        return [one["id"] for one in caller.get("/endpoints", **params)]

    assert listed() == [disabled, held, failing, sound]
    assert listed(status="enabled") == [held, failing, sound]
    assert listed(status="disabled") == [disabled]
    assert listed(status="disabled", state="held") == []
    assert listed(state="sound") == [sound]
    assert listed(state="failing") == [failing]
    assert listed(state="held") == [held]
    assert listed(state="disabled") == [disabled]
    assert [one["health"]["state"] for one in caller.get("/endpoints")] == ["disabled", "held", "failing", "sound"]
    assert listed(search="A.EXAMPLE") == listed(search="100%") == listed(search="s_o") == [sound]
    assert listed(search="so") == listed(search="a_example") == []


def test_endpoints_come_page_by_page(caller: Caller, runtime: Runtime) -> None:
    made = [endpoint(runtime) for _ in range(3)]

    first = caller.call("GET", "/endpoints", params={"limit": 2}).json()
    cursor = first["meta"]["pagination"]["next_cursor"]

    assert [one["id"] for one in first["data"]] == made[:0:-1]
    assert [one["id"] for one in caller.get("/endpoints", limit="2", cursor=cursor)] == made[:1]


@once
def test_a_filter_that_cannot_be_is_refused(caller: Caller) -> None:
    for params in ({"state": "ill"}, {"search": ""}, {"colour": "red"}, {"limit": "0"}):
        refused(caller.call("GET", "/endpoints", params=params), 400, "VALIDATION_ERROR")


# --- change ---------------------------------------------------------------------------------------


def test_what_is_given_is_changed_and_nothing_else(caller: Caller) -> None:
    body = WANTED | {"rate": 5, "schedule": [0, 5.5], "headers": {"X-A": "1"}}
    made = caller.post("/endpoints", body, status=201)

    changed = ok(patched(caller, made["id"], {"rate": None, "concurrency": 3, "headers": {}, "event_types": ["*"]}))

    same = {name: value for name, value in made.items() if name not in {"secret", "header_names", "event_types"}}
    assert changed == same | {
        "rate": None,
        "rate_in_force": 100,
        "concurrency": 3,
        "concurrency_in_force": 3,
        "header_names": [],
        "event_types": ["*"],
        "secret": None,
    }
    assert changed["schedule"] == [0, 5.5]


def test_a_kind_of_signature_that_is_added_gets_a_secret(caller: Caller) -> None:
    made = caller.post("/endpoints", WANTED | {"signing": "v1a"}, status=201)
    assert (made["secret"], made["public_keys"]) == (None, [made["public_key"]])

    changed = ok(patched(caller, made["id"], {"signing": "v1,v1a"}))

    assert changed["secret"].startswith("whsec_")
    assert {one["kind"] for one in changed["secrets"]} == {"v1", "v1a"}


def test_only_the_version_that_was_seen_is_changed(caller: Caller, runtime: Runtime) -> None:
    endpoint_id = endpoint(runtime)
    seen = caller.call("GET", f"/endpoints/{endpoint_id}")
    tag = seen.headers["etag"]
    told(runtime, endpoint_id, failures=3)  # how it does is not what it is

    ok(patched(caller, endpoint_id, {"rate": 1}, if_match=tag))

    refused(patched(caller, endpoint_id, {"rate": 2}, if_match=tag), 412, "PRECONDITION_FAILED")
    assert caller.get(f"/endpoints/{endpoint_id}")["rate"] == 1
    newer = caller.call("GET", f"/endpoints/{endpoint_id}", headers={"if-none-match": tag}).headers["etag"]
    assert caller.call("GET", f"/endpoints/{endpoint_id}", headers={"if-none-match": newer}).status_code == 304
    # A proxy that compresses makes the tag a weak one, and for a look that is as good (RFC 9110, section 13.1.2).
    weak = {"if-none-match": f'"x", W/{newer}'}
    assert caller.call("GET", f"/endpoints/{endpoint_id}", headers=weak).status_code == 304


@pytest.mark.parametrize("backend", ["servers"], indirect=True)  # SQLite has one writer at a time
def test_of_two_who_saw_the_same_version_one_changes_it(caller: Caller, runtime: Runtime) -> None:
    endpoint_id = endpoint(runtime)
    tag = caller.call("GET", f"/endpoints/{endpoint_id}").headers["etag"]
    together = Barrier(4)

    def change(rate: int) -> int:
        together.wait()
        return int(patched(caller, endpoint_id, {"rate": rate}, if_match=tag).status_code)

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(change, range(1, 5))) == [200, 412, 412, 412]


@once
def test_a_change_that_cannot_be_is_refused(caller: Caller, runtime: Runtime) -> None:
    endpoint_id = endpoint(runtime)
    for body in ({}, {"url": None}, {"event_types": None}, {"secret": "x"}, {"rate": 1, "colour": "red"}):
        refused(patched(caller, endpoint_id, body), 400, "VALIDATION_ERROR")


def test_a_private_address_is_refused_when_it_is_changed_too(caller: Caller, runtime: Runtime) -> None:
    endpoint_id = endpoint(runtime)

    answer = patched(caller, endpoint_id, {"rate": 7, "url": "http://[::ffff:10.0.0.1]/"})

    assert "private addresses are refused" in refused(answer, 400, "VALIDATION_ERROR")["message"]
    assert caller.get(f"/endpoints/{endpoint_id}")["rate"] is None


# --- verbs ----------------------------------------------------------------------------------------


def test_a_new_secret_signs_beside_the_old_one_for_a_while(caller: Caller) -> None:
    made = caller.post("/endpoints", WANTED, status=201)

    rotated = caller.post(f"/endpoints/{made['id']}/rotate", {"expires_in": 3600})

    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != made["secret"]
    new, old = caller.get(f"/endpoints/{made['id']}")["secrets"]
    assert (new["expires_at"], old["expires_at"]) == (None, rotated["old_until"])


@once
def test_a_rotation_that_cannot_be_is_refused(caller: Caller, runtime: Runtime) -> None:
    endpoint_id = endpoint(runtime)
    for wrong in (-1, 604_801, 10**30, "1d", None):
        answer = caller.call("POST", f"/endpoints/{endpoint_id}/rotate", json={"expires_in": wrong})
        refused(answer, 400, "VALIDATION_ERROR")

    for _ in range(7):
        caller.post(f"/endpoints/{endpoint_id}/rotate")
    assert (
        "8 v1 secrets"
        in refused(caller.call("POST", f"/endpoints/{endpoint_id}/rotate"), 409, "INVALID_STATE")["message"]
    )


def test_a_test_message_is_sent_and_rung_for_once(caller: Caller, runtime: Runtime) -> None:
    endpoint_id = endpoint(runtime)

    sent = caller.post(f"/endpoints/{endpoint_id}/test", status=202, idempotency_key="one")
    assert caller.post(f"/endpoints/{endpoint_id}/test", status=202, idempotency_key="one") == sent

    assert (sent["type"], sent["endpoint_id"], sent["status"]) == ("billhook.test", endpoint_id, "waiting")
    assert only(runtime.engine, Delivery).id == sent["id"]
    assert rung(runtime, "deliveries") == [(DELIVER, [sent["id"]])]


def test_a_disabled_endpoint_gets_nothing_until_it_is_enabled(caller: Caller, runtime: Runtime) -> None:
    endpoint_id = endpoint(runtime)
    told(runtime, endpoint_id, failures=3)

    off = caller.post(f"/endpoints/{endpoint_id}/disable", {"reason": "moving"})
    assert (off["status"], off["disabled_reason"]) == ("disabled", "moving")
    refused(caller.call("POST", f"/endpoints/{endpoint_id}/test"), 409, "INVALID_STATE")
    assert caller.post(f"/endpoints/{endpoint_id}/disable")["disabled_reason"] == "moving"

    on = caller.post(f"/endpoints/{endpoint_id}/enable")
    assert (on["status"], on["disabled_reason"]) == ("enabled", None)
    assert caller.get(f"/endpoints/{endpoint_id}/health")["failures"] == 0
    assert rows(runtime.engine, Message) == []


def test_who_changed_it_is_in_the_audit_log(caller: Caller, runtime: Runtime) -> None:
    made = caller.post("/endpoints", WANTED, status=201)
    caller.post(f"/endpoints/{made['id']}/disable")

    entries = [one for one in rows(runtime.engine, AuditEntry) if one.action.startswith("endpoint.")]
    assert [one.action for one in entries] == ["endpoint.add", "endpoint.disable"]
    assert all(one.actor.startswith("test (key_") for one in entries)


# --- health ---------------------------------------------------------------------------------------


def test_how_an_endpoint_did_lately(caller: Caller, runtime: Runtime) -> None:
    endpoint_id = endpoint(runtime)
    now, engine = datetime.now(UTC), runtime.engine
    told(runtime, endpoint_id, failures=2, failing_since=now, held_until=now + timedelta(minutes=5))
    done, failed, slow, old, waiting = published(engine, 5)
    ended(engine, [done, slow, old], "succeeded")
    ended(engine, [failed])
    attempted(engine, done, status=204, duration_ms=10, ago=60)
    attempted(engine, failed, error="timeout", duration_ms=20_000, ago=30)
    attempted(engine, slow, status=200, duration_ms=900, ago=2 * 3600)
    attempted(engine, slow, 2, status=200, error="cut_off", duration_ms=700, ago=3600 - 100)
    attempted(engine, old, status=200, duration_ms=1, ago=2 * 86_400)

    health = caller.get(f"/endpoints/{endpoint_id}/health")

    assert (health["state"], health["failures"], health["waiting"]) == ("held", 2, 1)
    assert health["last_success_at"] is not None
    assert [one["delivery_id"] for one in health["last_attempts"]] == [failed, done, slow, slow, old]
    assert health["hour"] == {"attempts": 3, "succeeded": 1, "success_rate": 0.3333, "p50_ms": 10, "p95_ms": 700}
    assert health["day"] == {"attempts": 4, "succeeded": 2, "success_rate": 0.5, "p50_ms": 700, "p95_ms": 900}
    assert waiting not in {one["delivery_id"] for one in health["last_attempts"]}


def test_an_endpoint_that_nothing_was_sent_to(caller: Caller, runtime: Runtime) -> None:
    health = caller.get(f"/endpoints/{endpoint(runtime)}/health")

    nothing = {"attempts": 0, "succeeded": 0, "success_rate": None, "p50_ms": None, "p95_ms": None}
    assert (health["hour"], health["day"], health["last_attempts"]) == (nothing, nothing, [])
    assert (health["state"], health["last_success_at"], health["waiting"]) == ("sound", None, 0)
