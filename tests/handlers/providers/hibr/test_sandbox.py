"""What the sandbox says of resources: the documented verbs, states, errors, amounts and dates."""

from __future__ import annotations

import re
from typing import Any

import pytest

from handlers.providers.hibr.failures import ERROR_CODES
from handlers.providers.hibr.models import RESOURCES
from handlers.providers.hibr.sandbox.catalog import KINDS
from handlers.providers.hibr.sandbox.seeds import CUSTOMER, DRAFT_INVOICE
from handlers.providers.hibr.sandbox.seeds import INVOICE as OPEN_INVOICE
from tests.handlers.providers.hibr.sandboxes import INVOICE, LINE, Sandbox, refusal

SUPPLIER = "supp_01HFQE9XTRP3K2Q5HW7Z3V8YJN"
OF_EACH: dict[str, dict[str, Any]] = {
    "customers": {"name": "Palm Grove Dental Clinic"},
    "suppliers": {"name": "Creek Logistics LLC"},
    "invoices": INVOICE,
    "bills": {"supplier_id": SUPPLIER, "total": 10_500, "total_currency": "AED"},
    "credit_notes": {"customer_id": CUSTOMER, "amount": 10_500},
    "payments": {"amount": 10_500},
    "journal_entries": {"memo": "Opening balances"},
    "items": {"name": "Photography, per hour", "unit_price": 40_000},
    "accounts": {"name": "Bank", "code": "1000"},
    "employees": {"name": "Omar Khalil"},
    "vat_returns": {"period_start_date": "2026-07-01"},
    "corporate_tax_returns": {"year": 2026},
    "payroll_runs": {"month": "2026-10"},
    "webhook_endpoints": {"url": "https://app.example/hibr"},
}


def test_every_resource_of_the_client_is_there() -> None:
    assert set(OF_EACH) == set(KINDS) == set(RESOURCES)


@pytest.mark.parametrize("resource", RESOURCES)
def test_each_resource_has_the_standard_verbs(resource: str) -> None:
    sandbox = Sandbox()

    made = sandbox.made(resource, **OF_EACH[resource])
    place = f"/v1/{resource}/{made['id']}"
    got = sandbox.call("GET", place).json()
    listed = sandbox.call("GET", f"/v1/{resource}").json()
    changed = sandbox.call("PATCH", place, json={"active": False})
    deleted = sandbox.call("DELETE", place)

    assert re.fullmatch(rf"{RESOURCES[resource]}_[0-9A-HJKMNP-TV-Z]{{26}}", made["id"])
    assert made["object"] == resource.removesuffix("s").replace("entrie", "entry")
    assert re.fullmatch(r"2026-\d\d-\d\dT\d\d:\d\d:\d\dZ", made["created_at"])
    assert {name: value for name, value in made.items() if name != "secret"} == got == listed["data"][0]
    assert listed["object"] == "list"
    if resource == "payments":
        assert refusal(changed)[1] == refusal(deleted)[1] == "conflict_error"
        return
    assert (changed.status_code, changed.json()["active"]) == (200, False)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert refusal(sandbox.call("GET", place)) == (404, "not_found", None)


def test_fields_that_nobody_has_published_are_kept_as_they_were_given() -> None:
    made = Sandbox().made("customers", name="Palm Grove", tags=["dental", {"rank": 3}], vip=True, note=None)

    assert (made["tags"], made["vip"], made["note"]) == (["dental", {"rank": 3}], True, None)


def test_a_new_sandbox_has_the_books_of_a_small_business() -> None:
    sandbox = Sandbox()
    open_one = sandbox.call("GET", f"/v1/invoices/{OPEN_INVOICE}").json()
    statuses = {invoice["status"] for invoice in sandbox.call("GET", "/v1/invoices").json()["data"]}

    assert (open_one["invoice_no"], open_one["total"], open_one["total_currency"]) == (
        "INV-2026-001234",
        525_000,
        "AED",
    )
    assert statuses == {"draft", "open", "paid"}
    for resource in ("customers", "suppliers", "items", "accounts", "employees"):
        assert sandbox.call("GET", f"/v1/{resource}").json()["data"]


