"""What a provider is: how its deliveries are verified and read, and how its API is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from handlers import signing
from handlers.event import Event, Headers, Views
from handlers.invoicing import Billing
from handlers.reconciling import Change
from handlers.signing import Scheme, Verified

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

O = TypeVar("O", bound="Options")  # noqa: E741 - a type, as everywhere


class Options(BaseModel):
    """The options that a source of some provider takes; each provider has its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Parse(Protocol):
    def __call__(self, headers: Headers, body: bytes) -> Event:
        """Raise ParseError, and nothing else, unless the body is an event."""


class Confirm(Protocol):
    def __call__(self, client: Any, event: Event) -> None:
        """Ask the provider's API whether the event is true.

        Raise VerificationError where it is not, ProviderUnavailable where that cannot be found out now.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """How the deliveries of one source are verified and read: what its provider makes of its options. No state.

    Without `schemes` the provider does not sign: then one of the source's secrets stands at the end of the path,
    and `confirm` asks the provider itself.
    """

    schemes: tuple[Scheme, ...]
    parse: Parse
    confirm: Confirm | None = None
    type_header: bytes | None = None
    """The header of the event's type, where that stands in one."""

    @property
    def once(self) -> frozenset[bytes]:
        """Headers that may stand only once."""
        return frozenset().union(*(scheme.headers for scheme in self.schemes))

    @property
    def kept(self) -> frozenset[bytes]:
        """Headers that are stored with the event; never a signature."""
        type_header = {self.type_header} if self.type_header else set()
        return (self.once | type_header) - {scheme.signature for scheme in self.schemes}

    @property
    def signs_id(self) -> bool:
        """Whether the delivery id is signed: then it tells apart two deliveries of the same body."""
        return bool(self.schemes) and all(signing.ID in scheme.content for scheme in self.schemes)

    def key(self, secret: str) -> bytes | Ed25519PublicKey:
        """What deliveries are checked with. Raises ValueError on a secret of the wrong form."""
        if self.schemes:
            return signing.key_of(self.schemes[0], secret)
        if signing.TOKEN.fullmatch(secret) is None:
            raise ValueError("a secret that stands in the path has 24 to 200 letters, digits, - and _")
        return secret.encode()

    def verify(
        self, headers: Headers, body: bytes, keys: Sequence[bytes | Ed25519PublicKey], now: float, token: bytes = b""
    ) -> Verified:
        """Check a delivery at `now` (Unix seconds); `token` is what stands in the path behind the source.

        Raises VerificationError, and nothing else, on any input.
        """
        if self.schemes:
            return signing.verify(self.schemes, headers, body, keys, now)
        return signing.verify_token(token, keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One line of the table: pure functions and data, no state."""

    name: str
    inbound: Callable[[Mapping[str, Any]], Inbound]
    """For a source's options. Raises ValueError on options it does not take."""
    data: Callable[[bytes], Mapping[str, Any]]
    """What `parse` gives as an event's data, from a stored body. Raises ParseError."""
    client: Callable[..., Any] | None = None
    """`client(api_key=…, api_url=…)`: the typed client of the provider's API; None where there is none."""
    ask: Callable[[Any], object] | None = None
    """A small call over such a client that changes nothing; raises what the client raises where its key is none."""
    billing: Billing | None = None
    """How schedules make invoices over such a client."""
    changes: Callable[[Any, datetime], Iterator[Change]] | None = None
    """What must have been reported since then, read off such a client's lists; those of one object in their order.

    Raises ProviderError and ProviderUnavailable as the client does, ParseError where a list is out of shape.
    """
    events: tuple[str, ...] = ()
    """The documented event types; others are accepted all the same."""
    event_header: bytes | None = None
    """Where a delivery repeats its event type, for those who sign fixtures."""
    sample: Callable[[str], Mapping[str, Any]]
    """The documented sample body for an event type. Raises KeyError for an unknown one."""
    renewed: Callable[[Mapping[str, Any], datetime], dict[str, Any]]
    """A sample as if it happened at this moment: another event than any before."""
    sandbox: Callable[..., Any] | None = None
    """`sandbox(path=…, webhooks=…, clock=…, faults=…)`: a Starlette app that fakes the API; see its `create_app`."""
    views: Views = field(default_factory=dict)
    """What `parse` gives its events as their views."""


def read_options(model: type[O], options: Mapping[str, Any]) -> O:
    """A source's options as its provider's model. Raises ValueError with one line that names the option."""
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields) or "none"
            raise ValueError(f"there is no option {where}; this provider takes: {known}") from None
        raise ValueError(f"option {where}: {first['msg'].removeprefix('Value error, ')}") from None
