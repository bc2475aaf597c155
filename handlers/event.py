"""The event: what a provider reported, as a value, and its JSON form.

A provider's `parse` fills in what the body says; the receiver adds what only it knows (`id`, `source`,
`received_at`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import orjson

from handlers.errors import ParseError

if TYPE_CHECKING:
    from handlers.views import CustomerView, InvoiceView

Headers = Sequence[tuple[bytes, bytes]]
"""Header names (lower case) and values as they came over the wire: duplicates kept, nothing decoded."""


Views = Mapping[str, Callable[["Event"], "InvoiceView | CustomerView"]]
"""By kind of object, what makes an event's typed view."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened at a provider.

    `data` is the resource itself, also where the provider wraps it; `body` holds the exact bytes that were
    signed. Money in `data` is as the provider sent it: a decimal string or an integer of minor units.
    """

    type: str
    """Dotted name, such as `invoice.paid`."""
    data: Mapping[str, Any]
    occurred_at: datetime
    """UTC; when it happened, by the provider's clock; when it was received, where the provider does not say."""
    organization: str | None = None
    """The provider's id of the account the event belongs to."""
    object_kind: str | None = None
    """`invoice` or `customer`."""
    object_id: str | None = None
    key: str | None = None
    """The event's own id inside the signed body, where the provider puts one there."""
    body: bytes = field(default=b"", repr=False)

    id: str = ""
    """`evt_` and a ULID, given by the inbox."""
    source: str = ""
    """The configured sender it came from."""
    provider: str = ""
    received_at: datetime | None = None
    views: Views | None = field(default=None, repr=False, compare=False)
    """The provider's way to `invoice` and `customer`."""

    @property
    def invoice(self) -> InvoiceView:
        """The invoice that the event is about, with money as Decimal. Raises ValueError where it is about none."""
        return cast("InvoiceView", self._view("invoice"))

    @property
    def customer(self) -> CustomerView:
        """The customer that the event is about. Raises ValueError where it is about none."""
        return cast("CustomerView", self._view("customer"))

    def _view(self, kind: str) -> InvoiceView | CustomerView:
        view = self.views.get(kind) if self.views and self.object_kind == kind and self.object_id else None
        if view is None:
            raise ValueError(f"{self.type} of {self.provider or 'no provider'} is not about {kind}s that are known")
        return view(self)


AT_RECEIPT = datetime.max.replace(tzinfo=UTC)
"""The `occurred_at` of an event whose sender does not say when: the inbox puts the time of receipt in its place."""

_TYPE = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")


def valid_type(type: str) -> bool:  # noqa: A002 - the field's word
    """Whether this is an event type of ours: dotted lower-case words."""
    return len(type) <= 128 and _TYPE.fullmatch(type) is not None


def to_json(event: Event) -> bytes:
    """The event's own JSON form, for events that no provider sent; without its id, source and body."""
    return orjson.dumps(
        {
            "type": event.type,
            "occurred_at": event.occurred_at,
            "organization": event.organization,
            "object": {"kind": event.object_kind, "id": event.object_id},
            "data": dict(event.data),
        }
    )


def from_json(body: bytes) -> Event:
    """The event that `to_json` wrote. Raises ParseError when it did not write this."""
    try:
        value = orjson.loads(body)
        return Event(
            type=value["type"],
            data=value["data"],
            occurred_at=datetime.fromisoformat(value["occurred_at"]),
            organization=value["organization"],
            object_kind=value["object"]["kind"],
            object_id=value["object"]["id"],
            body=body,
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ParseError(f"not an event's JSON form: {error}") from None
