"""Invoices: draft → open → paid, or void (HIBR API reference, Resource catalog and Errors).

Published are the fields id, object, invoice_no, customer_id, invoice_date, status and lines[].unit_price, the
actions post, void and send, the words `open` and `paid`, the event invoice.paid, and that a posted invoice cannot
be deleted (409). The rest is the sandbox's own choice: the words `draft` and `void`; a number is given when an
invoice is posted; sending leaves it open and sets `sent_at`; it is paid by payments that name it
(`handlers.providers.hibr.sandbox.payments`) or by the action `pay`, which makes one of what is due; what has
payments cannot be voided; only a draft is changed.
"""

from __future__ import annotations

from handlers.providers.hibr.sandbox import lines
from handlers.providers.hibr.sandbox.access import Visit
from handlers.providers.hibr.sandbox.answers import against_rules, conflict, malformed, moment
from handlers.providers.hibr.sandbox.records import Action, Kind, shown, update
from handlers.providers.hibr.sandbox.states import DRAFT, VOID, check_draft, check_state
from handlers.providers.hibr.sandbox.tables import Record, Resource

OPEN, PAID = "open", "paid"

_MOMENTS = ("posted_at", "sent_at", "paid_at", "voided_at")
_SUMS = ("subtotal", "vat_amount", "total", "total_aed", "amount_paid", "amount_due")


def create(visit: Visit, before: Resource, asked: Resource) -> Resource:
    fields: Resource = {
        "invoice_no": None,
        "status": DRAFT,
        "invoice_date": visit.today,
        "due_date": None,
        **dict.fromkeys(_MOMENTS),
    }
    return _computed(fields | asked)


def change(visit: Visit, before: Resource, asked: Resource) -> Resource:
    if before["status"] != DRAFT:
        raise conflict(f"Only a draft can be changed; this invoice is {before['status']}.")
    return _computed(before | asked)


def post(visit: Visit, before: Resource, asked: Resource) -> Resource:
    check_state(before, (DRAFT,), OPEN)
    number = visit.account.next_invoice
    visit.account.next_invoice += 1
    invoice_no = f"INV-{before['invoice_date'][:4]}-{number:06d}"
    return before | {"status": OPEN, "invoice_no": invoice_no, "posted_at": moment(visit.now)}


def send(visit: Visit, before: Resource, asked: Resource) -> Resource:
    if before["status"] != OPEN:
        raise conflict(f"Only an open invoice can be sent; this one is {before['status']}.")
    return before | {"sent_at": moment(visit.now)}


def void(visit: Visit, before: Resource, asked: Resource) -> Resource:
    check_state(before, (OPEN,), VOID)
    if before["amount_paid"]:
        raise conflict("An invoice with payments cannot be voided: void its payments first.")
    return before | {"status": VOID, "voided_at": moment(visit.now)}


def settle(visit: Visit, invoice: Record, amount: int) -> None:
    """Count a payment, or with a negative amount take one back; tells when the invoice is paid by it."""
    before = shown(invoice)
    paid = before["amount_paid"] + amount
    due = before["total"] - paid
    after = {"amount_paid": paid, "amount_due": due, "status": OPEN if due else PAID}
    update(visit, invoice, invoice.fields | after | {"paid_at": None if due else moment(visit.now)})
    if not due and before["status"] != PAID:
        visit.tell("invoice.paid", shown(invoice), before)


def check_payable(invoice: Record, amount: int, currency: str) -> None:
    """Raise conflict_error or validation_error where the invoice cannot take this payment."""
    fields = invoice.fields
    if fields["status"] != OPEN:
        raise conflict(f"Only an open invoice can be paid; this one is {fields['status']}.", "invoice_id")
    if currency != fields["currency"]:
        raise against_rules(f"The invoice is in {fields['currency']}.", "amount_currency")
    if amount > fields["amount_due"]:
        raise against_rules(f"The amount is more than the {fields['amount_due']} that are due.", "amount")


def _computed(fields: Resource) -> Resource:
    """The fields with what follows from the lines."""
    if fields["invoice_date"] is None:
        raise malformed("The 'invoice_date' field must be an ISO 8601 date (YYYY-MM-DD).", "invoice_date")
    if fields["due_date"] is not None and fields["due_date"] < fields["invoice_date"]:
        raise against_rules("An invoice is not due before its date.", "due_date")
    priced = lines.priced(fields["lines"])
    sums = lines.totals(priced)
    asked = fields.get("currency")
    if asked not in {None, sums["currency"]}:
        raise against_rules(f"The lines are in {sums['currency']}.", "currency")
    due = {"amount_paid": 0, "amount_due": sums["total"]}
    pairs = {f"{name}_currency": sums["currency"] for name in due}
    return {**fields, "lines": priced, **sums, **due, **pairs}


def kind(pay: Action) -> Kind:
    return Kind(
        resource="invoices",
        object="invoice",
        scope="invoices",
        required=("customer_id", "lines"),
        fixed=frozenset(
            {"invoice_no", "status", "exchange_rate", *_MOMENTS, *_SUMS, *(f"{name}_currency" for name in _SUMS)}
        ),
        create=create,
        change=change,
        check_delete=check_draft,
        actions={
            "post": Action(change=post),
            "send": Action(change=send),
            "void": Action(change=void),
            "pay": pay,
        },
    )