def test_the_new_invoice_has_the_documented_fields_and_a_currency_for_each_amount() -> None:
    invoice = Sandbox().invoice()

    assert (invoice["customer_id"], invoice["invoice_date"], invoice["status"]) == (CUSTOMER, "2026-10-15", "draft")
    assert invoice["lines"][0]["unit_price"] == 250_000
    assert (invoice["subtotal"], invoice["vat_amount"], invoice["total"]) == (500_000, 25_000, 525_000)
    for name in ("subtotal", "vat_amount", "total", "total_aed", "amount_paid", "amount_due"):
        assert (type(invoice[name]), invoice[f"{name}_currency"]) == (int, "AED")


def test_an_invoice_in_another_currency_has_its_equivalent_in_aed() -> None:
    line = {"description": "Design", "unit_price": 100_00, "unit_price_currency": "USD", "vat_rate": 0}
    invoice = Sandbox().made("invoices", customer_id=CUSTOMER, lines=[line])

    assert (invoice["total"], invoice["total_currency"]) == (10_000, "USD")
    assert (invoice["total_aed"], invoice["total_aed_currency"], invoice["exchange_rate"]) == (36_725, "AED", "3.6725")


def test_amounts_are_in_the_currency_of_their_invoice_unless_they_say_another() -> None:
    sandbox = Sandbox()
    invoice = sandbox.made("invoices", customer_id=CUSTOMER, currency="USD", lines=[{"unit_price": 100}])
    place = f"/v1/invoices/{invoice['id']}"
    changed = sandbox.call("PATCH", place, json={"lines": [{"unit_price": 200, "unit_price_currency": None}]}).json()
    other = sandbox.call("PATCH", place, json={"lines": [LINE]})

    assert (invoice["total"], invoice["total_currency"]) == (105, "USD")
    assert (changed["total"], changed["lines"][0]["unit_price_currency"]) == (210, "USD")
    assert refusal(other) == (422, "validation_error", "currency")


@pytest.mark.parametrize(
    ("quantity", "unit_price", "rate", "amount", "vat"),
    [(1, 1, 5, 1, 0), (1, 10, 5, 10, 1), ("1.5", 333, 5, 500, 25), ("0.5", 1, 0, 1, 0), (3, 99_999, 0, 299_997, 0)],
)
def test_lines_are_rounded_half_up_to_the_fils(
    quantity: int | str, unit_price: int, rate: int, amount: int, vat: int
) -> None:
    line = {"quantity": quantity, "unit_price": unit_price, "vat_rate": rate}
    invoice = Sandbox().made("invoices", customer_id=CUSTOMER, lines=[line])

    assert (invoice["subtotal"], invoice["vat_amount"], invoice["total"]) == (amount, vat, amount + vat)


STEPS = [
    # from, action, to; None: conflict_error
    ("draft", "post", "open"),
    ("draft", "send", None),
    ("draft", "pay", None),
    ("draft", "void", None),
    ("open", "post", None),
    ("open", "send", "open"),
    ("open", "pay", "paid"),
    ("open", "void", "void"),
    ("paid", "post", None),
    ("paid", "send", None),
    ("paid", "pay", None),
    ("paid", "void", None),
    ("void", "post", None),
    ("void", "send", None),
    ("void", "pay", None),
    ("void", "void", None),
]


@pytest.mark.parametrize(("before", "action", "after"), STEPS)
def test_an_invoice_goes_only_the_ways_it_may_go(before: str, action: str, after: str | None) -> None:
    sandbox = Sandbox()
    invoice = sandbox.invoice(before)

    answer = sandbox.act(invoice, action)

    if after is None:
        assert refusal(answer)[:2] == (409, "conflict_error")
        assert sandbox.call("GET", f"/v1/invoices/{invoice['id']}").json() == invoice
    else:
        assert (answer.status_code, answer.json()["status"]) == (200, after)


