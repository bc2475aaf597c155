"""Invoices for schedules at Hisab, and the schedules that Hisab keeps itself.

The marker travels in `internal_notes`, which no customer sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from handlers.errors import ProviderError
from handlers.invoicing import CUSTOMER_INACTIVE, Draft, Invoice, Kept, Stage
from handlers.providers.hisab.client import HisabClient
from handlers.providers.http import bad_answer

_NUMBERS = ("quantity", "unit_price", "tax_rate")
_FORBIDDEN, _NOT_FOUND = 403, 404
_ACTIVE = "active"
_STAGES = {"draft": Stage.DRAFT, "finalized": Stage.FINALIZED}
_OF_SCHEDULES = (
    "name",
    "frequency",
    "interval_count",
    "day_of_month",
    "day_of_week",
    "max_occurrences",
    "auto_finalize",
    "auto_send",
    "days_until_due",
    "currency",
)


class HisabInvoicing:
    """`handlers.invoicing.Invoicing` over Hisab's API, which has no idempotency key."""

    def __init__(self, client: HisabClient) -> None:
        self._invoices, self._customers = client.invoices, client.customers

    def check_customer(self, customer_id: str) -> None:
        """Without the scope customers:read it is left to Hisab, which refuses archived ones."""
        try:
            customer = self._customers.get(customer_id)
        except ProviderError as error:
            if error.status == _FORBIDDEN and error.code == "FORBIDDEN":
                return
            if error.status == _NOT_FOUND:
                raise ProviderError(error.code, f"Hisab knows no customer {customer_id}", status=_NOT_FOUND) from None
            raise
        if customer.get("status", _ACTIVE) != _ACTIVE:
            raise ProviderError(CUSTOMER_INACTIVE, f"the customer is {customer['status']}")

    def find(self, draft: Draft, *, sure: bool = True) -> Invoice | None:
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

    def finalize(self, draft: Draft, invoice: Invoice) -> Invoice:
        return _invoice(self._invoices.finalize(invoice.id))

    def send(self, draft: Draft, invoice: Invoice) -> Invoice:
        return _invoice(self._invoices.send(invoice.id))


class HisabKeeping:
    """`handlers.invoicing.Keeping`: Hisab's recurring invoices."""

    def __init__(self, client: HisabClient) -> None:
        self._schedules = client.recurring_invoices

    def schedules(self) -> Iterator[Kept]:
        # Read to the end first: whoever pauses what it is given would find it again, or shift the pages under way.
        found = {
            resource["id"]: resource
            for status in ("active", "paused")
            for resource in self._schedules.list(status=status)
        }
        yield from [_kept(resource) for resource in found.values()]

    def schedule(self, schedule_id: str) -> Kept:
        return _kept(self._schedules.get(schedule_id))

    def pause(self, schedule_id: str) -> None:
        self._schedules.pause(schedule_id)


def _kept(resource: Mapping[str, Any]) -> Kept:
    try:
        days = {name: _day(resource.get(name)) for name in ("start_date", "end_date", "next_run_date")}
        customer = resource.get("customer")
        customer_id = resource.get("customer_id") or (customer or {})["id"]
        items = [_item(item) for item in resource["items"]]
        return Kept(
            id=resource["id"],
            status=resource["status"],
            next_run_date=days.pop("next_run_date"),
            occurrences_created=int(resource.get("occurrences_created") or 0),
            fields={
                **{name: resource[name] for name in _OF_SCHEDULES if resource.get(name) is not None},
                **days,
                "customer_id": customer_id,
                "items": items,
            },
        )
    except (KeyError, TypeError, ValueError):
        raise bad_answer("it is not a recurring invoice") from None


def _item(item: Mapping[str, Any]) -> dict[str, str]:
    found = {"description": str(item["description"])}
    return found | {name: str(item[name]) for name in _NUMBERS if item.get(name) is not None}


def _day(value: Any) -> date | None:
    return None if value is None else date.fromisoformat(value[:10])


def _invoice(resource: Mapping[str, Any]) -> Invoice:
    try:
        return Invoice(
            id=resource["id"],
            number=resource.get("invoice_number"),
            # What is sent, paid or void is beyond what a schedule does.
            stage=_STAGES.get(resource["status"], Stage.SENT),
            status=resource["status"],
            total=Decimal(str(resource["total"])),
            currency=resource.get("currency") or "MAD",
        )
    except (KeyError, TypeError, InvalidOperation):
        raise bad_answer("it is not an invoice") from None
