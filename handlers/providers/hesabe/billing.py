"""What is known of making invoices at Hesabe without asking it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from handlers.invoicing import Billing, Draft, Mode
from handlers.providers.hesabe.drafts import request_of, total_of
from handlers.providers.hesabe.options import options_of

if TYPE_CHECKING:
    from handlers.providers.hesabe.client import HesabeClient
    from handlers.providers.hesabe.invoicing import HesabeCapturing, HesabeInvoicing

CALLS_A_MINUTE = 30
"""Ours, and can be set: Hesabe promises nothing. It is what an integrator cites for direct payments."""


def _invoicing(client: HesabeClient) -> HesabeInvoicing:
    from handlers.providers.hesabe.invoicing import HesabeInvoicing

    return HesabeInvoicing(client)


def _capturing(client: HesabeClient) -> HesabeCapturing:
    from handlers.providers.hesabe.invoicing import HesabeCapturing

    return HesabeCapturing(client)


def check(draft: Draft) -> None:
    """See `handlers.invoicing.Billing`."""
    request_of(draft)


def mode(options: Mapping[str, Any]) -> Mode:
    """See `handlers.invoicing.Billing`. Raises ValueError as `options_of`."""
    subscription = options_of(options).subscription
    if subscription is None:
        return Mode.EACH
    return Mode.CAPTURED if subscription.on_demand else Mode.AUTOMATIC


def _calls(finalize: bool, send: bool) -> int:
    """It is issued and sent by one call, and a payment captured by another."""
    return 2


BILLING = Billing(
    invoicing=_invoicing,
    check=check,
    total=total_of,
    calls_a_minute=CALLS_A_MINUTE,
    calls=_calls,
    mode=mode,
    capturing=_capturing,
)

__all__ = ["BILLING", "CALLS_A_MINUTE", "check", "mode", "options_of", "total_of"]