@pytest.mark.parametrize("status", ["open", "paid", "void"])
def test_a_posted_invoice_is_neither_changed_nor_deleted(status: str) -> None:
    sandbox = Sandbox()
    place = f"/v1/invoices/{sandbox.invoice(status)['id']}"

    assert refusal(sandbox.call("DELETE", place))[:2] == (409, "conflict_error")
    assert refusal(sandbox.call("PATCH", place, json={"due_date": "2026-11-15"}))[:2] == (409, "conflict_error")


def test_numbers_are_given_in_the_order_of_posting() -> None:
    sandbox = Sandbox()
    first, second = sandbox.invoice(), sandbox.invoice()

    numbers = [sandbox.act(invoice, "post").json()["invoice_no"] for invoice in (second, first)]

    assert numbers == ["INV-2026-001235", "INV-2026-001236"]
    assert first["invoice_no"] is None


def test_a_draft_keeps_what_a_change_does_not_name() -> None:
    sandbox = Sandbox()
    draft = sandbox.invoice(due_date="2026-11-01", memo="first")
    line = LINE | {"quantity": 1}

    changed = sandbox.call("PATCH", f"/v1/invoices/{draft['id']}", json={"lines": [line], "memo": None}).json()

    assert (changed["due_date"], changed["memo"], changed["total"]) == ("2026-11-01", None, 262_500)


def test_payments_settle_an_invoice_and_voiding_one_opens_it_again() -> None:
    sandbox = Sandbox()
    invoice = sandbox.invoice("open")
    place = f"/v1/invoices/{invoice['id']}"

    sandbox.made("payments", invoice_id=invoice["id"], amount=125_000, amount_currency="AED")
    partly = sandbox.call("GET", place).json()
    rest = sandbox.made("payments", invoice_id=invoice["id"], amount=400_000)
    wholly = sandbox.call("GET", place).json()
    sandbox.act(rest, "void", "payments")
    again = sandbox.call("GET", place).json()

    assert (partly["status"], partly["amount_paid"], partly["amount_due"]) == ("open", 125_000, 400_000)
    assert (wholly["status"], wholly["amount_due"]) == ("paid", 0)
    assert (again["status"], again["amount_due"], again["paid_at"]) == ("open", 400_000, None)
    assert refusal(sandbox.act(invoice, "void"))[:2] == (409, "conflict_error")
    assert refusal(sandbox.act(rest, "void", "payments"))[:2] == (409, "conflict_error")


@pytest.mark.parametrize(
    ("resource", "way"),
    [
        ("bills", [("post", "posted"), ("void", "void")]),
        ("credit_notes", [("post", "posted"), ("void", "void")]),
        ("journal_entries", [("post", "posted"), ("void", "void")]),
        ("payroll_runs", [("post", "posted"), ("void", "void")]),
        ("vat_returns", [("file", "filed")]),
        ("corporate_tax_returns", [("file", "filed")]),
    ],
)
def test_what_has_states_goes_through_them(resource: str, way: list[tuple[str, str]]) -> None:
    sandbox = Sandbox()
    record = sandbox.made(resource, **OF_EACH[resource])
    place = f"/v1/{resource}/{record['id']}"

    assert record["status"] == "draft"
    for action, status in way:
        assert sandbox.act(record, action, resource).json()["status"] == status
        assert refusal(sandbox.act(record, action, resource))[:2] == (409, "conflict_error")
        assert refusal(sandbox.call("PATCH", place, json={"memo": "late"}))[:2] == (409, "conflict_error")
        assert refusal(sandbox.call("DELETE", place))[:2] == (409, "conflict_error")


