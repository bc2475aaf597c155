"""What a person does in the console: it is done by the engine, written down, and refused to whoever may not."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from tests.receiver.console.conftest import Browser, BrowserWith
from tests.receiver.console.world import World
from tests.workers.given import rows
from workers import api_keys
from workers.app import Runtime
from workers.delivery import endpoints
from workers.models import ApiKey, AuditEntry, Delivery, Endpoint, EventRow, Schedule

once = pytest.mark.parametrize("backend", ["embedded"], indirect=True)
ALL = {
    "events": ("replay", "acknowledge"),
    "deliveries": ("retry",),
    "endpoints": ("test", "rotate", "enable", "disable"),
    "schedules": ("generate", "pause", "resume", "retry", "cancel"),
    "keys": ("revoke",),
}


def last_entry(engine: Engine) -> tuple[str, str]:
    """Who did what last."""
    entry = rows(engine, AuditEntry)[-1]
    return entry.actor, entry.action


def status(engine: Engine, table: type[EventRow | Delivery | Endpoint | Schedule], row_id: str) -> str:
    return next(str(row.status) for row in rows(engine, table) if row.id == row_id)


def test_a_dead_event_is_replayed_and_processed_once_its_cause_is_mended(
    browser: Browser, full: World, engine: Engine
) -> None:
    full.mended = True

    answer = browser.do("events", "replay", full.dead)

    assert "redirect" in answer.json()
    assert "It is being replayed." in browser.get("/events/detail", pk=full.dead)
    actor, action = last_entry(engine)
    assert (actor.split()[0], action) == ("Ada", "replay")
    full.work()
    assert status(engine, EventRow, full.dead) == "processed"


@once
def test_a_dead_event_is_acknowledged(browser: Browser, full: World, engine: Engine) -> None:
    browser.do("events", "acknowledge", full.dead)

    assert next(row for row in rows(engine, EventRow) if row.id == full.dead).acknowledged_at is not None
    assert last_entry(engine)[1] == "acknowledge"
    assert "acknowledged before" in _said_after(browser, "events", "acknowledge", full.dead)


@once
def test_a_delivery_is_sent_again(browser: Browser, full: World, engine: Engine) -> None:
    delivery = full.delivery

    browser.do("deliveries", "retry", delivery)

    assert status(engine, Delivery, delivery) == "waiting"
    assert last_entry(engine)[1] == "delivery.retry"


@once
def test_an_endpoint_is_disabled_enabled_and_sent_a_test(browser: Browser, full: World, engine: Engine) -> None:
    browser.do("endpoints", "disable", full.endpoint, reason="they asked <b>for it</b>")
    row = endpoints.get(engine, full.endpoint)
    assert (row.status, row.disabled_reason) == ("disabled", "they asked <b>for it</b>")
    assert "they asked &lt;b&gt;for it&lt;/b&gt;" in browser.get("/endpoints/detail", pk=full.endpoint)

    refused = browser.do("endpoints", "test", full.endpoint, 400)
    assert "is disabled: enable it first" in refused.json()["msg"]

    browser.do("endpoints", "enable", full.endpoint)
    browser.do("endpoints", "test", full.endpoint)

    assert status(engine, Endpoint, full.endpoint) == "enabled"
    assert rows(engine, Delivery)[-1].status == "waiting"
    assert [entry.action for entry in rows(engine, AuditEntry)][-3:] == [
        "endpoint.disable", "endpoint.enable", "endpoint.test"
    ]  # fmt: skip


@once
def test_a_new_secret_is_shown_once_and_never_again(browser: Browser, full: World, engine: Engine) -> None:
    answer = browser.do("endpoints", "rotate", full.endpoint)

    (secret,) = re.findall(r"whsec_[A-Za-z0-9+/=]+", answer.text)
    assert answer.headers["cache-control"] == "no-store"
    assert last_entry(engine)[1] == "endpoint.rotate"
    for path in ("/endpoints/list", f"/endpoints/detail?pk={full.endpoint}", "/audit/list", "/"):
        assert secret not in browser.get(path)
    assert secret not in json.dumps(dict(browser.client.cookies))


@once
def test_an_endpoint_is_added(browser: Browser, engine: Engine) -> None:
    answer = browser.post(
        "/endpoints/new",
        url="http://127.0.0.1:9/new",
        event_types="receipt.*, invoice.paid",
        description="<i>New</i>",
        sources=["shop"],
        signing="v1,v1a",
    )

    assert len(re.findall(r"whsec_[A-Za-z0-9+/=]+", answer.text)) == 1
    assert "whpk_" in answer.text
    (row,) = rows(engine, Endpoint)
    assert (row.url, row.event_types, row.sources) == (
        "http://127.0.0.1:9/new",
        ["receipt.*", "invoice.paid"],
        ["shop"],
    )
    assert last_entry(engine)[1] == "endpoint.add"
    assert "&lt;i&gt;New&lt;/i&gt;" in browser.get("/endpoints/list")


@once
def test_an_endpoint_that_cannot_be_is_said_so_beside_what_was_filled_in(browser: Browser, engine: Engine) -> None:
    answer = browser.post("/endpoints/new", 422, url="ftp://x", description="kept")

    assert 'role="alert"' in answer.text
    assert 'value="kept"' in answer.text
    assert rows(engine, Endpoint) == []


@once
def test_a_schedule_is_paused_resumed_and_cancelled(browser: Browser, full: World, engine: Engine) -> None:
    for action, then in (("pause", "paused"), ("resume", "active"), ("cancel", "cancelled")):
        browser.do("schedules", action, full.schedule)
        assert status(engine, Schedule, full.schedule) == then
        assert last_entry(engine)[1] == f"schedules.{action}"

    refused = browser.do("schedules", "resume", full.schedule, 400)

    assert "a schedule that is cancelled cannot be resumed" in refused.json()["msg"]


@once
def test_an_invoice_that_the_provider_does_not_make_is_said_so(browser: Browser, full: World) -> None:
    refused = browser.do("schedules", "generate", full.paused, 400)

    assert "a schedule that is paused generates nothing" in refused.json()["msg"]


@once
def test_a_key_is_made_shown_once_and_revoked(browser: Browser, engine: Engine) -> None:
    answer = browser.post("/keys/new", name="<b>Billing</b>", scopes=["events:read", "stats:read"], lasts="90")

    (key,) = re.findall(r"bh_live_[0-9a-f]{48}", answer.text)
    caller = api_keys.authenticate(engine, key, datetime.now(UTC))
    assert caller is not None
    assert caller.scopes == {"events:read", "stats:read"}
    made = next(row for row in rows(engine, ApiKey) if row.id == caller.id)
    assert made.expires_at is not None
    for path in ("/keys/list", f"/keys/detail?pk={caller.id}", "/audit/list"):
        page = browser.get(path)
        assert key not in page
        assert "<b>Billing" not in page

    browser.do("keys", "revoke", caller.id)

    assert api_keys.authenticate(engine, key, datetime.now(UTC)) is None
    assert last_entry(engine)[1] == "keys.revoke"


@once
def test_nobody_gives_a_scope_that_they_do_not_have(browser_with: BrowserWith, engine: Engine) -> None:
    browser = browser_with("keys:read", "keys:write")

    browser.post("/keys/new", 403, name="more", scopes=["events:write"])
    browser.post("/keys/new", 403, name="more", scopes=["full"])

    assert len(rows(engine, ApiKey)) == 1


@once
def test_whoever_may_only_read_sees_no_action_and_is_refused_each(browser_with: BrowserWith, full: World) -> None:
    browser = browser_with("read")
    before = len(rows(full.runtime.engine, AuditEntry))
    of = {"events": full.dead, "deliveries": full.delivery, "endpoints": full.endpoint, "schedules": full.schedule}
    of["keys"] = api_keys.everyone(full.runtime.engine)[0].id

    for key, actions in ALL.items():
        for page in (browser.get(f"/{key}/list"), browser.get(f"/{key}/detail", pk=of[key])):
            assert "data-sa-is-row-action" not in page, key
            assert f"/console/{key}/new" not in page
        for action in actions:
            browser.do(key, action, of[key], 403)
    browser.get("/endpoints/new", 403)
    browser.get("/keys/new", 403)
    browser.post("/endpoints/new", 403, url="http://127.0.0.1:9/")
    browser.post("/keys/new", 403, name="x", scopes=["read"])
    assert len(rows(full.runtime.engine, AuditEntry)) == before


@once
def test_whoever_has_one_scope_sees_what_is_for_it_alone(browser_with: BrowserWith, full: World) -> None:
    browser = browser_with("events:read")

    assert "stats:read" in browser.get("/")
    menu = browser.get("/events/list")
    assert "/console/events/list" in menu
    for key in ("runs", "endpoints", "deliveries", "schedules", "keys", "audit"):
        assert f"/console/{key}/list" not in menu
        browser.get(f"/{key}/list", 403)
    browser.get("/endpoints/detail", 403, pk=full.endpoint)


@once
def test_what_is_no_action_is_refused(browser: Browser, full: World, runtime: Runtime) -> None:
    for action in ("delete", "edit", "view", "nothing", "pause", "__init__"):
        browser.do("events", action, full.dead, 403)
    for path in ("/_api/events/action?name=delete&pks=x", "/events/create", "/events/edit?pk=x", "/events/import"):
        browser.post(path, 404)
    assert len(rows(runtime.engine, EventRow)) == 14


@once
def test_a_form_without_the_token_of_a_page_is_refused(browser: Browser, full: World, engine: Engine) -> None:
    for token in ("", "made-up", browser.token()[:-1]):
        browser.post(f"/_api/events/row-action?pk={full.dead}&name=acknowledge", 403, token=token)
    browser.post("/logout", 403, token="")
    from_elsewhere = browser.client.post(
        f"/console/_api/events/row-action?pk={full.dead}&name=acknowledge",
        data={"csrftoken": browser.token()},
        headers={"sec-fetch-site": "cross-site"},
    )
    assert from_elsewhere.status_code == 403
    assert browser.client.get(f"/console/_api/events/row-action?pk={full.dead}&name=acknowledge").status_code == 405
    assert next(row for row in rows(engine, EventRow) if row.id == full.dead).acknowledged_at is None


def _said_after(browser: Browser, key: str, action: str, pk: str) -> str:
    browser.do(key, action, pk)
    return browser.get(f"/{key}/list")
