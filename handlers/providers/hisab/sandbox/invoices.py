"""Invoices: draft → finalized → sent → paid, or void (API reference, Invoices).

Where the reference is silent, this is chosen: an invoice may be paid, or be voided, whether or not it was sent; a draft
is not voided but left; an archived customer gets no new invoice; finalizing needs what an invoice must show by law, the
seller's ICE and that of a business customer (VALIDATION_ERROR); `changes` names the fields whose value is another.
"""

from __future__ import annotations

from typing import Annotated, Any

from sqlalchemy import select
from starlette.responses import Response

from handlers.providers.hisab.sandbox import lines
from handlers.providers.hisab.sandbox.access import Desk, Visit
from handlers.providers.hisab.sandbox.answers import (
    Page,
    day,
    invalid,
    moment,
    new_id,
    not_found,
    paged,
    refusal,
    success,
)
from handlers.providers.hisab.sandbox.customers import address_of, customer_of, shown_address
from handlers.providers.hisab.sandbox.models import ARCHIVED, Customer, Invoice, Organization, Resource
from handlers.providers.sandbox import fields
from handlers.providers.sandbox.fields import Fields, Problem

DRAFT = "draft"
FINALIZED = "finalized"
SENT = "sent"
PAID = "paid"
VOID = "void"
STATUSES = (DRAFT, FINALIZED, SENT, PAID, VOID)
CURRENCY = "MAD"

Currency = Annotated[str, fields.matching(r"[A-Z]{3}", "must be a currency code of three letters (ISO 4217)")]


class InvoiceQuery(Page):
    status: Annotated[str, fields.one_of(*STATUSES)] | None = None
    customer_id: str | None = None
    date_from: fields.Day | None = None
    date_to: fields.Day | None = None


class CreateInvoice(Fields):
    customer_id: fields.Words
    issue_date: fields.Day
    due_date: fields.Day | None = None
    currency: Currency | None = None
    payment_terms: fields.Text | None = None
    notes: fields.Text | None = None
    internal_notes: fields.Text | None = None
    items: lines.Items


class ChangeInvoice(Fields):
    """A default stands for "not given": none of them is ever read."""

    customer_id: fields.Words = ""
    issue_date: fields.Day = None  # type: ignore[assignment]  # may be left out, but not be null
    due_date: fields.Day | None = None
    currency: Currency = CURRENCY
    payment_terms: fields.Text | None = None
    notes: fields.Text | None = None
    items: lines.ItemChanges = []  # noqa: RUF012 - pydantic copies it


class Payment(Fields):
    paid_at: fields.Moment | None = None
    payment_method: fields.Text | None = None
    payment_reference: fields.Text | None = None


class Reason(Fields):
    reason: fields.Words


def list_invoices(visit: Visit) -> Response:
    query = visit.query(InvoiceQuery)
    rows = select(Invoice).where(Invoice.organization_id == visit.desk.organization.id)
    if query.status is not None:
        rows = rows.where(Invoice.status == query.status)
    if query.customer_id is not None:
        rows = rows.where(Invoice.customer_id == query.customer_id)
    if query.date_from is not None:
        rows = rows.where(Invoice.issue_date >= query.date_from)
    if query.date_to is not None:
        rows = rows.where(Invoice.issue_date <= query.date_to)
    found, meta = paged(visit.session, rows, Invoice.number, query)
    return success([shown(invoice) for invoice in found], meta=meta)


def get_invoice(visit: Visit) -> Response:
    return success(shown(invoice_of(visit.desk, visit.id)))


def create_invoice(visit: Visit) -> Response:
    body = visit.body(CreateInvoice)
    customer = billed(visit.desk, body.customer_id)
    given = body.model_dump(exclude={"customer_id", "items", "currency"})
    invoice = draft(visit.desk, customer, items=lines.plain(body.items), currency=body.currency or CURRENCY, **given)
    return success(shown(invoice), status=201)