def test_what_others_name_cannot_be_deleted() -> None:
    assert refusal(Sandbox().call("DELETE", f"/v1/customers/{CUSTOMER}"))[:2] == (409, "conflict_error")


def test_the_documented_error_is_answered_to_the_documented_mistake() -> None:
    response = Sandbox().call(
        "POST",
        "/v1/invoices",
        content=b'{"customer_id": "cust_01HFQA9XTRP3K2Q5HW7Z3V8YJN", "lines": [{"unit_price": 5250.00}]}',
        headers={"Content-Type": "application/json"},
    )

    assert refusal(response) == (400, "invalid_request_error", "lines[0].unit_price")
    assert response.json()["error"]["message"] == "The 'unit_price' field must be a positive integer in fils."
    assert response.json()["error"]["docs_url"] == "https://hibr.ai/developers/api/#money"


def nested(value: Any, levels: int) -> Any:
    for _ in range(levels):
        value = {"in": value} if isinstance(value, dict) else [value]
    return value


BAD, RULE = "invalid_request_error", "validation_error"
MISTAKES: list[tuple[str, str, dict[str, Any], str, str | None]] = [
    ("a float without a fraction", "payments", {"amount": 5250.0}, BAD, "amount"),
    ("an amount as a string", "payments", {"amount": "5250"}, BAD, "amount"),
    ("an amount of true", "payments", {"amount": True}, BAD, "amount"),
    ("an amount of nothing", "payments", {"amount": 0}, BAD, "amount"),
    ("a negative amount", "payments", {"amount": -1}, BAD, "amount"),
    ("an amount of over 64 bits", "payments", {"amount": 2**63}, BAD, "amount"),
    ("a float in an amount known by its partner", "bills", {"sum": 1.5, "sum_currency": "AED"}, BAD, "sum"),
    ("a float anywhere", "customers", {"name": "A", "score": [1, {"of": 0.5}]}, BAD, "score[1].of"),
    ("an integer of over 64 bits", "customers", {"name": "A", "number": 2**64}, BAD, "number"),
    ("a currency in lower case", "payments", {"amount": 1, "amount_currency": "aed"}, BAD, "amount_currency"),
    ("a currency that is none", "payments", {"amount": 1, "amount_currency": 784}, BAD, "amount_currency"),
    ("a date that is none", "invoices", INVOICE | {"invoice_date": "2026-02-30"}, BAD, "invoice_date"),
    ("a date in another order", "invoices", INVOICE | {"due_date": "15/10/2026"}, BAD, "due_date"),
    ("a moment that is a date", "customers", {"name": "A", "met_at": "2026-10-15"}, BAD, "met_at"),
    ("a moment that is none", "customers", {"name": "A", "met_at": "2026-10-15T25:00:00Z"}, BAD, "met_at"),
    ("no name", "customers", {"email": "a@b.example"}, BAD, "name"),
    ("no customer", "invoices", {"lines": [LINE]}, BAD, "customer_id"),
    ("no lines", "invoices", {"customer_id": CUSTOMER}, BAD, "lines"),
    ("an empty list of lines", "invoices", INVOICE | {"lines": []}, BAD, "lines"),
    ("a line that is a string", "invoices", INVOICE | {"lines": ["Design"]}, BAD, "lines[0]"),
    ("a line without a price", "invoices", INVOICE | {"lines": [LINE, {}]}, BAD, "lines[1].unit_price"),
    ("no quantity", "invoices", INVOICE | {"lines": [LINE | {"quantity": 0}]}, BAD, "lines[0].quantity"),
    ("a status", "invoices", INVOICE | {"status": "paid"}, BAD, "status"),
    ("an id", "customers", {"name": "A", "id": CUSTOMER}, BAD, "id"),
    ("a total", "invoices", INVOICE | {"total": 1, "total_currency": "AED"}, BAD, "total"),
    ("no address", "webhook_endpoints", {}, BAD, "url"),
    ("no invoice_date", "invoices", INVOICE | {"invoice_date": None}, BAD, "invoice_date"),
    ("a deep object", "customers", {"name": "A", "of": nested({}, 16)}, BAD, None),
    ("a deep list", "customers", {"name": "A", "of": nested([], 16)}, BAD, None),
    ("a date that is a list", "invoices", INVOICE | {"due_date": ["2026-10-15"]}, BAD, "due_date"),
    ("a filter of events", "webhook_endpoints", {"url": "http://a.example", "events": []}, BAD, "events"),
    ("an active that is no flag", "webhook_endpoints", {"url": "http://a.example", "active": 1}, BAD, "active"),
    ("an empty secret", "webhook_endpoints", {"url": "http://a.example", "secret": ""}, BAD, "secret"),
    ("an address that is none", "webhook_endpoints", {"url": "ftp://a.example"}, BAD, "url"),
    (
        "a negative VAT amount",
        "invoices",
        INVOICE | {"lines": [LINE | {"vat_amount": -1}]},
        RULE,
        "lines[0].vat_amount",
    ),
    ("another VAT amount", "invoices", INVOICE | {"lines": [LINE | {"vat_amount": 1}]}, RULE, "lines[0].vat_amount"),
    ("another amount", "invoices", INVOICE | {"lines": [LINE | {"amount": 1}]}, RULE, "lines[0].amount"),
    ("a rate of VAT", "invoices", INVOICE | {"lines": [LINE | {"vat_rate": 7}]}, RULE, "lines[0].vat_rate"),
    (
        "lines in two currencies",
        "invoices",
        INVOICE | {"lines": [LINE, LINE | {"unit_price_currency": "USD"}]},
        RULE,
        "lines[1].unit_price_currency",
    ),
    ("a currency that is not the lines'", "invoices", INVOICE | {"currency": "USD"}, RULE, "currency"),
    (
        "a currency without a rate",
        "invoices",
        INVOICE | {"lines": [LINE | {"unit_price_currency": "CHF"}]},
        RULE,
        "lines[0].unit_price_currency",
    ),
    (
        "VAT in another currency",
        "invoices",
        INVOICE | {"lines": [LINE | {"vat_amount": 25_000, "vat_amount_currency": "USD"}]},
        RULE,
        "lines[0].vat_amount_currency",
    ),
    ("due before its date", "invoices", INVOICE | {"due_date": "2026-10-14"}, RULE, "due_date"),
    ("no such customer", "invoices", INVOICE | {"customer_id": "cust_none"}, RULE, "customer_id"),
    ("an enormous total", "invoices", INVOICE | {"lines": [LINE | {"unit_price": 2**62}]}, RULE, "lines"),
    ("more than is due", "payments", {"invoice_id": OPEN_INVOICE, "amount": 525_001}, RULE, "amount"),
    (
        "a payment in another currency",
        "payments",
        {"invoice_id": OPEN_INVOICE, "amount": 1, "amount_currency": "USD"},
        RULE,
        "amount_currency",
    ),
    ("a payment of a draft", "payments", {"invoice_id": DRAFT_INVOICE, "amount": 1}, "conflict_error", "invoice_id"),
]


