"""Hesabe (hesabe.com, Kuwait): unsigned webhooks, and an encrypted API for invoices, transactions and refunds."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from handlers.providers.hesabe.billing import BILLING
from handlers.providers.hesabe.webhook import EVENTS, KUWAIT, data, inbound, sample
from handlers.providers.provider import Provider

if TYPE_CHECKING:
    from handlers.providers.hesabe.client import HesabeClient


def _client(**options: Any) -> HesabeClient:
    # The receiver asks for one only where a source of Hesabe is configured; others need not import httpx.
    from handlers.providers.hesabe.client import HesabeClient

    return HesabeClient(**options)


def _ask(client: HesabeClient) -> object:
    today = datetime.now(KUWAIT).date()
    return next(client.invoices.list(from_date=today, to_date=today, invoice_type="1"), None)


def _renewed(body: Mapping[str, Any], moment: datetime) -> dict[str, Any]:
    token = "".join(secrets.choice("0123456789") for _ in range(22))
    return {**body, "token": token, "datetime": moment.astimezone(KUWAIT).strftime("%Y-%m-%d %H:%M:%S")}


def _sandbox(**options: Any) -> Any:
    from handlers.providers.hesabe.sandbox import create_app

    return create_app(**options)


PROVIDER = Provider(
    name="hesabe",
    inbound=inbound,
    data=data,
    client=_client,
    ask=_ask,
    sandbox=_sandbox,
    billing=BILLING,
    events=EVENTS,
    sample=sample,
    renewed=_renewed,
)
