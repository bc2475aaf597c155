"""Deliveries of Standard Webhooks: HMAC-SHA256 (v1) or Ed25519 (v1a), by the kind of the secret.

The standard recommends a body of `{type, timestamp, data}` and leaves it to the sender; what differs is read as
far as it goes: only `type` is required.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from handlers.errors import ParseError
from handlers.event import AT_RECEIPT, Event, Headers
from handlers.providers import json_body
from handlers.providers.provider import Inbound, Options, read_options
from handlers.signing import STANDARD, SVIX


def inbound(options: Mapping[str, Any]) -> Inbound:
    """For a source; there are no options."""
    read_options(Options, options)
    return Inbound(schemes=(STANDARD, SVIX), parse=parse)


def parse(headers: Headers, body: bytes) -> Event:
    """Read a verified body. Raises ParseError, and nothing else, on any bytes; its message quotes none of them."""
    document = json_body.read_object(body)
    event_type = json_body.event_type("type", document.get("type"))
    resource = _data(document)
    return Event(
        type=event_type,
        data=resource,
        occurred_at=_moment(document.get("timestamp")),
        object_kind=event_type.partition(".")[0] or None,
        object_id=json_body.identifier(resource.get("id")),
        body=body,
        provider="standard",
    )


def data(body: bytes) -> Mapping[str, Any]:
    """What a body carries. Raises ParseError."""
    return _data(json_body.read_object(body))


def sample(event_type: str) -> Mapping[str, Any]:
    """A body as the standard recommends it. Raises KeyError for a type that is not invoice.paid."""
    if event_type != "invoice.paid":
        raise KeyError(event_type)
    invoice = {"id": "inv_1", "number": "2026-0001", "status": "paid", "total": "120.00", "currency": "EUR"}
    return {"type": event_type, "timestamp": "2026-06-05T14:00:00Z", "data": invoice}


def renewed(body: Mapping[str, Any], moment: datetime) -> dict[str, Any]:
    """The body of another event of the same kind, at this moment."""
    return {**body, "timestamp": moment.isoformat()}


def _moment(value: object) -> datetime:
    """When it happened; that of the receipt where the sender writes no time, or one in a form of its own."""
    try:
        return json_body.moment("timestamp", value)
    except ParseError:
        return AT_RECEIPT


def _data(document: dict[str, Any]) -> dict[str, Any]:
    """`data` where it is an object; else the whole body, which a sender may have left flat."""
    found = document.get("data")
    return found if isinstance(found, dict) else document
