"""What is known of making invoices at HIBR without asking it.

Of an invoice's fields `customer_id`, `invoice_date` and `lines[].unit_price` are published, and that amounts are
positive integers of the minor unit with their currencies beside them (HIBR API reference, Money and Errors). Assumed,
as the sandbox has them, are `due_date`, `reference`, and a line's `description`, `quantity` (an integer, or a decimal
as a string with up to 6 decimals) and `vat_rate` (in percent).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from handlers.invoicing import Billing, Draft, total
from handlers.providers.hibr.models import minor_digits, to_minor

if TYPE_CHECKING:
    from handlers.providers.hibr.client import HibrClient
    from handlers.providers.hibr.invoicing import HibrInvoicing

CALLS_A_MINUTE = 60
"""The tier Lite (HIBR API reference, Rate limits)."""
REMEMBERS = timedelta(hours=23)
"""HIBR keeps the answer under an Idempotency-Key for 24 hours (HIBR API reference, Idempotency).

The hour that is left out is for a call under way, and for clocks that differ.
"""
VAT_RATES = (0, 5)
"""The rates of the UAE's VAT, in percent."""
USUAL_VAT = 5
"""What a line without a rate has; HIBR does not say, the sandbox does so."""

_QUANTITY_DIGITS = 6


def _invoicing(client: HibrClient) -> HibrInvoicing:
    from handlers.providers.hibr.invoicing import HibrInvoicing

    return HibrInvoicing(client)


def check(draft: Draft) -> None:
    """See `handlers.invoicing.Billing`."""
    if draft.options:
        raise ValueError(f"options: HIBR takes none, so not {sorted(draft.options)[0]!r}.")
    try:
        minor_digits(draft.currency)
    except ValueError:
        raise ValueError(f"currency must be an ISO 4217 code, such as AED, not {draft.currency!r}.") from None
    if draft.due_date < draft.issue_date:
        raise ValueError("due_date must not be before issue_date.")
    body_of(draft)


def body_of(draft: Draft) -> dict[str, Any]:
    """The fields that the invoice is created with. Raises ValueError as `check`, on the items."""
    return {
        "customer_id": draft.customer_id,
        "invoice_date": draft.issue_date,
        "due_date": draft.due_date,
        "lines": [_line(f"items[{place}]", item, draft.currency) for place, item in enumerate(draft.items)],
        "reference": draft.marker,
    }


def total_of(draft: Draft) -> Decimal:
    """See `handlers.invoicing.Billing`. Each line is rounded on its own; that is assumed, as `USUAL_VAT` is."""
    return total(draft.items, digits=minor_digits(draft.currency), tax_rate=str(USUAL_VAT))


def _line(path: str, item: Mapping[str, str], currency: str) -> dict[str, Any]:
    line = {
        "description": item["description"],
        "quantity": _quantity(f"{path}.quantity", item["quantity"]),
        "unit_price": _unit_price(f"{path}.unit_price", item["unit_price"], currency),
        "unit_price_currency": currency,
    }
    if "tax_rate" in item:
        line["vat_rate"] = _vat_rate(f"{path}.tax_rate", item["tax_rate"])
    return line


def _quantity(path: str, given: str) -> int | str:
    """A JSON number with a fraction is answered 400, so only what is whole is one."""
    quantity = Decimal(given)
    # In digits and not by normalize(), which rounds to the precision of the current decimal context.
    whole, _, decimals = format(quantity, "f").partition(".")
    decimals = decimals.rstrip("0")
    if quantity <= 0 or len(decimals) > _QUANTITY_DIGITS:
        raise ValueError(f"{path} must be above 0, with at most {_QUANTITY_DIGITS} decimals.")
    return f"{whole}.{decimals}" if decimals else int(whole)


def _unit_price(path: str, given: str, currency: str) -> int:
    try:
        units = to_minor(given, currency)
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from None
    if units <= 0:
        raise ValueError(f"{path} must be above 0: HIBR takes positive amounts only.")
    return units


def _vat_rate(path: str, given: str) -> int:
    if Decimal(given) not in VAT_RATES:
        raise ValueError(f"{path} must be one of {', '.join(map(str, VAT_RATES))}: the rates of the UAE's VAT.")
    return int(Decimal(given))


def _calls(finalize: bool, send: bool) -> int:
    return 1 + finalize + send


BILLING = Billing(
    invoicing=_invoicing,
    check=check,
    total=total_of,
    calls_a_minute=CALLS_A_MINUTE,
    calls=_calls,
    remembers=REMEMBERS,
)
"""Invoices for schedules at HIBR. The marker travels in `reference`."""
