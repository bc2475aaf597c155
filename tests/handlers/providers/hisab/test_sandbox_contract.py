"""The API reference as a table: each endpoint, its scope, and what it answers to each thing that is not as it says."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.providers.hisab.sandbox.access import SCOPES
from handlers.providers.hisab.sandbox.app import ACCOUNT_ENDPOINTS, ENDPOINTS
from tests.handlers.providers.hisab.sandbox_given import (
    ACCOUNT_KEY,
    INVOICE,
    ITEM,
    KEY,
    ORGANIZATION,
    SCHEDULE,
    Sandbox,
    fields,
    refusal,
)

# As the reference annotates them, written down again by hand.
REFERENCE = """
GET    /invoices                            invoices:read
GET    /invoices/{id}                       invoices:read
POST   /invoices                            invoices:write
PATCH  /invoices/{id}                       invoices:write
POST   /invoices/{id}/finalize              invoices:finalize
POST   /invoices/{id}/send                  invoices:write
POST   /invoices/{id}/pay                   invoices:write
POST   /invoices/{id}/void                  invoices:write
GET    /invoices/{id}/pdf                   invoices:export
GET    /invoices/{id}/xml                   invoices:export
GET    /customers                           customers:read
GET    /customers/{id}                      customers:read
POST   /customers                           customers:write
PATCH  /customers/{id}                      customers:write
DELETE /customers/{id}                      customers:delete
GET    /recurring-invoices                  invoices:read
GET    /recurring-invoices/{id}             invoices:read
POST   /recurring-invoices                  invoices:write
PUT    /recurring-invoices/{id}             invoices:write
DELETE /recurring-invoices/{id}             invoices:write
POST   /recurring-invoices/{id}/generate    invoices:write
GET    /recurring-invoices/{id}/history     invoices:read
POST   /recurring-invoices/{id}/pause       invoices:write
POST   /recurring-invoices/{id}/resume      invoices:write
GET    /organization                        organization:read
PATCH  /organization                        organization:write
GET    /organizations                       organizations:read
POST   /organizations                       organizations:write
GET    /organizations/{id}                  organizations:read
POST   /organizations/{id}/archive          organizations:archive
POST   /organizations/{id}/restore          organizations:archive
"""
TABLE = [tuple(line.split()) for line in REFERENCE.strip().splitlines()]
REGULAR = [row for row in TABLE if not row[2].startswith("organizations:")]
OF_ACCOUNTS = [row for row in TABLE if row[2].startswith("organizations:")]
WITH_BODY = [row for row in TABLE if row[0] in {"POST", "PATCH", "PUT"}]
BODILESS = ("/finalize", "/send", "/pause", "/archive", "/restore")


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    """For what is refused, and so leaves nothing behind."""
    return Sandbox(rate_limit=10**6)


@pytest.fixture(scope="module")
def places(sandbox: Sandbox) -> dict[str, str]:
    """An id for each kind of path."""
    return {
        "invoices": sandbox.in_status("finalized"),
        "customers": "cus_2b81fe",
        "recurring-invoices": sandbox.schedule(),
        "organizations": ORGANIZATION,
    }


def where(path: str, places: dict[str, str]) -> str:
    return path.replace("{id}", places.get(path.split("/")[1], ""))


def test_the_endpoints_are_those_of_the_reference() -> None:
    served = {(method, path, scope) for method, path, scope, _ in (*ENDPOINTS, *ACCOUNT_ENDPOINTS)}

    assert served == set(TABLE)


@pytest.mark.parametrize(("method", "path", "scope"), TABLE)
def test_a_call_needs_a_key(sandbox: Sandbox, places: dict[str, str], method: str, path: str, scope: str) -> None:
    response = sandbox.call(method, where(path, places), key="hisab_live_nobody")

    assert refusal(response) == (401, "UNAUTHORIZED")
    assert response.json()["error"]["message"] == "Invalid or missing API key"


@pytest.mark.parametrize(("method", "path", "scope"), TABLE)
def test_a_call_needs_its_scope_and_is_told_which(
    sandbox: Sandbox, places: dict[str, str], method: str, path: str, scope: str
) -> None:
    kind = "account" if scope.startswith("organizations:") else "live"
    others = [one for one in SCOPES if one != scope]
    key = sandbox.key(kind=kind, scopes=others, key=f"hisab_{kind}_without_one")

    response = sandbox.call(method, where(path, places), key=key)

    assert refusal(response) == (403, "FORBIDDEN")
    assert response.json()["error"]["details"] == [{"field": "scope", "message": scope}]


@pytest.mark.parametrize(("method", "path", "scope"), REGULAR)
def test_an_account_key_must_say_which_organization(
    sandbox: Sandbox, places: dict[str, str], method: str, path: str, scope: str
) -> None:
    at = where(path, places)

    assert refusal(sandbox.call(method, at, key=ACCOUNT_KEY)) == (400, "ORG_HEADER_REQUIRED")
    assert refusal(sandbox.call(method, at, key=ACCOUNT_KEY, organization="org_7e20c5")) == (404, "NOT_FOUND")


@pytest.mark.parametrize(("method", "path", "scope"), OF_ACCOUNTS)
def test_the_endpoints_of_organizations_need_an_account_key(
    sandbox: Sandbox, places: dict[str, str], method: str, path: str, scope: str
) -> None:
    assert refusal(sandbox.call(method, where(path, places), key=KEY)) == (403, "ACCOUNT_KEY_REQUIRED")


@pytest.mark.parametrize(("method", "path", "scope"), [row for row in TABLE if "{id}" in row[1]])
def test_what_is_not_there_is_not_found(sandbox: Sandbox, method: str, path: str, scope: str) -> None:
    key = ACCOUNT_KEY if scope.startswith("organizations:") else KEY

    assert refusal(sandbox.call(method, path.replace("{id}", "none"), key=key)) == (404, "NOT_FOUND")


@pytest.mark.parametrize(("method", "path", "scope"), [row for row in WITH_BODY if not row[1].endswith(BODILESS)])
def test_a_body_must_be_json(sandbox: Sandbox, places: dict[str, str], method: str, path: str, scope: str) -> None:
    key = ACCOUNT_KEY if scope.startswith("organizations:") else KEY

    assert refusal(sandbox.call(method, where(path, places), key=key, content=b"{")) == (400, "INVALID_JSON")


@pytest.mark.parametrize(("method", "path", "scope"), TABLE)
def test_every_answer_reports_the_usage(
    sandbox: Sandbox, places: dict[str, str], method: str, path: str, scope: str
) -> None:
    response = sandbox.call(method, path.replace("{id}", "none"), content=b"{")

    assert response.headers["x-ratelimit-limit"] == "1000000"
    assert {"x-ratelimit-remaining", "x-ratelimit-reset"} <= set(response.headers)


@pytest.mark.parametrize(
    ("switches", "code"),
    [
        ({"api_disabled": True}, "API_DISABLED"),
        ({"subscription_expired": True}, "SUBSCRIPTION_EXPIRED"),
        ({"plan": "starter"}, "API_TIER_NOT_SUPPORTED"),
    ],
)
def test_an_organization_may_be_shut_out(switches: dict[str, Any], code: str) -> None:
    sandbox = Sandbox()
    sandbox.switch(**switches)

    assert refusal(sandbox.call("GET", "/invoices")) == (403, code)
    assert refusal(sandbox.call("GET", "/invoices", key=ACCOUNT_KEY, organization=ORGANIZATION)) == (403, code)


@pytest.mark.parametrize(("plan", "limit"), [("professional", "120"), ("fiduciaire", "300")])
def test_the_plan_sets_the_limit(plan: str, limit: str) -> None:
    assert Sandbox(plan=plan).call("GET", "/invoices").headers["x-ratelimit-limit"] == limit


def test_each_key_has_a_limit_of_its_own() -> None:
    sandbox = Sandbox(rate_limit=1)

    assert sandbox.call("GET", "/invoices").status_code == 200
    assert refusal(sandbox.call("GET", "/invoices")) == (429, "RATE_LIMIT_EXCEEDED")
    assert sandbox.call("GET", "/invoices", key="hisab_test_***").status_code == 200


LISTS = ("/invoices", "/customers", "/recurring-invoices")
PAGES = [(path, query) for path in LISTS for query in ("page=0", "page=x", "per_page=101", "per_page=0", "order=up")]
QUERIES = [
    *PAGES,
    ("/invoices", "status=open"),
    ("/invoices", "date_from=june"),
    ("/invoices", "date_to=2026-02-30"),
    ("/invoices/{id}/pdf", "locale=de"),
    ("/customers", "type=b2g"),
    ("/customers", "status=gone"),
    ("/recurring-invoices", "status=done"),
    ("/recurring-invoices", "frequency=daily"),
    ("/recurring-invoices/{id}/history", "limit=101"),
    ("/recurring-invoices/{id}/history", "limit=0"),
    ("/organizations", "include_archived=yes"),
]


@pytest.mark.parametrize(("path", "query"), QUERIES)
def test_a_parameter_out_of_shape_is_refused(sandbox: Sandbox, places: dict[str, str], path: str, query: str) -> None:
    key = ACCOUNT_KEY if path == "/organizations" else KEY

    response = sandbox.call("GET", f"{where(path, places)}?{query}", key=key)

    assert fields(response) == [query.partition("=")[0]]


def items(**wrong: Any) -> list[dict[str, Any]]:
    return [ITEM, ITEM | wrong]


CUSTOMER = {"name": "Atlas", "type": "b2b"}
BODIES: list[tuple[str, str, dict[str, Any], str]] = [
    ("POST", "/invoices", {"issue_date": "2026-06-05", "items": [ITEM]}, "customer_id"),
    ("POST", "/invoices", INVOICE | {"customer_id": "cus_none"}, "customer_id"),
    ("POST", "/invoices", INVOICE | {"customer_id": 5}, "customer_id"),
    ("POST", "/invoices", {"customer_id": "cus_2b81fe", "items": [ITEM]}, "issue_date"),
    ("POST", "/invoices", INVOICE | {"issue_date": "05/06/2026"}, "issue_date"),
    ("POST", "/invoices", INVOICE | {"due_date": "2026-13-01"}, "due_date"),
    ("POST", "/invoices", INVOICE | {"currency": "dirham"}, "currency"),
    ("POST", "/invoices", INVOICE | {"payment_terms": 30}, "payment_terms"),
    ("POST", "/invoices", INVOICE | {"notes": []}, "notes"),
    ("POST", "/invoices", INVOICE | {"internal_notes": {}}, "internal_notes"),
    ("POST", "/invoices", INVOICE | {"items": []}, "items"),
    ("POST", "/invoices", INVOICE | {"items": items(description="")}, "items[1].description"),
    ("POST", "/invoices", INVOICE | {"items": items(quantity="8")}, "items[1].quantity"),
    ("POST", "/invoices", INVOICE | {"items": items(unit_price=-1)}, "items[1].unit_price"),
    ("POST", "/invoices", INVOICE | {"items": items(tax_rate=21)}, "items[1].tax_rate"),
    ("PATCH", "/invoices/{draft}", {"customer_id": None}, "customer_id"),
    ("PATCH", "/invoices/{draft}", {"customer_id": "cus_none"}, "customer_id"),
    ("PATCH", "/invoices/{draft}", {"issue_date": None}, "issue_date"),
    ("PATCH", "/invoices/{draft}", {"due_date": 5}, "due_date"),
    ("PATCH", "/invoices/{draft}", {"currency": None}, "currency"),
    ("PATCH", "/invoices/{draft}", {"payment_terms": 30}, "payment_terms"),
    ("PATCH", "/invoices/{draft}", {"notes": 5}, "notes"),
    ("PATCH", "/invoices/{draft}", {"items": []}, "items"),
    ("PATCH", "/invoices/{draft}", {"items": items(quantity=True)}, "items[1].quantity"),
    ("PATCH", "/invoices/{draft}", {"items": [ITEM, {"quantity": 1, "unit_price": 1}]}, "items[1].description"),
    ("PATCH", "/invoices/{draft}", {"items": [ITEM, {"description": "x", "quantity": 1}]}, "items[1].unit_price"),
    ("POST", "/invoices/{id}/pay", {"paid_at": "yesterday"}, "paid_at"),
    ("POST", "/invoices/{id}/pay", {"paid_at": "2026-06-05"}, "paid_at"),
    ("POST", "/invoices/{id}/pay", {"payment_method": 1}, "payment_method"),
    ("POST", "/invoices/{id}/pay", {"payment_reference": 1}, "payment_reference"),
    ("POST", "/invoices/{id}/void", {}, "reason"),
    ("POST", "/invoices/{id}/void", {"reason": "  "}, "reason"),
    ("POST", "/customers", {"type": "b2b"}, "name"),
    ("POST", "/customers", CUSTOMER | {"name": " "}, "name"),
    ("POST", "/customers", {"name": "Atlas"}, "type"),
    ("POST", "/customers", CUSTOMER | {"type": "b2g"}, "type"),
    ("POST", "/customers", CUSTOMER | {"ice": "00123456700008"}, "ice"),
    ("POST", "/customers", CUSTOMER | {"ice": "٠٠١٢٣٤٥٦٧٠٠٠٠٨٩"}, "ice"),
    ("POST", "/customers", CUSTOMER | {"ice": "001987654000032"}, "ice"),
    ("POST", "/customers", CUSTOMER | {"legal_name": 5}, "legal_name"),
    ("POST", "/customers", CUSTOMER | {"rc": 5}, "rc"),
    ("POST", "/customers", CUSTOMER | {"email": "compta"}, "email"),
    ("POST", "/customers", CUSTOMER | {"phone": 5}, "phone"),
    ("POST", "/customers", CUSTOMER | {"address": "Casablanca"}, "address"),
    ("POST", "/customers", CUSTOMER | {"address": {"street": 5}}, "address.street"),
    ("POST", "/customers", CUSTOMER | {"address": {"city": 5}}, "address.city"),
    ("POST", "/customers", CUSTOMER | {"address": {"postal_code": 5}}, "address.postal_code"),
    ("POST", "/customers", CUSTOMER | {"address": {"country": "Maroc"}}, "address.country"),
    ("POST", "/customers", CUSTOMER | {"notes": 5}, "notes"),
    ("POST", "/customers", CUSTOMER | {"tags": "vip"}, "tags"),
    ("POST", "/customers", CUSTOMER | {"tags": ["vip", 5]}, "tags[1]"),
    ("PATCH", "/customers/{id}", {"name": None}, "name"),
    ("PATCH", "/customers/{id}", {"type": "b2g"}, "type"),
    ("PATCH", "/customers/{id}", {"ice": "12"}, "ice"),
    ("PATCH", "/customers/{id}", {"ice": "001876543000021"}, "ice"),
    ("PATCH", "/customers/{id}", {"email": "a@b"}, "email"),
    ("PATCH", "/customers/{id}", {"phone": 5}, "phone"),
    ("PATCH", "/customers/{id}", {"address": []}, "address"),
    ("PATCH", "/customers/{id}", {"notes": 5}, "notes"),
    ("PATCH", "/customers/{id}", {"tags": [5]}, "tags[0]"),
    ("PATCH", "/customers/{id}", {"status": "deleted"}, "status"),
    ("POST", "/recurring-invoices", SCHEDULE | {"customer_id": "cus_none"}, "customer_id"),
    ("POST", "/recurring-invoices", SCHEDULE | {"frequency": "daily"}, "frequency"),
    ("POST", "/recurring-invoices", SCHEDULE | {"frequency": None}, "frequency"),
    ("POST", "/recurring-invoices", SCHEDULE | {"start_date": "soon"}, "start_date"),
    ("POST", "/recurring-invoices", SCHEDULE | {"name": 5}, "name"),
    ("POST", "/recurring-invoices", SCHEDULE | {"interval_count": 0}, "interval_count"),
    ("POST", "/recurring-invoices", SCHEDULE | {"interval_count": 13}, "interval_count"),
    ("POST", "/recurring-invoices", SCHEDULE | {"interval_count": 1.5}, "interval_count"),
    ("POST", "/recurring-invoices", SCHEDULE | {"day_of_month": 0}, "day_of_month"),
    ("POST", "/recurring-invoices", SCHEDULE | {"day_of_month": 29}, "day_of_month"),
    ("POST", "/recurring-invoices", SCHEDULE | {"day_of_week": -1}, "day_of_week"),
    ("POST", "/recurring-invoices", SCHEDULE | {"day_of_week": 7}, "day_of_week"),
    ("POST", "/recurring-invoices", SCHEDULE | {"end_date": "never"}, "end_date"),
    ("POST", "/recurring-invoices", SCHEDULE | {"end_date": "2026-06-30"}, "end_date"),
    ("POST", "/recurring-invoices", SCHEDULE | {"max_occurrences": 0}, "max_occurrences"),
    ("POST", "/recurring-invoices", SCHEDULE | {"auto_finalize": "yes"}, "auto_finalize"),
    ("POST", "/recurring-invoices", SCHEDULE | {"auto_send": 1}, "auto_send"),
    ("POST", "/recurring-invoices", SCHEDULE | {"days_until_due": 366}, "days_until_due"),
    ("POST", "/recurring-invoices", SCHEDULE | {"days_until_due": -1}, "days_until_due"),
    ("POST", "/recurring-invoices", SCHEDULE | {"currency": "mad"}, "currency"),
    ("POST", "/recurring-invoices", SCHEDULE | {"items": []}, "items"),
    ("POST", "/recurring-invoices", SCHEDULE | {"items": items(description=None)}, "items[1].description"),
    ("POST", "/recurring-invoices", SCHEDULE | {"items": items(quantity=None)}, "items[1].quantity"),
    ("POST", "/recurring-invoices", SCHEDULE | {"items": items(unit_price="x")}, "items[1].unit_price"),
    ("POST", "/recurring-invoices", SCHEDULE | {"items": items(tax_rate=19)}, "items[1].tax_rate"),
    ("PUT", "/recurring-invoices/{id}", {"frequency": "hourly"}, "frequency"),
    ("PUT", "/recurring-invoices/{id}", {"end_date": "x"}, "end_date"),
    ("PUT", "/recurring-invoices/{id}", {"end_date": "2026-01-01"}, "end_date"),
    ("PUT", "/recurring-invoices/{id}", {"auto_finalize": None}, "auto_finalize"),
    ("PUT", "/recurring-invoices/{id}", {"auto_send": 0}, "auto_send"),
    ("PUT", "/recurring-invoices/{id}", {"days_until_due": 1000}, "days_until_due"),
    ("PUT", "/recurring-invoices/{id}", {"items": "x"}, "items"),
    ("PUT", "/recurring-invoices/{id}", {"items": [{}]}, "items[0].description"),
    ("POST", "/recurring-invoices/{id}/generate", {"issue_date": "x"}, "issue_date"),
    ("POST", "/recurring-invoices/{paused}/resume", {"next_run_date": "x"}, "next_run_date"),
    ("POST", "/recurring-invoices/{paused}/resume", {"next_run_date": "2026-06-04"}, "next_run_date"),
    ("PATCH", "/organization", {"legal_name": None}, "legal_name"),
    ("PATCH", "/organization", {"ice": "12"}, "ice"),
    ("PATCH", "/organization", {"ice": "009988776000033"}, "ice"),
    ("PATCH", "/organization", {"rc": 5}, "rc"),
    ("PATCH", "/organization", {"if_number": 5}, "if_number"),
    ("PATCH", "/organization", {"vat_number": 5}, "vat_number"),
    ("PATCH", "/organization", {"phone": 5}, "phone"),
    ("PATCH", "/organization", {"email": "x"}, "email"),
    ("PATCH", "/organization", {"website": "example.ma"}, "website"),
    ("PATCH", "/organization", {"website": "http://"}, "website"),
    ("PATCH", "/organization", {"billing_address": 5}, "billing_address"),
    ("POST", "/organizations", {}, "legal_name"),
    ("POST", "/organizations", {"legal_name": "F", "ice": "1"}, "ice"),
    ("POST", "/organizations", {"legal_name": "F", "ice": "009988776000033"}, "ice"),
    ("POST", "/organizations", {"legal_name": "F", "rc": 5}, "rc"),
    ("POST", "/organizations", {"legal_name": "F", "if_number": 5}, "if_number"),
    ("POST", "/organizations", {"legal_name": "F", "phone": 5}, "phone"),
    ("POST", "/organizations", {"legal_name": "F", "email": "x"}, "email"),
    ("POST", "/organizations", {"legal_name": "F", "address_street": 5}, "address_street"),
    ("POST", "/organizations", {"legal_name": "F", "address_city": 5}, "address_city"),
    ("POST", "/organizations", {"legal_name": "F", "address_postal_code": 5}, "address_postal_code"),
]


@pytest.fixture(scope="module")
def special(sandbox: Sandbox) -> dict[str, str]:
    paused = sandbox.schedule()
    sandbox.done("POST", f"/recurring-invoices/{paused}/pause")
    return {"draft": sandbox.create(), "paused": paused}


@pytest.mark.parametrize(("method", "path", "body", "wrong"), BODIES)
def test_a_field_out_of_shape_is_refused_by_its_name(
    sandbox: Sandbox,
    places: dict[str, str],
    special: dict[str, str],
    method: str,
    path: str,
    body: dict[str, Any],
    wrong: str,
) -> None:
    key = ACCOUNT_KEY if path == "/organizations" else KEY
    at = where(path.format(**special, id="{id}"), places)
    told = len(sandbox.posted)

    assert fields(sandbox.call(method, at, key=key, json=body))[0] == wrong
    assert len(sandbox.posted) == told


def test_all_that_is_wrong_is_told_at_once() -> None:
    body = {"customer_id": 5, "issue_date": 5, "items": [{"quantity": "x"}]}

    assert fields(Sandbox().call("POST", "/invoices", json=body)) == [
        "customer_id",
        "issue_date",
        "items[0].description",
        "items[0].quantity",
        "items[0].unit_price",
    ]


@pytest.mark.parametrize("path", ["/nothing", "/invoices/inv_1/email", "/webhooks", "/recurring-invoices/1/stats"])
def test_there_is_nothing_beside_the_reference(sandbox: Sandbox, path: str) -> None:
    assert refusal(sandbox.call("GET", path)) == (404, "NOT_FOUND")
