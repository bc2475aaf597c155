"""Customers, and drafts that change."""

from __future__ import annotations

from typing import Any

import pytest

from tests.handlers.providers.hisab.sandbox_given import ITEM, SCHEDULE, Sandbox, fields, refusal


def test_the_documented_customer_is_created() -> None:
    body = {"name": "MERIT Sarl", "type": "b2b", "ice": "001234567000089", "email": "compta@example.ma"}

    response = Sandbox().call("POST", "/customers", json=body)

    assert response.status_code == 201
    customer = response.json()["data"]
    assert body.items() <= customer.items()
    assert (customer["status"], customer["address"]["country"], customer["tags"]) == ("active", "MA", [])


def test_a_customer_is_changed_field_by_field() -> None:
    sandbox = Sandbox()
    before = sandbox.done("GET", "/customers/cus_2b81fe")

    changed = sandbox.done(
        "PATCH", "/customers/cus_2b81fe", json={"email": "finance@example.ma", "address": {"city": "Rabat"}, "rc": "9"}
    )

    assert changed["address"] == before["address"] | {"city": "Rabat"}
    assert changed["email"] == "finance@example.ma"
    assert changed["rc"] is None  # the reference has no rc in an update
    (event,) = sandbox.events()
    assert (event.type, event.data["changes"]) == ("customer.updated", ["email", "address"])


def test_a_customer_keeps_its_own_ice() -> None:
    sandbox = Sandbox()

    sandbox.done("PATCH", "/customers/cus_2b81fe", json={"ice": "001987654000032", "name": "Atlas"})


def test_the_ice_of_another_customer_is_refused_with_its_id() -> None:
    sandbox = Sandbox()

    response = sandbox.call("POST", "/customers", json={"name": "A", "type": "b2b", "ice": "001987654000032"})

    assert fields(response) == ["ice"]
    assert "cus_2b81fe" in response.json()["error"]["details"][0]["message"]


def test_another_organization_may_have_a_customer_with_the_same_ice() -> None:
    sandbox = Sandbox()
    key = sandbox.key(owner="org_7e20c5")

    sandbox.done("POST", "/customers", key=key, json={"name": "A", "type": "b2b", "ice": "001987654000032"})
    assert refusal(sandbox.call("GET", "/customers/cus_2b81fe", key=key)) == (404, "NOT_FOUND")


def test_a_deleted_customer_is_archived_once_and_its_invoices_stay() -> None:
    sandbox = Sandbox()
    invoice_id = sandbox.in_status("finalized")

    archived = sandbox.done("DELETE", "/customers/cus_2b81fe")
    again = sandbox.call("DELETE", "/customers/cus_2b81fe")

    assert archived["status"] == "archived"
    assert refusal(again) == (409, "ALREADY_ARCHIVED")
    assert sandbox.done("GET", f"/invoices/{invoice_id}")["customer"]["id"] == "cus_2b81fe"
    event = sandbox.events()[-1]
    assert (event.type, dict(event.data)) == (
        "customer.deleted",
        {"id": "cus_2b81fe", "name": "Atlas Distribution SARL"},
    )


def test_an_archived_customer_gets_nothing_new() -> None:
    sandbox = Sandbox()
    sandbox.done("DELETE", "/customers/cus_2b81fe")
    body = {"customer_id": "cus_2b81fe", "issue_date": "2026-06-05", "items": [ITEM]}

    assert fields(sandbox.call("POST", "/invoices", json=body)) == ["customer_id"]
    assert fields(sandbox.call("POST", "/recurring-invoices", json=SCHEDULE)) == ["customer_id"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("search=ATLAS", ["cus_2b81fe"]),
        ("search=001876", ["cus_..."]),
        ("search=compta@", ["cus_...", "cus_2b81fe"]),
        ("search=_", []),
        ("type=b2c", []),
        ("type=b2b&order=asc", ["cus_...", "cus_2b81fe"]),
        ("status=inactive", ["cus_..."]),
        ("status=archived", []),
    ],
)
def test_customers_are_searched_and_filtered(query: str, found: list[str]) -> None:
    sandbox = Sandbox()
    sandbox.done("PATCH", "/customers/cus_...", json={"status": "inactive"})

    assert sorted(customer["id"] for customer in sandbox.listed(f"/customers?{query}")) == found


def test_a_draft_is_changed_and_its_totals_follow() -> None:
    sandbox = Sandbox()
    invoice_id = sandbox.create()

    changed = sandbox.done(
        "PATCH",
        f"/invoices/{invoice_id}",
        json={"due_date": "2026-08-05", "customer_id": "cus_...", "items": [{"quantity": 4}]},
    )

    assert (changed["due_date"], changed["customer"]["name"]) == ("2026-08-05", "Rif Conseil SARL")
    # of a line that is not given in full, the rest is that of the line in its place
    assert [(item["description"], item["unit_price"]) for item in changed["items"]] == [
        ("Integration services", "1300.00")
    ]
    assert changed["total"] == "6240.00"
    event = sandbox.events()[-1]
    assert event.type == "invoice.updated"
    assert event.data["changes"] == ["customer", "due_date", "subtotal", "total_tax", "total", "items"]


def test_null_empties_what_may_be_empty() -> None:
    sandbox = Sandbox()
    invoice_id = sandbox.create(due_date="2026-08-05", notes="x")

    changed = sandbox.done("PATCH", f"/invoices/{invoice_id}", json={"due_date": None, "notes": None})

    assert (changed["due_date"], changed["notes"]) == (None, None)


@pytest.mark.parametrize("status", ["finalized", "sent", "paid", "void"])
def test_what_was_finalized_is_immutable(status: str) -> None:
    sandbox = Sandbox()
    invoice_id = sandbox.in_status(status)
    before = sandbox.done("GET", f"/invoices/{invoice_id}")

    response = sandbox.call("PATCH", f"/invoices/{invoice_id}", json={"due_date": "2026-08-05"})

    assert refusal(response) == (409, "INVOICE_NOT_EDITABLE")
    assert sandbox.done("GET", f"/invoices/{invoice_id}") == before


def test_a_finalized_invoice_keeps_the_customer_it_was_issued_to() -> None:
    sandbox = Sandbox()
    invoice_id = sandbox.in_status("finalized")

    sandbox.done("PATCH", "/customers/cus_2b81fe", json={"name": "Atlas Group"})

    assert sandbox.done("GET", f"/invoices/{invoice_id}")["customer"]["name"] == "Atlas Distribution SARL"


@pytest.mark.parametrize(
    ("given", "missing"),
    [({"ice": None}, ["customer.ice"]), ({"type": "b2c", "ice": None}, [])],
)
def test_an_invoice_to_a_business_must_show_its_ice(given: dict[str, Any], missing: list[str]) -> None:
    sandbox = Sandbox()
    sandbox.done("PATCH", "/customers/cus_2b81fe", json=given)
    invoice_id = sandbox.create()

    response = sandbox.call("POST", f"/invoices/{invoice_id}/finalize")

    assert (fields(response) if missing else []) == missing
    assert sandbox.done("GET", f"/invoices/{invoice_id}")["status"] == ("draft" if missing else "finalized")
