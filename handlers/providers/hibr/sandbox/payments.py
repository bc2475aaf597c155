"""Payments, and invoices being paid by them.

Of the fields nothing is published. The sandbox's own choices: `amount` with `amount_currency`, `invoice_id` (none:
money on account), `payment_date`, and what else is given; a payment of an invoice must not exceed what is due
(422), nor be of an invoice that is not open (409); it is neither changed nor deleted (409) but voided, and then the
invoice is open again.
"""

from __future__ import annotations

from handlers.providers.hibr.sandbox import invoices
from handlers.providers.hibr.sandbox.access import Visit
from handlers.providers.hibr.sandbox.answers import conflict, moment
from handlers.providers.hibr.sandbox.records import Action, Kind, found, make
from handlers.providers.hibr.sandbox.states import POSTED, VOID, check_state
from handlers.providers.hibr.sandbox.tables import Record, Resource


def create(visit: Visit, before: Resource, asked: Resource) -> Resource:
    fields = {"status": POSTED, "payment_date": visit.today, "voided_at": None} | asked
    invoice = _invoice(visit, fields)
    if invoice is not None:
        invoices.check_payable(invoice, asked["amount"], asked["amount_currency"])
        fields["customer_id"] = invoice.fields["customer_id"]
    return fields


def created(visit: Visit, record: Record, before: Resource) -> None:
    invoice = _invoice(visit, record.fields)
    if invoice is not None:
        invoices.settle(visit, invoice, record.fields["amount"])


def change(visit: Visit, before: Resource, asked: Resource) -> Resource:
    raise conflict("A payment cannot be changed: void it, and make another.")


def check_delete(visit: Visit, record: Record) -> None:
    raise conflict("A payment cannot be deleted: void it.")


def void(visit: Visit, before: Resource, asked: Resource) -> Resource:
    check_state(before, (POSTED,), VOID)
    return before | {"status": VOID, "voided_at": moment(visit.now)}


def voided(visit: Visit, record: Record, before: Resource) -> None:
    invoice = _invoice(visit, record.fields)
    if invoice is not None:
        invoices.settle(visit, invoice, -record.fields["amount"])


def paid(visit: Visit, record: Record, before: Resource) -> None:
    """Make the payment that the action `pay` of an invoice stands for."""
    amount = {"amount": before["amount_due"], "amount_currency": before["currency"]}
    make(visit, KIND, {"invoice_id": record.id, **amount})


def payable(visit: Visit, before: Resource, asked: Resource) -> Resource:
    check_state(before, (invoices.OPEN,), invoices.PAID)
    return before


def _invoice(visit: Visit, payment: Resource) -> Record | None:
    return None if payment.get("invoice_id") is None else found(visit, "invoices", payment["invoice_id"])


KIND = Kind(
    resource="payments",
    object="payment",
    scope="payments",
    required=("amount",),
    fixed=frozenset({"status", "voided_at"}),
    create=create,
    created=created,
    change=change,
    check_delete=check_delete,
    actions={"void": Action(change=void, follow=voided)},
)
PAY = Action(change=payable, follow=paid)
