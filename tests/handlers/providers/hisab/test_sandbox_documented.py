"""The curl lines of Hisab's documents, as they stand there but for the host, in an order that tells a story."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from handlers.providers.hisab.sandbox import create_app
from tests.handlers.providers.sandbox.served import PATIENCE, serving

HOST = "https://hisab.ma"
LINES = {
    "list": 'curl https://hisab.ma/api/v1/invoices -H "Authorization: Bearer hisab_live_***"',
    "guide list": 'curl https://hisab.ma/api/v1/invoices -H "Authorization: Bearer hisab_your_api_key_here"',
    "guide create": """curl -X POST https://hisab.ma/api/v1/invoices -H "Authorization: Bearer hisab_your_api_key_here"
        -H "Content-Type: application/json" -d '{ "customer_id": "cus_...", "issue_date": "2026-06-03", "items":
        [ { "description": "Consulting", "quantity": 10, "unit_price": 500, "tax_rate": 20 } ] }'""",
    "create": """curl https://hisab.ma/api/v1/invoices -X POST -H "Authorization: Bearer hisab_live_***"
        -H "Content-Type: application/json" -d '{"customer_id": "cus_2b81fe", "issue_date": "2026-06-05", "items":
        [{"description": "Integration services", "quantity": 8, "unit_price": 1300, "tax_rate": 20}]}'""",
    "get": 'curl https://hisab.ma/api/v1/invoices/{id} -H "Authorization: Bearer hisab_live_***"',
    "update": """curl https://hisab.ma/api/v1/invoices/{id} -X PATCH -H "Authorization: Bearer hisab_live_***"
        -H "Content-Type: application/json" -d '{"due_date": "2026-08-05"}'""",
    "finalize": """curl https://hisab.ma/api/v1/invoices/{id}/finalize -X POST
        -H "Authorization: Bearer hisab_live_***" """,
    "send": 'curl https://hisab.ma/api/v1/invoices/{id}/send -X POST -H "Authorization: Bearer hisab_live_***"',
    "pay": """curl https://hisab.ma/api/v1/invoices/{id}/pay -X POST -H "Authorization: Bearer hisab_live_***"
        -H "Content-Type: application/json"
        -d '{"payment_method": "bank_transfer", "payment_reference": "VIR-20260605"}'""",
    "void": """curl https://hisab.ma/api/v1/invoices/{id}/void -X POST -H "Authorization: Bearer hisab_live_***"
        -H "Content-Type: application/json" -d '{"reason": "Duplicate billing"}'""",
    "pdf": 'curl https://hisab.ma/api/v1/invoices/{id}/pdf -H "Authorization: Bearer hisab_live_***"',
    "xml": 'curl https://hisab.ma/api/v1/invoices/{id}/xml -H "Authorization: Bearer hisab_live_***"',
    "create customer": """curl https://hisab.ma/api/v1/customers -X POST -H "Authorization: Bearer hisab_live_***"
        -H "Content-Type: application/json" -d '{"name": "MERIT Sarl", "type": "b2b", "ice": "001234567000089",
        "email": "compta@example.ma"}'""",
    "update customer": """curl https://hisab.ma/api/v1/customers/{id} -X PATCH
        -H "Authorization: Bearer hisab_live_***" -H "Content-Type: application/json"
        -d '{"email": "finance@example.ma"}'""",
    "delete customer": """curl https://hisab.ma/api/v1/customers/{id} -X DELETE
        -H "Authorization: Bearer hisab_live_***" """,
    "create schedule": """curl https://hisab.ma/api/v1/recurring-invoices -X POST
        -H "Authorization: Bearer hisab_live_***" -H "Content-Type: application/json" -d '{"customer_id": "cus_2b81fe",
        "frequency": "monthly", "start_date": "2026-07-01", "auto_finalize": true, "items":
        [{"description": "Monthly retainer", "quantity": 1, "unit_price": 10400, "tax_rate": 20}]}'""",
    "update schedule": """curl https://hisab.ma/api/v1/recurring-invoices/{id} -X PUT
        -H "Authorization: Bearer hisab_live_***" -H "Content-Type: application/json" -d '{"auto_send": true}'""",
    "generate": """curl https://hisab.ma/api/v1/recurring-invoices/{id}/generate -X POST
        -H "Authorization: Bearer hisab_live_***" """,
    "history": """curl https://hisab.ma/api/v1/recurring-invoices/{id}/history
        -H "Authorization: Bearer hisab_live_***" """,
    "pause": """curl https://hisab.ma/api/v1/recurring-invoices/{id}/pause -X POST
        -H "Authorization: Bearer hisab_live_***" """,
    "resume": """curl https://hisab.ma/api/v1/recurring-invoices/{id}/resume -X POST
        -H "Authorization: Bearer hisab_live_***" """,
    "update organization": """curl https://hisab.ma/api/v1/organization -X PATCH
        -H "Authorization: Bearer hisab_live_***" -H "Content-Type: application/json"
        -d '{"phone": "+212 5 22 00 00 01"}'""",
    "create organization": """curl https://hisab.ma/api/v1/organizations -X POST
        -H "Authorization: Bearer hisab_live_***" -H "Content-Type: application/json"
        -d '{"legal_name": "Filiale Casablanca SARL", "ice": "002345678000071"}'""",
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(create_app()) as found:
        yield found


