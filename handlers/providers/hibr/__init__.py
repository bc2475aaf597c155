"""HIBR (hibr.ai, UAE): signed webhooks, and a REST API with keys or OAuth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from handlers.providers.hibr.billing import BILLING
from handlers.providers.hibr.webhook import EVENTS, VIEWS, data, inbound, renewed, sample
from handlers.providers.provider import Provider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from handlers.providers.hibr.client import HibrClient
    from handlers.reconciling import Change


def _client(**options: Any) -> HibrClient:
    # The receiver never calls a provider; it need not wait for httpx to be imported.
    from handlers.providers.hibr.client import HibrClient

    return HibrClient(**options)


def _ask(client: HibrClient) -> object:
    return next(client.invoices.list(limit=1), None)


def _changes(client: HibrClient, since: datetime) -> Iterator[Change]:
    from handlers.providers.hibr.changes import changes

    return changes(client, since)


def _sandbox(**options: Any) -> Any:
    from handlers.providers.hibr.sandbox import create_app

    return create_app(**options)


PROVIDER = Provider(
    name="hibr",
    inbound=inbound,
    data=data,
    client=_client,
    ask=_ask,
    sandbox=_sandbox,
    changes=_changes,
    billing=BILLING,
    events=EVENTS,
    event_header=b"hibr-event",
    sample=sample,
    renewed=renewed,
    views=VIEWS,
)
