"""What a provider is: how its deliveries are verified and read, and how its API is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from handlers.event import Event, Headers
from handlers.invoicing import Invoicing
from handlers.signing import Scheme, Verified


class Verify(Protocol):
    def __call__(self, headers: Headers, body: bytes, keys: Sequence[bytes], now: float) -> Verified:
        """Raise VerificationError, and nothing else, unless the delivery is genuine."""


class Parse(Protocol):
    def __call__(self, headers: Headers, body: bytes) -> Event:
        """Raise ParseError, and nothing else, unless the body is an event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One line of the table: pure functions and data, no state."""

    name: str
    scheme: Scheme
    verify: Verify
    parse: Parse
    client: Callable[..., Any]
    """`client(api_key=…, api_url=…)`: the typed client of the provider's API."""
    invoicing: Callable[[Any], Invoicing]
    """The verbs that schedules need, over such a client."""
    events: tuple[str, ...]
    """The documented event types; others are accepted all the same."""
    event_header: bytes | None = None
    """Where a delivery repeats its event type, for those who sign fixtures."""
    sample: Callable[[str], Mapping[str, Any]]
    """The documented sample body for an event type. Raises KeyError for an unknown one."""