@pytest.mark.parametrize(
    ("resource", "fields", "code", "field"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES]
)
def test_a_mistake_is_answered_with_its_code_and_the_path_of_its_field(
    resource: str, fields: dict[str, Any], code: str, field: str | None
) -> None:
    sandbox = Sandbox()
    before = sandbox.call("GET", f"/v1/{resource}").json()

    assert refusal(sandbox.call("POST", f"/v1/{resource}", json=fields)) == (ERROR_CODES[code], code, field)
    assert sandbox.call("GET", f"/v1/{resource}").json() == before


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"5",
        b'"\\ud800"',
        b'{"name": NaN}',
        b"[" * 2000,
        b'{"a":' * 990 + b"1" + b"}" * 990,
        b"\xff",
        b" " * 2**21,
    ],
    ids=["cut off", "a list", "a number", "half a pair", "NaN", "deep", "deep and whole", "no UTF-8", "long"],
)
def test_a_body_that_cannot_be_read_is_malformed(body: bytes) -> None:
    response = Sandbox().call("POST", "/v1/customers", content=body, headers={"Content-Type": "application/json"})

    assert refusal(response) == (400, "invalid_request_error", None)


def test_a_body_is_json_and_says_so_and_a_get_has_none() -> None:
    sandbox = Sandbox()
    form = sandbox.call("POST", "/v1/customers", data={"name": "A"})
    read = sandbox.call("GET", "/v1/customers", content=b"{}", headers={"Content-Type": "application/json"})
    as_documented = sandbox.call(
        "DELETE", f"/v1/invoices/{DRAFT_INVOICE}", headers={"Content-Type": "application/json"}
    )

    assert refusal(form) == (400, "invalid_request_error", "Content-Type")
    assert refusal(read)[:2] == (400, "invalid_request_error")
    assert as_documented.status_code == 204


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/invoices/inv_01HFQB9XTRP3K2Q5HW7Z3V8YJX"),
        ("GET", f"/v1/invoices/{CUSTOMER}"),
        ("PATCH", "/v1/customers/cust_none"),
        ("DELETE", "/v1/webhook_endpoints/wh_none"),
        ("POST", f"/v1/invoices/{OPEN_INVOICE}/approve"),
        ("POST", "/v1/webhook_endpoints/wh_none/post"),
        ("GET", "/v1/expenses"),
        ("PUT", f"/v1/invoices/{OPEN_INVOICE}"),
        ("GET", "/v1/invoices/"),
        ("GET", "/v2/invoices"),
    ],
)
def test_what_is_not_there_is_not_found(method: str, path: str) -> None:
    assert refusal(Sandbox().call(method, path)) == (404, "not_found", None)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("2026-10-15T09:32:14Z", "2026-10-15T09:32:14Z"),
        ("2026-10-15T13:32:14+04:00", "2026-10-15T09:32:14Z"),
        ("2026-10-15T09:32:14.999999Z", "2026-10-15T09:32:14Z"),
        ("2026-10-15t09:32:14z", "2026-10-15T09:32:14Z"),
        ("2026-10-15T13:32:14", "2026-10-15T09:32:14Z"),  # in the account's zone, Asia/Dubai
    ],
)
def test_moments_are_taken_in_any_zone_and_shown_in_utc(written: str, shown: str) -> None:
    assert Sandbox().made("customers", name="A", met_at=written)["met_at"] == shown


