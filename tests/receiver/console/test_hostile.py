"""What others wrote is text on a page, whatever it looks like; and what somebody asks is no error of ours."""

from __future__ import annotations

import hashlib
import json

import pytest
from sqlalchemy import Engine

from handlers.providers import PROVIDERS
from tests.receiver.console.conftest import Browser
from tests.receiver.console.world import World
from tests.workers.given import NOW, endpoint
from workers import api_keys, database, ids, inbox
from workers.app import Runtime
from workers.delivery import endpoints
from workers.inbox import Arrival
from workers.models import HandlerRun

pytestmark = pytest.mark.parametrize("backend", ["embedded"], indirect=True)
SCRIPT = "<script>alert(1)</script>"
BREAKS_OUT = "\"'><img src=x onerror=alert(1)>{{ 7*7 }}"


def hostile_event(engine: Engine) -> str:
    """An event that is hostile wherever it can be; its id."""
    document = {
        "event": f"invoice.{SCRIPT}",
        "data": {"id": f"inv{SCRIPT}", "note": BREAKS_OUT, "bidi": "\u202eabc", SCRIPT: [SCRIPT]},
        "created_at": NOW.isoformat(),
    }
    body = json.dumps(document, ensure_ascii=False).encode()
    digest = hashlib.sha256(body)
    arrival = Arrival(
        id=ids.new("evt"),
        source="shop",
        received_at=NOW,
        event=PROVIDERS["hisab"].inbound({}).parse([], body),
        delivery_id=f"del{BREAKS_OUT}",
        event_key=digest.hexdigest(),
        body_hash=digest.digest(),
        headers={"user-agent": SCRIPT},
    )
    (outcome,) = inbox.accept(engine, [arrival])
    run = {
        "id": ids.new("run"), "event_id": outcome.event_id, "handler": f"ledger{SCRIPT}", "status": "dead", "starts": 1,
        "fence": 1, "attempts": 1, "next_attempt_at": NOW, "ring_at": None, "created_at": NOW, "ended_at": NOW,
        "error": f"ValueError: {SCRIPT}{BREAKS_OUT}",
    }  # fmt: skip
    with database.write(engine) as connection:
        connection.execute(database.insert(connection, HandlerRun), [run])
    return outcome.event_id


def is_text(page: str) -> None:
    """Check that nothing of what is hostile is anything but text."""
    assert "&lt;script&gt;" in page
    for one in (SCRIPT, "<img src=x", "onerror=alert(1)>"):
        assert one not in page
    assert "49" not in page.split("7*7", maxsplit=1)[0][-20:]
    assert "\u202e" not in page


def test_a_hostile_event_is_shown_as_text(browser: Browser, engine: Engine) -> None:
    event_id = hostile_event(engine)

    for path in ("/events/list", f"/events/detail?pk={event_id}", "/runs/list"):
        is_text(browser.get(path))


def test_so_is_a_hostile_endpoint(browser: Browser, engine: Engine, runtime: Runtime) -> None:
    endpoint_id = endpoint(runtime, "*", url="http://127.0.0.1:9/?x=%3Cscript%3E", description=SCRIPT + BREAKS_OUT)
    endpoints.switch_off(engine, endpoint_id, SCRIPT, actor=SCRIPT, now=NOW)

    for path in ("/endpoints/list", f"/endpoints/detail?pk={endpoint_id}", "/audit/list", "/"):
        is_text(browser.get(path))


def test_what_a_subscriber_answered_is_text(browser: Browser, full: World) -> None:
    is_text(browser.get("/deliveries/detail", pk=full.delivery))


def test_what_somebody_searches_for_is_text(browser: Browser) -> None:
    for key in ("events", "runs", "deliveries", "endpoints", "schedules"):
        page = browser.get(f"/{key}/list", q=SCRIPT)
        assert SCRIPT not in page
        assert "There is none like that." in page


def test_a_body_that_is_no_text_is_shown_all_the_same(browser: Browser, engine: Engine) -> None:
    from sqlalchemy import update

    from workers.models import EventRow

    event_id = hostile_event(engine)
    for body in (b"\xff\xfe\x00<script>", b"", b"[" * 50_000, b'{"a":' + b"9" * 30_000 + b"}", b"plain <b>text</b>"):
        with database.write(engine) as connection:
            connection.execute(update(EventRow).values(body=body))
        assert "<script>alert" not in browser.get("/events/detail", pk=event_id)


def test_whatever_is_asked_of_a_list_is_answered(browser: Browser) -> None:
    for key in ("events", "runs", "deliveries", "endpoints", "schedules", "keys", "audit"):
        for params, expected in (
            ({"q": "\x00"}, (200, 400)),
            ({"q": "a" * 5000}, (200, 400)),
            ({"status": "\x00"}, (200, 400)),
            ({"status": "nothing"}, (200, 400)),
            ({"after": "x"}, (400,)),
            ({"after": "evt_01M802JFQ4BKP1Z2J476R6XRE8"}, (200,)),
            ({"page": "-1", "page_size": "x", "sort": "x__y", "filter": "((("}, (200, 400)),
            ({"page_size": "1000000"}, (200, 400)),
        ):
            answer = browser.client.get(f"/console/{key}/list", params=params)
            assert answer.status_code in expected, (key, params, answer.status_code)


def test_every_answer_forbids_what_a_browser_need_not_do(browser: Browser) -> None:
    for path in ("/", "/login", "/events/list", "/nowhere", "/static/js/alerts.js"):
        headers = browser.client.get(f"/console{path}").headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "'unsafe-inline'" not in policy.split("style-src")[0]
        assert "'unsafe-eval'" not in policy
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == ("public, max-age=3600" if "static" in path else "no-store")


def test_no_page_names_another_host(browser: Browser, full: World) -> None:
    browser.client.headers["host"] = "evil.example"
    for path in ("/", "/login", "/events/list", f"/events/detail?pk={full.dead}", "/endpoints/new", "/api"):
        page = browser.client.get(f"/console{path}").text
        assert "evil.example" not in page
        assert "https://" not in page.replace("https://example.com/hooks", "")
        assert "rsms.me" not in page


def test_a_body_that_is_too_large_is_refused(browser: Browser) -> None:
    answer = browser.client.post("/console/login", data={"secret": "x" * 2_000_000})

    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", "x"),
        ("multipart/form-data; boundary=x", "--x\r\nnonsense"),
        ("multipart/form-data; boundary=x", '--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 1_100),
        ("application/x-www-form-urlencoded", "a=1&" * 1_100),
        ("application/x-www-form-urlencoded; charset=x", "a=%ff%00"),
    ],
)
def test_a_form_that_cannot_be_read_is_refused(stranger: Browser, kind: str, body: str) -> None:
    answer = stranger.client.post("/console/login", content=body, headers={"content-type": kind})

    assert answer.status_code in (400, 403), answer.text


def test_a_key_is_not_made_for_a_time_that_nobody_can_choose(browser: Browser, engine: Engine) -> None:
    browser.post("/keys/new", 400, name="Billing", scopes=["events:read"], lasts="7")

    assert [key.name for key in api_keys.everyone(engine)] == ["Ada"]
