"""The life of an invoice, and what all calls have in common."""

from __future__ import annotations

from typing import Any

import pytest

from tests.handlers.providers.hisab.sandbox_given import INVOICE, ITEM, KEY, NOW, Sandbox, fields, refusal


def test_the_documented_invoice_has_the_documented_total() -> None:
    response = Sandbox().call("POST", "/invoices", json=INVOICE)

    invoice = response.json()["data"]
    assert response.json()["success"] is True
    assert (invoice["subtotal"], invoice["total_tax"], invoice["total"]) == ("10400.00", "2080.00", "12480.00")
    assert (invoice["status"], invoice["invoice_number"], invoice["currency"]) == ("draft", None, "MAD")
    assert invoice["customer"] == {"id": "cus_2b81fe", "name": "Atlas Distribution SARL", "ice": "001987654000032"}
    assert invoice["created_at"] == "2026-06-05T14:00:00Z"


@pytest.mark.parametrize(
    ("items", "subtotal", "tax", "total"),
    [
        ([(1, "0.125", 20)], "0.13", "0.03", "0.16"),
        ([("0.1", "0.1", 0), ("0.2", "0.1", 0)], "0.03", "0.00", "0.03"),
        ([(3, "33.33", 7), (1, "0.01", 14)], "100.00", "7.00", "107.00"),
        ([("999999999", "999999999", 20)], "999999998000000001.00", "199999999600000000.20", "1199999997600000001.20"),
    ],
)
def test_totals_are_exact_and_rounded_by_line(
    items: list[tuple[object, str, int]], subtotal: str, tax: str, total: str
) -> None:
    lines = ",".join(
        f'{{"description":"x","quantity":{quantity},"unit_price":{price},"tax_rate":{rate}}}'
        for quantity, price, rate in items
    )
    body = f'{{"customer_id":"cus_2b81fe","issue_date":"2026-06-05","items":[{lines}]}}'

    invoice = Sandbox().call("POST", "/invoices", content=body).json()["data"]

    assert (invoice["subtotal"], invoice["total_tax"], invoice["total"]) == (subtotal, tax, total)


def test_the_tax_rate_is_20_unless_given() -> None:
    item = {"description": "x", "quantity": 1, "unit_price": 100}

    invoice = Sandbox().call("POST", "/invoices", json=INVOICE | {"items": [item]}).json()["data"]

    assert (invoice["items"][0]["tax_rate"], invoice["total"]) == ("20", "120.00")


def test_every_change_is_told_by_a_signed_webhook_in_order() -> None:
    sandbox = Sandbox()
    invoice_id = sandbox.create()
    sandbox.call("POST", f"/invoices/{invoice_id}/finalize")
    sandbox.call("POST", f"/invoices/{invoice_id}/send")
    sandbox.call("POST", f"/invoices/{invoice_id}/pay", json={"payment_method": "cash", "payment_reference": "R1"})
    sandbox.call("POST", "/customers", json={"name": "Atlas", "type": "b2c"})

    events = sandbox.events()

    assert [event.type for event in events] == [
        "invoice.created",
        "invoice.finalized",
        "invoice.sent",
        "invoice.paid",
        "customer.created",
    ]
    assert [event.data.get("status") for event in events] == ["draft", "finalized", "sent", "paid", "active"]
    assert [event.object_id for event in events[:4]] == [invoice_id] * 4
    assert events[3].data["payment"] == {"method": "cash", "reference": "R1"}
    assert events[3].data["total"] == "12480.00"
    assert {event.organization for event in events} == {"org_4d11a7"}


def test_a_void_invoice_says_why_under_the_documented_headers() -> None:
    sandbox = Sandbox()
    sandbox.in_status("void")
    headers = sandbox.posted[-1].headers

    event = sandbox.events()[-1]

    assert (event.type, event.data["status"]) == ("invoice.voided", "void")
    assert event.data["reason"] == "Duplicate billing"
    assert headers["x-webhook-event"] == "invoice.voided"
    assert headers["x-webhook-delivery-id"].startswith("del_")
    assert headers["user-agent"] == "Hisab-Webhooks/1.0"


def test_a_failed_webhook_is_sent_again_under_its_id() -> None:
    sandbox = Sandbox(503, 0, 202, retry_delays=(0.001, 0.001, 0.001))
    sandbox.create()

    ids = {request.headers["x-webhook-delivery-id"] for request in sandbox.posted}
    assert len(sandbox.posted) == 3
    assert len(ids) == 1
    assert [attempt.status for attempt in sandbox.app.state.sent] == [503, None, 202]


def test_a_webhook_is_given_up_in_the_end() -> None:
    sandbox = Sandbox(500, retry_delays=(0.001,))
    sandbox.create()

    assert [attempt.status for attempt in sandbox.app.state.sent] == [500, 500]


