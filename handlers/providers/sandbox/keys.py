"""API keys. Only their SHA-256 is kept, as the providers say they do."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Mapped, Session, mapped_column

from handlers.providers.sandbox.store import Model


class Key(Model):
    """What `kind`, `owner` and `scopes` mean is the provider's."""

    __tablename__ = "sandbox_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    hash: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    owner: Mapped[str]
    """The account or organization it acts for."""
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]

    def shown(self) -> dict[str, Any]:
        """For the sandbox's own surface: never the key itself, which nobody knows any more."""
        revoked = None if self.revoked_at is None else self.revoked_at.isoformat()
        return {"id": self.id, "kind": self.kind, "owner": self.owner, "scopes": self.scopes, "revoked_at": revoked}


def add(session: Session, secret: str, *, kind: str, owner: str, scopes: Sequence[str], now: datetime) -> Key:
    """Keep a key. One that was kept before, and perhaps revoked since, has what is given now."""
    key = session.scalars(select(Key).where(Key.hash == _digest(secret))).one_or_none()
    if key is None:
        key = Key(id=f"key_{secrets.token_hex(6)}", hash=_digest(secret), created_at=now)
        session.add(key)
    key.kind, key.owner, key.scopes, key.revoked_at = kind, owner, list(scopes), None
    session.flush()
    return key


def find(session: Session, secret: str) -> Key | None:
    """The key, unless it is unknown or revoked."""
    return session.scalars(select(Key).where(Key.hash == _digest(secret), Key.revoked_at.is_(None))).one_or_none()


def revoke(session: Session, key_id: str, now: datetime) -> Key | None:
    """Revoke a key by its id; None if there is none."""
    key = session.get(Key, key_id)
    if key is not None and key.revoked_at is None:
        key.revoked_at = now
    return key


def bearer(authorization: str | None) -> str:
    """The key in an Authorization header; empty where there is none."""
    scheme, _, secret = (authorization or "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def _digest(secret: str) -> str:
    # Starlette decodes headers as Latin-1: any bytes at all become a str that encodes again.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
