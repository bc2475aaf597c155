"""Signature schemes as data, and the two functions that read them: `sign` and `verify`.

A scheme says which headers carry what, what is signed, and how the digest is written. Everything here works
on bytes: a header or body is never decoded before it is verified, and any input whatever ends either in a
`Verified` or in a `VerificationError`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from handlers.errors import VerificationError
from handlers.event import Headers

TOLERANCE = 300
"""Seconds a timestamp may differ from now, both ways (Hisab SDK; Standard Webhooks)."""
MAX_SIGNATURES = 16
MAX_SIGNATURE_HEADER = 4096

_DIGITS = re.compile(rb"[0-9]{1,13}")
_HEX_SHA256 = re.compile(rb"[0-9a-f]{64}")
_ID = re.compile(rb"[!-~]{1,200}")  # printable ASCII, no space: it ends in logs, keys and an index


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """Where a sender puts its signature and what the signature covers.

    `content` names the parts that are joined with a dot and signed: `id`, `timestamp`, `body`.
    `mark` is what stands before a digest (`v1=` or `v1,`); signatures of other marks are ignored.
    """

    signature: bytes
    timestamp: bytes
    id: bytes
    mark: bytes
    content: tuple[str, ...]
    encoding: str  # "hex" or "base64"
    key: str  # "raw": the secret's own bytes; "whsec": base64 behind the prefix whsec_

    @property
    def headers(self) -> tuple[bytes, bytes, bytes]:
        """The headers that may appear only once."""
        return self.signature, self.timestamp, self.id


STANDARD = Scheme(
    signature=b"webhook-signature",
    timestamp=b"webhook-timestamp",
    id=b"webhook-id",
    mark=b"v1,",
    content=("id", "timestamp", "body"),
    encoding="base64",
    key="whsec",
)
"""Standard Webhooks 1.0, HMAC-SHA256 (standard-webhooks/spec, "Webhook Headers")."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a valid signature vouches for, and the delivery id (which a scheme may leave unsigned)."""

    delivery_id: str
    timestamp: int


def key_bytes(scheme: Scheme, secret: str) -> bytes:
    """The HMAC key that a secret stands for.

    Raises ValueError on an empty secret, or one that is not base64 where the scheme wants that.
    """
    if scheme.key == "raw":
        key = secret.encode()
    else:
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            raise ValueError("a secret of Standard Webhooks is whsec_ followed by base64") from None
    if not key:
        raise ValueError("the secret is empty")
    return key


def sign(scheme: Scheme, key: bytes, *, delivery_id: str, timestamp: int, body: bytes) -> bytes:
    """The value of the signature header for one key, mark included."""
    return scheme.mark + _digest(scheme, key, delivery_id.encode(), b"%d" % timestamp, body)


def verify(scheme: Scheme, headers: Headers, body: bytes, keys: Sequence[bytes], now: float) -> Verified:
    """Check the signature of `body` against every key, at `now` (Unix seconds, the time of receipt).

    Every key is tried on every signature without stopping at a match, so that the time taken does not tell
    which one fitted. Raises VerificationError, and nothing else, on any input.
    """
    signature = _single(headers, scheme.signature)
    timestamp = _single(headers, scheme.timestamp)
    delivery_id = _single(headers, scheme.id)
    if _ID.fullmatch(delivery_id) is None:
        raise VerificationError("malformed_id", f"{_name(scheme.id)} must be 1 to 200 printable ASCII characters")
    if _DIGITS.fullmatch(timestamp) is None:
        raise VerificationError(
            "malformed_timestamp", f"{_name(scheme.timestamp)} must be Unix seconds in ASCII digits"
        )
    seconds = int(timestamp)
    offered = _signatures(scheme, signature)
    matched = False
    for key in keys:
        expected = _digest(scheme, key, delivery_id, timestamp, body)
        for candidate in offered:
            matched |= hmac.compare_digest(expected, candidate)
    if not matched:
        raise VerificationError("bad_signature", "no signature matches the body under any secret of this source")
    # After the signature, so that a stranger learns nothing about our clock.
    if abs(now - seconds) > TOLERANCE:
        raise VerificationError("stale_timestamp", f"the timestamp is more than {TOLERANCE} seconds away from now")
    return Verified(delivery_id.decode("ascii"), seconds)


def _digest(scheme: Scheme, key: bytes, delivery_id: bytes, timestamp: bytes, body: bytes) -> bytes:
    parts = {"id": delivery_id, "timestamp": timestamp, "body": body}
    digest = hmac.digest(key, b".".join([parts[name] for name in scheme.content]), "sha256")
    return digest.hex().encode() if scheme.encoding == "hex" else base64.b64encode(digest)


def _signatures(scheme: Scheme, header: bytes) -> list[bytes]:
    """The digests offered under the scheme's mark, in their one canonical spelling."""
    if len(header) > MAX_SIGNATURE_HEADER:
        raise VerificationError("malformed_signature", f"the signature header exceeds {MAX_SIGNATURE_HEADER} bytes")
    offered = header.split(b" ") if scheme.encoding == "base64" else [header]
    if len(offered) > MAX_SIGNATURES:
        raise VerificationError("malformed_signature", f"more than {MAX_SIGNATURES} signatures")
    digests = [part.removeprefix(scheme.mark) for part in offered if part.startswith(scheme.mark)]
    if not digests:
        raise VerificationError("unknown_version", f"no signature of version {scheme.mark[:-1].decode()}")
    if scheme.encoding == "hex" and _HEX_SHA256.fullmatch(digests[0]) is None:
        raise VerificationError("malformed_signature", "a signature is 64 lower-case hexadecimal digits")
    return digests


def _single(headers: Headers, name: bytes) -> bytes:
    values = [value for key, value in headers if key == name]
    if not values:
        raise VerificationError("missing_header", f"{_name(name)} is missing")
    if len(values) > 1:
        raise VerificationError("duplicate_header", f"{_name(name)} stands twice")
    return values[0]


def _name(header: bytes) -> str:
    return header.decode().title()
