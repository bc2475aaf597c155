"""What making invoices on schedule needs of a provider, whichever it is: a draft as a value, and a few verbs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from enum import StrEnum
from typing import Any, Protocol

CUSTOMER_INACTIVE = "CUSTOMER_INACTIVE"
"""The code of a ProviderError: the customer is not to be billed (Hisab API reference, Generate)."""
NOT_AGREED = "NOT_AGREED"
"""The code of a ProviderUnavailable: the customer has not agreed to be charged yet."""


class Stage(StrEnum):
    """How far an invoice came, whatever its provider calls that."""

    DRAFT = "draft"
    FINALIZED = "finalized"
    SENT = "sent"


class Mode(StrEnum):
    """What a due date asks of the provider."""

    EACH = "each"
    """An invoice of its own."""
    CAPTURED = "captured"
    """The first makes an agreement with the customer, under which each is captured by us."""
    AUTOMATIC = "automatic"
    """The first makes an agreement, under which the provider captures all by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An invoice to be made. `items` as in the Hisab document, with numbers as decimal strings."""

    customer_id: str
    issue_date: date
    due_date: date
    currency: str
    items: Sequence[Mapping[str, str]]
    finalize: bool
    send: bool
    marker: str
    """Travels in the invoice and is found again in it."""
    key: str
    """Names this very attempt to make it, for providers that know idempotency keys."""
    begun_on: date
    """The day, in UTC, on which it was begun: the invoice is not older than that."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What this provider has to be told beside that; each has its own."""
    monthly: bool = False
    """Whether it recurs every month."""
    recurrences: int | None = None
    """How often it recurs, this time included; None: without end."""

    def written(self) -> dict[str, Any]:
        """As JSON."""
        days = {name: getattr(self, name).isoformat() for name in _DAYS}
        return {**asdict(self), "items": [dict(item) for item in self.items], "options": dict(self.options), **days}


def read_draft(written: Mapping[str, Any]) -> Draft:
    """The draft that was written so."""
    return Draft(**{**written, **{name: date.fromisoformat(written[name]) for name in _DAYS}})


_DAYS = ("issue_date", "due_date", "begun_on")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """An invoice at its provider. `number` is None until it is finalized; `status` is the provider's word."""

    id: str
    number: str | None
    stage: Stage
    status: str
    total: Decimal
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """What was captured under an agreement."""

    token: str
    status: str
    amount: Decimal


class Invoicing(Protocol):
    """Raises ProviderError (final) or ProviderUnavailable (try the same later) from every verb."""

    def check_customer(self, customer_id: str) -> None:
        """Raise ProviderError with CUSTOMER_INACTIVE where the customer is not to be billed."""

    def find(self, draft: Draft, *, sure: bool = True) -> Invoice | None:
        """The invoice that was made from this draft before, by its marker.

        `sure`: it may well be there, and is looked for however long that takes; else a quick look will do.
        """

    def create(self, draft: Draft) -> Invoice: ...

    def get(self, invoice_id: str) -> Invoice: ...

    def finalize(self, draft: Draft, invoice: Invoice) -> Invoice: ...

    def send(self, draft: Draft, invoice: Invoice) -> Invoice: ...


class Capturing(Protocol):
    """Charging under an agreement. Raises as `Invoicing`."""

    def token(self, invoice_id: str) -> str:
        """What names the customer's consent. Raises ProviderUnavailable with NOT_AGREED while there is none."""

    def find_payment(self, draft: Draft) -> Payment | None:
        """The payment that was captured for this draft before, by its marker."""

    def capture(self, draft: Draft, token: str) -> Payment: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A schedule that the provider keeps itself, in the words of the Hisab document."""

    id: str
    status: str
    next_run_date: date | None
    occurrences_created: int
    fields: Mapping[str, Any]
    """Those of a schedule here, by their names."""


class Keeping(Protocol):
    """The provider's own schedules, to be taken over. Raises as `Invoicing`."""

    def schedules(self) -> Iterator[Kept]:
        """Each that is active or paused."""

    def schedule(self, schedule_id: str) -> Kept: ...

    def pause(self, schedule_id: str) -> None: ...


def _calls(finalize: bool, send: bool) -> int:
    return 2 + finalize + send


def _each(_options: Mapping[str, Any]) -> Mode:
    return Mode.EACH


@dataclass(frozen=True, slots=True, kw_only=True)
class Billing:
    """How schedules make invoices with a provider: over its client, and what is known without asking it."""

    invoicing: Callable[[Any], Invoicing]
    check: Callable[[Draft], None]
    """Whether such drafts can be made there. Raises ValueError: one sentence that begins with the field's name."""
    total: Callable[[Draft], Decimal]
    """What a draft comes to, taxes included."""
    calls_a_minute: int
    """The least that its documents promise to a key."""
    calls: Callable[[bool, bool], int] = _calls
    """How many calls an invoice takes that is finalized, and sent, or not: the customer, the creation, what follows."""
    remembers: timedelta = timedelta(0)
    """How long creating the same draft under the same key again gives the same invoice; zero: it makes another one."""
    mode: Callable[[Mapping[str, Any]], Mode] = _each
    """For a schedule's options."""
    capturing: Callable[[Any], Capturing] | None = None
    keeping: Callable[[Any], Keeping] | None = None


_EXACT = Context(prec=100)
"""The longest numbers that an item may have multiply to fewer digits."""


def total(items: Sequence[Mapping[str, str]], *, digits: int, tax_rate: str) -> Decimal:
    """What the items come to: each is rounded half up to `digits` decimals on its own, and so is the tax on it.

    `tax_rate` is the one, in percent, of items without.
    """
    unit = Decimal(1).scaleb(-digits)
    with localcontext(_EXACT):
        amounts = [
            (Decimal(item["quantity"]) * Decimal(item["unit_price"])).quantize(unit, ROUND_HALF_UP) for item in items
        ]
        rates = [Decimal(item.get("tax_rate", tax_rate)) for item in items]
        taxes = [
            (amount * rate / 100).quantize(unit, ROUND_HALF_UP) for amount, rate in zip(amounts, rates, strict=True)
        ]
        return sum(amounts, Decimal(0)) + sum(taxes, Decimal(0))


__all__ = [
    "CUSTOMER_INACTIVE", "NOT_AGREED", "Billing", "Capturing", "Draft", "Invoice", "Invoicing", "Keeping", "Kept",
    "Mode", "Payment", "Stage", "read_draft", "total",
]  # fmt: skip
