"""Hisab (hisab.ma, Morocco): signed webhooks and a REST API for invoices and customers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from handlers.providers.hisab.webhook import EVENTS, SCHEME, parse, sample, verify
from handlers.providers.provider import Provider

if TYPE_CHECKING:
    from handlers.providers.hisab.client import HisabClient
    from handlers.providers.hisab.invoicing import HisabInvoicing


def _client(**options: Any) -> HisabClient:
    # The receiver never calls a provider; it need not wait for httpx to be imported.
    from handlers.providers.hisab.client import HisabClient

    return HisabClient(**options)


def _invoicing(client: HisabClient) -> HisabInvoicing:
    from handlers.providers.hisab.invoicing import HisabInvoicing

    return HisabInvoicing(client)


PROVIDER = Provider(
    name="hisab",
    scheme=SCHEME,
    verify=verify,
    parse=parse,
    client=_client,
    invoicing=_invoicing,
    events=EVENTS,
    event_header=b"x-webhook-event",
    sample=sample,
)
