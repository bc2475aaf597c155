"""The tables of the HIBR sandbox. A record's fields are kept as the API writes them; money is integers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from handlers.providers.sandbox.store import TYPES

Resource = dict[str, Any]


class Model(DeclarativeBase):
    type_annotation_map = TYPES


class Account(Model):
    """Whose books these are."""

    __tablename__ = "hibr_accounts"

    id: Mapped[str] = mapped_column(primary_key=True)
    time_zone: Mapped[str]
    tier: Mapped[str]
    version: Mapped[str]
    """What a request without Hibr-Version is answered in."""
    next_invoice: Mapped[int]


class Record(Model):
    """One record of any resource. `number` gives the order in which they were made."""

    __tablename__ = "hibr_records"

    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("hibr_accounts.id"), index=True)
    resource: Mapped[str] = mapped_column(index=True)
    object: Mapped[str]
    fields: Mapped[dict[str, Any]]
    """All but id, object and the two moments below."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Answer(Model):
    """What an Idempotency-Key was answered."""

    __tablename__ = "hibr_answers"

    account_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request: Mapped[str]
    """SHA-256 of method, path and body."""
    status: Mapped[int]
    body: Mapped[bytes]
    kept_at: Mapped[float]
    """Unix seconds by the machine's clock."""


class Grant(Model):
    """A consent: what an account allowed an application."""

    __tablename__ = "hibr_grants"

    id: Mapped[str] = mapped_column(primary_key=True)
    client_id: Mapped[str]
    account_id: Mapped[str] = mapped_column(ForeignKey("hibr_accounts.id"))
    scopes: Mapped[list[str]]
    revoked: Mapped[bool]


class Code(Model):
    """An authorization code, by its SHA-256. `spent` once it was exchanged."""

    __tablename__ = "hibr_codes"

    hash: Mapped[str] = mapped_column(primary_key=True)
    grant_id: Mapped[str] = mapped_column(ForeignKey("hibr_grants.id"))
    redirect_uri: Mapped[str]
    challenge: Mapped[str]
    ends_at: Mapped[float]
    """Unix seconds by the machine's clock, here and below."""
    spent: Mapped[bool]
    grant: Mapped[Grant] = relationship(lazy="joined")


class Token(Model):
    """An access or refresh token, by its SHA-256. `spent` when it was revoked, or a refresh token exchanged."""

    __tablename__ = "hibr_tokens"

    hash: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    grant_id: Mapped[str] = mapped_column(ForeignKey("hibr_grants.id"), index=True)
    scopes: Mapped[list[str]]
    made_at: Mapped[float]
    ends_at: Mapped[float | None]
    spent: Mapped[bool]
    grant: Mapped[Grant] = relationship(lazy="joined")


class Change(Model):
    """An entry of the changelog."""

    __tablename__ = "hibr_changes"

    number: Mapped[int] = mapped_column(primary_key=True)
    date: Mapped[str]
    version: Mapped[str]
    type: Mapped[str]
    description: Mapped[str]
    endpoints: Mapped[list[str]]
