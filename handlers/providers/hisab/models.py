"""What the document of the Hisab API fixes: its words, its error codes, and the fields of each request.

    item = InvoiceItem(description="Integration services", quantity=8, unit_price=Decimal("1300.00"))

Requests are typed dicts: a type checker reads them, and a dict of the same keys does as well. Amounts are int or
Decimal, never float. (Hisab API reference; the VAT rates from its help on creating invoices.)
"""

# No `from __future__ import annotations`: with it, Python 3.11 does not see which keys are required.

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, Required, TypedDict, get_args

Number = int | Decimal
Day = date | str
"""A date, or `YYYY-MM-DD`."""

Order = Literal["desc", "asc"]
InvoiceStatus = Literal["draft", "finalized", "sent", "paid", "void"]
CustomerType = Literal["b2b", "b2c"]
CustomerStatus = Literal["active", "inactive", "archived"]
RecurringStatus = Literal["active", "paused", "completed", "cancelled"]
Frequency = Literal["weekly", "biweekly", "monthly", "quarterly", "biannually", "yearly"]
Locale = Literal["fr", "en", "ar"]
Scope = Literal[
    "invoices:read",
    "invoices:write",
    "invoices:finalize",
    "invoices:send",
    "invoices:payment",
    "invoices:void",
    "invoices:export",
    "recurring:read",
    "recurring:write",
    "recurring:delete",
    "customers:read",
    "customers:write",
    "customers:delete",
    "organization:read",
    "organization:write",
    "webhooks:read",
    "webhooks:write",
    "organizations:read",
    "organizations:write",
    "organizations:archive",
]

SCOPES: tuple[Scope, ...] = get_args(Scope)
TAX_RATES = (0, 7, 10, 14, 20)
"""The rates of Moroccan VAT, in percent."""
MAX_PER_PAGE = 100

ERROR_CODES: Mapping[str, int | None] = {
    "VALIDATION_ERROR": 400,
    "INVALID_JSON": 400,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "API_DISABLED": 403,
    "SUBSCRIPTION_EXPIRED": 403,
    "API_TIER_NOT_SUPPORTED": 403,
    "ORG_HEADER_REQUIRED": 400,
    "ACCOUNT_KEY_REQUIRED": 403,
    "ENTITY_CAP_REACHED": 403,
    "NOT_FOUND": 404,
    "RATE_LIMIT_EXCEEDED": 429,
    "INTERNAL_ERROR": 500,
    "INVOICE_NOT_EDITABLE": None,
    "INVOICE_NOT_DRAFT": None,
    "INVALID_STATUS_TRANSITION": None,
    "CANNOT_VOID_PAID": None,
    "ALREADY_VOIDED": None,
    "PDF_NOT_AVAILABLE": None,
    "XML_NOT_AVAILABLE": None,
    "ALREADY_ARCHIVED": None,
    "NOT_ARCHIVED": None,
    "QUOTA_EXCEEDED": None,
    "INVALID_STATE": None,
    "CUSTOMER_INACTIVE": None,
}
"""Every documented code and its HTTP status; None where the document names the code alone."""


class InvoiceItem(TypedDict, total=False):
    """One line of an invoice. `tax_rate` is a percentage; Hisab takes 20 where it is left out."""

    description: Required[str]
    quantity: Required[Number]
    unit_price: Required[Number]
    tax_rate: Number | None


class InvoiceItemChanges(TypedDict, total=False):
    """A line in an update, of which the reference requires no field."""

    description: str
    quantity: Number
    unit_price: Number
    tax_rate: Number | None


Items = Sequence[InvoiceItem | Mapping[str, Any]]
ChangedItems = Sequence[InvoiceItemChanges | Mapping[str, Any]]


class NewInvoice(TypedDict, total=False):
    customer_id: Required[str]
    issue_date: Required[Day]
    items: Required[Items]
    due_date: Day | None
    currency: str | None
    payment_terms: str | None
    notes: str | None
    internal_notes: str | None


class InvoiceChanges(TypedDict, total=False):
    customer_id: str
    issue_date: Day
    due_date: Day | None
    currency: str
    payment_terms: str | None
    notes: str | None
    items: ChangedItems


class Payment(TypedDict, total=False):
    """`paid_at` is a moment with its zone, or ISO 8601 text."""

    paid_at: datetime | str | None
    payment_method: str | None
    payment_reference: str | None


class InvoiceFilter(TypedDict, total=False):
    """`date_from` and `date_to` are issue dates, both included."""

    page: int | None
    per_page: int | None
    order: Order | None
    status: InvoiceStatus | None
    customer_id: str | None
    date_from: Day | None
    date_to: Day | None


class Address(TypedDict, total=False):
    street: str | None
    city: str | None
    postal_code: str | None
    country: str | None


class NewCustomer(TypedDict, total=False):
    """A `b2b` customer should carry its ICE, of 15 digits."""

    name: Required[str]
    type: Required[CustomerType]
    ice: str | None
    legal_name: str | None
    rc: str | None
    email: str | None
    phone: str | None
    address: Address | None
    notes: str | None
    tags: Sequence[str] | None


class CustomerChanges(TypedDict, total=False):
    name: str
    type: CustomerType
    ice: str | None
    email: str | None
    phone: str | None
    address: Address | None
    notes: str | None
    tags: Sequence[str]
    status: CustomerStatus


class CustomerFilter(TypedDict, total=False):
    """`search` looks at name, email and ICE."""

    page: int | None
    per_page: int | None
    order: Order | None
    search: str | None
    type: CustomerType | None
    status: CustomerStatus | None


class NewRecurringInvoice(TypedDict, total=False):
    """`interval_count` 1 to 12, `day_of_month` 1 to 28, `day_of_week` 0 (Sunday) to 6, `days_until_due` 0 to 365."""

    customer_id: Required[str]
    frequency: Required[Frequency]
    start_date: Required[Day]
    items: Required[Items]
    name: str | None
    interval_count: int | None
    day_of_month: int | None
    day_of_week: int | None
    end_date: Day | None
    max_occurrences: int | None
    auto_finalize: bool | None
    auto_send: bool | None
    days_until_due: int | None
    currency: str | None


class RecurringInvoiceChanges(TypedDict, total=False):
    frequency: Frequency
    end_date: Day | None
    auto_finalize: bool
    auto_send: bool
    days_until_due: int
    items: ChangedItems


class RecurringInvoiceFilter(TypedDict, total=False):
    page: int | None
    per_page: int | None
    order: Order | None
    status: RecurringStatus | None
    customer_id: str | None
    frequency: Frequency | None
    search: str | None


class OrganizationChanges(TypedDict, total=False):
    legal_name: str
    ice: str | None
    rc: str | None
    if_number: str | None
    vat_number: str | None
    phone: str | None
    email: str | None
    website: str | None
    billing_address: Mapping[str, Any] | None


class NewOrganization(TypedDict, total=False):
    legal_name: Required[str]
    ice: str | None
    rc: str | None
    if_number: str | None
    phone: str | None
    email: str | None
    address_street: str | None
    address_city: str | None
    address_postal_code: str | None
