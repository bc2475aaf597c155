"""Requests to Hesabe's merchant API, checked before a byte is sent (Hesabe, Single invoice; Subscription invoice).

A request that is made is one that the documents allow: amounts with three decimals, values from their lists, dates as
YYYY-MM-DD. Where they give no length, ours stands in `MAX_…`. Errors name the field and quote nothing of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any

from handlers.providers.hesabe import fields


class InvoiceType(StrEnum):
    """How the customer gets the invoice: as a link that the merchant shares, or by SMS."""

    URL = "0"
    SMS = "1"


class InvoiceSubType(StrEnum):
    """The channel. A single invoice knows SMS and URL only."""

    SMS = "0"
    WHATSAPP = "1"
    EMAIL = "2"
    URL = "3"


class InvoiceKind(StrEnum):
    """What an invoice is in the list of invoices, where `invoiceType` is not the channel (Hesabe, Invoice list)."""

    SUBSCRIPTION = "0"
    SINGLE = "1"
    SPLIT = "6"
    INSTALMENT = "7"


class PaymentType(StrEnum):
    """What the customer may pay with, as far as the merchant's contract with Hesabe goes."""

    KNET = "1"
    MPGS = "2"
    CYBS = "5"
    AMEX = "7"
    MPGS_AMEX = "8"
    MPGS_APPLE_PAY = "9"
    CYBS_APPLE_PAY = "10"
    KNET_DEBIT_APPLE_PAY = "11"
    KNET_CREDIT_APPLE_PAY = "12"
    KNET_APPLE_PAY_INTERNATIONAL = "13"
    AMEX_APPLE_PAY_INTERNATIONAL = "14"
    GOOGLE_PAY = "16"


class SubscriptionType(StrEnum):
    """Who captures the payments of a subscription. Hesabe's documents contradict each other, so it has no default.

    | value | field table of "Create subscription invoice" | its sample, the newer page, and a client in use |
    |---|---|---|
    | "0" | on demand: the merchant captures through the API | automatic: Hesabe captures by date and recurrence |
    | "1" | automatic | on demand |

    Find out with a small amount, or ask Hesabe, which one your account follows; then pass that value.
    """

    ZERO = "0"
    ONE = "1"


class RefundMethod(StrEnum):
    """The whole amount of a transaction, or a part of it."""

    FULL = "1"
    PARTIAL = "2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A line of an invoice: `rate` and `amount` in KWD with three decimals, `quantity` a whole number."""

    title: str
    rate: Decimal | str
    quantity: int | str
    amount: Decimal | str

    def __post_init__(self) -> None:
        self.members()

    def members(self) -> Mapping[str, str]:
        """As it goes over the wire."""
        return {
            "itemTitle": fields.text("itemTitle", self.title),
            "rate": fields.money("rate", self.rate),
            "quantity": fields.whole("quantity", self.quantity),
            "amount": fields.money("amount", self.amount),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice(ABC):
    """What both kinds of invoice have. Amounts in KWD with three decimals, as Decimal or text.

    Raises ValueError on what Hesabe's documents do not allow, and TypeError on a float.
    """

    mobile_number: str
    customer_name: str
    amount: Decimal | str
    invoice_type: InvoiceType | str
    invoice_sub_type: InvoiceSubType | str
    payment_types: Sequence[PaymentType | str]
    expires_at: date | str
    country_code: str = "965"
    """With or without a plus: both are documented, and it is sent as it is."""
    reference_number: str | None = None
    """The merchant's own number; transactions are found by it again."""
    description: str | None = None
    customer_email: str | None = None
    webhook: str | None = None
    """The address that Hesabe tells of the payment."""
    language: str | None = None
    """`en` (Hesabe's default) or `ar`."""
    items: Sequence[Item] = ()

    def __post_init__(self) -> None:
        self.members()

    @abstractmethod
    def members(self) -> Mapping[str, Any]:
        """As it goes over the wire behind the merchant's code, in the order of the documented sample."""

    def _first(self) -> dict[str, str | None]:
        return {
            "mobileNumber": fields.mobile_number("mobileNumber", self.mobile_number),
            "customerName": fields.text("customerName", self.customer_name),
            "referenceNumber": fields.optional_text("referenceNumber", self.reference_number),
            "amount": fields.money("amount", self.amount),
            "countryCode": fields.country_code("countryCode", self.country_code),
            "invoiceType": fields.choice("invoiceType", self.invoice_type, InvoiceType),
        }

    def _items(self) -> Sequence[Mapping[str, str]] | None:
        if not all(isinstance(item, Item) for item in self.items):
            raise TypeError("items are made with Item(…)")
        lines = [item.members() for item in self.items]
        if lines and sum(Decimal(line["amount"]) for line in lines) < Decimal(self.amount):
            raise ValueError("the amounts of itemsList add up to less than the amount of the invoice")
        return lines or None


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleInvoice(Invoice):
    """An invoice to be paid once; its channel is SMS or URL."""

    def members(self) -> Mapping[str, Any]:
        return fields.given(
            **self._first(),
            invoiceSubType=fields.choice(
                "invoiceSubType", self.invoice_sub_type, InvoiceSubType, (InvoiceSubType.SMS, InvoiceSubType.URL)
            ),
            allocatePayType=",".join(fields.choices("allocatePayType", self.payment_types, PaymentType)),
            description=fields.optional_text("description", self.description, fields.MAX_DESCRIPTION),
            customerEmail=fields.email("customerEmail", self.customer_email),
            expiresAt=fields.day("expiresAt", self.expires_at),
            webhook=fields.url("webhook", self.webhook),
            language=fields.language("language", self.language),
            itemsList=self._items(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionInvoice(Invoice):
    """An invoice that recurs `recurrences` times from `start_date` on; `frequency` "1" is monthly, and the only one.

    Where the channel is e-mail, `customer_email` is needed.
    """

    subscription_type: SubscriptionType
    """Read there what its values mean; it is never chosen for you."""
    recurrences: int | str
    start_date: date | str
    frequency: str = "1"

    def members(self) -> Mapping[str, Any]:
        channel = fields.choice("invoiceSubType", self.invoice_sub_type, InvoiceSubType)
        if channel == InvoiceSubType.EMAIL and self.customer_email is None:
            raise ValueError('customerEmail is needed where invoiceSubType is "2" (e-mail)')
        chosen = fields.choices("allocatePayType", self.payment_types, PaymentType)
        return fields.given(
            **self._first(),
            invoiceSubType=channel,
            description=fields.optional_text("description", self.description, fields.MAX_DESCRIPTION),
            customerEmail=fields.email("customerEmail", self.customer_email),
            # A list of numbers here, a text with commas in a single invoice: so the two documents have it.
            allocatePayType=[int(value) for value in chosen],
            itemsList=self._items(),
            subscription="1",
            language=fields.language("language", self.language),
            expiresAt=fields.day("expiresAt", self.expires_at),
            frequency=fields.one_of("frequency", self.frequency, ("1",)),
            noofRecurrence=fields.whole("noofRecurrence", self.recurrences),
            SubscriptionType=fields.choice("SubscriptionType", self.subscription_type, SubscriptionType),
            startDate=fields.day("startDate", self.start_date),
            webhook=fields.url("webhook", self.webhook),
        )
