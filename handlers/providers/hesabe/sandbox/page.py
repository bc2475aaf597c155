"""The page behind an invoice's `url`, on which the customer pays: plain HTML without scripts.

    GET  /s/{access_key}   the invoice, and a form while it can be paid
    POST /s/{access_key}   `outcome` is pay, fail or authorize; `payment_type` one of the invoice's (its first unless
                           told). Back to the page, 303; 409 where there is nothing to pay, 400 where the form is wrong.

To pay a subscription's invoice is to agree to its captures. `authorize` keeps the money back without taking it, which
Hesabe has for cards only: the invoice is not paid then, and here it never will be.
"""

from __future__ import annotations

from html import escape
from urllib.parse import parse_qsl

from sqlalchemy import select
from starlette.responses import HTMLResponse, RedirectResponse, Response

from handlers.providers.hesabe.sandbox import payments, subscriptions
from handlers.providers.hesabe.sandbox.bodies import PAYMENT_TYPES
from handlers.providers.hesabe.sandbox.models import AUTHORIZED, CANCELLED, FAILED, PAID, SUCCESSFUL, Invoice
from handlers.providers.hesabe.webhook import KUWAIT
from handlers.providers.sandbox.machine import Call

OUTCOMES = {"pay": SUCCESSFUL, "fail": FAILED, "authorize": AUTHORIZED}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
_FORM_BYTES = 10_000


def show(call: Call) -> Response:
    invoice = _invoice(call)
    if invoice is None:
        return _said("There is no such invoice", 404)
    invoice.visits += 1
    return HTMLResponse(_page(invoice, _closed(call, invoice)), headers=HEADERS)


def pay(call: Call) -> Response:
    invoice = _invoice(call)
    if invoice is None:
        return _said("There is no such invoice", 404)
    closed = _closed(call, invoice)
    if closed is not None:
        return _said(closed, 409)
    form = dict(parse_qsl(call.raw[:_FORM_BYTES].decode("utf-8", "replace")))
    outcome = OUTCOMES.get(form.get("outcome", ""))
    payment_type = form.get("payment_type", invoice.payment_methods[0])
    if outcome is None or payment_type not in invoice.payment_methods:
        allowed = ", ".join(invoice.payment_methods)
        return _said(f"outcome is pay, fail or authorize; payment_type is one of {allowed}", 400)
    if invoice.subscription is not None and outcome != FAILED:
        transaction = subscriptions.consent(call.session, invoice.subscription, payment_type, call.now)
    else:
        transaction = payments.make(call.session, invoice, outcome, payment_type, now=call.now)
    payments.tell(call.machine, call.session, transaction)
    return RedirectResponse(call.request.url.path, 303)


def _invoice(call: Call) -> Invoice | None:
    return call.session.scalars(select(Invoice).where(Invoice.access_key == call.id)).one_or_none()


def _closed(call: Call, invoice: Invoice) -> str | None:
    """Why it cannot be paid; None: it can."""
    subscription, today = invoice.subscription, call.now.astimezone(KUWAIT).date()
    reasons = {
        "This invoice is cancelled": invoice.status == CANCELLED,
        "This subscription is cancelled": subscription is not None and subscription.cancelled_at is not None,
        "You have agreed to this subscription": subscription is not None and subscription.token is not None,
        "This invoice is paid": invoice.status == PAID,
        "The payment of this invoice is authorized": any(one.status == AUTHORIZED for one in invoice.transactions),
        f"This invoice expired on {invoice.expires_at}": today > invoice.expires_at,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _said(text: str, status: int) -> Response:
    return HTMLResponse(_whole("Hesabe sandbox", f'<p role="status">{escape(text)}.</p>'), status, headers=HEADERS)


def _page(invoice: Invoice, closed: str | None) -> str:
    facts = {
        "From": invoice.merchant.name,
        "For": invoice.customer_name,
        "Reference": invoice.reference_number,
        "Description": invoice.description,
        "Expires": invoice.expires_at.isoformat(),
    }
    if invoice.subscription is not None:
        facts["Recurs"] = f"monthly from {invoice.subscription.start_date}, {invoice.subscription.recurrences} times"
    rows = [f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if value]
    products = [f"<li>{escape(item['itemTitle'])}: {item['quantity']} x {item['rate']}</li>" for item in invoice.items]
    failed = bool(invoice.transactions) and invoice.transactions[-1].status == FAILED
    parts = [
        f'<p class="amount">KWD {invoice.amount}</p>',
        f"<dl>{''.join(rows)}</dl>",
        f"<ul>{''.join(products)}</ul>" if products else "",
        '<p role="status">The last attempt to pay failed.</p>' if failed else "",
        _form(invoice) if closed is None else f'<p role="status">{escape(closed)}.</p>',
    ]
    return _whole(f"Invoice {invoice.reference_number}", "".join(parts))


def _form(invoice: Invoice) -> str:
    choices = [
        f'<label><input type="radio" name="payment_type" value="{code}"{" checked" if first else ""}> '
        f"{PAYMENT_TYPES[code]}</label>"
        for first, code in zip((True, *[False] * 20), invoice.payment_methods, strict=False)
    ]
    pays = "Pay" if invoice.subscription is None else "Agree and pay each time"
    return (
        f'<form method="post"><fieldset><legend>Pay with</legend>{"".join(choices)}</fieldset>'
        f'<button name="outcome" value="pay">{pays}</button> '
        '<button name="outcome" value="authorize">Authorize only</button> '
        '<button name="outcome" value="fail">Let it fail</button></form>'
        "<p>This is a sandbox: no money moves.</p>"
    )


def _whole(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><style>'
        "body{font:1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:2rem auto;padding:0 1rem}"
        ".amount{font-size:2rem;margin:0}dt{font-weight:600}label{display:block}button{font:inherit;margin:1rem 0}"
        f"</style></head><body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
