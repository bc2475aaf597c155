"""The senders of the conformance suite: each as its own documentation words it, signing without our code."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handlers.event import Headers
from handlers.providers import PROVIDERS, Inbound
from handlers.signing import Verified

NOW = 1_780_668_000
BODY = (
    b'{"event":"invoice.paid","type":"invoice.paid","id":"evt_1","livemode":false,"organization_id":"org_1",'
    b'"created":"2026-06-05T14:00:00Z","created_at":"2026-06-05T14:00:00Z","timestamp":"2026-06-05T14:00:00Z",'
    b'"data":{"id":"inv_1","total":"120.00","object":{"id":"inv_1","object":"invoice"}}}'
)
"""One body that every provider reads as invoice.paid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """A source's provider, options and secrets; and where and how this sender writes its signature."""

    name: str
    provider: str
    options: Mapping[str, Any] = field(default_factory=dict)
    secret: str
    other: str
    """Another secret of the right form."""
    signature: bytes
    content: bytes = b"%(timestamp)s.%(body)s"
    mark: bytes = b""
    timestamp: bytes | None = None
    id: bytes | None = None
    in_list: bool = False
    """Whether the timestamp stands beside the signatures, as t=."""
    separator: bytes | None = None
    milliseconds: bool = False
    encoded: bool = False
    """Base64 rather than hexadecimal."""
    more: Headers = ()
    """Headers that are read and not signed."""

    @property
    def timed(self) -> bool:
        return self.timestamp is not None or self.in_list

    @property
    def signs_its_id(self) -> bool:
        return b"%(id)s" in self.content

    @property
    def names(self) -> list[bytes]:
        """Of the headers that a delivery needs."""
        return [name for name in (self.signature, self.timestamp, self.id) if name]

    @property
    def inbound(self) -> Inbound:
        return PROVIDERS[self.provider].inbound(self.options)

    def stamp(self, seconds: int = NOW) -> bytes:
        """A time as this sender writes it."""
        return b"%d" % (seconds * 1000 if self.milliseconds else seconds)

    def signed(
        self,
        body: bytes = BODY,
        *,
        stamp: bytes | None = None,
        delivery_id: bytes = b"del_1",
        secret: str | None = None,
    ) -> bytes:
        """One signature, with its mark."""
        parts = {b"timestamp": self.stamp() if stamp is None else stamp, b"id": delivery_id, b"body": body}
        digest = self._digest(self.secret if secret is None else secret, self.content % parts)
        return self.mark + (base64.b64encode(digest) if self.encoded else digest.hex().encode())

    def headers(
        self,
        body: bytes = BODY,
        *,
        stamp: bytes | None = None,
        delivery_id: bytes = b"del_1",
        secret: str | None = None,
        offered: Sequence[bytes] | None = None,
    ) -> list[tuple[bytes, bytes]]:
        """The headers of a delivery; `offered` are its signatures, where these are not the one it should have."""
        stamp = self.stamp() if stamp is None else stamp
        if offered is None:
            offered = [self.signed(body, stamp=stamp, delivery_id=delivery_id, secret=secret)]
        listed = [b"t=" + stamp, *offered] if self.in_list else offered
        given = [(self.signature, (self.separator or b",").join(listed))]
        given += [(self.timestamp, stamp)] if self.timestamp else []
        given += [(self.id, delivery_id)] if self.id else []
        return [*given, *self.more]

    def verify(
        self, headers: Headers, body: bytes = BODY, *, secrets: Sequence[str] | None = None, now: float = NOW
    ) -> Verified:
        """What Billhook makes of a delivery to a source with these secrets."""
        inbound = self.inbound
        keys = [inbound.key(secret) for secret in ([self.secret] if secrets is None else secrets)]
        return inbound.verify(headers, body, keys, now)

    def _digest(self, secret: str, content: bytes) -> bytes:
        key = base64.b64decode(secret.removeprefix("whsec_")) if secret.startswith("whsec_") else secret.encode()
        return hmac.new(key, content, hashlib.sha256).digest()


class AsymmetricSender(Sender):
    """Signs with Ed25519; its secrets are public keys."""

    __slots__ = ()

    def _digest(self, secret: str, content: bytes) -> bytes:
        return PRIVATE[secret].sign(content)


