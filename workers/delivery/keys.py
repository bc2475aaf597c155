"""The secrets that sign for an endpoint: making, reading, using and rotating them.

After a rotation the older secrets go on signing beside the new one until they expire, so that a subscriber has time
to put the new one in place. Written as Standard Webhooks has them: `whsec_` and the base64 of 32 random bytes for v1;
`whsk_` and the base64 of an Ed25519 seed followed by its public key for v1a, whose public half (`whpk_`) may be read
at any time.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache

from cryptography.fernet import MultiFernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, delete, or_, select, update

from handlers.signing import STANDARD, hmac_key, sign
from workers import database, ids
from workers.delivery.errors import EndpointError, WrongState
from workers.models import AnyRow, EndpointKey
from workers.vault import VaultError, decrypt

V1, V1A = "v1", "v1a"
SIGNING = (V1, V1A, f"{V1},{V1A}")
"""What an endpoint can be signed for with: HMAC-SHA256, Ed25519, or both."""
OVERLAP = timedelta(hours=24)
LONGEST_OVERLAP = timedelta(days=7)
MAX_LIVE = 8
"""Live secrets of one kind; each adds a signature to every delivery, and of both kinds 16 are what verifiers read."""
_SECRET_BYTES = 32
_SIGNATURE = "webhook-signature"


@dataclass(frozen=True, slots=True)
class Made:
    """What was made for an endpoint: all that its subscriber needs to verify, and may ever read of it."""

    id: str
    """The endpoint's."""
    secret: str | None = field(default=None, repr=False)
    """`whsec_…`, readable only now; None where no v1 secret was made."""
    public_key: str | None = None
    """`whpk_…`; None where no v1a key was made."""


def kinds(signing: str) -> tuple[str, ...]:
    """The kinds that sign. Raises EndpointError where it is none of `SIGNING`."""
    if signing not in SIGNING:
        raise EndpointError(f"{signing!r} is not how to sign: v1, v1a or v1,v1a")
    return tuple(signing.split(","))


def make(
    connection: Connection,
    vault: MultiFernet,
    endpoint_id: str,
    wanted: Sequence[str],
    *,
    now: datetime,
    secret: str | None = None,
) -> Made:
    """Store a new secret of each wanted kind; the v1 one may be brought. Raises EndpointError."""
    if secret is not None:
        _check_brought(secret, wanted)
    made = {kind: secret if kind == V1 and secret is not None else _new(kind) for kind in wanted}
    rows = [
        {
            "id": ids.new("key"),
            "endpoint_id": endpoint_id,
            "kind": kind,
            "secret": vault.encrypt(written.encode()),
            "created_at": now,
            "expires_at": None,
        }
        for kind, written in made.items()
    ]
    if rows:
        connection.execute(database.insert(connection, EndpointKey), rows)
    return Made(endpoint_id, made.get(V1), _public(made[V1A]) if V1A in made else None)


def rotate(
    connection: Connection,
    vault: MultiFernet,
    endpoint_id: str,
    wanted: Sequence[str],
    *,
    overlap: timedelta,
    now: datetime,
) -> Made:
    """Store new secrets; the older live ones end after `overlap` (0 to 7 days), or earlier if they were to.

    The caller holds the endpoint's row. Raises EndpointError, then with nothing to be committed.
    """
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        raise EndpointError("old secrets can sign on for 0 to 7 days")
    expire(connection, endpoint_id, wanted, at=now + overlap)
    expired = EndpointKey.expires_at <= now
    connection.execute(delete(EndpointKey).where(EndpointKey.endpoint_id == endpoint_id, expired))
    live = load(connection, [endpoint_id], now).get(endpoint_id, ())
    for kind in wanted:
        ends = sorted(key.expires_at for key in live if key.kind == kind)
        if len(ends) >= MAX_LIVE:
            raise WrongState(
                f"{MAX_LIVE} {kind} secrets of {endpoint_id} sign already, the first of them until "
                f"{ends[0]:%Y-%m-%d %H:%M:%S}Z: wait, or rotate with a shorter overlap"
            )
    return make(connection, vault, endpoint_id, wanted, now=now)


def expire(connection: Connection, endpoint_id: str, of_kinds: Sequence[str], *, at: datetime) -> None:
    """Have the secrets of these kinds sign until then at most; none longer than it was to."""
    longer = or_(EndpointKey.expires_at.is_(None), EndpointKey.expires_at > at)
    mine = (EndpointKey.endpoint_id == endpoint_id, EndpointKey.kind.in_(of_kinds))
    connection.execute(update(EndpointKey).where(*mine, longer).values(expires_at=at))


def load(connection: Connection, endpoint_ids: Sequence[str], now: datetime) -> dict[str, tuple[AnyRow, ...]]:
    """The live secrets of endpoints, still encrypted, newest first; nothing for an endpoint that has none."""
    mine = database.among(connection.dialect.name, EndpointKey.endpoint_id, endpoint_ids)
    live = or_(EndpointKey.expires_at.is_(None), EndpointKey.expires_at > now)
    statement = select(*EndpointKey.__table__.columns).where(mine, live)
    found: dict[str, tuple[AnyRow, ...]] = {}
    for row in connection.execute(statement.order_by(EndpointKey.created_at.desc(), EndpointKey.id.desc())):
        found[row.endpoint_id] = (*found.get(row.endpoint_id, ()), row)
    return found


def opened(vault: MultiFernet, rows: Sequence[AnyRow]) -> tuple[bytes | Ed25519PrivateKey, ...]:
    """What signs, in the order of the rows. Raises VaultError, also where there is none: unsigned is never sent."""
    if not rows:
        raise VaultError("an endpoint has no secret to sign with: rotate it")
    return tuple(_opened(vault, row.kind, row.secret) for row in rows)


def public_keys(vault: MultiFernet, rows: Sequence[AnyRow]) -> list[str]:
    """The public halves (`whpk_…`) of those rows that have one, in their order. Raises VaultError."""
    return [_public(decrypt(vault, row.secret)) for row in rows if row.kind == V1A]


def signed(keys: Sequence[bytes | Ed25519PrivateKey], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a delivery, with a signature of every key in one of them; `timestamp` in Unix seconds."""
    each = [sign(STANDARD, key, delivery_id=message_id, timestamp=timestamp, body=body) for key in keys]
    return {**each[0], _SIGNATURE: " ".join(headers[_SIGNATURE] for headers in each)}


@lru_cache(maxsize=8192)  # to decrypt one takes longer than to sign with it
def _opened(vault: MultiFernet, kind: str, encrypted: bytes) -> bytes | Ed25519PrivateKey:
    secret = decrypt(vault, encrypted)
    return hmac_key(STANDARD, secret) if kind == V1 else _private(secret)


def _check_brought(secret: str, wanted: Sequence[str]) -> None:
    if V1 not in wanted:
        raise EndpointError("a secret can be brought for v1 only")
    try:
        key = hmac_key(STANDARD, secret)
    except ValueError as error:
        raise EndpointError(str(error)) from None
    if not 24 <= len(key) <= 64:
        raise EndpointError("a secret holds 24 to 64 bytes (Standard Webhooks)")


def _new(kind: str) -> str:
    if kind == V1:
        return "whsec_" + _base64(os.urandom(_SECRET_BYTES))
    key = Ed25519PrivateKey.generate()
    return "whsk_" + _base64(key.private_bytes_raw() + key.public_key().public_bytes_raw())


def _private(secret: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(secret.removeprefix("whsk_"))[:_SECRET_BYTES])


def _public(secret: str) -> str:
    return "whpk_" + _base64(_private(secret).public_key().public_bytes_raw())


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
