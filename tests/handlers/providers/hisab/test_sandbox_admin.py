"""The sandbox's own surface: state, clock, faults, webhooks, keys and switches."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from handlers.providers.hisab.sandbox import create_app
from handlers.providers.sandbox.store import StoreError
from tests.handlers.providers.hisab.sandbox_given import ACCOUNT_KEY, INVOICE, KEY, NOW, SECRET, URL, Sandbox, refusal


def wrong(response: httpx.Response) -> str:
    assert response.status_code in {400, 404}
    message: str = response.json()["error"]
    return message


def test_the_state_shows_no_secret_and_no_key() -> None:
    sandbox = Sandbox()
    sandbox.create()

    response = sandbox.call("GET", "/sandbox")

    state = response.json()
    assert (state["clock"], state["deliveries"]) == ("2026-06-05T14:00:00+00:00", {"delivered": 1})
    assert [one["id"] for one in state["organizations"]] == ["org_4d11a7", "org_7e20c5"]
    assert SECRET not in response.text
    assert KEY not in response.text


@pytest.mark.parametrize(
    ("body", "clock"),
    [
        ({"advance": "30d"}, "2026-07-05T14:00:00+00:00"),
        ({"advance": "90m"}, "2026-06-05T15:30:00+00:00"),
        ({"advance": "2w"}, "2026-06-19T14:00:00+00:00"),
        ({"to": "2026-12-31"}, "2026-12-31T00:00:00+00:00"),
        ({"to": "2026-12-31T12:00:00+01:00"}, "2026-12-31T11:00:00+00:00"),
    ],
)
def test_the_clock_goes_forward(body: dict[str, str], clock: str) -> None:
    sandbox = Sandbox()

    assert sandbox.done("POST", "/sandbox/clock", json=body) == {"clock": clock, "fell_due": 0}
    assert sandbox.done("POST", "/customers", json={"name": "A", "type": "b2c"})["created_at"][:19] == clock[:19]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"advance": "soon"},
        {"advance": "-1d"},
        {"advance": "1d", "to": "2027-01-01"},
        {"to": "tomorrow"},
        {"to": "2026-06-05"},
        {"advance": "999999w"},
    ],
)
def test_the_clock_goes_nowhere_else(body: dict[str, str]) -> None:
    sandbox = Sandbox()

    assert wrong(sandbox.call("POST", "/sandbox/clock", json=body))
    assert sandbox.done("GET", "/sandbox")["clock"] == "2026-06-05T14:00:00+00:00"


def test_signatures_and_limits_go_by_the_machines_time_whatever_the_sandboxs() -> None:
    sandbox = Sandbox()
    sandbox.go_to("2030-01-01")

    response = sandbox.call("POST", "/invoices", json=INVOICE)

    assert sandbox.posted[-1].headers["x-webhook-timestamp"] == str(int(NOW))
    assert sandbox.events()[-1].occurred_at == datetime(2030, 1, 1, tzinfo=UTC)
    assert response.headers["x-ratelimit-reset"] == str(int(NOW) + 60)


@pytest.mark.parametrize(
    ("kind", "status", "code"), [("error", 500, "INTERNAL_ERROR"), ("too_many", 429, "RATE_LIMIT_EXCEEDED")]
)
def test_the_next_call_may_fail_and_nothing_was_done(kind: str, status: int, code: str) -> None:
    sandbox = Sandbox()
    sandbox.done("POST", "/sandbox/faults", json={"kind": kind})

    response = sandbox.call("POST", "/invoices", json=INVOICE)

    assert refusal(response) == (status, code)
    assert ("retry-after" in response.headers) == (status == 429)
    assert sandbox.listed("/invoices") == []
    assert sandbox.posted == []


def test_a_call_may_fail_although_it_was_done() -> None:
    sandbox = Sandbox()
    sandbox.done("POST", "/sandbox/faults", json={"kind": "error_after"})

    assert refusal(sandbox.call("POST", "/invoices", json=INVOICE)) == (500, "INTERNAL_ERROR")
    assert len(sandbox.listed("/invoices")) == len(sandbox.posted) == 1


def test_a_fault_strikes_only_what_it_matches() -> None:
    sandbox = Sandbox()
    body = {"kind": "error", "match": "POST /api/v1/invoices/*/finalize", "times": 2}
    sandbox.done("POST", "/sandbox/faults", json=body)
    invoice_id = sandbox.create()

    answers = [sandbox.call("POST", f"/invoices/{invoice_id}/finalize").status_code for _ in range(3)]

    assert answers == [500, 500, 200]
    assert sandbox.done("GET", "/sandbox")["faults"] == []


def test_faults_that_last_repeat_themselves_exactly() -> None:
    def struck() -> list[bool]:
        sandbox = Sandbox(faults={"error": 0.5}, seed=7)
        return [sandbox.call("GET", "/customers").status_code == 500 for _ in range(12)]

    assert struck() == struck()
    assert set(struck()) == {True, False}


def test_faults_are_switched_off() -> None:
    sandbox = Sandbox()
    sandbox.done("POST", "/sandbox/faults", json={"kind": "error", "times": None})
    assert sandbox.call("GET", "/customers").status_code == 500

    sandbox.done("DELETE", "/sandbox/faults")

    assert sandbox.call("GET", "/customers").status_code == 200


def test_a_slow_answer_comes_late() -> None:
    sandbox = Sandbox()
    sandbox.done("POST", "/sandbox/faults", json={"kind": "slow", "seconds": 0.05})

    assert sandbox.call("GET", "/customers").elapsed.total_seconds() >= 0.05


def test_webhooks_are_listed_with_their_attempts() -> None:
    sandbox = Sandbox(500, 202, retry_delays=(0.001,))
    sandbox.create()

    (delivery,) = sandbox.done("GET", "/sandbox/webhooks?event=invoice.created&state=delivered")["deliveries"]

    assert delivery["delivery_id"] == sandbox.posted[0].headers["x-webhook-delivery-id"]
    assert [attempt["status"] for attempt in delivery["attempts"]] == [500, 202]
    assert sandbox.done("GET", "/sandbox/webhooks?event=invoice.paid")["deliveries"] == []


def test_an_endpoint_is_added_paused_and_removed() -> None:
    sandbox = Sandbox(webhook_url=None, secret=None)
    endpoint = sandbox.done("POST", "/sandbox/webhooks", json={"url": URL, "secret": SECRET})

    counts = []
    for change in ({"active": False}, {"active": True, "secret": "whsec_rotated"}):
        sandbox.done("PATCH", f"/sandbox/webhooks/{endpoint['id']}", json=change)
        sandbox.create()
        counts.append(len(sandbox.posted))
    sandbox.done("DELETE", f"/sandbox/webhooks/{endpoint['id']}")
    sandbox.create()

    assert (counts, len(sandbox.posted)) == ([0, 1], 1)
    assert sandbox.done("GET", "/sandbox/webhooks")["deliveries"][0]["state"] == "delivered"


def test_a_key_has_the_scopes_of_its_bundle_until_it_is_revoked() -> None:
    sandbox = Sandbox()
    made = sandbox.done("POST", "/sandbox/keys", json={"bundle": "read_only"})

    assert made["key"].startswith("hisab_live_")
    assert sandbox.call("GET", "/invoices", key=made["key"]).status_code == 200
    assert refusal(sandbox.call("POST", "/invoices", key=made["key"], json=INVOICE)) == (403, "FORBIDDEN")
    sandbox.done("DELETE", f"/sandbox/keys/{made['id']}")
    assert refusal(sandbox.call("GET", "/invoices", key=made["key"])) == (401, "UNAUTHORIZED")


def test_the_plan_limits_the_keys() -> None:
    sandbox = Sandbox()
    have = sum(key["owner"] == "org_4d11a7" for key in sandbox.done("GET", "/sandbox")["keys"])
    for _ in range(10 - have):
        sandbox.key()

    assert "at most 10" in wrong(sandbox.call("POST", "/sandbox/keys", json={}))
    sandbox.switch(plan="fiduciaire")
    sandbox.key()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/sandbox/faults", {"kind": "gremlin"}),
        ("POST", "/sandbox/faults", {"kind": "error", "rate": 2}),
        ("POST", "/sandbox/faults", {"kind": "error", "times": 0}),
        ("POST", "/sandbox/webhooks", {"url": "billhook.test", "secret": "x"}),
        ("POST", "/sandbox/webhooks", {"url": URL}),
        ("PATCH", "/sandbox/webhooks/whe_none", {}),
        ("DELETE", "/sandbox/webhooks/whe_none", {}),
        ("POST", "/sandbox/webhooks/del_none/replay", {}),
        ("POST", "/sandbox/keys", {"scopes": ["invoices:eat"]}),
        ("POST", "/sandbox/keys", {"kind": "account", "owner": "acc_none"}),
        ("POST", "/sandbox/keys", {"owner": "org_none"}),
        ("DELETE", "/sandbox/keys/key_none", {}),
        ("POST", "/sandbox/organizations/org_none", {}),
        ("POST", "/sandbox/organizations/org_4d11a7", {"plan": "gold"}),
        ("POST", "/sandbox/recurring-invoices/rec_none", {"status": "cancelled"}),
    ],
)
def test_what_cannot_be_is_refused_in_words(method: str, path: str, body: dict[str, Any]) -> None:
    assert wrong(Sandbox().call(method, path, json=body))


def test_numbering_is_the_organizations() -> None:
    sandbox = Sandbox()
    sandbox.switch(invoice_prefix="INV", next_invoice_number=42)

    assert sandbox.done("GET", f"/invoices/{sandbox.in_status('finalized')}")["invoice_number"] == "INV-2026-0042"


def test_a_number_is_never_given_twice() -> None:
    sandbox = Sandbox()
    sandbox.in_status("finalized")
    sandbox.switch(next_invoice_number=142)

    assert sandbox.done("GET", f"/invoices/{sandbox.in_status('finalized')}")["invoice_number"] == "FAC-2026-0143"


def test_a_sandbox_goes_on_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "hisab.db"
    first = Sandbox(path=path, clock=datetime(2026, 1, 1, tzinfo=UTC))
    invoice_id = first.in_status("finalized")
    first.key(key="hisab_live_mine")
    first.go_to("2026-03-01")

    second = Sandbox(path=path, webhook_url=None, secret=None)

    assert second.done("GET", f"/invoices/{invoice_id}", key="hisab_live_mine")["invoice_number"] == "FAC-2026-0142"
    assert second.done("GET", "/sandbox")["clock"] == "2026-03-01T00:00:00+00:00"
    assert second.done("GET", f"/invoices/{second.in_status('finalized')}")["invoice_number"] == "FAC-2026-0143"
    assert len(second.listed("/organizations", key=ACCOUNT_KEY)) == 1
    assert len(second.posted) == 2


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hisab.db"
    path.write_text("These are notes, no database; and enough of them for SQLite to see it. " * 20)

    with pytest.raises(StoreError, match=r"hisab\.db"):
        create_app(path=path)


@pytest.mark.parametrize("options", [{"faults": {"gremlin": 1}}, {"webhooks": [("nowhere", "x")]}])
def test_a_sandbox_that_cannot_be_is_not_built(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"is one of|begins with"):
        create_app(**options)