def curl(address: str, name: str, object_id: str = "", key: str | None = None) -> httpx.Response:
    """What the line does: these few options are all that the documents use."""
    words = iter(shlex.split(LINES[name])[1:])
    method, body, url, headers = "GET", None, "", {}
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-d":
            body = next(words)
        elif word == "-H":
            header, _, value = next(words).partition(": ")
            headers[header] = value
        else:
            url = word.replace(HOST, address).replace("{id}", object_id)
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return httpx.request(method, url, headers=headers, content=body, trust_env=False, timeout=PATIENCE)


def data(response: httpx.Response) -> Any:
    assert response.is_success, response.text
    return response.json()["data"]


def test_an_invoice_lives_its_documented_life(address: str) -> None:
    draft = data(curl(address, "create"))
    steps = [data(curl(address, name, draft["id"])) for name in ("update", "finalize", "send", "pay", "get")]
    refused = curl(address, "void", draft["id"])

    assert [step["status"] for step in steps] == ["draft", "finalized", "sent", "paid", "paid"]
    # the very invoice of the sample on the page about webhooks
    sample = {"invoice_number": "FAC-2026-0142", "status": "paid", "total": "12480.00"}
    assert sample.items() <= steps[-1].items()
    assert (steps[-1]["due_date"], steps[-1]["payment_reference"]) == ("2026-08-05", "VIR-20260605")
    assert refused.json()["error"]["code"] == "CANNOT_VOID_PAID"
    assert curl(address, "pdf", draft["id"]).content.startswith(b"%PDF-")
    assert curl(address, "xml", draft["id"]).content.startswith(b"<?xml")
    assert [invoice["id"] for invoice in data(curl(address, "list"))] == [draft["id"]]


def test_the_lines_of_the_guide_run(address: str) -> None:
    draft = data(curl(address, "guide create"))

    assert draft["total"] == "6000.00"
    assert draft in data(curl(address, "guide list"))


def test_a_customer_lives_its_documented_life(address: str) -> None:
    customer = data(curl(address, "create customer"))
    changed = data(curl(address, "update customer", customer["id"]))
    archived = data(curl(address, "delete customer", customer["id"]))

    assert (customer["name"], changed["email"], archived["status"]) == (
        "MERIT Sarl",
        "finance@example.ma",
        "archived",
    )


def test_a_schedule_lives_its_documented_life(address: str) -> None:
    schedule = data(curl(address, "create schedule"))
    changed = data(curl(address, "update schedule", schedule["id"]))
    invoice = data(curl(address, "generate", schedule["id"]))
    (entry,) = data(curl(address, "history", schedule["id"]))
    paused = data(curl(address, "pause", schedule["id"]))
    resumed = data(curl(address, "resume", schedule["id"]))

    assert (changed["auto_send"], invoice["status"], invoice["total"]) == (True, "sent", "12480.00")
    assert (entry["invoice_number"], entry["status"]) == (invoice["invoice_number"], "success")
    assert (paused["status"], resumed["status"]) == ("paused", "active")


def test_the_lines_about_organizations_run_with_an_account_key(address: str) -> None:
    changed = data(curl(address, "update organization"))
    refused = curl(address, "create organization")
    created = data(curl(address, "create organization", key="hisab_acct_***"))

    assert changed["phone"] == "+212 5 22 00 00 01"
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "ACCOUNT_KEY_REQUIRED")
    assert created["legal_name"] == "Filiale Casablanca SARL"


def test_the_documented_refusal_of_a_key_is_word_for_word(address: str) -> None:
    answer = curl(address, "list", key="hisab_live_revoked")

    documented = '{"success": false, "error": {"code": "UNAUTHORIZED", "message": "Invalid or missing API key"}}'
    assert (answer.status_code, answer.json()) == (401, json.loads(documented))
