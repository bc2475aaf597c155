"""The pay page of the Hesabe sandbox, the webhooks that it sends, the enquiry, and refunds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest

from handlers.providers import PROVIDERS
from handlers.providers.hesabe import webhook
from tests.handlers.providers.hesabe.server import ACCESS_CODE
from tests.handlers.providers.hesabe.test_sandbox import INVALID, INVOICE, NOW, Sandbox, opened

URL = INVOICE["webhook"]
PAYMENTS = {"pay": "SUCCESSFUL", "fail": "FAILED", "authorize": "AUTHORIZED"}


def page(sandbox: Sandbox, invoice: dict[str, Any]) -> httpx.Response:
    return sandbox.send("GET", httpx.URL(invoice["url"]).path)


def details(sandbox: Sandbox, invoice: dict[str, Any]) -> dict[str, Any]:
    return opened(sandbox.call("GET", f"/api/v1/invoice/{invoice['id']}"))


def paid(sandbox: Sandbox, **changes: str) -> str:
    """The token of a payment."""
    sandbox.pay(sandbox.create(**changes))
    return str(sandbox.told()[-1]["token"])


@pytest.mark.parametrize(("outcome", "status"), PAYMENTS.items())
def test_what_the_customer_does_is_told_and_confirmed(outcome: str, status: str) -> None:
    sandbox = Sandbox()
    invoice = sandbox.create()

    answer = sandbox.pay(invoice, outcome, payment_type="2")

    assert (answer.status_code, answer.headers["location"]) == (303, httpx.URL(invoice["url"]).path)
    (posted,), (told,) = sandbox.posted, sandbox.told()
    assert str(posted.url) == URL
    (found,) = sandbox.enquire(told["token"]).json()["results"]
    for name in ("token", "amount", "reference_number", "status", "payment_type", "service_type", "datetime"):
        assert told[name] == found[name]
    assert (told["amount"], told["reference_number"], told["status"]) == ("20.000", "12349899", status)
    assert (told["payment_type"], told["service_type"]) == ("MPGS", "SMS Payment")
    assert webhook.parse([], posted.content).type == f"transaction.{status.lower()}"


def test_a_webhook_has_the_documented_shape_and_no_signature() -> None:
    sandbox = Sandbox()
    sandbox.pay(sandbox.create(amount="49.000"))

    (posted,), (told,) = sandbox.posted, sandbox.told()
    sample = PROVIDERS["hesabe"].sample("transaction.successful")
    assert list(told) == list(sample)
    assert [sorted(block) for block in told["blocks"]] == [sorted(block) for block in sample["blocks"]]
    assert told["blocks"][0] == sample["blocks"][0]
    assert told["blocks"][3]["fields"] == sample["blocks"][3]["fields"]
    assert told["blocks"][1]["fields"][0]["text"] == "*Date & Time:*\n2025-10-05T15:37:13"
    assert posted.headers["content-type"] == "application/json"
    assert not [name for name in posted.headers if "sign" in name or "hesabe" in name.lower()]


def test_blocks_say_the_same_as_the_fields() -> None:
    sandbox = Sandbox()
    sandbox.pay(sandbox.create(amount="49.250"))
    (told,) = sandbox.told()

    alone = webhook.data(httpx.Request("POST", URL, json={"blocks": told["blocks"]}).content)

    assert {**alone, "amount": "49.250", "datetime": told["datetime"]} == {
        name: value for name, value in told.items() if name != "blocks"
    }


def test_a_token_is_made_of_merchant_time_and_13_digits() -> None:
    token = paid(Sandbox())

    assert token.startswith(f"842217{int(NOW.timestamp())}")
    assert len(token) == 29


def test_configured_urls_are_told_as_well_and_may_be_all() -> None:
    sandbox = Sandbox(webhooks=[("http://one.test/", "unused"), ("http://two.test/", "")])
    sandbox.pay(sandbox.create())
    sandbox.pay(sandbox.create(webhook=None))

    urls = [str(request.url) for request in sandbox.posted]
    assert sorted(urls[:3]) == sorted(["http://one.test/", "http://two.test/", URL])
    assert sorted(urls[3:]) == ["http://one.test/", "http://two.test/"]


def test_a_url_that_is_configured_and_named_is_told_once() -> None:
    sandbox = Sandbox(webhooks=[(URL, "unused")])
    sandbox.pay(sandbox.create())

    assert [str(request.url) for request in sandbox.posted] == [URL]


def test_a_paid_invoice_has_its_transaction_with_numbers() -> None:
    sandbox = Sandbox()
    invoice = sandbox.create(amount="15.000")
    sandbox.pay(invoice)

    found = details(sandbox, invoice)

    transaction = found["transaction"]
    assert found["invoice_status"] == 1
    assert (transaction["amount"], str(transaction["net_amount"]), str(transaction["commission"])) == (
        15,
        "14.9",
        "0.1",
    )
    assert (transaction["payment_type_id"], transaction["payment_status"], transaction["auth_status"]) == (1, 1, 0)
    assert transaction["token"] == sandbox.told()[0]["token"]


def test_an_invoice_may_be_paid_after_it_failed_and_only_once() -> None:
    sandbox = Sandbox()
    invoice = sandbox.create()
    sandbox.pay(invoice, "fail")
    after_failure = details(sandbox, invoice)
    failed_page = page(sandbox, invoice)
    sandbox.pay(invoice)
    again = sandbox.pay(invoice)

    assert (after_failure["invoice_status"], after_failure["transaction"]) == (None, None)
    assert "The last attempt to pay failed" in failed_page.text
    assert again.status_code == 409
    assert "is paid" in again.text
    assert [told["status"] for told in sandbox.told()] == ["FAILED", "SUCCESSFUL"]


def test_an_authorized_payment_does_not_pay_the_invoice() -> None:
    sandbox = Sandbox()
    invoice = sandbox.create()
    sandbox.pay(invoice, "authorize")

    found = details(sandbox, invoice)

    assert found["invoice_status"] is None
    assert (found["transaction"]["payment_status"], found["transaction"]["auth_status"]) == (4, 1)
    assert sandbox.pay(invoice).status_code == 409


def test_a_cancelled_or_expired_invoice_cannot_be_paid() -> None:
    sandbox = Sandbox()
    cancelled, expired = sandbox.create(), sandbox.create(expiresAt="2025-10-05")
    sandbox.call("PUT", f"/api/v1/invoice/{cancelled['token']}", statusId="3")
    assert "<form" in page(sandbox, expired).text

    sandbox.admin("POST", "/clock", to="2025-10-05T21:00:00")  # midnight in Kuwait

    for invoice, word in ((cancelled, "cancelled"), (expired, "expired")):
        assert sandbox.pay(invoice).status_code == 409
        shown = page(sandbox, invoice).text
        assert word in shown
        assert "<form" not in shown
    assert sandbox.posted == []


def test_the_page_shows_the_invoice_and_escapes_it() -> None:
    sandbox = Sandbox()
    item = {"itemTitle": "<i>Iphone</i>", "rate": "20.000", "quantity": "1", "amount": "20.000"}
    invoice = sandbox.create(customerName="<script>alert(1)</script>", description="& more", itemsList=[item])

    answer = page(sandbox, invoice)

    assert "<script" not in answer.text
    for text in ("&lt;script&gt;", "&amp; more", "KWD 20.000", "12349899", "&lt;i&gt;Iphone", "KNET", "MPGS"):
        assert text in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert (details(sandbox, invoice)["visited_count"], details(sandbox, invoice)["url_status"]) == (1, 1)


@pytest.mark.parametrize("form", [{}, {"outcome": "steal"}, {"outcome": "pay", "payment_type": "5"}])
def test_a_form_that_is_wrong_pays_nothing(form: dict[str, str]) -> None:
    sandbox = Sandbox()
    invoice = sandbox.create()

    answer = sandbox.send("POST", httpx.URL(invoice["url"]).path, data=form)

    assert answer.status_code == 400
    assert "payment_type is one of 1, 2" in answer.text
    assert sandbox.posted == []


def test_a_page_that_is_not_there_is_not_found() -> None:
    sandbox = Sandbox()

    assert sandbox.send("GET", "/s/98WRR6R9").status_code == 404
    assert sandbox.send("POST", "/s/98WRR6R9", data={"outcome": "pay"}).status_code == 404


@pytest.mark.parametrize("where", ["query", "body"])
def test_all_attempts_are_found_by_the_order_reference(where: str) -> None:
    sandbox = Sandbox()
    invoice = sandbox.create(referenceNumber="order 1")
    sandbox.pay(invoice, "fail")
    sandbox.pay(invoice)
    paid(sandbox, referenceNumber="order 2")
    asked: dict[str, Any] = (
        {"params": {"isOrderReference": "1"}} if where == "query" else {"json": {"isOrderReference": 1}}
    )

    answer = sandbox.send("GET", "/api/transaction/order 1", headers={"accessCode": ACCESS_CODE}, **asked).json()

    assert (answer["status"], answer["message"]) == (True, "Transaction found")
    assert [one["status"] for one in answer["results"]] == ["FAILED", "SUCCESSFUL"]
    assert answer["data"] == answer["results"][-1]
    assert sandbox.enquire("order 1").status_code == 404


def test_an_enquiry_with_a_body_that_is_no_json_is_one_by_token() -> None:
    sandbox = Sandbox()
    token = paid(sandbox)

    answer = sandbox.send(
        "GET", f"/api/transaction/{token}", headers={"accessCode": ACCESS_CODE}, content=b"isOrderReference=1"
    )

    assert answer.json()["data"]["token"] == token


def test_an_enquiry_needs_the_access_code_of_the_merchant_whose_transaction_it_is() -> None:
    sandbox = Sandbox()
    token = paid(sandbox)
    other = sandbox.admin("POST", "/keys", name="other")["key"].split(":")[1]

    statuses = [
        sandbox.send("GET", f"/api/transaction/{token}", headers=headers).status_code
        for headers in ({"accessCode": ACCESS_CODE}, {"accessCode": other}, {"accessCode": "x"}, {})
    ]

    assert statuses == [200, 404, 401, 401]


def test_a_webhook_that_is_not_accepted_is_sent_again_unchanged() -> None:
    sandbox = Sandbox(500, 200, retry_delays=(0.0,))
    paid(sandbox)

    first, second = sandbox.posted
    assert first.content == second.content


def test_a_full_refund_is_pending_and_approved_by_itself_after_an_hour() -> None:
    sandbox = Sandbox()
    token = paid(sandbox)

    asked = opened(sandbox.call("POST", "/api/v1/refund", refundAmount="20.000", refundMethod="1", token=token))
    sandbox.admin("POST", "/clock", advance="61m")
    found = opened(sandbox.call("GET", f"/api/v1/refund/{asked['response']['id']}"))

    assert asked["message"] == "Your refund request is waiting for approval"
    pending, approved = asked["response"], found["response"]
    assert (pending["status"], pending["refund_status"], pending["refund_at"]) == (0, "PENDING", None)
    assert (approved["status"], approved["remarks"]) == (1, "Auto Refund Approved")
    assert (approved["refund_at"], approved["approved_by"]) == ("2025-10-05", "Admin")
    assert (approved["total_balance_amount"], approved["total_refunded_amount"]) == ("0.000", "20.000")
    assert sandbox.enquire(token).json()["data"]["status"] == "REFUNDED"
    assert [told["status"] for told in sandbox.told()] == ["SUCCESSFUL", "REFUNDED"]


def test_partial_refunds_wait_for_a_decision_and_add_up() -> None:
    sandbox = Sandbox()
    token = paid(sandbox)

    def ask(amount: str) -> httpx.Response:
        return sandbox.call("POST", "/api/v1/refund", refundAmount=amount, refundMethod="2", token=token)

    first, second = (opened(ask(amount))["response"]["id"] for amount in ("5.000", "10.000"))
    too_much = ask("5.001")
    sandbox.admin("POST", f"/refunds/{first}", approved=True)
    sandbox.admin("POST", f"/refunds/{second}", approved=False, remarks="no")
    statuses = [sandbox.enquire(token).json()["data"]["status"]]
    third = opened(ask("15.000"))["response"]["id"]
    sandbox.admin("POST", f"/refunds/{third}", approved=True)
    statuses.append(sandbox.enquire(token).json()["data"]["status"])

    assert (too_much.status_code, too_much.json()) == (506, INVALID)
    assert statuses == ["SUCCESSFUL", "REFUNDED"]
    listed = opened(sandbox.call("GET", "/api/v1/refund/"))["response"]
    assert listed["stats"] == {
        "total_refund_request_count": 3,
        "total_refund_request_amount": "30.000",
        "pending_total_refund_request_amount": "0.000",
        "approved_total_refund_request_amount": "20.000",
        "rejected_total_refund_request_amount": "10.000",
    }
    assert [one["id"] for one in listed["refund_request_list"]["data"]] == [third, second, first]


@pytest.mark.parametrize(
    ("outcome", "amount", "method"),
    [("fail", "20.000", "1"), ("authorize", "20.000", "1"), ("pay", "19.999", "1"), ("pay", "20.001", "2")],
)
def test_what_cannot_be_refunded_is_refused(outcome: str, amount: str, method: str) -> None:
    sandbox = Sandbox()
    sandbox.pay(sandbox.create(), outcome)
    (told,) = sandbox.told()

    answer = sandbox.call("POST", "/api/v1/refund", refundAmount=amount, refundMethod=method, token=told["token"])

    assert (answer.status_code, answer.json()) == (506, INVALID)


def test_a_pending_refund_can_be_cancelled_and_an_approved_one_not() -> None:
    sandbox = Sandbox()
    token = paid(sandbox)

    def ask() -> int:
        answer = sandbox.call("POST", "/api/v1/refund", refundAmount="20.000", refundMethod="1", token=token)
        return int(opened(answer)["response"]["id"])

    first = ask()
    cancelled = opened(sandbox.call("DELETE", f"/api/v1/refund/{first}"))
    second = ask()
    sandbox.admin("POST", "/clock", advance="2h")

    assert cancelled == {"status": True, "message": "Refund requests", "response": True}
    assert sandbox.call("DELETE", f"/api/v1/refund/{second}").status_code == 506
    assert sandbox.send("POST", f"/sandbox/refunds/{second}", json={"approved": True}).status_code == 400
    assert sandbox.send("POST", "/sandbox/refunds/9", json={"approved": True}).status_code == 404


def test_refunds_are_listed_by_date_search_and_page() -> None:
    sandbox = Sandbox()
    token = paid(sandbox, referenceNumber="order 1")
    for _ in range(11):
        sandbox.call("POST", "/api/v1/refund", refundAmount="1.000", refundMethod="2", token=token)

    def count(**query: str) -> int:
        hidden = Sandbox.hidden(merchantCode="842217")
        answer = sandbox.send("GET", "/api/v1/refund/", headers=sandbox.headers, params={"data": hidden, **query})
        return len(opened(answer)["response"]["refund_request_list"]["data"])

    tomorrow = str((NOW + timedelta(days=1)).date())
    assert (count(), count(page="2"), count(page="3")) == (10, 1, 0)
    assert (count(search="order"), count(search="other")) == (10, 0)
    assert (
        count(fromDate="2025-10-05", toDate="2025-10-05"),
        count(fromDate=tomorrow),
        count(toDate="2025-10-04"),
    ) == (
        10,
        0,
        0,
    )


def test_refunds_are_not_told_where_that_is_switched_off() -> None:
    sandbox = Sandbox()
    sandbox.admin("POST", "/settings", tells_refunds=False)
    token = paid(sandbox)

    sandbox.call("POST", "/api/v1/refund", refundAmount="20.000", refundMethod="1", token=token)
    sandbox.admin("POST", "/clock", advance="2h")

    assert sandbox.enquire(token).json()["data"]["status"] == "REFUNDED"
    assert len(sandbox.posted) == 1