def change_invoice(visit: Visit) -> Response:
    invoice = invoice_of(visit.desk, visit.id)
    body = visit.body(ChangeInvoice)
    if invoice.status != DRAFT:
        raise refusal("INVOICE_NOT_EDITABLE", "Only a draft can be changed")
    before, given = shown(invoice), body.given()
    if "customer_id" in given:
        invoice.customer = billed(visit.desk, given.pop("customer_id"))
    if "items" in given:
        _fill(invoice, lines.merged(given.pop("items"), invoice.items))
    for name, value in given.items():
        setattr(invoice, name, value)
    invoice.updated_at = visit.desk.now
    visit.session.flush()
    after = shown(invoice)
    changes = [name for name in after if after[name] != before[name] and name != "updated_at"]
    visit.desk.tell("invoice.updated", after | {"changes": changes})
    return success(after)


def finalize_invoice(visit: Visit) -> Response:
    invoice = invoice_of(visit.desk, visit.id)
    finalize(visit.desk, invoice)
    return success(shown(invoice))


def send_invoice(visit: Visit) -> Response:
    invoice = invoice_of(visit.desk, visit.id)
    send(visit.desk, invoice)
    return success(shown(invoice))


def pay_invoice(visit: Visit) -> Response:
    invoice = invoice_of(visit.desk, visit.id)
    body = visit.body(Payment)
    _expect(invoice, {FINALIZED, SENT}, PAID)
    invoice.payment_method, invoice.payment_reference = body.payment_method, body.payment_reference
    invoice.paid_at = body.paid_at or moment(visit.desk.now)
    _move(visit.desk, invoice, PAID)
    payment = {"method": invoice.payment_method, "reference": invoice.payment_reference}
    visit.desk.tell("invoice.paid", shown(invoice) | {"payment": payment})
    return success(shown(invoice))


def void_invoice(visit: Visit) -> Response:
    invoice = invoice_of(visit.desk, visit.id)
    body = visit.body(Reason)
    if invoice.status == PAID:
        raise refusal("CANNOT_VOID_PAID", "A paid invoice cannot be voided")
    if invoice.status == VOID:
        raise refusal("ALREADY_VOIDED", "The invoice is already void")
    _expect(invoice, {FINALIZED, SENT}, VOID)
    invoice.void_reason, invoice.voided_at = body.reason, visit.desk.now
    _move(visit.desk, invoice, VOID)
    visit.desk.tell("invoice.voided", shown(invoice) | {"reason": body.reason})
    return success(shown(invoice))


def invoice_of(desk: Desk, invoice_id: str) -> Invoice:
    """An invoice of this organization. Raises NOT_FOUND."""
    rows = select(Invoice).where(Invoice.id == invoice_id, Invoice.organization_id == desk.organization.id)
    invoice = desk.session.scalars(rows).one_or_none()
    if invoice is None:
        raise not_found()
    return invoice


def billed(desk: Desk, customer_id: str) -> Customer:
    """The customer of an invoice to be. Raises VALIDATION_ERROR."""
    customer = customer_of(desk, customer_id)
    if customer is None:
        raise invalid({"field": "customer_id", "message": "is not a customer of this organization"})
    if customer.status == ARCHIVED:
        raise invalid({"field": "customer_id", "message": "is an archived customer"})
    return customer


def draft(desk: Desk, customer: Customer, *, items: list[Resource], **given: Any) -> Invoice:
    """Make a draft, and tell."""
    invoice = Invoice(
        id=new_id("inv"),
        organization_id=desk.organization.id,
        customer=customer,
        status=DRAFT,
        parties={},
        created_at=desk.now,
        updated_at=desk.now,
        **given,
    )
    _fill(invoice, items)
    desk.session.add(invoice)
    desk.session.flush()
    desk.tell("invoice.created", shown(invoice))
    return invoice


def finalize(desk: Desk, invoice: Invoice) -> None:
    """Give a draft the next number of the organization, keep who its parties are, and tell."""
    if invoice.status != DRAFT:
        raise refusal("INVOICE_NOT_DRAFT", "Only a draft can be finalized")
    problems = _missing(desk.organization, invoice.customer)
    if problems:
        raise invalid(*problems)
    invoice.invoice_number, invoice.finalized_at = _next_number(desk, invoice), desk.now
    invoice.parties = {"seller": _seller(desk.organization), "customer": _buyer(invoice.customer)}
    _move(desk, invoice, FINALIZED)
    desk.tell("invoice.finalized", shown(invoice))