def test_the_date_of_an_invoice_is_that_of_the_account() -> None:
    sandbox = Sandbox()
    sandbox.now += 12 * 3600  # 21:32 in UTC, past midnight in Dubai
    there = sandbox.made("invoices", customer_id=CUSTOMER, lines=[LINE])["invoice_date"]
    sandbox.call("PATCH", "/sandbox/accounts/sandbox", json={"time_zone": "Europe/London"})
    elsewhere = sandbox.made("invoices", customer_id=CUSTOMER, lines=[LINE])["invoice_date"]

    assert (there, elsewhere) == ("2026-10-16", "2026-10-15")


def test_an_endpoint_tells_its_secret_once() -> None:
    sandbox = Sandbox()
    made = sandbox.made("webhook_endpoints", url="https://app.example/hibr")

    assert len(made["secret"]) == 64
    assert "secret" not in sandbox.call("GET", f"/v1/webhook_endpoints/{made['id']}").json()


def test_endpoints_are_listed_newest_first() -> None:
    sandbox = Sandbox(webhooks=[])
    ids = [sandbox.made("webhook_endpoints", url=f"http://{n}.example")["id"] for n in range(6)]

    assert [one["id"] for one in sandbox.call("GET", "/v1/webhook_endpoints").json()["data"]] == ids[::-1]
