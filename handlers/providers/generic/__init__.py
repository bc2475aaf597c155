"""Any other sender that signs with HMAC-SHA256: described in the source's options, no code needed."""

from __future__ import annotations

from handlers.providers.generic.webhook import data, inbound, renewed, sample
from handlers.providers.provider import Provider

PROVIDER = Provider(
    name="generic", inbound=inbound, data=data, sample=sample, renewed=renewed, events=("invoice.paid",)
)