def test_numbers_are_given_at_finalize_and_have_no_gap() -> None:
    sandbox = Sandbox()
    first, second, third = (sandbox.create() for _ in range(3))

    numbers = [
        sandbox.call("POST", f"/invoices/{invoice_id}/finalize").json()["data"]["invoice_number"]
        for invoice_id in (third, first, second)
    ]

    assert numbers == ["FAC-2026-0142", "FAC-2026-0143", "FAC-2026-0144"]


@pytest.mark.parametrize(
    ("status", "verb", "code"),
    [
        ("draft", "send", "INVALID_STATUS_TRANSITION"),
        ("draft", "pay", "INVALID_STATUS_TRANSITION"),
        ("draft", "void", "INVALID_STATUS_TRANSITION"),
        ("finalized", "finalize", "INVOICE_NOT_DRAFT"),
        ("sent", "finalize", "INVOICE_NOT_DRAFT"),
        ("sent", "send", "INVALID_STATUS_TRANSITION"),
        ("paid", "finalize", "INVOICE_NOT_DRAFT"),
        ("paid", "send", "INVALID_STATUS_TRANSITION"),
        ("paid", "pay", "INVALID_STATUS_TRANSITION"),
        ("paid", "void", "CANNOT_VOID_PAID"),
        ("void", "finalize", "INVOICE_NOT_DRAFT"),
        ("void", "send", "INVALID_STATUS_TRANSITION"),
        ("void", "pay", "INVALID_STATUS_TRANSITION"),
        ("void", "void", "ALREADY_VOIDED"),
    ],
)
def test_a_refused_transition_changes_and_tells_nothing(status: str, verb: str, code: str) -> None:
    sandbox = Sandbox()
    invoice_id = sandbox.in_status(status)
    before = sandbox.call("GET", f"/invoices/{invoice_id}").json()
    told = len(sandbox.posted)

    response = sandbox.call("POST", f"/invoices/{invoice_id}/{verb}", json={"reason": "x"})

    assert refusal(response) == (409, code)
    assert sandbox.call("GET", f"/invoices/{invoice_id}").json() == before
    assert len(sandbox.posted) == told


@pytest.mark.parametrize(("status", "verb"), [("finalized", "pay"), ("sent", "pay"), ("sent", "void")])
def test_an_allowed_transition_is_made(status: str, verb: str) -> None:
    sandbox = Sandbox()

    response = sandbox.call("POST", f"/invoices/{sandbox.in_status(status)}/{verb}", json={"reason": "x"})

    assert response.status_code == 200


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"customer_id": "cus_none"}, ["customer_id"]),
        ({"customer_id": None}, ["customer_id"]),
        ({"issue_date": "05/06/2026"}, ["issue_date"]),
        ({"issue_date": "20260605"}, ["issue_date"]),
        ({"issue_date": "2026-02-30"}, ["issue_date"]),
        ({"issue_date": None}, ["issue_date"]),
        ({"due_date": 5}, ["due_date"]),
        ({"notes": 5, "currency": []}, ["currency", "notes"]),
        ({"items": []}, ["items"]),
        ({"items": {}}, ["items"]),
        ({"items": [5]}, ["items[0]"]),
        ({"items": [ITEM, {}]}, ["items[1].description", "items[1].quantity", "items[1].unit_price"]),
        ({"items": [ITEM | {"quantity": "8"}]}, ["items[0].quantity"]),
        ({"items": [ITEM | {"quantity": True}]}, ["items[0].quantity"]),
        ({"items": [ITEM | {"unit_price": -1}]}, ["items[0].unit_price"]),
        ({"items": [ITEM | {"unit_price": 10**30}]}, ["items[0].unit_price"]),
        ({"items": [ITEM | {"unit_price": 1e-30}]}, ["items[0].unit_price"]),
        ({"items": [ITEM | {"tax_rate": 21}]}, ["items[0].tax_rate"]),
        ({"items": [ITEM | {"tax_rate": None}]}, ["items[0].tax_rate"]),
    ],
)
def test_an_invoice_out_of_shape_is_refused_field_by_field(changes: dict[str, Any], wrong: list[str]) -> None:
    sandbox = Sandbox()

    assert fields(sandbox.call("POST", "/invoices", json=INVOICE | changes)) == wrong
    assert sandbox.posted == []


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[]", b'{"a": NaN}', b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}"])
def test_a_body_that_is_not_json_is_refused(body: bytes) -> None:
    assert refusal(Sandbox().call("POST", "/invoices", content=body)) == (400, "INVALID_JSON")


def test_void_needs_a_reason_and_pay_a_real_date() -> None:
    sandbox = Sandbox()
    invoice_id = sandbox.in_status("finalized")

    assert fields(sandbox.call("POST", f"/invoices/{invoice_id}/void")) == ["reason"]
    assert fields(sandbox.call("POST", f"/invoices/{invoice_id}/void", json={"reason": " "})) == ["reason"]
    assert fields(sandbox.call("POST", f"/invoices/{invoice_id}/pay", json={"paid_at": "today"})) == ["paid_at"]


