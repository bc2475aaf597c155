"""Drafts as requests to Hesabe. What cannot be sent is refused here, and so before a schedule is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from handlers.invoicing import Draft, total
from handlers.providers.hesabe import fields
from handlers.providers.hesabe.models import (
    InvoiceSubType,
    InvoiceType,
    Item,
    SingleInvoice,
    SubscriptionInvoice,
    SubscriptionType,
)
from handlers.providers.hesabe.options import CHANNELS, Options, options_of

CURRENCY = "KWD"
MOST = Decimal(10) ** 9
"""An amount is less: `fields.money` has 9 digits before the point."""
MOST_OF_AN_ITEM = 9999
"""Ours: the documents have no limit."""

_UNIT = Decimal(1).scaleb(-fields.DECIMALS)
_NAMES = {"itemTitle": "description", "noofRecurrence": "max_occurrences", "referenceNumber": "marker"}
"""What a schedule calls what Hesabe calls so."""


def request_of(draft: Draft) -> SingleInvoice | SubscriptionInvoice:
    """What makes the draft's invoice. Raises ValueError: one sentence that begins with the field's name."""
    options = options_of(draft.options)
    refused = next((why for holds, why in _terms(draft, options) if holds), None)
    if refused is not None:
        raise ValueError(refused)
    items = [_item(f"items[{place}].", item) for place, item in enumerate(draft.items)]
    amount = total_of(draft)
    if not 0 < amount < MOST:
        raise ValueError(f"items must come to more than 0 and less than {MOST} KWD together.")
    members = {**_members(draft, options), "items": items, "amount": amount}
    try:
        if options.subscription is None:
            return SingleInvoice(**members)
        return SubscriptionInvoice(
            **members,
            subscription_type=SubscriptionType(options.subscription.type),
            recurrences=draft.recurrences or 0,
            start_date=draft.issue_date,
        )
    except ValueError as error:
        raise ValueError(_sentence(error)) from None


def total_of(draft: Draft) -> Decimal:
    """What the items come to, with three decimals; Hesabe knows no taxes."""
    return total(draft.items, digits=fields.DECIMALS, tax_rate="0")


def _terms(draft: Draft, options: Options) -> Iterator[tuple[bool, str]]:
    """Whether something forbids the draft, and the sentence that says so."""
    channel, recurs = options.channel, options.subscription is not None
    yield draft.currency != CURRENCY, f"currency must be {CURRENCY}: Hesabe bills in no other."
    yield (
        not draft.finalize,
        "auto_finalize must be true: Hesabe has no drafts, an invoice is issued when it is made.",
    )
    yield (
        channel is not None and not draft.send,
        "options.channel needs auto_send: without it Hesabe sends nothing, and the link is yours to share.",
    )
    yield (
        channel not in {None, "sms"} and not recurs,
        "options.channel must be sms: single invoices are sent in no other way.",
    )
    yield channel == "email" and options.email is None, "options.email is needed where options.channel is email."
    yield (
        recurs and not draft.monthly,
        "frequency must be monthly with interval_count 1: Hesabe knows no other subscriptions.",
    )
    yield (
        recurs and draft.recurrences is None,
        "max_occurrences is needed: Hesabe is told how often a subscription recurs (noofRecurrence).",
    )


def _item(where: str, item: Mapping[str, str]) -> Item:
    price, quantity = Decimal(item["unit_price"]), Decimal(item["quantity"])
    if not 0 < price < MOST or price % _UNIT:
        raise ValueError(f"{where}unit_price must be above 0 and less than {MOST}, with at most three decimals.")
    if not 0 < quantity <= MOST_OF_AN_ITEM or quantity % 1:
        raise ValueError(f"{where}quantity must be a whole number from 1 to {MOST_OF_AN_ITEM}.")
    if Decimal(item.get("tax_rate", "0")):
        raise ValueError(f"{where}tax_rate must be 0: Hesabe knows no taxes, so put them into unit_price.")
    amount = price * quantity
    if amount >= MOST:
        raise ValueError(f"{where}unit_price times quantity must be less than {MOST}.")
    rate, amount = price.quantize(_UNIT), amount.quantize(_UNIT)
    try:
        return Item(title=item["description"], rate=rate, quantity=int(quantity), amount=amount)
    except ValueError as error:
        raise ValueError(where + _sentence(error)) from None


def _members(draft: Draft, options: Options) -> dict[str, Any]:
    """What both kinds of invoice have, but for money."""
    channel = CHANNELS[options.channel or "sms"] if draft.send else InvoiceSubType.URL
    return {
        "mobile_number": options.mobile_number,
        "customer_name": options.customer_name,
        "country_code": options.country_code,
        "payment_types": options.payment_types,
        "customer_email": options.email,
        "language": options.language,
        "description": options.description,
        "webhook": options.webhook,
        "reference_number": draft.marker,
        "expires_at": draft.due_date,
        "invoice_type": InvoiceType.SMS if channel is InvoiceSubType.SMS else InvoiceType.URL,
        "invoice_sub_type": channel,
    }


def _sentence(error: ValueError) -> str:
    name, _, rest = str(error).partition(" ")
    return f"{_NAMES.get(name, name)} {rest}."
