"""What a handler gets beside the event: which attempt this is, a logger, and ways to have an effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from handlers.event import valid_type

if TYPE_CHECKING:
    import structlog


@dataclass(frozen=True, slots=True)
class Emit:
    """An outbound event that a handler asked for; `data` is its JSON."""

    type: str
    data: bytes
    key: str


@dataclass(slots=True, kw_only=True)
class Context:
    """One start of one handler on one event."""

    attempt: int
    """From 1; the same event was tried before when it is more."""
    first_seen: datetime
    """When the event was received, UTC."""
    logger: structlog.stdlib.BoundLogger = field(repr=False)
    """Its lines carry the event's id and the handler's name."""
    clients: Callable[[str | None], Any] = field(repr=False)
    emitted: list[Emit] = field(default_factory=list)

    def emit(self, type: str, data: Mapping[str, Any], *, key: str | None = None) -> None:  # noqa: A002 - the field's word
        """Send an event on to every endpoint that wants its type, if and when this run succeeds.

        The message's id follows from event, handler and `key` (default: how many were emitted before), so
        that a repeated run sends nothing twice. Raises ValueError for a type that is not dotted lower-case
        words, a key used twice, or data that JSON cannot hold.
        """
        if not valid_type(type):
            raise ValueError(f"{type!r} is not an event type: dotted lower-case words, such as receipt.issued")
        key = str(len(self.emitted)) if key is None else f"={key}"
        if not key.isprintable():
            raise ValueError("an emit key has printable characters only")
        if any(emit.key == key for emit in self.emitted):
            raise ValueError(f"emit key {key[1:]!r} was used before in this run")
        try:
            # Decimal is money: written as a string, never as a float.
            encoded = orjson.dumps(dict(data), default=_encode)
        except TypeError as error:
            raise ValueError(f"the data of {type} is not JSON: {error}") from None
        self.emitted.append(Emit(type, encoded, key))

    def client(self, source: str | None = None) -> Any:
        """The API client of the event's source, or of another one by its name.

        Raises ProviderUnavailable where that source has no API key.
        """
        return self.clients(source)


def _encode(value: object) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{value.__class__.__name__} has no JSON form")