def public(key: Ed25519PrivateKey) -> str:
    """The secret of a source whose sender signs with this key."""
    return "whpk_" + base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


PRIVATE = {public(key): key for key in (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))}
_PLAIN: dict[str, Any] = {"secret": "a-secret-of-the-sender", "other": "another-of-the-sender"}
_ENCODED: dict[str, Any] = {
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "other": "whsec_plJ3nmyCDGBKInavdOK15jsl",
    "content": b"%(id)s.%(timestamp)s.%(body)s",
    "separator": b" ",
    "encoded": True,
}


def _standard(name: str, prefix: bytes, **more: Any) -> Sender:
    made = AsymmetricSender if "secret" in more else Sender
    names = {"signature": prefix + b"-signature", "timestamp": prefix + b"-timestamp", "id": prefix + b"-id"}
    return made(name=name, provider="standard", **{**_ENCODED, "mark": b"v1,", **names, **more})


_KEYS: dict[str, Any] = dict(zip(("secret", "other"), PRIVATE, strict=True))
HISAB = Sender(
    name="hisab",
    provider="hisab",
    signature=b"x-webhook-signature",
    timestamp=b"x-webhook-timestamp",
    id=b"x-webhook-delivery-id",
    mark=b"v1=",
    **_PLAIN,
)
OLDER = Sender(
    name="hisab-older",
    provider="hisab",
    options={"format": "older"},
    signature=b"x-hisab-signature",
    timestamp=b"x-hisab-timestamp",
    id=b"x-hisab-delivery-id",
    milliseconds=True,
    **_PLAIN,
)
HIBR = Sender(
    name="hibr",
    provider="hibr",
    signature=b"hibr-signature",
    id=b"hibr-event-id",
    mark=b"v1=",
    in_list=True,
    separator=b",",
    **_PLAIN,
)
STANDARD = _standard("standard", b"webhook")
SVIX = _standard("svix", b"svix")
ASYMMETRIC = _standard("standard-v1a", b"webhook", mark=b"v1a,", **_KEYS)
SVIX_ASYMMETRIC = _standard("svix-v1a", b"svix", mark=b"v1a,", **_KEYS)
GITHUB = Sender(
    name="github",
    provider="generic",
    options={
        "signature": "X-Hub-Signature-256",
        "mark": "sha256=",
        "id": "X-GitHub-Delivery",
        "type": "header:X-GitHub-Event",
    },
    signature=b"x-hub-signature-256",
    id=b"x-github-delivery",
    content=b"%(body)s",
    mark=b"sha256=",
    more=[(b"x-github-event", b"invoice.paid")],
    **_PLAIN,
)
STRIPE = Sender(
    name="stripe",
    provider="generic",
    options={
        "signature": "Stripe-Signature",
        "content": "{timestamp}.{body}",
        "mark": "v1=",
        "stamp": "t=",
        "separator": ",",
        "key": "id",
        "object": "data.object.id",
    },
    signature=b"stripe-signature",
    mark=b"v1=",
    in_list=True,
    separator=b",",
    **_PLAIN,
)
SHOPIFY = Sender(
    name="shopify",
    provider="generic",
    options={
        "signature": "X-Shopify-Hmac-Sha256",
        "encoding": "base64",
        "id": "X-Shopify-Webhook-Id",
        "type": "header:X-Shopify-Topic",
    },
    signature=b"x-shopify-hmac-sha256",
    id=b"x-shopify-webhook-id",
    content=b"%(body)s",
    encoded=True,
    more=[(b"x-shopify-topic", b"invoice/paid")],
    **_PLAIN,
)
SLACK = Sender(
    name="slack",
    provider="generic",
    options={
        "signature": "X-Slack-Signature",
        "content": "v0:{timestamp}:{body}",
        "mark": "v0=",
        "timestamp": "X-Slack-Request-Timestamp",
    },
    signature=b"x-slack-signature",
    timestamp=b"x-slack-request-timestamp",
    content=b"v0:%(timestamp)s:%(body)s",
    mark=b"v0=",
    **_PLAIN,
)
SENDERS = (HISAB, OLDER, HIBR, STANDARD, SVIX, ASYMMETRIC, SVIX_ASYMMETRIC, GITHUB, STRIPE, SHOPIFY, SLACK)
