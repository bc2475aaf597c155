"""What generating an invoice needs of a provider, whichever it is: a draft as a value, and five verbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Protocol

DRAFT = "draft"
FINALIZED = "finalized"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An invoice to be made. `items` as in the Hisab document; `marker` travels in it and is found again."""

    customer_id: str
    issue_date: date
    due_date: date
    currency: str
    items: Sequence[Mapping[str, Any]]
    marker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """An invoice at its provider. `number` is None until it is finalized; `status` as the provider has it."""

    id: str
    number: str | None
    status: str
    total: Decimal
    currency: str


class Invoicing(Protocol):
    """Raises ProviderError (final) or ProviderUnavailable (try the same later) from every verb."""

    def find(self, draft: Draft) -> Invoice | None:
        """The invoice that was made from this draft before, by its marker."""

    def create(self, draft: Draft) -> Invoice: ...

    def get(self, invoice_id: str) -> Invoice: ...

    def finalize(self, invoice_id: str) -> Invoice: ...

    def send(self, invoice_id: str) -> Invoice: ...
