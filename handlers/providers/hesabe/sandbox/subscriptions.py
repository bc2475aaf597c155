"""Invoices that recur: the customer's consent, the captures, the end (Create subscription invoice; Capture).

`SubscriptionType` has two meanings: the sample's comment and the newer page say "1" is on demand, the field table says
"0". The comment's is the default, `on_demand` of the settings is the other. Chosen, as the pages say nothing of it:

- The customer agrees on the pay page: an AUTHORIZED transaction, whose token is that of the subscription.
- An automatic one is captured at the beginning of `startDate` in Kuwait, and then each month on that day, or on the
  last of a shorter month. Days before the consent are not made up for: the first capture is then at the consent.
- `noofRecurrence` counts the captures in all, a declined one too; on demand as well, where amounts are the merchant's.
- A declined capture is a FAILED transaction. Each capture is told by a webhook, unless the settings switch that off.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import MAXYEAR, date, datetime, time
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import Response

from handlers.providers.hesabe.sandbox import answers, payments
from handlers.providers.hesabe.sandbox.access import Visit
from handlers.providers.hesabe.sandbox.bodies import SubscriptionInvoice
from handlers.providers.hesabe.sandbox.models import (
    AUTHORIZED,
    FAILED,
    SUCCESSFUL,
    Subscription,
    Transaction,
    settings_of,
)
from handlers.providers.hesabe.webhook import KUWAIT
from handlers.providers.sandbox import fields
from handlers.providers.sandbox.fields import Fields
from handlers.providers.sandbox.machine import Call, Machine, Refusal


def _captured_amount(value: Any) -> str:
    """A number or text: the page says that it is numeric, and shows 10."""
    numeric = isinstance(value, int | Decimal) and not isinstance(value, bool)
    exact = Decimal(value) if numeric or (isinstance(value, str) and _plain(value)) else Decimal(0)
    if not 0 < exact <= fields.MAX_NUMBER or fields.places(exact) > 3:
        raise ValueError("must be above zero, with at most three decimals")
    return answers.money(exact)


def _plain(text: str) -> bool:
    return len(text) <= 14 and text.isascii() and text.replace(".", "", 1).isdecimal()


class Capture(Fields):
    amount: Annotated[str, BeforeValidator(_captured_amount)]
    orderReferenceNumber: fields.Words
    paymentToken: fields.Words


def agreed_on(body: SubscriptionInvoice, call: Call) -> Subscription:
    """What the merchant asks for; nothing is captured before the customer's consent."""
    return Subscription(
        type=body.SubscriptionType,
        automatic=body.SubscriptionType != settings_of(call.session).on_demand,
        recurrences=int(body.noofRecurrence),
        start_date=body.startDate or call.now.astimezone(KUWAIT).date(),
        token=None,
        payment_type=None,
        captures=0,
        declines=0,
        next_at=None,
        cancelled_at=None,
    )


def consent(session: Session, subscription: Subscription, payment_type: str, now: datetime) -> Transaction:
    """The customer agrees: the first capture is planned, if nobody has to ask for it."""
    transaction = payments.make(session, subscription.invoice, AUTHORIZED, payment_type, now=now)
    subscription.token, subscription.payment_type = transaction.token, payment_type
    if subscription.automatic:
        subscription.start_date = max(subscription.start_date, now.astimezone(KUWAIT).date())
        subscription.next_at = max(now, _due(subscription.start_date, 0) or now)
    return transaction


def capture(visit: Visit) -> Response:
    """`POST /api/subscription/capture`: one payment of a subscription on demand."""
    body = visit.body(Capture)
    subscription = _active(visit.session, body.paymentToken)
    if subscription is None or subscription.invoice.merchant_code != visit.merchant.code:
        reason = "paymentToken is not that of a subscription that the customer agreed to and nobody ended"
        raise answers.coded(answers.INVALID_PAYMENT_TOKEN, "Invalid Payment Token", reason)
    if subscription.automatic:
        raise answers.coded(answers.TRANSACTION_ERROR, "Transaction Error", "the payments of it are automatic")
    if subscription.captures >= subscription.recurrences:
        raise answers.coded(answers.TRANSACTION_ERROR, "Transaction Error", "noofRecurrence captures are made")
    transaction = _capture(
        visit.machine, visit.session, subscription, visit.now, body.amount, body.orderReferenceNumber
    )
    data = payments.shown(transaction)
    if transaction.status == FAILED:
        code = int(answers.TRANSACTION_ERROR)
        failed = {"status": False, "code": code, "message": "Transaction Error", "data": data}
        return answers.sealed_text(visit.merchant, failed)
    done = {"status": True, "code": 200, "message": "Capture successful.", "data": data}
    return answers.sealed_text(visit.merchant, done)


def cancel(call: Call) -> Response:
    """`DELETE /api/subscription/cancel/{token}`, plain and with nothing but the token (Cancel subscription)."""
    subscription = _active(call.session, call.id)
    if subscription is None:
        raise Refusal(400, answers.NO_SUBSCRIPTION, "Invalid token or no active subscription found")
    subscription.cancelled_at, subscription.next_at = call.now, None
    return answers.plain({"status": True, "code": 200, "message": "Subscription cancelled."})


def next_due(session: Session) -> Subscription | None:
    """The automatic subscription whose next capture comes first."""
    rows = select(Subscription).where(Subscription.next_at.is_not(None))
    return session.scalars(rows.order_by(Subscription.next_at, Subscription.invoice_id).limit(1)).one_or_none()


def capture_due(machine: Machine, session: Session, subscription: Subscription, now: datetime) -> None:
    """Make the capture that is due, and plan the next."""
    _capture(machine, session, subscription, now)
    following = _due(subscription.start_date, subscription.captures)
    subscription.next_at = following if subscription.captures < subscription.recurrences else None


def _capture(
    machine: Machine,
    session: Session,
    subscription: Subscription,
    now: datetime,
    amount: str | None = None,
    reference_number: str | None = None,
) -> Transaction:
    declined = subscription.declines > 0
    subscription.declines -= declined
    subscription.captures += 1
    transaction = payments.make(
        session,
        subscription.invoice,
        FAILED if declined else SUCCESSFUL,
        subscription.payment_type or "1",
        now=now,
        amount=amount,
        reference_number=reference_number,
    )
    if settings_of(session).tells_captures:
        payments.tell(machine, session, transaction)
    return transaction


def _active(session: Session, token: str) -> Subscription | None:
    rows = select(Subscription).where(Subscription.token == token, Subscription.cancelled_at.is_(None))
    return session.scalars(rows).one_or_none()


def _due(start: date, months: int) -> datetime | None:
    """The beginning of the day on which the capture after so many months is due; None: after the year 9999."""
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    if year > MAXYEAR:
        return None
    day = date(year, month + 1, min(start.day, monthrange(year, month + 1)[1]))
    return datetime.combine(day, time(), KUWAIT)
