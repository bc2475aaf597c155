"""Typed views of what events are about: `event.invoice` and `event.customer`, the same for every provider.

A view has what the delivery said; what it did not say is None. Everything else is in `event.data`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceView:
    """An invoice as its event has it. Money in the currency's main unit; dates without a time."""

    id: str
    number: str | None = None
    status: str | None = None
    total: Decimal | None = None
    currency: str | None = None
    customer_id: str | None = None
    customer_name: str | None = None
    issue_date: date | None = None
    due_date: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerView:
    """A customer as its event has it. `tax_id` is the number that tax law knows it by (Morocco: the ICE)."""

    id: str
    name: str | None = None
    email: str | None = None
    tax_id: str | None = None
    status: str | None = None


def text(data: Mapping[str, Any], name: str) -> str | None:
    """A field that is text, else None."""
    value = data.get(name)
    return value if isinstance(value, str) else None


def money(data: Mapping[str, Any], name: str) -> Decimal | None:
    """A decimal string or a number as it was written; None for anything else."""
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() else None


def day(data: Mapping[str, Any], name: str) -> date | None:
    """A date (YYYY-MM-DD), else None."""
    try:
        return date.fromisoformat(str(data.get(name)))
    except ValueError:
        return None
