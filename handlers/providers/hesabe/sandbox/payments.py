"""Transactions: what paying makes, what the webhook tells of it, and what the enquiry confirms.

Chosen, as the pages are silent: a token is the merchant's number, the Unix time and 13 digits, as the documented ones
are; the service type of an invoice is "SMS Payment", as in a published enquiry; the commission is 0.100; what the bank
would add (TransactionID, PaymentID, TrackID) are numbers of ours.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import Response

from handlers.providers.hesabe.sandbox import access, answers
from handlers.providers.hesabe.sandbox.bodies import PAYMENT_TYPES
from handlers.providers.hesabe.sandbox.models import (
    AUTHORIZED,
    FAILED,
    PAID,
    REFUNDED,
    SUCCESSFUL,
    Invoice,
    Lie,
    Resource,
    Transaction,
    next_id,
)
from handlers.providers.sandbox import fields
from handlers.providers.sandbox.fields import Fields, NotJson
from handlers.providers.sandbox.machine import Call, Machine, Refusal
from handlers.providers.sandbox.webhooks import Endpoint

FIRST_ID = 1_190_281
SERVICE, SERVICE_ID = "SMS Payment", 2
COMMISSION = Decimal("0.100")
PAYMENT_STATUSES = {FAILED: 0, SUCCESSFUL: 1, REFUNDED: 2, AUTHORIZED: 4}
OF_SUBSCRIPTION = 8


class Lookup(Fields):
    isOrderReference: Annotated[str, fields.one_of("0", "1")] = "0"


def new_token(prefix: str, now: datetime, digits: int = 13) -> str:
    return f"{prefix}{int(now.timestamp())}{secrets.randbelow(10**digits):0{digits}}"


def make(
    session: Session,
    invoice: Invoice,
    status: str,
    payment_type: str,
    *,
    now: datetime,
    amount: str | None = None,
    reference_number: str | None = None,
) -> Transaction:
    """One attempt to pay. A success pays the invoice."""
    transaction = Transaction(
        id=next_id(session, Transaction.id, FIRST_ID),
        token=new_token(invoice.merchant_code, now),
        invoice=invoice,
        merchant_code=invoice.merchant_code,
        amount=amount or invoice.amount,
        refunded="0.000",
        reference_number=reference_number or invoice.reference_number,
        status=status,
        payment_type=payment_type,
        of_subscription=invoice.subscription is not None,
        created_at=now,
    )
    session.add(transaction)
    if status == SUCCESSFUL:
        invoice.status = PAID
    invoice.updated_at = now
    session.flush()
    return transaction


def tell(machine: Machine, session: Session, transaction: Transaction) -> None:
    """Send the webhook, once to each URL: the one that the invoice named and the configured ones.

    A lie that is armed alters it.
    """
    told = _told(transaction)
    lie = session.scalars(select(Lie).order_by(Lie.id).limit(1)).one_or_none()
    if lie is not None:
        told |= lie.changes
        if lie.left is not None:
            lie.left -= 1
            if lie.left == 0:
                session.delete(lie)
    body = answers.written({"blocks": _blocks(told), **told})
    event_type = f"transaction.{transaction.status.lower()}"
    machine.emit(session, event_type, body, owner=transaction.merchant_code)
    named = transaction.invoice.webhook
    if named is not None and not _configured(session, transaction.merchant_code, named):
        machine.emit(session, event_type, body, url=named)


def enquire(call: Call) -> Response:
    """`GET /api/transaction/{token}`; plain, with the access code alone (Transaction enquiry)."""
    merchant = access.identified(call)
    wanted = Transaction.reference_number if _by_reference(call) else Transaction.token
    rows = select(Transaction).where(wanted == call.id, Transaction.merchant_code == merchant.code)
    found = call.session.scalars(rows.order_by(Transaction.id)).all()
    if not found:
        raise Refusal(404, answers.NO_TRANSACTION, "Transaction not found")
    results = [shown(transaction) for transaction in found]
    return answers.plain({"status": True, "message": "Transaction found", "data": results[-1], "results": results})


def shown(transaction: Transaction) -> Resource:
    """As the enquiry has it."""
    invoice, bank = transaction.invoice, f"{transaction.id:012}"
    card = transaction.payment_type != "1"
    return {
        "token": transaction.token,
        "amount": transaction.amount,
        "reference_number": transaction.reference_number,
        "status": transaction.status,
        "TransactionID": f"2{bank}",
        "Id": transaction.id,
        "PaymentID": f"1002{bank}",
        "Terminal": "1201",
        "TrackID": transaction.token,
        "payment_type": PAYMENT_TYPES[transaction.payment_type],
        "service_type": SERVICE,
        "customerName": invoice.customer_name,
        "customerEmail": invoice.customer_email,
        "customerMobile": invoice.mobile_number,
        "customerCardType": "CREDIT" if card else "DEBIT",
        "customerCard": "512345xxxxxx0008" if card else "888888xxxxxx0001",
        "datetime": answers.moment(transaction.created_at),
    }


def of_invoice(invoice: Invoice) -> Resource | None:
    """The `transaction` of an invoice: the latest that took money or may take it; null until then."""
    counted = [one for one in invoice.transactions if one.status != FAILED]
    if not counted:
        return None
    latest = counted[-1]
    amount = Decimal(latest.amount)
    commission = min(COMMISSION, amount)
    paid_again = latest.of_subscription and latest.status == SUCCESSFUL
    return {
        "id": latest.id,
        "amount": amount,
        "net_amount": amount - commission,
        "commission": commission,
        "admin_charge": Decimal(0),
        "token": latest.token,
        "payment_type_id": int(latest.payment_type),
        "service_type_id": SERVICE_ID,
        "payment_transfer_status": 2,
        "payment_status": OF_SUBSCRIPTION if paid_again else PAYMENT_STATUSES[latest.status],
        "auth_status": int(latest.status == AUTHORIZED),
    }


def _configured(session: Session, merchant_code: str, url: str) -> bool:
    whose = (Endpoint.owner == merchant_code) | Endpoint.owner.is_(None)
    return session.scalars(select(Endpoint.id).where(Endpoint.active, Endpoint.url == url, whose)).first() is not None


def _by_reference(call: Call) -> bool:
    """Hesabe's page puts it into the body of the GET, clients into the query."""
    try:
        given = {**fields.document(call.raw), **call.request.query_params}
    except NotJson:
        given = dict(call.request.query_params)
    if "isOrderReference" in given:
        given["isOrderReference"] = str(given["isOrderReference"])
    return access.read(Lookup, given).isOrderReference == "1"


def _told(transaction: Transaction) -> dict[str, Any]:
    return {
        "token": transaction.token,
        "amount": transaction.amount,
        "reference_number": transaction.reference_number,
        "status": transaction.status,
        "payment_type": PAYMENT_TYPES[transaction.payment_type],
        "service_type": SERVICE,
        "datetime": answers.moment(transaction.created_at),
    }


def _blocks(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same once more, as a message for Slack."""
    rows = (
        (("Date & Time", told["datetime"].replace(" ", "T")), ("Transaction Token", told["token"])),
        (("Order Reference Number", told["reference_number"]), ("Service Type", told["service_type"])),
        (("Amount", f"KWD {_short(told['amount'])}"), ("Payment Type", told["payment_type"])),
    )
    header = {"type": "plain_text", "text": f"TRANSACTION {told['status']}", "emoji": True}
    sections = [
        {"type": "section", "fields": [{"type": "mrkdwn", "text": f"*{label}:*\n{text}"} for label, text in row]}
        for row in rows
    ]
    return [{"type": "header", "text": header}, *sections]


def _short(amount: str) -> str:
    """49.000 is written KWD 49 in the sample."""
    return amount.rstrip("0").rstrip(".") if "." in amount else amount
