"""The tables of the Hisab sandbox. Money is kept as the API writes it: decimal strings."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from handlers.providers.sandbox.store import TYPES

Resource = dict[str, Any]

ACTIVE = "active"
ARCHIVED = "archived"


class Model(DeclarativeBase):
    type_annotation_map = TYPES


class Account(Model):
    """Who owns organizations; its plan is theirs."""

    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(primary_key=True)
    plan: Mapped[str]
    entity_cap: Mapped[int]


class Organization(Model):
    """A legal entity. `number` gives the order in which rows were made, here and below."""

    __tablename__ = "organizations"

    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    legal_name: Mapped[str]
    ice: Mapped[str | None]
    rc: Mapped[str | None]
    if_number: Mapped[str | None]
    vat_number: Mapped[str | None]
    phone: Mapped[str | None]
    email: Mapped[str | None]
    website: Mapped[str | None]
    billing_address: Mapped[dict[str, Any]]
    invoice_prefix: Mapped[str]
    next_invoice_number: Mapped[int]
    api_disabled: Mapped[bool]
    subscription_expired: Mapped[bool]
    recurring_quota: Mapped[int | None]
    archived_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    account: Mapped[Account] = relationship()


class Customer(Model):
    __tablename__ = "customers"

    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"), index=True)
    name: Mapped[str]
    type: Mapped[str]
    status: Mapped[str]
    ice: Mapped[str | None]
    legal_name: Mapped[str | None]
    rc: Mapped[str | None]
    email: Mapped[str | None]
    phone: Mapped[str | None]
    address: Mapped[dict[str, Any]]
    notes: Mapped[str | None]
    tags: Mapped[list[str]]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Invoice(Model):
    __tablename__ = "invoices"
    __table_args__ = (UniqueConstraint("organization_id", "invoice_number"),)

    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"), index=True)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), index=True)
    invoice_number: Mapped[str | None]
    status: Mapped[str]
    issue_date: Mapped[date]
    due_date: Mapped[date | None]
    currency: Mapped[str]
    payment_terms: Mapped[str | None]
    notes: Mapped[str | None]
    internal_notes: Mapped[str | None]
    items: Mapped[list[Any]]
    subtotal: Mapped[str]
    total_tax: Mapped[str]
    total: Mapped[str]
    parties: Mapped[dict[str, Any]]
    """Seller and customer as they were when it was finalized; empty for a draft."""
    payment_method: Mapped[str | None]
    payment_reference: Mapped[str | None]
    void_reason: Mapped[str | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    finalized_at: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    paid_at: Mapped[str | None]
    """As it was given."""
    voided_at: Mapped[datetime | None]
    customer: Mapped[Customer] = relationship()


class Schedule(Model):
    """A recurring invoice. The rhythm is counted from `anchor`, which a change of it sets anew."""

    __tablename__ = "schedules"

    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"), index=True)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"))
    name: Mapped[str | None]
    status: Mapped[str]
    frequency: Mapped[str]
    interval_count: Mapped[int]
    day_of_month: Mapped[int | None]
    day_of_week: Mapped[int | None]
    anchor: Mapped[date]
    start_date: Mapped[date]
    end_date: Mapped[date | None]
    next_run_date: Mapped[date | None]
    last_run_date: Mapped[date | None]
    max_occurrences: Mapped[int | None]
    occurrences_created: Mapped[int]
    auto_finalize: Mapped[bool]
    auto_send: Mapped[bool]
    days_until_due: Mapped[int]
    currency: Mapped[str]
    items: Mapped[list[Any]]
    """As they were given, numbers as decimal strings."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    customer: Mapped[Customer] = relationship()
    organization: Mapped[Organization] = relationship()
    runs: Mapped[list[Run]] = relationship(cascade="all, delete-orphan", order_by="Run.number.desc()")


class Run(Model):
    """What came of one due date."""

    __tablename__ = "runs"

    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedules.id"), index=True)
    invoice_id: Mapped[str | None] = mapped_column(ForeignKey("invoices.id"))
    scheduled_date: Mapped[date]
    generated_at: Mapped[datetime]
    status: Mapped[str]
    error_message: Mapped[str | None]
    invoice: Mapped[Invoice | None] = relationship()
