"""Any sender of Standard Webhooks (standardwebhooks.com), under `webhook-*` or `svix-*` names."""

from __future__ import annotations

from handlers.providers.provider import Provider
from handlers.providers.standard.webhook import data, inbound, renewed, sample

PROVIDER = Provider(
    name="standard", inbound=inbound, data=data, sample=sample, renewed=renewed, events=("invoice.paid",)
)
