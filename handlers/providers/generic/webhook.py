"""Deliveries of a sender that is described by options: which headers, what is signed, where the type stands.

[sources.github.options]                     [sources.stripe.options]
signature = "X-Hub-Signature-256"            signature = "Stripe-Signature"
mark = "sha256="                             content = "{timestamp}.{body}"
id = "X-GitHub-Delivery"                     mark = "v1="
type = "header:X-GitHub-Event"               stamp = "t="
                                             separator = ","
[sources.shopify.options]                    type = "type"
signature = "X-Shopify-Hmac-Sha256"          key = "id"
encoding = "base64"
id = "X-Shopify-Webhook-Id"
type = "header:X-Shopify-Topic"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from handlers.errors import ParseError
from handlers.event import AT_RECEIPT, Event, Headers
from handlers.providers import json_body
from handlers.providers.provider import Inbound, Options, read_options
from handlers.signing import Scheme, template

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_PLACE = re.compile(r"header:[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}|(?!header:)[^.]+(\.[^.]+)*")
_DIGITS = re.compile(r"[0-9]{1,13}")
_NOT_TYPE = re.compile(r"[^a-z0-9_.]+")


def _header(value: str) -> str:
    if _HEADER.fullmatch(value) is None:
        raise ValueError("not the name of a header")
    return value.lower()


def _template(value: str) -> str:
    template(value)
    return value


def _place(value: str) -> str:
    if _PLACE.fullmatch(value) is None:
        raise ValueError("neither header:Name nor a path such as data.object.id")
    return value


Header = Annotated[str, AfterValidator(_header)]
Place = Annotated[str, AfterValidator(_place)]


class GenericOptions(Options):
    """Where a sender puts things. Headers by name; `type`, `key`, `object` and `time` as `header:Name` or a path.

    `content` is what is signed: a text with {body} and, where it has them, {timestamp} and {id} in it.
    """

    signature: Header
    content: Annotated[str, AfterValidator(_template)] = "{body}"
    mark: str = ""
    separator: str = ""
    stamp: str = ""
    timestamp: Header | None = None
    unit: Literal["seconds", "milliseconds"] = "seconds"
    id: Header | None = None
    encoding: Literal["hex", "base64"] = "hex"
    secret_encoding: Literal["raw", "base64"] = "raw"  # noqa: S105 - how a secret is written, not one
    type: Place = "type"
    key: Place | None = None
    object: Place | None = None
    time: Place | None = None
    organization: Place | None = None


def inbound(options: Mapping[str, Any]) -> Inbound:
    """For a source with these options. Raises ValueError where they do not fit together."""
    chosen = read_options(GenericOptions, options)
    scheme = Scheme(
        signature=chosen.signature.encode(),
        content=template(chosen.content),
        id=chosen.id.encode() if chosen.id else None,
        timestamp=chosen.timestamp.encode() if chosen.timestamp else None,
        mark=chosen.mark.encode(),
        separator=chosen.separator.encode(),
        stamp=chosen.stamp.encode(),
        encoding=chosen.encoding,
        unit=chosen.unit,
        key=chosen.secret_encoding,
    )
    _check(chosen, scheme)
    header = chosen.type.lower().removeprefix("header:") if chosen.type.startswith("header:") else None
    return Inbound(
        schemes=(scheme,),
        parse=partial(parse, options=chosen),
        type_header=header.encode() if header else None,
    )


def _check(options: GenericOptions, scheme: Scheme) -> None:
    if options.stamp and not options.separator:
        raise ValueError("option stamp needs separator: the timestamp is one of several parts of the header")
    if options.stamp and options.timestamp:
        raise ValueError("options stamp and timestamp: the timestamp stands in one place")
    if options.separator and options.separator in options.mark + options.stamp:
        raise ValueError("option separator must not stand in mark or stamp: the header is split at it")
    if options.stamp and options.mark.startswith(options.stamp):
        raise ValueError("options stamp and mark: a signature would pass for the timestamp")
    if (options.stamp or options.timestamp) and "{timestamp}" not in options.content:
        raise ValueError("option content must have {timestamp} in it: a time that is not signed proves nothing")
    if "{timestamp}" in options.content and not (options.stamp or options.timestamp):
        raise ValueError("option content has {timestamp}, so stamp or timestamp must say where that stands")
    if "{id}" in options.content and not options.id:
        raise ValueError("option content has {id}, so id must say which header that is")
    if options.key and options.key.startswith("header:") and not _is_signed_id(options.key, options):
        raise ValueError("option key must stand in the body: a header that is not signed makes one event many")
    if len(scheme.headers) < sum(1 for name in (options.signature, options.timestamp, options.id) if name):
        raise ValueError("options signature, timestamp and id must name different headers")


def _is_signed_id(place: str, options: GenericOptions) -> bool:
    return "{id}" in options.content and place.removeprefix("header:").lower() == options.id


def parse(headers: Headers, body: bytes, options: GenericOptions | None = None) -> Event:
    """Read a verified body. Raises ParseError, and nothing else, on any bytes; its message quotes none of them."""
    options = options or GenericOptions(signature="x-signature")
    document = json_body.read_object(body)

    def look(place: str | None) -> object:
        if place is None:
            return None
        if place.startswith("header:"):
            name = place.removeprefix("header:").lower().encode()
            return next((value.decode("latin-1") for given, value in headers if given == name), None)
        found: object = document
        for step in place.split("."):
            found = found.get(step) if isinstance(found, dict) else None
        return found

    event_type = json_body.event_type(options.type, _as_type(look(options.type)))
    return Event(
        type=event_type,
        data=document,
        occurred_at=_moment(options.time, look(options.time)),
        organization=json_body.identifier(look(options.organization)),
        object_kind=event_type.partition(".")[0] or None,
        object_id=json_body.identifier(look(options.object)),
        key=json_body.identifier(look(options.key)),
        body=body,
        provider="generic",
    )


def data(body: bytes) -> Mapping[str, Any]:
    """The whole body. Raises ParseError."""
    return json_body.read_object(body)


def sample(event_type: str) -> Mapping[str, Any]:
    """A plain body. Raises KeyError for a type that is not invoice.paid."""
    if event_type != "invoice.paid":
        raise KeyError(event_type)
    return {"type": event_type, "id": "evt_1", "invoice": {"id": "inv_1", "total": "120.00"}}


def renewed(body: Mapping[str, Any], moment: datetime) -> dict[str, Any]:
    """The body of another event of the same kind."""
    return {**body, "id": f"evt_{int(moment.timestamp() * 1_000_000)}"}


def _as_type(value: object) -> object:
    """`orders/paid` and `Pull Request` as types that a handler can name: orders.paid, pull_request."""
    return _NOT_TYPE.sub("_", value.lower().replace("/", ".")) if isinstance(value, str) else value


def _moment(place: str | None, value: object) -> datetime:
    if place is None or value is None:
        return AT_RECEIPT
    if isinstance(value, str) and _DIGITS.fullmatch(value):  # a header has no numbers
        value = int(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 10**13:
        return datetime.fromtimestamp(value / 1000 if value >= 10**11 else value, UTC)
    try:
        return json_body.moment(place, value)
    except ParseError:  # a time that cannot be read is no reason to lose the event
        return AT_RECEIPT
