"""The list of invoices, with how many of them are paid (Invoice list).

Chosen, as the page says nothing of it: the newest comes first, ten to a page; the days are those of creation in Kuwait;
`search` is a part of token, reference number or customer's name; a subscription has `subscription` 1; where there is
none to count, the counts are null, as those of orders, of which there are none here. The page shows no member of
`pagination` and not all of an invoice, so neither does this.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated

from sqlalchemy import Select, select

from handlers.providers.hesabe.sandbox import answers
from handlers.providers.hesabe.sandbox.access import Visit
from handlers.providers.hesabe.sandbox.invoices import shown_again
from handlers.providers.hesabe.sandbox.models import CANCELLED, PAID, Invoice, Resource
from handlers.providers.hesabe.webhook import KUWAIT
from handlers.providers.sandbox import fields
from handlers.providers.sandbox.fields import Fields

PER_PAGE = 10
SUBSCRIPTION, SINGLE, SPLIT, INSTALMENT = "0", "1", "6", "7"
SHOWN = (
    *("id", "invoice_type", "invoice_sub_type", "order_drop_id", "token", "access_key", "split_access_key"),
    *("merchant_id", "reference_number", "amount", "admin_charge", "service_charge", "subscription", "discount"),
    *("description", "sms_response", "invoice_status"),
)
"""Of each invoice, in this order."""


class Listing(Fields):
    fromDate: fields.Day
    toDate: fields.Day
    page: Annotated[int, fields.digits(1)]
    invoiceType: Annotated[str, fields.one_of(SUBSCRIPTION, SINGLE, SPLIT, INSTALMENT)]
    search: str | None = None


def list_all(visit: Visit) -> Resource:
    query = visit.query(Listing)
    rows = visit.session.scalars(_wanted(query).where(Invoice.merchant_code == visit.merchant.code))
    found = [invoice for invoice in rows if query.fromDate <= _made_on(invoice) <= query.toDate]
    begin = (query.page - 1) * PER_PAGE
    data = [_shown(invoice) for invoice in found[begin : begin + PER_PAGE]]
    whole = {"stats": _stats(found), "order_stats": _stats([]), "invoices": {"data": data, "pagination": {}}}
    return answers.envelope("Invoice Dashboard", whole)


def _wanted(query: Listing) -> Select[Invoice]:
    rows = select(Invoice).order_by(Invoice.id.desc())
    recurs = Invoice.subscription.has()
    kinds = {SUBSCRIPTION: recurs, SINGLE: ~recurs}
    # Split ones and instalments cannot be made here.
    rows = rows.where(kinds.get(query.invoiceType, recurs & ~recurs))
    if query.search:
        searched = (Invoice.token, Invoice.reference_number, Invoice.customer_name)
        token, reference, name = (column.contains(query.search, autoescape=True) for column in searched)
        rows = rows.where(token | reference | name)
    return rows


def _made_on(invoice: Invoice) -> date:
    return invoice.created_at.astimezone(KUWAIT).date()


def _shown(invoice: Invoice) -> Resource:
    of_the_list = {
        "order_drop_id": 0,
        "admin_charge": "0.000",
        "subscription": int(invoice.subscription is not None),
        "invoice_status": invoice.status or 0,
    }
    whole = shown_again(invoice) | of_the_list
    return {name: whole[name] for name in SHOWN}


def _stats(found: list[Invoice]) -> Resource:
    paid, cancelled = (sum(invoice.status == status for invoice in found) for status in (PAID, CANCELLED))
    counts = {"paid": paid, "not_paid": len(found) - paid - cancelled, "cancelled": cancelled}
    written = {f"invoice_{name}": str(count) if found else None for name, count in counts.items()}
    return {"total_invoice_count": len(found), **written}
