"""Refunds: asked for over the API, approved or rejected by Hesabe (Refund request; Refund details; Cancel refund).

Chosen, as the pages say nothing of it: the amount of a full refund is that of the transaction, and nothing of it may be
refunded yet; partial ones together are at most that amount. A full one is approved by itself after an hour of the
sandbox's time ("Auto Refund Approved", as in the sample), a partial one waits for `POST /sandbox/refunds/{id}`. Once
everything is refunded, the transaction is REFUNDED, which a webhook tells unless the settings switch that off. A refund
that was cancelled is gone. The answer to a request has the fields of the guide beside those of "Refund details".
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated

from sqlalchemy import select
from sqlalchemy.orm import Session

from handlers.providers.hesabe.sandbox import answers, payments
from handlers.providers.hesabe.sandbox.access import Visit
from handlers.providers.hesabe.sandbox.bodies import PAYMENT_TYPES, Money
from handlers.providers.hesabe.sandbox.models import (
    APPROVED,
    PENDING,
    REFUNDED,
    REJECTED,
    SUCCESSFUL,
    Refund,
    Resource,
    Transaction,
    next_id,
    settings_of,
)
from handlers.providers.hesabe.webhook import KUWAIT
from handlers.providers.sandbox import fields
from handlers.providers.sandbox.fields import Fields
from handlers.providers.sandbox.machine import Machine

FIRST_ID = 1461
FULL, PARTIAL = "1", "2"
DELAY = timedelta(hours=1)
PER_PAGE = 10
WORDS = {PENDING: "PENDING", APPROVED: "APPROVED", REJECTED: "REJECTED"}


class Request(Fields):
    refundAmount: Money
    refundMethod: Annotated[str, fields.one_of(FULL, PARTIAL)]
    token: fields.Words


class Listing(Fields):
    fromDate: fields.Day | None = None
    toDate: fields.Day | None = None
    page: Annotated[int, fields.digits(1)] = 1
    search: str | None = None


def request(visit: Visit) -> Resource:
    body = visit.body(Request)
    rows = select(Transaction).where(Transaction.token == body.token, Transaction.merchant_code == visit.merchant.code)
    transaction = visit.session.scalars(rows).one_or_none()
    if transaction is None:
        raise answers.not_found("the merchant has no transaction with this token")
    _expect_refundable(visit.session, transaction, body)
    refund = Refund(
        id=next_id(visit.session, Refund.id, FIRST_ID),
        transaction=transaction,
        merchant_code=visit.merchant.code,
        amount=body.refundAmount,
        method=body.refundMethod,
        status=PENDING,
        remarks="",
        requested_at=visit.now,
        approve_at=visit.now + DELAY if body.refundMethod == FULL else None,
        decided_at=None,
    )
    visit.session.add(refund)
    visit.session.flush()
    return answers.envelope("Your refund request is waiting for approval", _shown_first(refund))


def get(visit: Visit) -> Resource:
    return answers.envelope("Refund requests", shown(_refund(visit)))


def cancel(visit: Visit) -> Resource:
    refund = _refund(visit)
    if refund.status != PENDING:
        raise answers.invalid(f"the refund is {WORDS[refund.status].lower()} already")
    visit.session.delete(refund)
    return answers.envelope("Refund requests", True)


def list_all(visit: Visit) -> Resource:
    query = visit.query(Listing)
    rows = select(Refund).join(Refund.transaction).where(Refund.merchant_code == visit.merchant.code)
    if query.search:
        wanted = (Transaction.token, Transaction.reference_number)
        rows = rows.where(wanted[0].contains(query.search) | wanted[1].contains(query.search))
    found = [
        refund
        for refund in visit.session.scalars(rows.order_by(Refund.id.desc()))
        if (query.fromDate is None or refund.requested_at.astimezone(KUWAIT).date() >= query.fromDate)
        and (query.toDate is None or refund.requested_at.astimezone(KUWAIT).date() <= query.toDate)
    ]
    begin = (query.page - 1) * PER_PAGE
    data = [shown(refund) for refund in found[begin : begin + PER_PAGE]]
    listed = {"data": data, "current_page": query.page, "per_page": PER_PAGE, "total": len(found)}
    return answers.envelope("Refund requests", {"stats": _stats(found), "refund_request_list": listed})


def next_due(session: Session) -> Refund | None:
    """The refund that is approved first by itself."""
    rows = select(Refund).where(Refund.approve_at.is_not(None)).order_by(Refund.approve_at, Refund.id)
    return session.scalars(rows.limit(1)).one_or_none()


def decide(machine: Machine, session: Session, refund: Refund, now: datetime, *, approved: bool, remarks: str) -> None:
    """Approve or reject a refund that is pending."""
    refund.status, refund.remarks = APPROVED if approved else REJECTED, remarks
    refund.decided_at, refund.approve_at = now, None
    if not approved:
        return
    transaction = refund.transaction
    refunded = Decimal(transaction.refunded) + Decimal(refund.amount)
    transaction.refunded = answers.money(refunded)
    if refunded == Decimal(transaction.amount):
        transaction.status = REFUNDED
        if settings_of(session).tells_refunds:
            payments.tell(machine, session, transaction)


def shown(refund: Refund) -> Resource:
    transaction = refund.transaction
    decided = None if refund.decided_at is None else refund.decided_at.astimezone(KUWAIT).date().isoformat()
    return {
        "id": refund.id,
        "merchant_id": transaction.invoice.merchant.id,
        "amount": refund.amount,
        "refund_at": decided if refund.status == APPROVED else None,
        "document_number": "",
        "token": transaction.token,
        "transaction_date": answers.moment(transaction.created_at),
        "order_reference_number": transaction.reference_number,
        "recover_method": "1",
        "status": refund.status,
        "refund_method": refund.method,
        "remarks": refund.remarks,
        "approved_by": "Admin" if refund.status == APPROVED else "",
        "total_balance_amount": answers.money(Decimal(transaction.amount) - Decimal(transaction.refunded)),
        "total_refunded_amount": transaction.refunded,
    }


def _shown_first(refund: Refund) -> Resource:
    transaction = refund.transaction
    return shown(refund) | {
        "transaction_status": transaction.status,
        "refund_status": WORDS[refund.status],
        "payment_type": PAYMENT_TYPES[transaction.payment_type],
        "service_type": payments.SERVICE,
        "transaction_datetime": answers.moment(transaction.created_at),
        "refund_requested_at": answers.moment(refund.requested_at),
    }


def _expect_refundable(session: Session, transaction: Transaction, body: Request) -> None:
    if transaction.status != SUCCESSFUL:
        raise answers.invalid(f"token is of a transaction that is {transaction.status}")
    asked = Decimal(body.refundAmount)
    if body.refundMethod == FULL and asked != Decimal(transaction.amount):
        raise answers.invalid("refundAmount must be the amount of the transaction where refundMethod is 1")
    open_ones = select(Refund.amount).where(Refund.transaction_id == transaction.id, Refund.status == PENDING)
    taken = sum((Decimal(amount) for amount in session.scalars(open_ones)), Decimal(transaction.refunded))
    if asked + taken > Decimal(transaction.amount):
        raise answers.invalid("refundAmount is more than what is left of the transaction")


def _refund(visit: Visit) -> Refund:
    refund = visit.session.get(Refund, visit.number)
    if refund is None or refund.merchant_code != visit.merchant.code:
        raise answers.not_found("the merchant has no refund with this id")
    return refund


def _stats(found: list[Refund]) -> Resource:
    def total(*statuses: int) -> str:
        return answers.money(sum((Decimal(one.amount) for one in found if one.status in statuses), Decimal(0)))

    return {
        "total_refund_request_count": len(found),
        "total_refund_request_amount": total(PENDING, APPROVED, REJECTED),
        "pending_total_refund_request_amount": total(PENDING),
        "approved_total_refund_request_amount": total(APPROVED),
        "rejected_total_refund_request_amount": total(REJECTED),
    }
