"""Each constraint of the two tables, "Single invoice" and "Create subscription invoice": refused, or accepted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.handlers.providers.hesabe.test_sandbox import INVALID, INVOICE, SUBSCRIPTION, Sandbox, opened

SINGLE_PATH, SUBSCRIPTION_PATH = "/api/v1/invoice", "/api/v1/invoice/"
ITEM = {"itemTitle": "Iphone", "rate": "10.000", "quantity": "1", "amount": "10.000"}
LACKING = object()


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox()


def changed(body: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    return {key: one for key, one in {**body, name: value}.items() if one is not LACKING}


REQUIRED = [
    *("mobileNumber", "customerName", "amount", "countryCode", "invoiceType", "invoiceSubType"),
    *("allocatePayType", "expiresAt"),
]
BOTH: list[tuple[str, Any, str]] = [
    *((name, LACKING, "is required") for name in REQUIRED),
    *((name, None, "") for name in REQUIRED),
    ("mobileNumber", "+96566666666", "6 to 15 digits"),
    ("mobileNumber", "66666", "6 to 15 digits"),
    ("mobileNumber", 66666666, "6 to 15 digits"),
    ("mobileNumber", "٦٦٦٦٦٦٦٦", "6 to 15 digits"),
    ("customerName", "   ", "must not be empty"),
    ("customerName", 5, "must be a string"),
    ("amount", "20", "three decimals"),
    ("amount", "20.00", "three decimals"),
    ("amount", "20.0000", "three decimals"),
    ("amount", "020.000", "three decimals"),
    ("amount", "-20.000", "three decimals"),
    ("amount", "20,000", "three decimals"),
    ("amount", "1e3", "three decimals"),
    ("amount", "NaN", "three decimals"),
    ("amount", "1234567890.000", "three decimals"),
    ("amount", 20.125, "three decimals"),
    ("amount", "0.000", "above zero"),
    ("countryCode", "0965", "965 or +965"),
    ("countryCode", "++965", "965 or +965"),
    ("countryCode", 965, "965 or +965"),
    ("invoiceType", "2", "0 or 1"),
    ("invoiceType", 1, "0 or 1"),
    ("allocatePayType", "", "payment types"),
    ("allocatePayType", [], "at least one"),
    ("allocatePayType", "1;2", "payment types"),
    ("allocatePayType", "3", "payment types"),
    ("allocatePayType", ["1", "15"], "payment types"),
    ("allocatePayType", [True], "payment types"),
    ("allocatePayType", 1, "at least one"),
    ("expiresAt", "12-12-2025", "YYYY-MM-DD"),
    ("expiresAt", "2025-13-01", "YYYY-MM-DD"),
    ("expiresAt", "2025-12-12 10:00:00", "YYYY-MM-DD"),
    ("expiresAt", 20251212, "YYYY-MM-DD"),
    ("customerEmail", "test", "email"),
    ("language", "fr", "en or ar"),
    ("description", 5, "must be a string"),
    ("webhook", "yourdomain.com/example", "http"),
    ("webhook", "ftp://yourdomain.com", "http"),
    ("webhook", 1, "must be a string"),
    ("itemsList", "Iphone", "must be a list"),
    ("itemsList", ["Iphone"], "object"),
    ("itemsList", [ITEM], "add up to at least"),
    ("itemsList", [{**ITEM, "amount": "20"}], "three decimals"),
    ("itemsList", [{**ITEM, "amount": "20.000", "rate": "20"}], "three decimals"),
    ("itemsList", [{**ITEM, "amount": "20.000", "quantity": "0"}], "whole number"),
    ("itemsList", [{**ITEM, "amount": "20.000", "quantity": 1}], "whole number"),
    ("itemsList", [{"rate": "20.000", "quantity": "1", "amount": "20.000"}], "itemTitle is required"),
]
OF_SINGLE: list[tuple[str, Any, str]] = [
    ("invoiceSubType", "1", "0 or 3"),
    ("invoiceSubType", "2", "0 or 3"),
    ("invoiceSubType", "4", "0 or 3"),
    ("subscription", "2", "0 or 1"),
    ("subscription", ["1"], "0 or 1"),
]
OF_SUBSCRIPTION: list[tuple[str, Any, str]] = [
    *((name, LACKING, "is required") for name in ("subscription", "frequency", "noofRecurrence", "SubscriptionType")),
    ("invoiceSubType", "4", "0, 1, 2, 3"),
    ("subscription", "0", "one of 1"),
    ("frequency", "2", "one of 1"),
    ("noofRecurrence", "0", "whole number"),
    ("noofRecurrence", "-1", "whole number"),
    ("noofRecurrence", "1.5", "whole number"),
    ("SubscriptionType", "2", "0 or 1"),
    ("startDate", "YYYY-MM-DD", "YYYY-MM-DD"),
]


@pytest.mark.parametrize(("name", "value", "reason"), [*BOTH, *OF_SINGLE])
def test_a_single_invoice_that_the_table_does_not_allow_is_refused(
    sandbox: Sandbox, name: str, value: Any, reason: str
) -> None:
    answer = sandbox.call("POST", SINGLE_PATH, **changed(INVOICE, name, value))

    assert (answer.status_code, answer.json()) == (506, INVALID)
    assert name in answer.headers["x-sandbox-reason"]
    assert reason in answer.headers["x-sandbox-reason"]


@pytest.mark.parametrize(("name", "value", "reason"), [*BOTH, *OF_SUBSCRIPTION])
def test_a_subscription_invoice_that_the_table_does_not_allow_is_refused(
    sandbox: Sandbox, name: str, value: Any, reason: str
) -> None:
    answer = sandbox.call("POST", SUBSCRIPTION_PATH, **changed(SUBSCRIPTION, name, value))

    assert (answer.status_code, answer.json()) == (506, INVALID)
    assert name in answer.headers["x-sandbox-reason"]
    assert reason in answer.headers["x-sandbox-reason"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, LACKING) for name in ("customerEmail", "language", "description", "webhook", "itemsList")),
        ("amount", "0.001"),
        ("amount", "999999999.999"),
        ("countryCode", "+965"),
        ("invoiceType", "0"),
        ("invoiceSubType", "0"),
        ("allocatePayType", "1, 2,16"),
        ("allocatePayType", ["1", "2"]),
        ("allocatePayType", [1, 2, 5, 10]),
        ("expiresAt", "2020-01-01"),
        ("language", "en"),
        ("itemsList", []),
        ("itemsList", [ITEM, ITEM]),
        ("itemsList", [ITEM, {**ITEM, "amount": "15.000"}]),
        ("subscription", "0"),
        ("somethingElse", {"a": 1}),
    ],
)
def test_a_single_invoice_that_the_table_allows_is_made(sandbox: Sandbox, name: str, value: Any) -> None:
    answer = opened(sandbox.call("POST", SINGLE_PATH, **changed(INVOICE, name, value)))

    assert answer["message"] == "Invoice generated successfully"
    assert (answer["response"]["invoice_type"], answer["response"]["subscription"]) == (1, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, LACKING) for name in ("customerEmail", "language", "description", "itemsList", "startDate")),
        ("invoiceSubType", "1"),
        ("invoiceSubType", "2"),
        ("invoiceSubType", "3"),
        ("SubscriptionType", "1"),
        ("noofRecurrence", "1"),
    ],
)
def test_a_subscription_invoice_that_the_table_allows_is_made(sandbox: Sandbox, name: str, value: Any) -> None:
    body = changed(SUBSCRIPTION, name, value)

    answer = opened(sandbox.call("POST", SUBSCRIPTION_PATH, **body))

    assert answer["response"]["invoice_type"] == 0
    assert answer["response"]["subscription"]["noofRecurrence"] == body["noofRecurrence"]


def test_an_invoice_by_email_needs_an_address(sandbox: Sandbox) -> None:
    body = changed(SUBSCRIPTION | {"invoiceSubType": "2"}, "customerEmail", LACKING)

    answer = sandbox.call("POST", SUBSCRIPTION_PATH, **body)

    assert (answer.status_code, answer.json()) == (506, INVALID)
    assert "customerEmail is required" in answer.headers["x-sandbox-reason"]


def test_without_the_slash_a_subscription_is_one_by_its_member(sandbox: Sandbox) -> None:
    answer = opened(sandbox.call("POST", SINGLE_PATH, **SUBSCRIPTION))

    assert answer["response"]["invoice_type"] == 0


def test_phone_country_and_payment_methods_are_written_as_documented(sandbox: Sandbox) -> None:
    body = SUBSCRIPTION | {"countryCode": "+966", "allocatePayType": [10, 1, 1]}

    invoice = opened(sandbox.call("POST", SUBSCRIPTION_PATH, **body))["response"]

    assert invoice["customer"]["phone_number"] == "96666666666"
    assert (invoice["country_id"], invoice["payment_method"]) == (None, ["10", "1"])


@pytest.mark.parametrize(
    ("method", "path", "members", "reason"),
    [
        (
            "POST",
            "/api/v1/invoice/resend",
            {"mobileNumber": "1", "resendId": "1", "countryCode": "965"},
            "mobileNumber",
        ),
        ("POST", "/api/v1/invoice/resend", {"mobileNumber": "66666666", "countryCode": "965"}, "resendId"),
        (
            "POST",
            "/api/v1/invoice/resend",
            {"mobileNumber": "66666666", "resendId": "x", "countryCode": "965"},
            "resendId",
        ),
        ("POST", "/api/v1/refund", {"refundAmount": "10", "refundMethod": "1", "token": "1"}, "refundAmount"),
        ("POST", "/api/v1/refund", {"refundAmount": "10.000", "refundMethod": "0", "token": "1"}, "refundMethod"),
        ("POST", "/api/v1/refund", {"refundAmount": "10.000", "refundMethod": "1"}, "token"),
        (
            "POST",
            "/api/subscription/capture",
            {"amount": "10.0001", "orderReferenceNumber": "1", "paymentToken": "1"},
            "amount",
        ),
        (
            "POST",
            "/api/subscription/capture",
            {"amount": 0, "orderReferenceNumber": "1", "paymentToken": "1"},
            "amount",
        ),
        (
            "POST",
            "/api/subscription/capture",
            {"amount": 10**30, "orderReferenceNumber": "1", "paymentToken": "1"},
            "amount",
        ),
        (
            "POST",
            "/api/subscription/capture",
            {"amount": True, "orderReferenceNumber": "1", "paymentToken": "1"},
            "amount",
        ),
        ("POST", "/api/subscription/capture", {"amount": "10.000", "paymentToken": "1"}, "orderReferenceNumber"),
        ("POST", "/api/subscription/capture", {"amount": "10.000", "orderReferenceNumber": "1"}, "paymentToken"),
    ],
)
def test_other_requests_are_checked_too(
    sandbox: Sandbox, method: str, path: str, members: dict[str, Any], reason: str
) -> None:
    answer = sandbox.call(method, path, **members)

    assert (answer.status_code, answer.json()) == (506, INVALID)
    assert reason in answer.headers["x-sandbox-reason"]


def test_an_invoice_is_cancelled_with_status_3_only(sandbox: Sandbox) -> None:
    invoice = sandbox.create()

    answer = sandbox.call("PUT", f"/api/v1/invoice/{invoice['token']}", statusId="1")

    assert (answer.status_code, answer.json()) == (506, INVALID)
