"""Invoices of the merchant API: created, read, cancelled, sent again (Single invoice; Create subscription invoice).

Chosen, as the pages say nothing of it: without `language` it is the merchant's; without `referenceNumber` one is made;
only an invoice that is unpaid and not cancelled can be cancelled or sent again; `products` and `subscription` have the
fields of the request. As in the samples, an invoice that is read again has `invoice_sub_type` as a number,
`merchant_id` as text and no texts for the customer, and "Get Invoice Details" shows it without an envelope.
"""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from handlers.providers.hesabe.sandbox import answers, payments, subscriptions
from handlers.providers.hesabe.sandbox.access import Visit, row_number
from handlers.providers.hesabe.sandbox.bodies import EMAIL, SMS, URL, Resend, SingleInvoice, Status, SubscriptionInvoice
from handlers.providers.hesabe.sandbox.models import CANCELLED, Invoice, Message, Resource, Subscription, next_id
from handlers.providers.hesabe.webhook import KUWAIT
from handlers.providers.sandbox.fields import Invalid
from handlers.providers.sandbox.machine import Refusal

FIRST_ID = 14685
KINDS = {False: 1, True: 0}
"""`invoice_type` of an answer, by whether it recurs."""
COUNTRIES = {"965": 11}
CHANNELS = {SMS: "sms", "1": "whatsapp", EMAIL: "email", URL: "url"}

_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def create(visit: Visit) -> Resource:
    """At `/invoice`: a single one, unless it says that it is a subscription."""
    recurs = visit.data.get("subscription", "0")
    if recurs not in ("0", "1"):
        raise answers.invalid("subscription must be 0 or 1")
    return _created(visit, visit.body(SubscriptionInvoice if recurs == "1" else SingleInvoice))


def create_subscription(visit: Visit) -> Resource:
    """At `/invoice/`."""
    return _created(visit, visit.body(SubscriptionInvoice))


def get(visit: Visit) -> Resource:
    return shown_again(_by_id(visit, visit.number))


def cancel(visit: Visit) -> Resource:
    rows = select(Invoice).where(Invoice.token == visit.call.id, Invoice.merchant_code == visit.merchant.code)
    invoice = visit.session.scalars(rows).one_or_none()
    if invoice is None:
        raise answers.not_found("the merchant has no invoice with this token")
    visit.body(Status)
    if not _open(invoice):
        reason = {answers.REASON: "it is paid or cancelled already, or the customer has agreed to it"}
        raise Refusal(400, answers.FAILED, "Invoice status update failed", headers=reason)
    invoice.status, invoice.updated_at = CANCELLED, visit.now
    return answers.envelope("Invoice status update successful", None)


def resend(visit: Visit) -> Resource:
    body = visit.body(Resend)
    invoice = _by_id(visit, row_number(body.resendId))
    if not _open(invoice):
        raise answers.invalid("resendId names an invoice that is paid or cancelled")
    _send(visit.session, invoice, SMS, phone(body.countryCode, body.mobileNumber))
    return answers.envelope("Invoice Resent Successfully", shown_again(invoice))


def shown(invoice: Invoice) -> Resource:
    """As the answer to its creation has it."""
    texts = {"en_sms": _english(invoice), "ar_sms": _arabic(invoice)}
    return {
        **_head(invoice, merchant_id=invoice.merchant.id, sub_type=invoice.sub_type),
        **texts,
        **_tail(invoice),
    }


def shown_again(invoice: Invoice) -> Resource:
    head = _head(invoice, merchant_id=str(invoice.merchant.id), sub_type=int(invoice.sub_type))
    return {**head, **_tail(invoice)}


def phone(country_code: str, mobile_number: str) -> str:
    return country_code.removeprefix("+") + mobile_number


def _created(visit: Visit, body: SingleInvoice) -> Resource:
    try:
        body.expect_sums()
        if isinstance(body, SubscriptionInvoice):
            body.expect_email()
    except Invalid as error:
        raise answers.invalid(str(error)) from None
    invoice = _made(visit, body)
    if isinstance(body, SubscriptionInvoice):
        invoice.subscription = subscriptions.agreed_on(body, visit.call)
    visit.session.add(invoice)
    visit.session.flush()
    _send(visit.session, invoice, body.invoiceSubType, phone(body.countryCode, body.mobileNumber))
    return answers.envelope("Invoice generated successfully", shown(invoice))