def send(desk: Desk, invoice: Invoice) -> None:
    """Record that a finalized invoice was delivered, and tell."""
    _expect(invoice, {FINALIZED}, SENT)
    invoice.sent_at = desk.now
    _move(desk, invoice, SENT)
    desk.tell("invoice.sent", shown(invoice))


def shown(invoice: Invoice) -> Resource:
    """An invoice as the API gives it; of a finalized one the customer is as it was then."""
    customer = invoice.parties.get("customer") or _buyer(invoice.customer)
    number, place = invoice.invoice_number, f"/api/v1/invoices/{invoice.id}"
    return {
        "id": invoice.id,
        "invoice_number": number,
        "status": invoice.status,
        "customer": {name: customer[name] for name in ("id", "name", "ice")},
        "issue_date": day(invoice.issue_date),
        "due_date": day(invoice.due_date),
        "currency": invoice.currency,
        "subtotal": invoice.subtotal,
        "total_tax": invoice.total_tax,
        "total": invoice.total,
        **dict.fromkeys(("discount_type", "discount_value", "discount_amount")),
        "payment_terms": invoice.payment_terms,
        "notes": invoice.notes,
        "internal_notes": invoice.internal_notes,
        "pdf_url": None if number is None else f"{place}/pdf",
        "xml_url": None if number is None else f"{place}/xml",
        "items": invoice.items,
        "payment_method": invoice.payment_method,
        "payment_reference": invoice.payment_reference,
        "void_reason": invoice.void_reason,
        "created_at": moment(invoice.created_at),
        "updated_at": moment(invoice.updated_at),
        "finalized_at": moment(invoice.finalized_at),
        "sent_at": moment(invoice.sent_at),
        "paid_at": invoice.paid_at,
        "voided_at": moment(invoice.voided_at),
    }


def _next_number(desk: Desk, invoice: Invoice) -> str:
    """The organization's next number; one that was used already, before the counter was set back, is passed over."""
    organization = desk.organization
    while True:
        number = f"{organization.invoice_prefix}-{invoice.issue_date.year}-{organization.next_invoice_number:04d}"
        organization.next_invoice_number += 1
        used = select(Invoice.id).where(Invoice.organization_id == organization.id, Invoice.invoice_number == number)
        if desk.session.scalar(used) is None:
            return number


def _fill(invoice: Invoice, items: list[Resource]) -> None:
    invoice.items = lines.priced(items)
    for name, value in lines.sums(invoice.items).items():
        setattr(invoice, name, value)


def _move(desk: Desk, invoice: Invoice, status: str) -> None:
    invoice.status, invoice.updated_at = status, desk.now
    desk.session.flush()


def _expect(invoice: Invoice, statuses: set[str], wanted: str) -> None:
    if invoice.status not in statuses:
        raise refusal("INVALID_STATUS_TRANSITION", f"Cannot go from {invoice.status} to {wanted}")


def _missing(organization: Organization, customer: Customer) -> list[Problem]:
    problems = []
    if organization.ice is None:
        problems.append({"field": "organization.ice", "message": "is required to issue an invoice"})
    if customer.type == "b2b" and customer.ice is None:
        problems.append({"field": "customer.ice", "message": "is required to invoice a business"})
    return problems


def _seller(organization: Organization) -> Resource:
    names = ("id", "legal_name", "ice", "rc", "if_number", "vat_number", "phone", "email", "website")
    return {name: getattr(organization, name) for name in names} | {
        "address": shown_address(organization.billing_address)
    }


def _buyer(customer: Customer) -> Resource:
    names = ("id", "name", "type", "legal_name", "ice", "rc", "email", "phone")
    return {name: getattr(customer, name) for name in names} | {"address": address_of(customer)}
