"""Invoices for schedules, at Hisab. The marker travels in `internal_notes`, which no customer sees."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from handlers.invoicing import Draft, Invoice
from handlers.providers.hisab.client import HisabClient
from handlers.providers.http import bad_answer


class HisabInvoicing:
    """`handlers.invoicing.Invoicing` over Hisab's API, which has no idempotency key."""

    def __init__(self, client: HisabClient) -> None:
        self._invoices = client.invoices

    def find(self, draft: Draft) -> Invoice | None:
        listed = self._invoices.list(
            customer_id=draft.customer_id, date_from=draft.issue_date, date_to=draft.issue_date
        )
        for resource in listed:
            # Whether a listed invoice carries its internal notes is not documented.
            whole = resource if "internal_notes" in resource else self._invoices.get(resource["id"])
            if draft.marker in (whole.get("internal_notes") or ""):
                return _invoice(whole)
        return None

    def create(self, draft: Draft) -> Invoice:
        return _invoice(
            self._invoices.create(
                customer_id=draft.customer_id,
                issue_date=draft.issue_date,
                due_date=draft.due_date,
                currency=draft.currency,
                items=[
                    {name: Decimal(value) if name in _NUMBERS else value for name, value in item.items()}
                    for item in draft.items
                ],
                internal_notes=draft.marker,
            )
        )

    def get(self, invoice_id: str) -> Invoice:
        return _invoice(self._invoices.get(invoice_id))

    def finalize(self, invoice_id: str) -> Invoice:
        return _invoice(self._invoices.finalize(invoice_id))

    def send(self, invoice_id: str) -> Invoice:
        return _invoice(self._invoices.send(invoice_id))


_NUMBERS = ("quantity", "unit_price", "tax_rate")


def _invoice(resource: dict[str, Any]) -> Invoice:
    try:
        return Invoice(
            id=resource["id"],
            number=resource.get("invoice_number"),
            status=resource["status"],
            total=Decimal(str(resource["total"])),
            currency=resource.get("currency") or "MAD",
        )
    except (KeyError, TypeError, InvalidOperation):
        raise bad_answer("it is not an invoice") from None
