"""Signature schemes as data, and the functions that read them: `sign` and `verify`.

A scheme says which headers carry what, what is signed, and how the digest is written. Everything here works on
bytes: a header or body is never decoded before it is verified, and any input whatever ends either in a `Verified` or
in a `VerificationError`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from handlers.errors import VerificationError
from handlers.event import Headers

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

TOLERANCE = 300
"""Seconds a timestamp may differ from now, both ways (Hisab SDK; Standard Webhooks)."""
MAX_SIGNATURES = 16
MAX_SIGNATURE_HEADER = 4096

ID, TIMESTAMP, BODY = b"{id}", b"{timestamp}", b"{body}"
"""The parts that a delivery fills into what is signed."""


_DIGITS = re.compile(rb"[0-9]{1,13}")
_HEX_SHA256 = re.compile(rb"[0-9a-f]{64}")
_ID = re.compile(rb"[!-~]{1,200}")  # printable ASCII, no space: it ends in logs, keys and an index
TOKEN = re.compile(r"[A-Za-z0-9_-]{24,200}")
"""A secret that stands in the path of a source whose provider does not sign."""
_PART = re.compile(r"(\{(?:id|timestamp|body)\})")
# One signature would fit two ids: the last digit of the one can pass for the first of the other.
_MINGLED = re.compile(r"\{id\}[0-9]*\{timestamp\}|\{timestamp\}[0-9]*\{id\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """Where a sender puts its signature, and what the signature covers. Names of headers in lower case.

    `mark` stands before a digest (`v1=`, `v1,`, `sha256=`, or nothing); what bears another is ignored. `separator` is
    what stands between several signatures in one header; without one there is one. Where `stamp` is given (`t=`), the
    timestamp is among them, behind it. `asymmetric` is the mark of Ed25519 signatures, where a sender may use them.
    """

    signature: bytes
    content: tuple[bytes, ...]
    """What is signed: ID, TIMESTAMP, BODY, and what stands between them. See `template`."""
    id: bytes | None = None
    """The header of the delivery id; a sender without one is told by the event's own key."""
    timestamp: bytes | None = None
    mark: bytes = b""
    separator: bytes = b""
    stamp: bytes = b""
    encoding: Literal["hex", "base64"] = "hex"
    unit: Literal["seconds", "milliseconds"] = "seconds"
    key: Literal["raw", "base64"] = "raw"
    """`raw`: the secret's own bytes, UTF-8. `base64`: what is encoded in it, behind `whsec_` or `whpk_`."""
    asymmetric: bytes = b""

    @property
    def headers(self) -> frozenset[bytes]:
        """The headers that may appear only once."""
        return frozenset(name for name in (self.signature, self.timestamp, self.id) if name)


def template(written: str) -> tuple[bytes, ...]:
    """The content of a scheme, from a text such as `{timestamp}.{body}`.

    Raises ValueError where {body} is missing, a part is unknown, or {id} and {timestamp} run into each other.
    """
    parts = tuple(part.encode() for part in _PART.split(written) if part)
    if any(part not in (ID, TIMESTAMP, BODY) and (b"{" in part or b"}" in part) for part in parts):
        raise ValueError("what is signed has {id}, {timestamp} and {body} in it; other braces mean nothing")
    if BODY not in parts:
        raise ValueError("what is signed must have {body} in it")
    if _MINGLED.search(written):
        raise ValueError("between {id} and {timestamp} must stand something that is no digit")
    return parts


def _standard(prefix: str) -> Scheme:
    return Scheme(
        signature=f"{prefix}-signature".encode(),
        timestamp=f"{prefix}-timestamp".encode(),
        id=f"{prefix}-id".encode(),
        content=template("{id}.{timestamp}.{body}"),
        mark=b"v1,",
        asymmetric=b"v1a,",
        separator=b" ",
        encoding="base64",
        key="base64",
    )


STANDARD = _standard("webhook")
"""Standard Webhooks 1.0: HMAC-SHA256 as v1, Ed25519 as v1a (standard-webhooks/spec, "Webhook Headers")."""
SVIX = _standard("svix")
"""The same under the names that Svix used before the standard had its own."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a valid signature vouches for, and the delivery id, which a scheme may leave unsigned.

    `delivery_id` is None where the sender gives none; `timestamp` (Unix seconds) where it signs none.
    """

    delivery_id: str | None
    timestamp: int | None


