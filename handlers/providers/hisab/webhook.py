"""Hisab's deliveries: how they are signed and what they say (hisab.ma/en/docs/webhooks, its SDK).

A body is `{event, data, organization_id, created_at}`. The page shows `data` as the resource itself, the SDK's
types wrap it (`data.invoice`, `data.customer`); both are read. `X-Webhook-Event` is not signed, hence not read.

The page of 2025 had other headers (`X-Hisab-*`, milliseconds, no `v1=`) and another body, `{id, type, created,
data}`. What was signed then is not known: the present content is assumed. A source takes it with `format = "older"`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from importlib import resources
from typing import Any, Literal

import orjson

from handlers import views
from handlers.errors import ParseError
from handlers.event import Event, Headers, Views
from handlers.providers import json_body
from handlers.providers.provider import Inbound, Options, read_options
from handlers.signing import Scheme, template
from handlers.views import CustomerView, InvoiceView

SCHEME = Scheme(
    signature=b"x-webhook-signature",
    timestamp=b"x-webhook-timestamp",
    id=b"x-webhook-delivery-id",
    mark=b"v1=",
    content=template("{timestamp}.{body}"),
    key="raw",  # as it stands, also where it begins with whsec_ (SDK, src/utils/webhooks.ts)
)
OLDER = Scheme(
    signature=b"x-hisab-signature",
    timestamp=b"x-hisab-timestamp",
    id=b"x-hisab-delivery-id",
    content=template("{timestamp}.{body}"),
    unit="milliseconds",
)
EVENTS = (
    "invoice.created",
    "invoice.updated",
    "invoice.finalized",
    "invoice.sent",
    "invoice.paid",
    "invoice.voided",
    "customer.created",
    "customer.updated",
    "customer.deleted",
)

_DOCUMENTED = frozenset(EVENTS)


class HisabOptions(Options):
    """`format`: `current`, or `older` for the headers of 2025."""

    format: Literal["current", "older"] = "current"


def inbound(options: Mapping[str, Any]) -> Inbound:
    """For a source with these options."""
    chosen = read_options(HisabOptions, options)
    return Inbound(schemes=(OLDER if chosen.format == "older" else SCHEME,), parse=parse)


def parse(headers: Headers, body: bytes) -> Event:
    """Read a verified body. Raises ParseError, and nothing else, on any bytes; its message quotes none of them.

    A wrapped resource is unwrapped; what stands beside it (`changes`, `payment`, `reason`) is put among its
    fields, where the flat form has it too. On a clash the resource's own field wins.
    """
    document = json_body.read_object(body)
    older = "event" not in document and "type" in document
    event_type = json_body.event_type("event", document.get("type" if older else "event"))
    kind = event_type.partition(".")[0]
    resource = _resource(document, kind)
    object_id = json_body.optional_text("data.id", resource.get("id")) if kind else None
    created = "created" if older else "created_at"
    return Event(
        type=event_type,
        data=resource,
        occurred_at=json_body.moment(created, document.get(created)),
        organization=json_body.optional_text("organization_id", document.get("organization_id")),
        object_kind=None if object_id is None else kind,
        object_id=object_id,
        key=json_body.optional_text("id", document.get("id")) if older else None,
        body=body,
        provider="hisab",
        views=VIEWS,
    )


def data(body: bytes) -> Mapping[str, Any]:
    """The resource that a body is about. Raises ParseError."""
    document = json_body.read_object(body)
    named = document.get("event", document.get("type"))
    return _resource(document, named.partition(".")[0] if isinstance(named, str) else "")


def sample(event_type: str) -> Mapping[str, Any]:
    """A body such as Hisab sends for a documented event type. Raises KeyError for any other."""
    if event_type not in _DOCUMENTED:
        raise KeyError(event_type)
    file = resources.files("handlers.providers.hisab").joinpath("samples", f"{event_type}.json")
    document: dict[str, Any] = orjson.loads(file.read_bytes())
    return document


def renewed(body: Mapping[str, Any], moment: datetime) -> dict[str, Any]:
    """The body of another event of the same kind, at this moment."""
    return {**body, "created_at": moment.isoformat()}


def invoice(event: Event) -> InvoiceView:
    """Amounts are decimal strings in the invoice's currency, MAD where it is not said (API reference, Invoices)."""
    data, customer = event.data, event.data.get("customer")
    customer = customer if isinstance(customer, dict) else {}
    return InvoiceView(
        id=event.object_id or "",
        number=views.text(data, "invoice_number"),
        status=views.text(data, "status"),
        total=views.money(data, "total"),
        currency=views.text(data, "currency") or "MAD",
        customer_id=views.text(data, "customer_id") or views.text(customer, "id"),
        customer_name=views.text(data, "customer_name") or views.text(customer, "name"),
        issue_date=views.day(data, "issue_date"),
        due_date=views.day(data, "due_date"),
    )


def customer(event: Event) -> CustomerView:
    """The tax id is the ICE, Morocco's number of a company."""
    data = event.data
    return CustomerView(
        id=event.object_id or "",
        name=views.text(data, "name"),
        email=views.text(data, "email"),
        tax_id=views.text(data, "ice"),
        status=views.text(data, "status"),
    )


def _resource(document: Mapping[str, Any], kind: str) -> dict[str, Any]:
    found = document.get("data")
    if not isinstance(found, dict):
        raise ParseError("data must be an object")
    wrapped = found.get(kind)
    if "id" not in found and isinstance(wrapped, dict):
        return {name: value for name, value in found.items() if name != kind} | wrapped
    return found


VIEWS: Views = {"invoice": invoice, "customer": customer}
