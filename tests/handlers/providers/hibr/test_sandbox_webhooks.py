"""What the sandbox sends: the documented headers and body, verified as the receiver verifies them."""

from __future__ import annotations

from datetime import date

import orjson
import pytest

from handlers.errors import VerificationError
from handlers.providers.hibr.sandbox.changelog import a_year_after
from tests.handlers.providers.hibr.sandboxes import NOW, SECRET, Sandbox, read


def test_a_paid_invoice_is_told_as_documented() -> None:
    sandbox = Sandbox()
    paid = sandbox.invoice("paid")
    (request,) = sandbox.posted
    body = orjson.loads(request.content)

    assert request.headers["hibr-event"] == "invoice.paid"
    assert request.headers["hibr-event-id"] == body["id"]
    assert (
        request.headers["hibr-webhook-endpoint"] == sandbox.call("GET", "/v1/webhook_endpoints").json()["data"][0]["id"]
    )
    assert request.headers["content-type"] == "application/json"
    assert request.headers["hibr-signature"].startswith(f"t={NOW:.0f},v1=")
    assert list(body) == ["id", "object", "type", "created", "api_version", "livemode", "data"]
    assert (body["object"], body["api_version"], body["livemode"]) == ("event", "2026-10-01", False)
    assert body["id"].startswith("evt_")
    assert body["data"]["object"] == paid
    assert body["data"]["previous_attributes"] == {
        "status": "open",
        "paid_at": None,
        "amount_paid": 0,
        "amount_due": paid["total"],
    }


def test_the_receiver_reads_it() -> None:
    sandbox = Sandbox()
    invoice = sandbox.invoice("paid")
    (event,) = sandbox.events()

    assert (event.type, event.object_id, event.data["previous_attributes"]["status"]) == (
        "invoice.paid",
        invoice["id"],
        "open",
    )


def test_only_the_payment_that_settles_an_invoice_is_told() -> None:
    sandbox = Sandbox()
    invoice = sandbox.invoice("open")
    told = []
    for amount in (1, 524_999):
        sandbox.made("payments", invoice_id=invoice["id"], amount=amount)
        told.append(len(sandbox.posted))

    assert told == [0, 1]


def test_a_refused_payment_tells_nothing() -> None:
    sandbox = Sandbox()
    sandbox.act(sandbox.invoice(), "pay")

    assert sandbox.posted == []


def test_a_deprecation_is_told_and_stands_in_the_changelog() -> None:
    sandbox = Sandbox()
    answer = sandbox.call("POST", "/sandbox/deprecations", json={}).json()
    (event,) = sandbox.events()
    changes = sandbox.call("GET", "/changelog", key=None).json()

    assert event.type == "hibr.api.deprecation"
    assert (event.data["version"], event.data["sunset"]) == ("2026-10-01", "2027-10-15")
    assert answer == {"version": "2026-10-01", "sunset": "2027-10-15"}
    assert [(change["date"], change["type"]) for change in changes["data"]] == [
        ("2026-10-15", "breaking"),
        ("2026-10-01", "additive"),
    ]
    assert set(changes["data"][0]) == {"object", "date", "version", "type", "description", "endpoints"}


def test_an_endpoint_that_was_made_through_the_api_is_told_too() -> None:
    sandbox = Sandbox(webhooks=[])
    made = sandbox.made("webhook_endpoints", url="http://other.test/hibr", secret=SECRET)
    sandbox.invoice("paid")
    sandbox.call("PATCH", f"/v1/webhook_endpoints/{made['id']}", json={"active": False})
    sandbox.invoice("paid")
    sandbox.call("DELETE", f"/v1/webhook_endpoints/{made['id']}")
    sandbox.invoice("paid")

    (request,) = sandbox.posted
    assert (request.url.host, request.headers["hibr-webhook-endpoint"]) == ("other.test", made["id"])
    assert read(request).type == "invoice.paid"


def test_two_endpoints_get_the_same_event_each_under_its_own_name() -> None:
    sandbox = Sandbox()
    answer = sandbox.call("POST", "/sandbox/webhooks", json={"url": "http://two.test/", "secret": SECRET})
    sandbox.invoice("paid")

    assert answer.json()["id"].startswith("wh_")
    assert len({request.headers["hibr-event-id"] for request in sandbox.posted}) == 1
    assert len({request.headers["hibr-webhook-endpoint"] for request in sandbox.posted}) == 2


def test_another_account_is_not_told() -> None:
    sandbox = Sandbox()
    theirs = sandbox.key("*", account="others")
    sandbox.call("POST", "/v1/webhook_endpoints", key=theirs, json={"url": "http://theirs.test/", "secret": SECRET})
    sandbox.invoice("paid")

    assert [request.url.host for request in sandbox.posted] == ["billhook.test"]


def test_what_fails_is_sent_again_under_its_id_and_can_be_replayed() -> None:
    sandbox = Sandbox(500, 200, retry_delays=(0.0,))
    sandbox.invoice("paid")
    event_id = sandbox.posted[0].headers["hibr-event-id"]
    sandbox.call("POST", f"/sandbox/webhooks/{event_id}/replay")

    assert [request.headers["hibr-event-id"] for request in sandbox.posted] == [event_id] * 3
    assert len({request.headers["hibr-webhook-endpoint"] for request in sandbox.posted}) == 1
    assert len({request.content for request in sandbox.posted}) == 1
    assert [sent.status for sent in sandbox.app.state.sent] == [500, 200, 200]


@pytest.mark.parametrize(
    ("fault", "reason"), [("wrong_signature", "bad_signature"), ("stale_timestamp", "stale_timestamp")]
)
def test_a_fault_spoils_a_signature(fault: str, reason: str) -> None:
    sandbox = Sandbox()
    sandbox.call("POST", "/sandbox/faults", json={"kind": fault})
    sandbox.invoice("paid")

    with pytest.raises(VerificationError) as refused:
        read(sandbox.posted[0])
    assert refused.value.reason == reason


def test_a_doubled_webhook_is_one_event() -> None:
    sandbox = Sandbox(faults={"duplicate": 1.0})
    sandbox.invoice("paid")

    assert len(sandbox.posted) == 2
    assert len({event.key for event in sandbox.events()}) == 1


@pytest.mark.parametrize(
    ("day", "later"),
    [("2026-10-15", "2027-10-15"), ("2027-12-31", "2028-12-31"), ("2028-02-29", "2029-03-01")],
)
def test_twelve_months_are_a_year(day: str, later: str) -> None:
    assert a_year_after(date.fromisoformat(day)).isoformat() == later
