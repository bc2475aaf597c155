"""A payment at Hesabe settles the invoice of Hisab whose number it has as its reference.

It needs a source of each: Hesabe tells of the payment, and Hisab's API key pays the invoice.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from handlers import Context, Event, on
from handlers.errors import ProviderError

CURRENCY = "KWD"
"""What Hesabe's amounts are in."""


@on("transaction.successful", provider="hesabe")
def match_payment(event: Event, ctx: Context) -> None:
    """Pay the invoice if it is the one that was paid for, to the last fils; else tell a person."""
    hisab = ctx.client("hisab")
    token, reference = event.data["token"], event.data["reference_number"]
    invoice = ctx.step("invoice", lambda: find_invoice(hisab, reference))
    differs = difference(invoice, Decimal(event.data["amount"]), token)
    if differs is not None:
        ctx.emit("payment.unmatched", {"payment": token, "reference": reference, "because": differs})
        return
    # Money moves once for a token, whatever is replayed.
    if ctx.once(f"payment {token}"):
        ctx.step("pay", lambda: pay(hisab, invoice["id"], token))
    ctx.emit("payment.matched", {"payment": token, "invoice": invoice["id"], "total": invoice["total"]})


def find_invoice(hisab: Any, number: str) -> Mapping[str, Any]:
    """What matters of the invoice with this number, newest first; empty where there is none."""
    for invoice in hisab.invoices.list():
        if invoice["invoice_number"] == number:
            return {name: invoice.get(name) for name in ("id", "status", "total", "currency", "payment_reference")}
    return {}


def difference(invoice: Mapping[str, Any], amount: Decimal, token: str) -> str | None:
    """Why this payment is not for that invoice; None where it is."""
    if not invoice:
        return "there is no invoice of this number"
    if invoice["currency"] != CURRENCY:
        return f"the invoice is in {invoice['currency']}"
    if Decimal(invoice["total"]) != amount:  # Decimals: 20.000 and 20.00 are the same money
        return f"{amount} was paid, and the invoice is of {invoice['total']}"
    if invoice["status"] not in {"finalized", "sent"} and invoice["payment_reference"] != token:
        return f"the invoice is {invoice['status']}"
    return None


def pay(hisab: Any, invoice_id: str, token: str) -> str:
    """Record the payment; what its status is then. The token is the reference by which a repeated call knows itself."""
    try:
        invoice = hisab.invoices.pay(invoice_id, payment_method="hesabe", payment_reference=token)
    except ProviderError as error:
        if error.code != "INVALID_STATUS_TRANSITION":
            raise
        # Paid before: by a start of this run that died before its step was kept, or by somebody else.
        invoice = hisab.invoices.get(invoice_id)
        if invoice.get("payment_reference") != token:
            raise
    return str(invoice["status"])
