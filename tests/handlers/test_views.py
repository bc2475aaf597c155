from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import orjson
import pytest

from handlers import Event
from handlers.event import AT_RECEIPT
from handlers.providers import PROVIDERS
from handlers.views import money


def hisab(event_type: str, data: dict[str, Any]) -> Event:
    body = {"event": event_type, "data": data, "organization_id": "org_1", "created_at": "2026-06-05T14:00:00Z"}
    return PROVIDERS["hisab"].inbound({}).parse([], orjson.dumps(body))


def test_an_invoice_of_hisab_has_its_money_as_decimal() -> None:
    invoice = hisab(
        "invoice.paid",
        {
            "id": "inv_1",
            "invoice_number": "FAC-2026-0142",
            "status": "paid",
            "total": "12480.00",
            "customer": {"id": "cus_1", "name": "MERIT Sarl"},
            "issue_date": "2026-06-05",
        },
    ).invoice

    assert (invoice.id, invoice.number, invoice.status) == ("inv_1", "FAC-2026-0142", "paid")
    assert (invoice.total, invoice.currency) == (Decimal("12480.00"), "MAD")
    assert (invoice.customer_id, invoice.customer_name) == ("cus_1", "MERIT Sarl")
    assert (invoice.issue_date, invoice.due_date) == (date(2026, 6, 5), None)


def test_the_wrapped_form_has_the_same_view() -> None:
    event = hisab("invoice.paid", {"invoice": {"id": "inv_1", "customer_id": "cus_1", "total": "1.10"}})

    assert (event.invoice.id, event.invoice.customer_id, event.invoice.total) == ("inv_1", "cus_1", Decimal("1.10"))


def test_a_customer_of_hisab_is_known_to_tax_law_by_its_ice() -> None:
    customer = hisab("customer.created", {"id": "cus_1", "name": "MERIT Sarl", "ice": "001234567000089"}).customer

    assert (customer.name, customer.tax_id, customer.email) == ("MERIT Sarl", "001234567000089", None)


def test_an_invoice_of_hibr_has_a_view_too() -> None:
    provider = PROVIDERS["hibr"]
    invoice = provider.inbound({}).parse([], orjson.dumps(provider.sample("invoice.paid"))).invoice

    assert (invoice.number, invoice.status, invoice.total) == ("INV-2026-001234", "paid", None)
    assert invoice.issue_date == date(2026, 10, 15)


def test_an_event_about_something_else_says_so() -> None:
    paid = hisab("invoice.paid", {"id": "inv_1"})

    with pytest.raises(ValueError, match="of hisab is not about customers"):
        _ = paid.customer
    with pytest.raises(ValueError, match="of no provider is not about invoices"):
        _ = Event(type="shop.opened", data={}, occurred_at=AT_RECEIPT).invoice


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        ("10.50", "10.50"),
        (10, "10"),
        (10.1, "10.1"),
        ("ten", None),
        ("NaN", None),
        (True, None),
        (None, None),
        ({}, None),
    ],
)
def test_money_is_what_was_written_or_nothing(written: object, amount: str | None) -> None:
    assert money({"total": written}, "total") == (None if amount is None else Decimal(amount))
