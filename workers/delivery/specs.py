"""What somebody wants of an endpoint: the fields, their rules, and how they are stored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from cryptography.fernet import MultiFernet

from handlers.registry import valid_pattern
from workers.delivery import certificates, headers, keys
from workers.delivery.errors import EndpointError
from workers.models import prose

if TYPE_CHECKING:
    from workers.delivery.egress import Egress

MAX_ATTEMPTS = 20
LONGEST_WAIT = 7 * 24 * 3600
"""Seconds before one attempt."""
MAX_CONCURRENCY = 1_000
MAX_RATE = 100_000
MAX_PATTERNS = 200
MAX_PATTERN = 128
MAX_DESCRIPTION = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSpec:
    """An endpoint as somebody wants it; None is the usual."""

    url: str = field(repr=False)
    description: str = ""
    event_types: tuple[str, ...] = ("*",)
    """Patterns; `*` and prefixes mean all but Billhook's own `billhook.…`, which only a pattern of that name does."""
    sources: tuple[str, ...] = ()
    """None is all."""
    forward: bool = False
    """Also what providers send, as it was received."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    signing: str = keys.V1
    schedule: tuple[float, ...] | None = None
    """Seconds before each attempt, the first one too."""
    rate: int | None = None
    """Deliveries a second; 0 is without limit."""
    concurrency: int | None = None
    """Deliveries at once."""
    ca: str | None = None
    client_certificate: str | None = field(default=None, repr=False)

    def described(self, only: Collection[str] | None = None) -> dict[str, Any]:
        """As JSON for the audit log: of what is secret, or long, only the names or that it is there.

        The path of a URL is often a token, as what stands behind its ? is.
        """
        short = {
            "url": "/".join(self.url.partition("?")[0].split("/")[:3]),
            "headers": sorted(self.headers),
            "ca": self.ca is not None,
            "client_certificate": self.client_certificate is not None,
        }
        names = [one.name for one in fields(self) if only is None or one.name in only]
        return {name: short[name] if name in short else getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings allow: where deliveries may go, and the names of the sources there are."""

    egress: Egress
    sources: Collection[str]


def check(spec: EndpointSpec, rules: Rules, only: Collection[str] | None = None) -> None:
    """Raise EndpointError where a field, of `only` these or of all, cannot be so."""
    for name, of_field in _CHECKS.items():
        if only is None or name in only:
            of_field(spec, rules)


def columns(vault: MultiFernet, spec: EndpointSpec) -> dict[str, Any]:
    """A checked endpoint as its row has it."""
    certificate = spec.client_certificate
    return {
        "url": spec.url,
        "description": prose(spec.description),
        "event_types": list(dict.fromkeys(spec.event_types)),
        "sources": list(dict.fromkeys(spec.sources)),
        "forward": spec.forward,
        "headers": headers.stored(vault, spec.headers),
        "signing": spec.signing,
        "schedule": None if spec.schedule is None else list(spec.schedule),
        "rate": spec.rate,
        "concurrency": spec.concurrency,
        "ca": spec.ca,
        "client_certificate": None if certificate is None else vault.encrypt(certificate.encode()),
    }


def _url(spec: EndpointSpec, rules: Rules) -> None:
    from workers.delivery import egress  # it needs the HTTP client, which listing endpoints does not

    try:
        egress.check_url(spec.url, rules.egress)
    except egress.Refused as error:
        raise EndpointError(str(error)) from None


def _description(spec: EndpointSpec, _: Rules) -> None:
    if len(spec.description) > MAX_DESCRIPTION:
        raise EndpointError(f"the description is longer than {MAX_DESCRIPTION} characters")


def _event_types(spec: EndpointSpec, _: Rules) -> None:
    if not spec.event_types:
        raise EndpointError("an endpoint that wants no event type gets nothing: name some, or * for all")
    if len(spec.event_types) > MAX_PATTERNS:
        raise EndpointError(f"an endpoint has at most {MAX_PATTERNS} event types")
    for pattern in spec.event_types:
        if len(pattern) > MAX_PATTERN or not valid_pattern(pattern):
            raise EndpointError(f"{pattern[:MAX_PATTERN]!r} is not an event type, a prefix with .* or *")


def _sources(spec: EndpointSpec, rules: Rules) -> None:
    for name in spec.sources:
        if name not in rules.sources:
            configured = ", ".join(sorted(rules.sources)) or "none"
            raise EndpointError(f"there is no source {name!r}; configured: {configured}")


def _signing(spec: EndpointSpec, _: Rules) -> None:
    keys.kinds(spec.signing)


def _schedule(spec: EndpointSpec, _: Rules) -> None:
    if spec.schedule is None:
        return
    if not 1 <= len(spec.schedule) <= MAX_ATTEMPTS:
        raise EndpointError(f"a schedule has 1 to {MAX_ATTEMPTS} waits, one before each attempt")
    if not all(0 <= wait <= LONGEST_WAIT for wait in spec.schedule):  # what is no number lies nowhere
        raise EndpointError("each wait of a schedule is between 0 seconds and 7 days")


def _rate(spec: EndpointSpec, _: Rules) -> None:
    if spec.rate is not None and not 0 <= spec.rate <= MAX_RATE:
        raise EndpointError(f"the rate is a number of deliveries a second from 0 (no limit) to {MAX_RATE}")


def _concurrency(spec: EndpointSpec, _: Rules) -> None:
    if spec.concurrency is not None and not 1 <= spec.concurrency <= MAX_CONCURRENCY:
        raise EndpointError(f"the concurrency is a number of deliveries at once from 1 to {MAX_CONCURRENCY}")


def _ca(spec: EndpointSpec, _: Rules) -> None:
    if spec.ca is not None:
        certificates.check_authorities(spec.ca)


def _client_certificate(spec: EndpointSpec, _: Rules) -> None:
    if spec.client_certificate is not None:
        certificates.check_client_certificate(spec.client_certificate)


_CHECKS: Mapping[str, Callable[[EndpointSpec, Rules], None]] = {
    "url": _url,
    "description": _description,
    "event_types": _event_types,
    "sources": _sources,
    "headers": lambda spec, _: headers.check(spec.headers),
    "signing": _signing,
    "schedule": _schedule,
    "rate": _rate,
    "concurrency": _concurrency,
    "ca": _ca,
    "client_certificate": _client_certificate,
}
