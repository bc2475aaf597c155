"""Deliveries signed as a provider signs them.

request = signed_request(PROVIDERS["hisab"], "invoice.paid", secret)
httpx.post("http://127.0.0.1:8000/webhooks/hisab", content=request.body, headers=request.headers)
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from handlers import signing
from handlers.event import Headers
from handlers.providers.provider import Provider


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A delivery, ready to be posted. Post `body` as it is: any other spelling has another signature."""

    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def wire(self) -> Headers:
        """The headers in the form that `Inbound.verify` reads."""
        return [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]


def signed_request(
    provider: Provider,
    event_type: str,
    secret: str,
    *,
    body: Mapping[str, Any] | bytes | None = None,
    delivery_id: str | None = None,
    now: float | None = None,
    forged: bool = False,
    options: Mapping[str, Any] | None = None,
) -> SignedRequest:
    """Sign a delivery as `provider` would, at `now` (Unix seconds; default: the clock).

    The body is the provider's sample of `event_type` unless `body` gives another; bytes are signed as they are.
    Two deliveries of one sample have the same body, and so count as one event. `forged` signs with a key that
    is not the secret's; `options` are those of the source. A provider that does not sign gets no signature: its
    secret belongs at the end of the path. Raises KeyError for an event type without a sample, ValueError for an
    unusable secret.
    """
    if body is None:
        body = provider.sample(event_type)
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    headers = {"content-type": "application/json"}
    inbound = provider.inbound(options or {})
    scheme = next(iter(inbound.schemes), None)
    if scheme is not None:
        key = signing.hmac_key(scheme, secret)
        headers |= signing.sign(
            scheme,
            b"forged" + key if forged else key,
            delivery_id=f"del_{secrets.token_hex(8)}" if delivery_id is None else delivery_id,
            timestamp=int(time.time() if now is None else now),
            body=content,
        )
    if (event_header := provider.event_header or inbound.type_header) is not None:
        headers[event_header.decode()] = event_type
    return SignedRequest(headers, content)
