"""What is known of making invoices at Hisab without asking it."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from handlers.invoicing import Billing, Draft, total
from handlers.providers.hisab.models import TAX_RATES

if TYPE_CHECKING:
    from handlers.providers.hisab.client import HisabClient
    from handlers.providers.hisab.invoicing import HisabInvoicing, HisabKeeping

CALLS_A_MINUTE = 120
"""The plan Professional (Hisab API reference, Rate limits)."""


def _invoicing(client: HisabClient) -> HisabInvoicing:
    from handlers.providers.hisab.invoicing import HisabInvoicing

    return HisabInvoicing(client)


def _keeping(client: HisabClient) -> HisabKeeping:
    from handlers.providers.hisab.invoicing import HisabKeeping

    return HisabKeeping(client)


def check(draft: Draft) -> None:
    """See `handlers.invoicing.Billing`."""
    if draft.options:
        raise ValueError(f"options: Hisab takes none, so not {sorted(draft.options)[0]!r}.")
    for place, item in enumerate(draft.items):
        if "tax_rate" in item and Decimal(item["tax_rate"]) not in TAX_RATES:
            raise ValueError(f"items[{place}].tax_rate must be one of {', '.join(map(str, TAX_RATES))}.")


def total_of(draft: Draft) -> Decimal:
    """See `handlers.invoicing.Billing`. Hisab takes 20 % where an item has no rate."""
    return total(draft.items, digits=2, tax_rate="20")


BILLING = Billing(invoicing=_invoicing, check=check, total=total_of, calls_a_minute=CALLS_A_MINUTE, keeping=_keeping)