def _made(visit: Visit, body: SingleInvoice) -> Invoice:
    merchant, access_key = visit.merchant, _access_key()
    return Invoice(
        id=next_id(visit.session, Invoice.id, FIRST_ID),
        merchant=merchant,
        token=payments.new_token(str(merchant.id), visit.now, 10),
        access_key=access_key,
        sub_type=body.invoiceSubType,
        reference_number=body.referenceNumber or f"{merchant.id}{secrets.randbelow(9 * 10**6) + 10**6}",
        amount=body.amount,
        payment_methods=body.allocatePayType,
        description=body.description or "",
        language=body.language or merchant.language,
        customer_name=body.customerName,
        customer_email=body.customerEmail or "",
        country_code=body.countryCode,
        mobile_number=body.mobileNumber,
        items=[item.model_dump() for item in body.itemsList or ()],
        webhook=body.webhook,
        expires_at=body.expiresAt,
        url=f"{visit.call.request.base_url}s/{access_key}",
        status=None,
        visits=0,
        created_at=visit.now,
        updated_at=visit.now,
        subscription=None,
    )


def _access_key() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(8))


def _by_id(visit: Visit, invoice_id: int) -> Invoice:
    invoice = visit.session.get(Invoice, invoice_id)
    if invoice is None or invoice.merchant_code != visit.merchant.code:
        raise answers.not_found("the merchant has no invoice with this id")
    return invoice


def _open(invoice: Invoice) -> bool:
    agreed = invoice.subscription is not None and invoice.subscription.token is not None
    return invoice.status is None and not agreed


def _send(session: Session, invoice: Invoice, sub_type: str, number: str) -> None:
    recipient = {EMAIL: invoice.customer_email, URL: ""}.get(sub_type, number)
    text = _arabic(invoice) if invoice.language == "ar" else _english(invoice)
    session.add(
        Message(invoice_id=invoice.id, channel=CHANNELS[sub_type], recipient=recipient, text=f"{text} {invoice.url}")
    )


def _head(invoice: Invoice, *, merchant_id: int | str, sub_type: int | str) -> Resource:
    subscription = invoice.subscription
    return {
        "id": invoice.id,
        "invoice_type": KINDS[subscription is not None],
        "invoice_sub_type": sub_type,
        "token": invoice.token,
        "access_key": invoice.access_key,
        "split_access_key": "",
        "merchant_id": merchant_id,
        "reference_number": invoice.reference_number,
        "amount": invoice.amount,
        "service_charge": "0.000",
        "payment_method": invoice.payment_methods,
        "discount": "0.000",
        "description": invoice.description,
        "sms_response": "",
        "invoice_status": invoice.status,
        "subscription": None if subscription is None else _recurrence(subscription),
        "sms_status": 0,
        "url_status": 1 if invoice.visits else None,
        "visited_count": invoice.visits or None,
        "country_id": COUNTRIES.get(invoice.country_code.removeprefix("+")),
        "created_id": invoice.merchant.id,
        "language": invoice.language,
        "expires_at": invoice.expires_at.isoformat(),
        "attachment": "",
        "url": invoice.url,
        "spliturl": None,
        "created_at": answers.moment(invoice.created_at),
        "updated_at": answers.moment(invoice.updated_at),
    }


def _tail(invoice: Invoice) -> Resource:
    return {
        "customer": {
            "name": invoice.customer_name,
            "email": invoice.customer_email,
            "phone_number": phone(invoice.country_code, invoice.mobile_number),
        },
        "created_by_merchant": {"id": invoice.merchant.id, "name": invoice.merchant.name},
        "products": invoice.items,
        "transaction": payments.of_invoice(invoice),
    }


def _recurrence(subscription: Subscription) -> dict[str, Any]:
    return {
        "frequency": "1",
        "noofRecurrence": str(subscription.recurrences),
        "SubscriptionType": subscription.type,
        "startDate": subscription.start_date.isoformat(),
        "token": subscription.token,
        "captured": subscription.captures,
        "next_capture": None if subscription.next_at is None else _day(subscription.next_at),
    }


def _day(value: datetime) -> str:
    return value.astimezone(KUWAIT).date().isoformat()


def _english(invoice: Invoice) -> str:
    return (
        f"Hi {invoice.customer_name} , \r\nYour transaction amount is KD {invoice.amount} "
        f"with the ref no : {invoice.reference_number} . Review and pay at"
    )


def _arabic(invoice: Invoice) -> str:
    return (
        f"hi {invoice.customer_name},\r\nمبلغ الصفقة هو دينار كويتي {invoice.amount} "
        f"مع المرجع رقم: {invoice.reference_number}. مراجعة وتدفع في"
    )
