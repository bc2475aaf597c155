"""What reconciling needs of a provider: the changes that must have been reported, read off its API."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something that happened to an object at its provider, of which a delivery must have come."""

    type: str
    """The event's type, such as `invoice.paid`."""
    occurred_at: datetime
    """UTC; when it happened, as exactly as the object tells."""
    earliest: datetime
    """UTC; before this no delivery of it can have come."""
    object_kind: str
    object_id: str
    body: bytes = field(repr=False)
    """As the provider would have sent it; the object in it is as it is now, not as it was then."""
    repeats: bool
    """Whether it can happen to one object more than once, as an update does."""
