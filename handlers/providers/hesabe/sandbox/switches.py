"""What the Hesabe sandbox adds to `/sandbox` (see `handlers.providers.sandbox.admin` for the rest).

POST   /sandbox/settings              {"on_demand"?: "0" | "1": the SubscriptionType that is on demand,
                                      "login_required"?, "tells_captures"?, "tells_refunds"?: whether webhooks are sent
                                      of them}
POST   /sandbox/lies                  {"times"?: 1 or null (all), "token"?, "amount"?, "reference_number"?,
                                      "status"?, "payment_type"?, "service_type"?, "datetime"?}: the next webhooks say
                                      this, other than the enquiry
DELETE /sandbox/lies                  they say the truth again
POST   /sandbox/refunds/{id}          {"approved": true | false, "remarks"?}: of one that is pending
POST   /sandbox/subscriptions/{id}    {"declines": 1}: so many of the next captures fail; {id} is the token
POST   /sandbox/tokens                {}: every bearer token ends now
POST   /sandbox/keys                  {"name"?}: another merchant; `key` has all its credentials, as HesabeClient takes
                                      them. To revoke it is to revoke its access code
GET    /sandbox                       has `merchants`, `settings`, `lies`, `invoices` with the addresses where they are
                                      paid, and `messages`: what customers were sent; both newest first

Webhooks are not signed, so the faults wrong_signature and stale_timestamp change nothing; a lie stands in for them. The
event type that a fault's `match` is about is `transaction.successful`, `.failed`, `.authorized` or `.refunded`. The
enquiry is down with {"kind": "error", "match": "GET /api/transaction/*"}. The `secret` of an endpoint is not used.
"""

from __future__ import annotations

from typing import Annotated, Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from handlers.providers.hesabe.sandbox import login, refunds, seeds
from handlers.providers.hesabe.sandbox.access import row_number
from handlers.providers.hesabe.sandbox.models import (
    PENDING,
    Invoice,
    Lie,
    Merchant,
    Message,
    Refund,
    Subscription,
    settings_of,
)
from handlers.providers.sandbox import admin, fields
from handlers.providers.sandbox.fields import Fields
from handlers.providers.sandbox.keys import Key
from handlers.providers.sandbox.machine import Call, Machine

SHOWN = 200
"""Invoices and messages that are shown."""

SETTINGS = ("on_demand", "login_required", "tells_captures", "tells_refunds")


class ChangedSettings(Fields):
    """A default stands for "not given": none of them is ever read."""

    on_demand: Annotated[str, fields.one_of("0", "1")] = ""
    login_required: fields.Flag = True
    tells_captures: fields.Flag = True
    tells_refunds: fields.Flag = True


class NewLie(Fields):
    times: Annotated[int, fields.whole(1)] | None = 1
    token: fields.Text | None = None
    amount: fields.Text | None = None
    reference_number: fields.Text | None = None
    status: fields.Text | None = None
    payment_type: fields.Text | None = None
    service_type: fields.Text | None = None
    datetime: fields.Text | None = None


class Decision(Fields):
    approved: fields.Flag
    remarks: fields.Text = ""


class Declines(Fields):
    declines: Annotated[int, fields.whole(0, 9999)]


class NewMerchant(Fields):
    name: fields.Words = "test"


def routes(machine: Machine) -> list[Route]:
    """All of `/sandbox`."""
    own = (
        ("POST", "/settings", _set),
        ("POST", "/lies", _lie),
        ("DELETE", "/lies", _be_honest),
        ("POST", "/refunds/{id}", _decide),
        ("POST", "/subscriptions/{id}", _decline),
        ("POST", "/tokens", _end_tokens),
    )
    return [
        *admin.routes(machine, new_key=_new_key, show=_shown),
        *(Route(f"/sandbox{path}", admin.surface(machine, work), methods=[method]) for method, path, work in own),
    ]


def _set(call: Call) -> Response:
    settings = settings_of(call.session)
    for name, value in fields.read(ChangedSettings, fields.document(call.raw)).given().items():
        setattr(settings, name, value)
    return JSONResponse(_settings(call.session))


def _lie(call: Call) -> Response:
    given = fields.read(NewLie, fields.document(call.raw))
    changes = {name: value for name, value in given.given().items() if name != "times" and value is not None}
    if not changes:
        raise ValueError('a lie says what it changes: {"amount": "1.000"}')
    lie = Lie(changes=changes, left=given.times)
    call.session.add(lie)
    call.session.flush()
    return JSONResponse(_shown_lie(lie), 201)


def _be_honest(call: Call) -> Response:
    call.session.execute(delete(Lie))
    return JSONResponse({"lies": []})


def _decide(call: Call) -> Response:
    body = fields.read(Decision, fields.document(call.raw))
    refund = call.session.get(Refund, row_number(call.id))
    if refund is None:
        raise LookupError("there is no such refund")
    if refund.status != PENDING:
        raise ValueError("the refund is decided already")
    refunds.decide(call.machine, call.session, refund, call.now, approved=body.approved, remarks=body.remarks)
    return JSONResponse(refunds.shown(refund))


def _decline(call: Call) -> Response:
    body = fields.read(Declines, fields.document(call.raw))
    subscription = call.session.scalars(select(Subscription).where(Subscription.token == call.id)).one_or_none()
    if subscription is None:
        raise LookupError("there is no subscription with this token: it has one once the customer has agreed")
    subscription.declines = body.declines
    return JSONResponse({"token": subscription.token, "declines": subscription.declines})


def _end_tokens(call: Call) -> Response:
    login.end_all(call.session)
    return JSONResponse({})


def _new_key(call: Call) -> tuple[Key, str]:
    body = fields.read(NewMerchant, fields.document(call.raw))
    return seeds.new_merchant(call.machine, call.session, body.name)


def _shown(session: Session) -> dict[str, Any]:
    messages = session.scalars(select(Message).order_by(Message.id.desc()).limit(SHOWN))
    names = ("invoice_id", "channel", "recipient", "text")
    merchants = session.scalars(select(Merchant).order_by(Merchant.id))
    invoices = session.scalars(select(Invoice).order_by(Invoice.id.desc()).limit(SHOWN))
    return {
        "merchants": [{"merchantCode": one.code, "id": one.id, "name": one.name} for one in merchants],
        "settings": _settings(session),
        "lies": [_shown_lie(lie) for lie in session.scalars(select(Lie).order_by(Lie.id))],
        "invoices": [_shown_invoice(invoice) for invoice in invoices],
        "messages": [{name: getattr(message, name) for name in names} for message in messages],
    }


def _settings(session: Session) -> dict[str, Any]:
    settings = settings_of(session)
    return {name: getattr(settings, name) for name in SETTINGS}


def _shown_invoice(invoice: Invoice) -> dict[str, Any]:
    names = ("id", "token", "reference_number", "amount", "status", "url")
    return {name: getattr(invoice, name) for name in names}


def _shown_lie(lie: Lie) -> dict[str, Any]:
    return {"left": lie.left, **lie.changes}