def key_of(scheme: Scheme, secret: str) -> bytes | Ed25519PublicKey:
    """What a secret of a source checks signatures with.

    Raises ValueError on an empty secret, or one that is not written as the scheme wants it.
    """
    if scheme.key == "raw":
        if secret.startswith("whpk_"):
            raise ValueError("a secret that begins with whpk_ is a public key: anyone could sign with it")
        key = secret.encode()
    elif scheme.asymmetric and secret.startswith("whpk_"):
        return _public_key(_decoded(secret.removeprefix("whpk_")))
    else:
        key = _decoded(secret.removeprefix("whsec_"))
    if not key:
        raise ValueError("the secret is empty")
    return key


def hmac_key(scheme: Scheme, secret: str) -> bytes:
    """As `key_of`, for a secret that signs. Raises ValueError for a public key too."""
    key = key_of(scheme, secret)
    if not isinstance(key, bytes):
        raise ValueError("a public key cannot sign; the secret of an endpoint begins with whsec_")
    return key


def sign(
    scheme: Scheme, key: bytes | Ed25519PrivateKey, *, delivery_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The headers of a delivery signed with one key; `timestamp` in Unix seconds."""
    given = timestamp * 1000 if scheme.unit == "milliseconds" else timestamp
    stamp = b"%d" % given
    signed = _signed(scheme, delivery_id.encode(), stamp, body)
    if isinstance(key, bytes):
        signature = scheme.mark + _written(scheme, hmac.digest(key, signed, "sha256"))
    else:
        signature = scheme.asymmetric + base64.b64encode(key.sign(signed))
    if scheme.stamp:
        signature = scheme.separator.join([scheme.stamp + stamp, signature])
    headers = {scheme.signature: signature, scheme.timestamp: stamp, scheme.id: delivery_id.encode()}
    return {name.decode(): value.decode() for name, value in headers.items() if name}


def verify(
    schemes: Sequence[Scheme],
    headers: Headers,
    body: bytes,
    keys: Sequence[bytes | Ed25519PublicKey],
    now: float,
) -> Verified:
    """Check the signature of `body` against every key, at `now` (Unix seconds, the time of receipt).

    Of several schemes that one counts whose signature header is there. Every key is tried on every signature without
    stopping at a match, so that the time taken does not tell which one fitted. Raises VerificationError, and nothing
    else, on any input.
    """
    scheme = schemes[0] if len(schemes) == 1 else _offered_scheme(schemes, headers)
    signature, timestamp, delivery_id = _headers(scheme, headers)
    if len(signature) > MAX_SIGNATURE_HEADER:
        raise VerificationError("malformed_signature", f"the signature header exceeds {MAX_SIGNATURE_HEADER} bytes")
    offered = signature.split(scheme.separator) if scheme.separator else [signature]
    if scheme.stamp:
        timestamp = _stamp(scheme, offered)
    if len(offered) > MAX_SIGNATURES:
        raise VerificationError("malformed_signature", f"more than {MAX_SIGNATURES} signatures")
    seconds = _seconds(scheme, timestamp)
    signed = _signed(scheme, delivery_id, timestamp, body)
    if not _matches(scheme, offered, signed, keys):
        raise VerificationError("bad_signature", "no signature matches the body under any secret of this source")
    # After the signature, so that a stranger learns nothing about our clock.
    if seconds is not None and abs(now - seconds) > TOLERANCE:
        raise VerificationError("stale_timestamp", f"the timestamp is more than {TOLERANCE} seconds away from now")
    return Verified(delivery_id.decode("ascii") or None, None if seconds is None else int(seconds))


def verify_token(token: bytes, keys: Sequence[bytes | Ed25519PublicKey]) -> Verified:
    """Check the secret that stands in the path, for providers that do not sign. Raises VerificationError."""
    matched = False
    for key in keys:
        matched |= isinstance(key, bytes) and hmac.compare_digest(key, token)
    if not matched:
        raise VerificationError("bad_token", "the path does not end in a secret of this source")
    return Verified(None, None)


def _offered_scheme(schemes: Sequence[Scheme], headers: Headers) -> Scheme:
    names = {name for name, _ in headers}
    return next((scheme for scheme in schemes if scheme.signature in names), schemes[0])


def _headers(scheme: Scheme, headers: Headers) -> tuple[bytes, bytes, bytes]:
    """Signature, timestamp and delivery id; empty where the scheme has none."""
    found: dict[bytes, bytes] = {}
    wanted = scheme.headers
    for name, value in headers:
        if name in wanted:
            if name in found:
                raise VerificationError("duplicate_header", f"{_name(name)} stands twice")
            found[name] = value
    for wanted_name in (scheme.signature, scheme.timestamp, scheme.id):
        if wanted_name and wanted_name not in found:
            raise VerificationError("missing_header", f"{_name(wanted_name)} is missing")
    delivery_id = found[scheme.id] if scheme.id else b""
    if scheme.id and _ID.fullmatch(delivery_id) is None:
        raise VerificationError("malformed_id", f"{_name(scheme.id)} must be 1 to 200 printable ASCII characters")
    return found[scheme.signature], found[scheme.timestamp] if scheme.timestamp else b"", delivery_id


def _stamp(scheme: Scheme, offered: list[bytes]) -> bytes:
    stamps = [part for part in offered if part.startswith(scheme.stamp)]
    if len(stamps) != 1:
        raise VerificationError(
            "malformed_timestamp", f"{_name(scheme.signature)} must have {scheme.stamp.decode()} exactly once"
        )
    offered.remove(stamps[0])
    return stamps[0].removeprefix(scheme.stamp)


def _seconds(scheme: Scheme, timestamp: bytes) -> float | None:
    if not scheme.timestamp and not scheme.stamp:
        return None
    if _DIGITS.fullmatch(timestamp) is None:
        where = _name(scheme.timestamp or scheme.signature)
        raise VerificationError("malformed_timestamp", f"{where} must have Unix {scheme.unit} in ASCII digits")
    return int(timestamp) / 1000 if scheme.unit == "milliseconds" else int(timestamp)


def _signed(scheme: Scheme, delivery_id: bytes, timestamp: bytes, body: bytes) -> bytes:
    parts = {ID: delivery_id, TIMESTAMP: timestamp, BODY: body}
    return b"".join([parts.get(part, part) for part in scheme.content])


def _matches(scheme: Scheme, offered: Sequence[bytes], signed: bytes, keys: Sequence[bytes | Ed25519PublicKey]) -> bool:
    symmetric = [part.removeprefix(scheme.mark) for part in offered if part.startswith(scheme.mark)]
    asymmetric = [part for part in offered if scheme.asymmetric and part.startswith(scheme.asymmetric)]
    if not symmetric and not asymmetric:
        raise VerificationError("unknown_version", f"no signature of version {scheme.mark.decode().rstrip('=,')}")
    # One signature that is no digest is a mistake worth naming; among several it may be of another kind.
    if scheme.encoding == "hex" and not any(map(_HEX_SHA256.fullmatch, symmetric)):
        raise VerificationError("malformed_signature", "a signature is 64 lower-case hexadecimal digits")
    matched = False
    for key in keys:
        if isinstance(key, bytes):
            expected = _written(scheme, hmac.digest(key, signed, "sha256"))
            for candidate in symmetric:
                matched |= hmac.compare_digest(expected, candidate)
        else:
            for candidate in asymmetric:
                matched |= _signed_by(key, candidate.removeprefix(scheme.asymmetric), signed)
    return matched


def _signed_by(key: Ed25519PublicKey, written: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        signature = base64.b64decode(written, validate=True)
        if base64.b64encode(signature) != written:  # one signature, one spelling
            return False
        key.verify(signature, signed)
    except (binascii.Error, ValueError, InvalidSignature):
        return False
    return True


def _written(scheme: Scheme, digest: bytes) -> bytes:
    return digest.hex().encode() if scheme.encoding == "hex" else base64.b64encode(digest)


def _decoded(written: str) -> bytes:
    """Strict base64 of the standard alphabet, with or without its padding, as the standard's libraries take it."""
    try:
        return base64.b64decode(written + "=" * (-len(written) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a secret of Standard Webhooks is whsec_ (or whpk_ for a public key) and base64") from None


def _public_key(raw: bytes) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    # Points of small order verify signatures that nobody made. The highest bit is the sign of x.
    if len(raw) != 32 or raw[:31] + bytes([raw[31] & 0x7F]) in _SMALL_ORDER:
        raise ValueError("a public key is whpk_ followed by the base64 of 32 bytes of Ed25519")
    return Ed25519PublicKey.from_public_bytes(raw)


_SMALL_ORDER = frozenset(
    bytes.fromhex(written)
    for written in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)


def _name(header: bytes) -> str:
    return header.decode().title()
