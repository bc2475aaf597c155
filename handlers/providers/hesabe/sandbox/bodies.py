"""The fields of an invoice's request, as the two pages have them (Single invoice; Create subscription invoice).

Where the pages differ or are silent, this is chosen: `countryCode` with a plus or without; `allocatePayType` as text
with commas or as a list, of text or numbers, never empty; an empty `itemsList` is none; `referenceNumber` is in no
table, and may be left out; so may `startDate`, which stands in the sample alone. A date that has passed is no error,
or the samples would soon be ones. Values are text, as in the samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from handlers.providers.sandbox import fields, webhooks
from handlers.providers.sandbox.fields import Fields, Invalid

PAYMENT_TYPES: Mapping[str, str] = {
    "1": "KNET",
    "2": "MPGS",
    "5": "CYBS",
    "7": "AMEX",
    "8": "MPGS AMEX",
    "9": "MPGS Apple Pay",
    "10": "CYBS Apple Pay",
    "11": "KNET Debit Apple Pay",
    "12": "KNET Credit Apple Pay",
    "13": "KNET Apple Pay International",
    "14": "AMEX Apple Pay International",
    "16": "Google Pay",
}
"""List of payment types."""
SMS, WHATSAPP, EMAIL, URL = "0", "1", "2", "3"
"""List of invoice sub types."""


def _amount(value: Any) -> str:
    if not isinstance(value, str) or not Decimal(value):
        raise ValueError("must be above zero")
    return value


def _payment_types(value: Any) -> list[str]:
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list) or not given:
        raise ValueError('must be like "1,2" or ["1","2"], with at least one payment type')
    numbers = [str(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in given]
    found = [one.strip() for one in numbers if isinstance(one, str)]
    if len(found) < len(numbers) or not set(found) <= set(PAYMENT_TYPES):
        raise ValueError(f"must name payment types of the list: {', '.join(PAYMENT_TYPES)}")
    return list(dict.fromkeys(found))


def _url(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    webhooks.check_url(value)
    return value


Money = Annotated[
    str,
    BeforeValidator(_amount),
    fields.matching(
        r"(?:0|[1-9][0-9]{0,8})\.[0-9]{3}", "must be text with exactly three decimals and at most 9 digits before them"
    ),
]
MobileNumber = Annotated[str, fields.matching(r"[0-9]{6,15}", "must be 6 to 15 digits")]
CountryCode = Annotated[str, fields.matching(r"\+?[1-9][0-9]{0,3}", "must be like 965 or +965")]
Count = Annotated[str, fields.matching(r"[1-9][0-9]{0,3}", "must be a whole number from 1 to 9999, as text")]
PaymentTypes = Annotated[list[str], BeforeValidator(_payment_types)]
Url = Annotated[str, BeforeValidator(_url)]


class Item(Fields):
    itemTitle: fields.Words
    rate: Money
    quantity: Count
    amount: Money


class SingleInvoice(Fields):
    mobileNumber: MobileNumber
    customerName: fields.Words
    referenceNumber: Annotated[fields.Words, Field(max_length=255)] | None = None
    amount: Money
    countryCode: CountryCode
    invoiceType: Annotated[str, fields.one_of("0", "1")]
    invoiceSubType: Annotated[str, fields.one_of(SMS, URL)]
    allocatePayType: PaymentTypes
    expiresAt: fields.Day
    customerEmail: fields.Email | None = None
    language: Annotated[str, fields.one_of("en", "ar")] | None = None
    description: fields.Text | None = None
    webhook: Url | None = None
    itemsList: list[Item] | None = None

    def expect_sums(self) -> None:
        """Raise Invalid where the products cost less than the invoice."""
        if self.itemsList and sum(Decimal(item.amount) for item in self.itemsList) < Decimal(self.amount):
            raise Invalid.of("itemsList", "must add up to at least the amount of the invoice")


class SubscriptionInvoice(SingleInvoice):
    invoiceSubType: Annotated[str, fields.one_of(SMS, WHATSAPP, EMAIL, URL)]
    subscription: Annotated[str, fields.one_of("1")]
    frequency: Annotated[str, fields.one_of("1")]
    noofRecurrence: Count
    SubscriptionType: Annotated[str, fields.one_of("0", "1")]
    startDate: fields.Day | None = None

    def expect_email(self) -> None:
        """Raise Invalid where the invoice goes by e-mail and there is no address."""
        if self.invoiceSubType == EMAIL and self.customerEmail is None:
            raise Invalid.of("customerEmail", "is required where invoiceSubType is 2")


class Resend(Fields):
    mobileNumber: MobileNumber
    resendId: Annotated[str, fields.matching(r"[1-9][0-9]{0,8}", "must be the id of an invoice, as text")]
    countryCode: CountryCode


class Status(Fields):
    statusId: Annotated[str, fields.one_of("3")]
