"""Hisab's invoices: draft → finalized → sent → paid, or void from finalized and sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

from handlers.providers.hisab.client.checks import body, field, items_of, one_of
from handlers.providers.hisab.client.envelope import Page, Resource, file, pages, resource
from handlers.providers.hisab.models import (
    MAX_PER_PAGE,
    InvoiceChanges,
    InvoiceFilter,
    InvoiceItemChanges,
    InvoiceStatus,
    Locale,
    NewInvoice,
    Payment,
)
from handlers.providers.http import RestClient, segment


class Invoices:
    """`/invoices`. Every method raises ProviderError, and before anything is sent InvalidRequest, which is one too.

    A draft has no number yet; finalizing gives it, and is the legal issuance. (Hisab API reference, Invoices)
    """

    def __init__(self, rest: RestClient) -> None:
        self._rest = rest

    def create(self, **invoice: Unpack[NewInvoice]) -> Resource:
        """Create a draft; Hisab computes its totals and taxes. Scope invoices:write, event invoice.created.

        Hisab has no idempotency key: after NO_ANSWER, look for the draft with `list` before creating it again.
        """
        return resource(self._rest.request("POST", "/invoices", json=body(NewInvoice, invoice)))

    def get(self, invoice_id: str) -> Resource:
        """The invoice with its customer, items and totals. Scope invoices:read."""
        return resource(self._rest.request("GET", _path(invoice_id)))

    def list(self, **filters: Unpack[InvoiceFilter]) -> Iterator[Resource]:
        """Every invoice that the filters select, newest first, fetched page by page. Scope invoices:read.

        An invoice created meanwhile shifts the pages: one may come twice, none is left out. To find one again:
        `next((i for i in invoices.list(customer_id=…) if marker in (i.get("internal_notes") or "")), None)`.
        """
        return (invoice for page in self.pages(**filters) for invoice in page.items)

    def pages(self, **filters: Unpack[InvoiceFilter]) -> Iterator[Page]:
        """The same by pages, from `page` on, `per_page` (at most, and by default, 100) on each."""
        given = body(InvoiceFilter, filters, status=one_of(InvoiceStatus))
        return pages(self._rest, "/invoices", {"per_page": MAX_PER_PAGE, **given})

    def update(self, invoice_id: str, **changes: Unpack[InvoiceChanges]) -> Resource:
        """Change a draft, only the fields given; None clears one, and `items` replaces all items.

        Scope invoices:write, event invoice.updated. Refused with INVOICE_NOT_EDITABLE once finalized.
        """
        given = body(InvoiceChanges, changes, nulls=True, items=items_of(InvoiceItemChanges))
        return resource(self._rest.request("PATCH", _path(invoice_id), json=given))

    def finalize(self, invoice_id: str) -> Resource:
        """Give a draft its official number and lock it. Scope invoices:finalize, event invoice.finalized.

        Refused with INVOICE_NOT_DRAFT or VALIDATION_ERROR.
        """
        return resource(self._rest.request("POST", _path(invoice_id, "finalize")))

    def send(self, invoice_id: str) -> Resource:
        """Record that a finalized invoice was delivered. Scope invoices:write, event invoice.sent.

        Refused with INVALID_STATUS_TRANSITION.
        """
        return resource(self._rest.request("POST", _path(invoice_id, "send")))

    def pay(self, invoice_id: str, **payment: Unpack[Payment]) -> Resource:
        """Record a payment. Scope invoices:write, event invoice.paid. Refused with INVALID_STATUS_TRANSITION."""
        return resource(self._rest.request("POST", _path(invoice_id, "pay"), json=body(Payment, payment)))

    def void(self, invoice_id: str, *, reason: str) -> Resource:
        """Cancel a finalized invoice. Scope invoices:write, event invoice.voided.

        Refused with CANNOT_VOID_PAID or ALREADY_VOIDED.
        """
        given = {"reason": field("reason", reason)}
        return resource(self._rest.request("POST", _path(invoice_id, "void"), json=given))

    def pdf(self, invoice_id: str, *, locale: Locale = "fr") -> bytes:
        """The PDF. Scope invoices:export. Refused with PDF_NOT_AVAILABLE while the invoice is a draft."""
        params = {"locale": field("locale", locale)}
        return file(self._rest.download(_path(invoice_id, "pdf"), params=params), begin=b"%PDF")

    def xml(self, invoice_id: str) -> bytes:
        """The UBL 2.1 document. Scope invoices:export. Refused with XML_NOT_AVAILABLE while the invoice is a draft."""
        return file(self._rest.download(_path(invoice_id, "xml")), begin=b"<")


def _path(invoice_id: str, *verb: str) -> str:
    return "/".join(("/invoices", segment(invoice_id), *verb))
