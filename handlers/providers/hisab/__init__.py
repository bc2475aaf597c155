"""Hisab (hisab.ma, Morocco): signed webhooks and a REST API for invoices and customers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from handlers.providers.hisab.billing import BILLING
from handlers.providers.hisab.webhook import EVENTS, VIEWS, data, inbound, renewed, sample
from handlers.providers.provider import Provider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from handlers.providers.hisab.client import HisabClient
    from handlers.reconciling import Change


def _client(**options: Any) -> HisabClient:
    # The receiver never calls a provider; it need not wait for httpx to be imported.
    from handlers.providers.hisab.client import HisabClient

    return HisabClient(**options)


def _ask(client: HisabClient) -> object:
    return next(client.invoices.list(per_page=1), None)


def _changes(client: HisabClient, since: datetime) -> Iterator[Change]:
    from handlers.providers.hisab.changes import changes

    return changes(client, since)


def _sandbox(**options: Any) -> Any:
    from handlers.providers.hisab.sandbox import create_app

    return create_app(**options)


PROVIDER = Provider(
    name="hisab",
    inbound=inbound,
    data=data,
    client=_client,
    ask=_ask,
    sandbox=_sandbox,
    changes=_changes,
    billing=BILLING,
    events=EVENTS,
    event_header=b"x-webhook-event",
    sample=sample,
    renewed=renewed,
    views=VIEWS,
)
