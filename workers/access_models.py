"""The tables of who may change something, and of what was changed by whom."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from workers.columns import Model


class AuditEntry(Model):
    """Something that a person had done: who, what, and to how much of what."""

    __tablename__ = "audit_log"
    __table_args__ = (Index("ix_audit_log_actor", "actor", "id"), Index("ix_audit_log_action", "action", "id"))

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str]
    detail: Mapped[dict[str, Any]]


class ApiKey(Model):
    """Who may call the management API, and for what. The key itself is not stored."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    hint: Mapped[str] = mapped_column(String(8))
    """Its last characters, by which people tell keys apart."""
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    """SHA-256 of the key."""
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    """To the minute."""


class User(Model):
    """Somebody who may sign in to the console."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    password: Mapped[str] = mapped_column(Text)
    """Its scrypt hash, with salt and parameters."""
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    disabled_at: Mapped[datetime | None]
    last_signed_in_at: Mapped[datetime | None]


class EndedSession(Model):
    """A session of the console that was ended by signing out. Its id begins with the moment it began."""

    __tablename__ = "ended_sessions"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)


class IdempotencyKey(Model):
    """A change that was asked for under an `Idempotency-Key`, and what was answered; kept for a day."""

    __tablename__ = "idempotency_keys"

    caller: Mapped[str] = mapped_column(String(80), primary_key=True)
    """Whose it is: the same key of another caller is another one."""
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    request: Mapped[bytes] = mapped_column(LargeBinary(32))
    """SHA-256 of method, path and body."""
    status: Mapped[int]
    answer: Mapped[bytes]
    """The body of the answer, encrypted: it may have a secret that is shown once."""
    created_at: Mapped[datetime] = mapped_column(index=True)
