"""Hisab's deliveries: how they are signed and what they say (hisab.ma/en/docs/webhooks, its SDK).

A body is `{event, data, organization_id, created_at}`. The page shows `data` as the resource itself, the SDK's
types wrap it (`data.invoice`, `data.customer`); both are read. `X-Webhook-Event` is not signed, hence not read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import orjson

from handlers import signing
from handlers.errors import ParseError
from handlers.event import Event, Headers
from handlers.signing import Scheme, Verified

SCHEME = Scheme(
    signature=b"x-webhook-signature",
    timestamp=b"x-webhook-timestamp",
    id=b"x-webhook-delivery-id",
    mark=b"v1=",
    content=("timestamp", "body"),
    encoding="hex",
    key="raw",  # as it stands, also where it begins with whsec_ (SDK, src/utils/webhooks.ts)
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
MAX_ID = 200
MAX_DEPTH = 64
"""Levels of nesting; far more than an invoice has, far fewer than break whoever writes the event out again."""

_DOCUMENTED = frozenset(EVENTS)
_TYPE = re.compile(r"[!-~]{1,128}")


def verify(headers: Headers, body: bytes, keys: Sequence[bytes], now: float) -> Verified:
    """Check the signature. Raises VerificationError, and nothing else, on any input."""
    return signing.verify(SCHEME, headers, body, keys, now)


def parse(headers: Headers, body: bytes) -> Event:
    """Read a verified body. Raises ParseError, and nothing else, on any bytes; its message quotes none of them.

    A wrapped resource is unwrapped; what stands beside it (`changes`, `payment`, `reason`) is put among its
    fields, where the flat form has it too. On a clash the resource's own field wins.
    """
    document = _document(body)
    event_type = document.get("event")
    if not isinstance(event_type, str) or (event_type not in _DOCUMENTED and _TYPE.fullmatch(event_type) is None):
        raise ParseError("event must be 1 to 128 printable ASCII characters without a space")
    data = document.get("data")
    if not isinstance(data, dict):
        raise ParseError("data must be an object")
    kind = event_type.partition(".")[0]
    if "id" not in data and isinstance(data.get(kind), dict):
        data = {name: value for name, value in data.items() if name != kind} | data[kind]
    object_id = _identifier("data.id", data.get("id")) if kind else None
    return Event(
        type=event_type,
        data=data,
        occurred_at=_moment(document.get("created_at")),
        organization=_identifier("organization_id", document.get("organization_id")),
        object_kind=None if object_id is None else kind,
        object_id=object_id,
        body=body,
        provider="hisab",
    )


def sample(event_type: str) -> Mapping[str, Any]:
    """A body such as Hisab sends for a documented event type. Raises KeyError for any other."""
    if event_type not in _DOCUMENTED:
        raise KeyError(event_type)
    file = resources.files("handlers.providers.hisab").joinpath("samples", f"{event_type}.json")
    document: dict[str, Any] = orjson.loads(file.read_bytes())
    return document


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ParseError(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ParseError("the body must be an object")
    # Few brackets cannot nest deeply; only a body with many is walked.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _too_deep(document):
        raise ParseError(f"the body nests deeper than {MAX_DEPTH} levels")
    return document


def _too_deep(document: dict[str, Any]) -> bool:
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        children = (value for parent in level for value in (parent.values() if isinstance(parent, dict) else parent))
        level = [value for value in children if isinstance(value, dict | list)]
        if not level:
            return False
    return True


def _moment(value: object) -> datetime:
    if isinstance(value, str) and value.isprintable():  # fromisoformat reads past a NUL at the end
        try:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is not None:
                return moment if moment.tzinfo is UTC else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # OverflowError: the year 1 or 9999, moved over the edge by its zone
    raise ParseError("created_at must be an ISO 8601 date and time with a zone")


def _identifier(name: str, value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and 0 < len(value) <= MAX_ID and value.isprintable():
        return value
    raise ParseError(f"{name} must be 1 to {MAX_ID} printable characters, or null")
