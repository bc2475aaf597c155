"""What a document shows of a finalized invoice, apart from the database: it is made after the transaction."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from handlers.providers.hisab.sandbox.models import Invoice

_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Seller or customer. `identifiers` are (kind, number): ICE, IF, RC, VAT."""

    name: str
    legal_name: str
    identifiers: tuple[tuple[str, str], ...]
    street: str | None
    city: str | None
    postal_code: str | None
    country: str
    phone: str | None
    email: str | None
    website: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    description: str
    quantity: Decimal
    unit_price: Decimal
    tax_rate: Decimal
    tax_amount: Decimal
    subtotal: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Tax:
    """What the lines of one rate come to."""

    rate: Decimal
    taxable: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    number: str
    status: str
    issue_date: date
    due_date: date | None
    currency: str
    seller: Party
    customer: Party
    lines: tuple[Line, ...]
    taxes: tuple[Tax, ...]
    subtotal: Decimal
    total_tax: Decimal
    total: Decimal
    payment_terms: str | None
    notes: str | None


def paper(invoice: Invoice) -> Paper:
    """Read a finalized invoice; characters that no document can hold are left out."""
    lines = tuple(_line(item) for item in invoice.items)
    return Paper(
        number=str(invoice.invoice_number),
        status=invoice.status,
        issue_date=invoice.issue_date,
        due_date=invoice.due_date,
        currency=invoice.currency,
        seller=_party(invoice.parties["seller"]),
        customer=_party(invoice.parties["customer"]),
        lines=lines,
        taxes=tuple(_tax(rate, lines) for rate in sorted({line.tax_rate for line in lines}, reverse=True)),
        subtotal=Decimal(invoice.subtotal),
        total_tax=Decimal(invoice.total_tax),
        total=Decimal(invoice.total),
        payment_terms=_text(invoice.payment_terms),
        notes=_text(invoice.notes),
    )


def _party(known: Mapping[str, Any]) -> Party:
    kinds = (("ICE", "ice"), ("IF", "if_number"), ("RC", "rc"), ("TVA", "vat_number"))
    texts = {name: _text(value) for name, value in {**known, **known["address"]}.items() if name != "address"}
    legal_name = texts.get("legal_name") or texts.get("name") or ""
    return Party(
        name=texts.get("name") or legal_name,
        legal_name=legal_name,
        identifiers=tuple((kind, value) for kind, name in kinds if (value := texts.get(name))),
        country=texts.get("country") or "MA",
        **{name: texts.get(name) for name in ("street", "city", "postal_code", "phone", "email", "website")},
    )


def _line(item: Mapping[str, Any]) -> Line:
    names = ("quantity", "unit_price", "tax_rate", "tax_amount", "subtotal")
    return Line(description=_text(item["description"]) or "", **{name: Decimal(item[name]) for name in names})


def _tax(rate: Decimal, lines: tuple[Line, ...]) -> Tax:
    found = [line for line in lines if line.tax_rate == rate]
    return Tax(
        rate=rate,
        taxable=sum((line.subtotal for line in found), Decimal("0.00")),
        amount=sum((line.tax_amount for line in found), Decimal("0.00")),
    )


def _text(value: str | None) -> str | None:
    return None if value is None else _UNWRITABLE.sub("", value).strip() or None
