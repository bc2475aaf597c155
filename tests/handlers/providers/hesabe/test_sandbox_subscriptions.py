"""Subscriptions of the Hesabe sandbox: consent, captures by the clock and on demand, the end."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from handlers.providers.hesabe.sandbox.due import Due
from tests.handlers.providers.hesabe.test_sandbox import NOW, SUBSCRIPTION, UNAUTHORIZED, Sandbox, opened


def agreed(sandbox: Sandbox, **changes: Any) -> tuple[dict[str, Any], str]:
    """An invoice that recurs, and the token of the customer's consent."""
    invoice = opened(sandbox.call("POST", "/api/v1/invoice/", **(SUBSCRIPTION | changes)))["response"]
    assert sandbox.pay(invoice).status_code == 303
    return invoice, str(sandbox.told()[-1]["token"])


def capture(sandbox: Sandbox, token: str, amount: Any = "20.000", reference: str = "capture-1") -> httpx.Response:
    return sandbox.call(
        "POST", "/api/subscription/capture", amount=amount, orderReferenceNumber=reference, paymentToken=token
    )


def captured_on(sandbox: Sandbox) -> list[str]:
    return [told["datetime"] for told in sandbox.told() if told["status"] != "AUTHORIZED"]


def subscription_of(sandbox: Sandbox, invoice: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = opened(sandbox.call("GET", f"/api/v1/invoice/{invoice['id']}"))
    return found


def test_a_year_of_captures_falls_on_the_same_day_or_the_last_of_the_month() -> None:
    sandbox = Sandbox()
    invoice, _ = agreed(sandbox, startDate="2025-10-31")

    moved = sandbox.admin("POST", "/clock", advance="400d")

    assert moved["fell_due"] == 12
    assert captured_on(sandbox) == [
        f"{day} 00:00:00"
        for day in (
            *("2025-10-31", "2025-11-30", "2025-12-31", "2026-01-31", "2026-02-28", "2026-03-31"),
            *("2026-04-30", "2026-05-31", "2026-06-30", "2026-07-31", "2026-08-31", "2026-09-30"),
        )
    ]
    found = subscription_of(sandbox, invoice)
    assert (found["invoice_status"], found["transaction"]["payment_status"]) == (1, 8)
    assert (found["subscription"]["captured"], found["subscription"]["next_capture"]) == (12, None)
    assert len({told["token"] for told in sandbox.told()}) == 13
    assert len(sandbox.enquire("12349899", isOrderReference="1").json()["results"]) == 13


def test_the_consent_is_an_authorization_and_takes_nothing() -> None:
    sandbox = Sandbox()
    invoice, token = agreed(sandbox)

    found = subscription_of(sandbox, invoice)

    assert [told["status"] for told in sandbox.told()] == ["AUTHORIZED"]
    assert (found["invoice_status"], found["transaction"]["auth_status"]) == (None, 1)
    assert found["subscription"] == {
        "frequency": "1",
        "noofRecurrence": "12",
        "SubscriptionType": "0",
        "startDate": "2025-10-31",
        "token": token,
        "captured": 0,
        "next_capture": "2025-10-31",
    }
    assert sandbox.pay(invoice).status_code == 409
    assert sandbox.call("PUT", f"/api/v1/invoice/{invoice['token']}", statusId="3").status_code == 400


def test_a_refused_consent_makes_no_subscription() -> None:
    sandbox = Sandbox()
    invoice = opened(sandbox.call("POST", "/api/v1/invoice/", **SUBSCRIPTION))["response"]
    sandbox.pay(invoice, "fail")

    sandbox.admin("POST", "/clock", advance="60d")

    assert [told["status"] for told in sandbox.told()] == ["FAILED"]


def test_a_start_that_has_passed_begins_with_the_consent() -> None:
    sandbox = Sandbox()
    agreed(sandbox, startDate="2025-01-15", noofRecurrence="2")

    sandbox.admin("POST", "/clock", advance="60d")

    assert captured_on(sandbox) == ["2025-10-05 15:37:13", "2025-11-05 00:00:00"]


def test_where_nothing_is_due_nothing_is_captured() -> None:
    machine = Sandbox().app.state.machine

    with machine.store.transaction() as session:
        assert Due().next(session) is None
        Due().ring(machine, session, NOW)


def test_a_subscription_ends_with_the_calendar() -> None:
    sandbox = Sandbox()
    agreed(sandbox, startDate="9999-12-31")

    assert sandbox.admin("POST", "/clock", to="9999-12-31")["fell_due"] == 1
    assert sandbox.admin("GET", "")["clock"] == "9999-12-31T00:00:00+00:00"


def test_the_customers_bank_may_decline_which_counts_too() -> None:
    sandbox = Sandbox()
    invoice, token = agreed(sandbox, noofRecurrence="3")
    sandbox.admin("POST", f"/subscriptions/{token}", declines=1)

    sandbox.admin("POST", "/clock", advance="200d")

    assert [told["status"] for told in sandbox.told()] == ["AUTHORIZED", "FAILED", "SUCCESSFUL", "SUCCESSFUL"]
    assert subscription_of(sandbox, invoice)["subscription"]["captured"] == 3


def test_captures_are_not_told_where_that_is_switched_off() -> None:
    sandbox = Sandbox()
    sandbox.admin("POST", "/settings", tells_captures=False)
    agreed(sandbox)

    sandbox.admin("POST", "/clock", advance="400d")

    assert len(sandbox.posted) == 1
    assert len(sandbox.enquire("12349899", isOrderReference="1").json()["results"]) == 13


def test_a_subscription_that_is_cancelled_takes_nothing_more() -> None:
    sandbox = Sandbox()
    invoice, token = agreed(sandbox)
    sandbox.admin("POST", "/clock", to="2025-12-01")

    ended = sandbox.send("DELETE", f"/api/subscription/cancel/{token}")
    again = sandbox.send("DELETE", f"/api/subscription/cancel/{token}")
    sandbox.admin("POST", "/clock", advance="400d")

    assert (ended.status_code, ended.json()) == (
        200,
        {"status": True, "code": 200, "message": "Subscription cancelled."},
    )
    assert again.status_code == 400
    assert (again.json()["status"], again.json()["code"]) == (False, 400)
    assert len(captured_on(sandbox)) == 2
    assert "cancelled" in sandbox.send("GET", httpx.URL(invoice["url"]).path).text


@pytest.mark.parametrize("amount", ["7.500", 7.5, 7])
def test_on_demand_any_amount_is_captured_under_any_reference(amount: Any) -> None:
    sandbox = Sandbox()
    _, token = agreed(sandbox, SubscriptionType="1")

    answer = capture(sandbox, token, amount)

    assert answer.headers["content-type"].startswith("text/html")
    document = opened(answer)
    assert (document["code"], document["message"]) == (200, "Capture successful.")
    assert (document["data"]["status"], document["data"]["reference_number"]) == ("SUCCESSFUL", "capture-1")
    assert float(document["data"]["amount"]) == float(amount)
    assert document["data"]["token"] == sandbox.told()[-1]["token"] != token
    assert sandbox.enquire("capture-1", isOrderReference="1").json()["data"] == document["data"]


def test_on_demand_nothing_is_captured_by_the_clock() -> None:
    sandbox = Sandbox()
    agreed(sandbox, SubscriptionType="1")

    assert sandbox.admin("POST", "/clock", advance="400d")["fell_due"] == 0


def test_a_declined_capture_is_answered_and_told_as_failed() -> None:
    sandbox = Sandbox()
    _, token = agreed(sandbox, SubscriptionType="1")
    sandbox.admin("POST", f"/subscriptions/{token}", declines=1)

    document = opened(capture(sandbox, token))

    assert (document["status"], document["code"]) == (False, 507)
    assert sandbox.told()[-1]["status"] == "FAILED"
    assert opened(capture(sandbox, token))["status"] is True


def test_no_more_is_captured_than_was_agreed_on() -> None:
    sandbox = Sandbox()
    _, token = agreed(sandbox, SubscriptionType="1", noofRecurrence="2")
    for _ in range(2):
        opened(capture(sandbox, token))

    answer = capture(sandbox, token)

    assert (answer.status_code, answer.json()["code"]) == (422, 507)


def test_what_cannot_be_captured_is_refused() -> None:
    sandbox = Sandbox()
    _, automatic = agreed(sandbox)
    _, ended = agreed(sandbox, SubscriptionType="1")
    sandbox.send("DELETE", f"/api/subscription/cancel/{ended}")
    single = sandbox.create()
    sandbox.pay(single)

    codes = [capture(sandbox, token).json()["code"] for token in (automatic, ended, "1", sandbox.told()[-1]["token"])]

    assert codes == [507, 505, 505, 505]


def test_a_capture_needs_the_access_code_and_no_login() -> None:
    sandbox = Sandbox()
    _, token = agreed(sandbox, SubscriptionType="1")
    hidden = Sandbox.hidden(merchantCode="842217", amount="1.000", orderReferenceNumber="1", paymentToken=token)

    without = sandbox.post_sealed("POST", "/api/subscription/capture", hidden, {})
    alone = sandbox.post_sealed(
        "POST", "/api/subscription/capture", hidden, {"accessCode": sandbox.headers["accessCode"]}
    )

    assert (without.status_code, without.json()) == (401, UNAUTHORIZED)
    assert opened(alone)["status"] is True


@pytest.mark.parametrize(
    ("on_demand", "kind", "automatic"), [("1", "0", 12), ("1", "1", 0), ("0", "0", 0), ("0", "1", 12)]
)
def test_what_a_subscription_type_means_is_a_switch(on_demand: str, kind: str, automatic: int) -> None:
    sandbox = Sandbox(on_demand=on_demand)
    agreed(sandbox, SubscriptionType=kind)

    assert sandbox.admin("POST", "/clock", advance="400d")["fell_due"] == automatic
