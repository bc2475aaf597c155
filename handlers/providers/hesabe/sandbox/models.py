"""The tables of the Hesabe sandbox. Money is kept as the API writes it: decimal strings in KWD, three decimals."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import ForeignKey, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from handlers.providers.sandbox.store import TYPES

Resource = dict[str, Any]

PAID = 1
CANCELLED = 3
SUCCESSFUL, FAILED, AUTHORIZED, REFUNDED = "SUCCESSFUL", "FAILED", "AUTHORIZED", "REFUNDED"
PENDING, APPROVED, REJECTED = 0, 1, 2


class Model(DeclarativeBase):
    type_annotation_map = TYPES


class Settings(Model):
    """One row: what Hesabe's pages leave open."""

    __tablename__ = "settings"

    id: Mapped[int] = mapped_column(primary_key=True)
    on_demand: Mapped[str]
    """The `SubscriptionType` that is on demand; the other one is automatic."""
    login_required: Mapped[bool]
    """Whether the merchant API needs a bearer token beside the access code."""
    tells_captures: Mapped[bool]
    """Whether webhooks are sent of the captures of a subscription."""
    tells_refunds: Mapped[bool]


class Merchant(Model):
    """Who calls. The access code is a key of `handlers.providers.sandbox.keys`, with `code` as its owner."""

    __tablename__ = "merchants"

    code: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(unique=True)
    name: Mapped[str]
    secret_key: Mapped[str]
    iv_key: Mapped[str]
    username: Mapped[str] = mapped_column(unique=True)
    password: Mapped[str]
    language: Mapped[str]
    """Of invoices that name none."""


class Token(Model):
    """A bearer token or the refresh token that came with it (`grant` is that of both), as SHA-256."""

    __tablename__ = "tokens"

    hash: Mapped[str] = mapped_column(primary_key=True)
    grant: Mapped[str] = mapped_column(index=True)
    refreshes: Mapped[bool]
    merchant_code: Mapped[str] = mapped_column(ForeignKey("merchants.code"))
    expires_at: Mapped[float]
    """Unix seconds by the machine's clock."""


class Invoice(Model):
    __tablename__ = "invoices"

    id: Mapped[int] = mapped_column(primary_key=True)
    merchant_code: Mapped[str] = mapped_column(ForeignKey("merchants.code"))
    token: Mapped[str] = mapped_column(unique=True)
    access_key: Mapped[str] = mapped_column(unique=True)
    sub_type: Mapped[str]
    reference_number: Mapped[str]
    amount: Mapped[str]
    payment_methods: Mapped[list[str]]
    description: Mapped[str]
    language: Mapped[str]
    customer_name: Mapped[str]
    customer_email: Mapped[str]
    country_code: Mapped[str]
    mobile_number: Mapped[str]
    items: Mapped[list[Any]]
    webhook: Mapped[str | None]
    expires_at: Mapped[date]
    url: Mapped[str]
    status: Mapped[int | None]
    visits: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    merchant: Mapped[Merchant] = relationship()
    subscription: Mapped[Subscription | None] = relationship(back_populates="invoice")
    transactions: Mapped[list[Transaction]] = relationship(back_populates="invoice", order_by="Transaction.id")


class Subscription(Model):
    """How an invoice recurs. `token` is that of the customer's consent, None before it."""

    __tablename__ = "subscriptions"

    invoice_id: Mapped[int] = mapped_column(ForeignKey("invoices.id"), primary_key=True)
    type: Mapped[str]
    automatic: Mapped[bool]
    recurrences: Mapped[int]
    start_date: Mapped[date]
    token: Mapped[str | None] = mapped_column(unique=True)
    payment_type: Mapped[str | None]
    captures: Mapped[int]
    """Tried so far, successful or not."""
    declines: Mapped[int]
    """How many of the next captures the customer's bank declines."""
    next_at: Mapped[datetime | None] = mapped_column(index=True)
    cancelled_at: Mapped[datetime | None]
    invoice: Mapped[Invoice] = relationship(back_populates="subscription")


class Transaction(Model):
    """One attempt to pay, with what became of it."""

    __tablename__ = "transactions"

    id: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str] = mapped_column(unique=True)
    invoice_id: Mapped[int] = mapped_column(ForeignKey("invoices.id"), index=True)
    merchant_code: Mapped[str] = mapped_column(ForeignKey("merchants.code"))
    amount: Mapped[str]
    refunded: Mapped[str]
    reference_number: Mapped[str] = mapped_column(index=True)
    status: Mapped[str]
    payment_type: Mapped[str]
    of_subscription: Mapped[bool]
    created_at: Mapped[datetime]
    invoice: Mapped[Invoice] = relationship(back_populates="transactions")


class Refund(Model):
    """A request for one; `approve_at` is when it is approved by itself, None: it waits for somebody."""

    __tablename__ = "refunds"

    id: Mapped[int] = mapped_column(primary_key=True)
    transaction_id: Mapped[int] = mapped_column(ForeignKey("transactions.id"), index=True)
    merchant_code: Mapped[str] = mapped_column(ForeignKey("merchants.code"))
    amount: Mapped[str]
    method: Mapped[str]
    status: Mapped[int]
    remarks: Mapped[str]
    requested_at: Mapped[datetime]
    approve_at: Mapped[datetime | None] = mapped_column(index=True)
    decided_at: Mapped[datetime | None]
    transaction: Mapped[Transaction] = relationship()


class Lie(Model):
    """What the next webhooks say instead of the truth."""

    __tablename__ = "lies"

    id: Mapped[int] = mapped_column(primary_key=True)
    changes: Mapped[dict[str, Any]]
    left: Mapped[int | None]


class Message(Model):
    """What the customer would have been sent."""

    __tablename__ = "messages"

    id: Mapped[int] = mapped_column(primary_key=True)
    invoice_id: Mapped[int] = mapped_column(ForeignKey("invoices.id"))
    channel: Mapped[str]
    recipient: Mapped[str]
    text: Mapped[str]


def settings_of(session: Session) -> Settings:
    return session.get_one(Settings, 1)


def next_id(session: Session, column: Any, first: int) -> int:
    """One more than the highest, beginning with `first`: ids rise, as Hesabe's do."""
    highest = session.scalar(select(func.max(column)))
    return first if highest is None else int(highest) + 1
