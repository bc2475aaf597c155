"""HIBR's deliveries: `Hibr-Signature: t=…,v1=…` over the raw body (hibr.ai/developers/webhooks).

A body is `{id, object: "event", type, created, api_version, livemode, data: {object, previous_attributes}}`. The exact
signed string is not published; the layout of the header is that of `{timestamp}.{body}` in hexadecimal, which is
assumed here and nowhere else. Money is an integer of minor units; a number with a fraction is refused, as HIBR's own
API does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from importlib import resources
from typing import Any

import orjson
from ulid_transform import bytes_to_ulid

from handlers import views
from handlers.errors import ParseError
from handlers.event import Event, Headers, Views
from handlers.providers import json_body
from handlers.providers.provider import Inbound, Options, read_options
from handlers.signing import Scheme, template
from handlers.views import InvoiceView

_FIELD = re.compile(r"[a-z0-9_]{1,40}")
SCHEME = Scheme(
    signature=b"hibr-signature",
    id=b"hibr-event-id",
    content=template("{timestamp}.{body}"),
    mark=b"v1=",
    stamp=b"t=",
    separator=b",",
)
EVENTS = ("invoice.paid", "hibr.api.deprecation")
"""Those of the 32 types whose names are public."""


class HibrOptions(Options):
    """`livemode`: true takes only production events, false only those of HIBR's sandbox; both where it is not set."""

    livemode: bool | None = None


def inbound(options: Mapping[str, Any]) -> Inbound:
    """For a source with these options."""
    chosen = read_options(HibrOptions, options)
    return Inbound(schemes=(SCHEME,), parse=partial(parse, livemode=chosen.livemode))


def parse(headers: Headers, body: bytes, livemode: bool | None = None) -> Event:
    """Read a verified body. Raises ParseError, and nothing else, on any bytes; its message quotes none of them.

    `data` is the resource, with `previous_attributes` put among its fields.
    """
    document = json_body.read_object(body)
    event_type = json_body.event_type("type", document.get("type"))
    if not isinstance(document.get("livemode"), bool):
        raise ParseError("livemode must be true or false")
    if livemode is not None and document["livemode"] is not livemode:
        raise ParseError(f"livemode is not {str(livemode).lower()}: this event belongs to HIBR's other environment")
    resource = _resource(document)
    kind = resource.get("object")
    return Event(
        type=event_type,
        data=resource,
        occurred_at=json_body.moment("created", document.get("created")),
        organization=json_body.optional_text("account", document.get("account")),
        object_kind=json_body.optional_text("data.object.object", kind) or event_type.partition(".")[0],
        object_id=json_body.optional_text("data.object.id", resource.get("id")),
        key=json_body.text("id", document.get("id")),
        body=body,
        provider="hibr",
        views=VIEWS,
    )


def data(body: bytes) -> Mapping[str, Any]:
    """The resource that a body is about. Raises ParseError."""
    return _resource(json_body.read_object(body))


def sample(event_type: str) -> Mapping[str, Any]:
    """A body such as HIBR sends for a known event type. Raises KeyError for any other."""
    if event_type not in EVENTS:
        raise KeyError(event_type)
    file = resources.files("handlers.providers.hibr").joinpath("samples", f"{event_type}.json")
    document: dict[str, Any] = orjson.loads(file.read_bytes())
    return document


def renewed(body: Mapping[str, Any], moment: datetime) -> dict[str, Any]:
    """The body of another event of the same kind, at this moment."""
    fresh = bytes_to_ulid(int(moment.timestamp() * 1000).to_bytes(6) + os.urandom(10))
    return {**body, "id": f"evt_{fresh}", "created": moment.isoformat()}


def invoice(event: Event) -> InvoiceView:
    """Which field holds the total is not public; amounts of `event.data` are integers of minor units."""
    data = event.data
    return InvoiceView(
        id=event.object_id or "",
        number=views.text(data, "invoice_no"),
        status=views.text(data, "status"),
        customer_id=views.text(data, "customer_id"),
        issue_date=views.day(data, "invoice_date"),
    )


def _resource(document: Mapping[str, Any]) -> dict[str, Any]:
    found = document.get("data")
    resource = found.get("object") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(resource, dict):
        raise ParseError("data.object must be an object")
    if (where := _fraction(found, "data")) is not None:
        raise ParseError(f"{where} is a number with a fraction; money is an integer of minor units")
    beside = {name: value for name, value in found.items() if name != "object"}
    return beside | resource


def _fraction(value: object, where: str) -> str | None:
    """The first place of a float, as far as its names look like those of fields."""
    if isinstance(value, float):
        return where
    if isinstance(value, dict):
        children = ((f"{where}.{name}" if _FIELD.fullmatch(name) else where, child) for name, child in value.items())
    elif isinstance(value, list):
        children = ((f"{where}[{position}]", child) for position, child in enumerate(value))
    else:
        return None
    return next((found for place, child in children if (found := _fraction(child, place)) is not None), None)


VIEWS: Views = {"invoice": invoice}
