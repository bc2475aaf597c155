"""Invoices for schedules over HIBR's API.

Each call that changes something has an Idempotency-Key which follows from the draft's, so that HIBR does it once in 24
hours however often it is asked. After that an invoice is known by its `reference`; whether HIBR keeps that field is
not published, so where it is missing a person decides.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from handlers.errors import ProviderError
from handlers.invoicing import Draft, Invoice, Stage
from handlers.providers.answers import bad_answer
from handlers.providers.hibr.billing import body_of
from handlers.providers.hibr.client import HibrClient
from handlers.providers.hibr.models import to_amount

AMBIGUOUS = "AMBIGUOUS"
"""The code of a ProviderError: there is an invoice that may be the draft's, and nothing to tell it by."""

_CONFLICT = "conflict_error"


class HibrInvoicing:
    """`handlers.invoicing.Invoicing` over HIBR's API."""

    def __init__(self, client: HibrClient) -> None:
        self._invoices = client.invoices

    def check_customer(self, customer_id: str) -> None:
        """Nothing: that a customer has a status is not published, and an unknown one is refused by `create`."""

    def find(self, draft: Draft, *, sure: bool = True) -> Invoice | None:
        """Raises ProviderError with AMBIGUOUS where HIBR may have made the invoice and not kept its reference."""
        alike: list[str] = []
        for listed in self._invoices.list({"customer_id": draft.customer_id, "invoice_date": draft.issue_date}):
            # Whether a listed invoice carries all its fields is not published.
            whole = listed if "reference" in listed else self._invoices.get(listed["id"])
            if draft.marker in str(whole.get("reference") or ""):
                return _invoice(whole)
            if "reference" not in whole and _is_alike(whole, draft):
                alike.append(whole["id"])
        if alike:
            raise _ambiguous(alike)
        return None

    def create(self, draft: Draft) -> Invoice:
        try:
            return _invoice(self._invoices.create(idempotency_key=_key(draft, "create"), **body_of(draft)))
        except ProviderError as error:
            if error.code != _CONFLICT:
                raise
            # The key was used for another body, such as an older release of ours wrote for the same draft.
            found = self.find(draft)
            if found is None:
                raise
            return found

    def get(self, invoice_id: str) -> Invoice:
        return _invoice(self._invoices.get(invoice_id))

    def finalize(self, draft: Draft, invoice: Invoice) -> Invoice:
        return self._act(draft, invoice, "post")

    def send(self, draft: Draft, invoice: Invoice) -> Invoice:
        return self._act(draft, invoice, "send")

    def _act(self, draft: Draft, invoice: Invoice, action: str) -> Invoice:
        record = self._invoices.action(invoice.id, action, idempotency_key=_key(draft, action))
        return _invoice(record) if record else self.get(invoice.id)


def _key(draft: Draft, action: str) -> str:
    """A UUID of version 4 by its form, as HIBR asks for, and always the same."""
    digest = hashlib.sha256(f"{draft.key}:{action}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


def _is_alike(record: Mapping[str, Any], draft: Draft) -> bool:
    """Whether customer, date and prices agree. Which fields can be filtered by is not published."""
    of_draft = (draft.customer_id, draft.issue_date.isoformat())
    if (record.get("customer_id"), record.get("invoice_date")) != of_draft:
        return False
    lines = record.get("lines")
    return not isinstance(lines, list) or _prices(lines) == _prices(body_of(draft)["lines"])


def _prices(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted(str(line.get("unit_price")) for line in lines)


def _ambiguous(ids: Sequence[str]) -> ProviderError:
    return ProviderError(
        AMBIGUOUS,
        "HIBR has an invoice with this customer, date and prices, and without the reference that ours are known by: "
        f"look at {', '.join(ids)} there; if it is the one of this due date nothing is missing, else make that by hand",
    )


def _invoice(record: Mapping[str, Any]) -> Invoice:
    """`total`, `sent_at` and the word `draft` are not published; they are as in the sandbox."""
    try:
        return Invoice(
            id=record["id"],
            number=record.get("invoice_no"),
            stage=_stage(record),
            status=record["status"],
            total=to_amount(record["total"], record["total_currency"]),
            currency=record["total_currency"],
        )
    except (KeyError, TypeError, ValueError):
        raise bad_answer("it is not an invoice with a total") from None


def _stage(record: Mapping[str, Any]) -> Stage:
    if record["status"] == "draft":
        return Stage.DRAFT
    if record["status"] == "open" and record.get("sent_at") is None:
        return Stage.FINALIZED
    # What is sent, paid or void is beyond what a schedule does.
    return Stage.SENT