def test_the_time_of_payment_may_be_given() -> None:
    sandbox = Sandbox()
    body = {"paid_at": "2026-06-04T09:00:00Z"}

    response = sandbox.call("POST", f"/invoices/{sandbox.in_status('finalized')}/pay", json=body)

    assert response.json()["data"]["paid_at"] == "2026-06-04T09:00:00Z"


@pytest.mark.parametrize("path", ["/invoices/inv_none", "/customers/cus_none", "/nothing", "/invoices/inv_1/email"])
def test_what_is_not_there_is_not_found(path: str) -> None:
    assert refusal(Sandbox().call("GET", path)) == (404, "NOT_FOUND")


@pytest.mark.parametrize("key", ["", "hisab_test_other", KEY + "x"])
def test_a_wrong_key_is_refused(key: str) -> None:
    sandbox = Sandbox()

    assert refusal(sandbox.call("GET", "/invoices", key=key)) == (401, "UNAUTHORIZED")
    assert refusal(sandbox.call("POST", "/invoices", key=key, json=INVOICE)) == (401, "UNAUTHORIZED")
    assert sandbox.posted == []


def test_calls_over_the_limit_wait_for_the_next_minute() -> None:
    sandbox = Sandbox(rate_limit=2)
    sandbox.now = NOW + 12.5

    usage = [sandbox.call("GET", "/invoices").headers for _ in range(2)]
    over = sandbox.call("GET", "/invoices")
    sandbox.now = NOW + 60
    after = sandbox.call("GET", "/invoices")

    assert [headers["x-ratelimit-remaining"] for headers in usage] == ["1", "0"]
    assert (usage[0]["x-ratelimit-limit"], usage[0]["x-ratelimit-reset"]) == ("2", str(int(NOW) + 60))
    assert refusal(over) == (429, "RATE_LIMIT_EXCEEDED")
    assert (over.headers["retry-after"], over.headers["x-ratelimit-remaining"]) == ("48", "0")
    assert after.status_code == 200


def test_a_list_is_paged_and_newest_first() -> None:
    sandbox = Sandbox()
    ids = [sandbox.create() for _ in range(5)]

    second = sandbox.call("GET", "/invoices?per_page=2&page=2").json()
    oldest = sandbox.call("GET", "/invoices?order=asc&per_page=1").json()

    assert [invoice["id"] for invoice in second["data"]] == [ids[2], ids[1]]
    assert second["meta"]["pagination"] == {"total": 5, "page": 2, "perPage": 2, "totalPages": 3}
    assert oldest["data"][0]["id"] == ids[0]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("status=draft", ["june", "july"]),
        ("status=paid", []),
        ("customer_id=cus_2b81fe", ["june", "july"]),
        ("customer_id=cus_none", []),
        ("date_from=2026-07-01", ["july"]),
        ("date_to=2026-06-05", ["june"]),
        ("date_from=2026-06-05&date_to=2026-07-05", ["june", "july"]),
    ],
)
def test_a_list_is_filtered(query: str, found: list[str]) -> None:
    sandbox = Sandbox()
    sandbox.create(issue_date="2026-06-05", notes="june")
    sandbox.create(issue_date="2026-07-05", notes="july")

    listed = sandbox.call("GET", f"/invoices?order=asc&{query}").json()["data"]

    assert [invoice["notes"] for invoice in listed] == found


@pytest.mark.parametrize(
    "query",
    ["page=0", "page=x", "page=", "page=٢", "per_page=101", "per_page=0", "status=open", "date_from=june", "date_to=1"],
)
def test_a_filter_out_of_shape_is_refused(query: str) -> None:
    assert fields(Sandbox().call("GET", f"/invoices?{query}")) == [query.partition("=")[0]]


def test_customers_are_created_once_per_ice() -> None:
    sandbox = Sandbox()
    atlas = {"name": "Atlas", "type": "b2b", "ice": "002345678000071"}

    created = sandbox.call("POST", "/customers", json=atlas)
    again = sandbox.call("POST", "/customers", json=atlas)
    listed = sandbox.call("GET", "/customers").json()

    assert created.json()["data"]["status"] == "active"
    assert fields(again) == ["ice"]
    assert [customer["name"] for customer in listed["data"][:2]] == ["Atlas", "Atlas Distribution SARL"]
    assert sandbox.call("GET", f"/customers/{created.json()['data']['id']}").json()["data"] == created.json()["data"]


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, ["name", "type"]),
        ({"name": "A", "type": "b2b", "ice": "12"}, ["ice"]),
        ({"name": 1, "type": []}, ["name", "type"]),
    ],
)
def test_a_customer_out_of_shape_is_refused(body: dict[str, Any], wrong: list[str]) -> None:
    assert fields(Sandbox().call("POST", "/customers", json=body)) == wrong
