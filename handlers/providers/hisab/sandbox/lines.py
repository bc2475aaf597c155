"""Line items, and the sums that are computed from them (API reference, Create an invoice)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from handlers.providers.hisab.sandbox.answers import new_id
from handlers.providers.hisab.sandbox.models import Resource
from handlers.providers.sandbox import fields
from handlers.providers.sandbox.fields import Fields, Invalid, Problem

TAX_RATES = (0, 7, 10, 14, 20)
"""The rates of Moroccan VAT, which Hisab's SDK and help list; its reference gives only the default, 20."""
MAX_ITEMS = 500

_CENT = Decimal("0.01")
_REQUIRED = ("description", "quantity", "unit_price")


def _rate(value: Decimal) -> Decimal:
    if value not in TAX_RATES:
        raise ValueError("must be one of 0, 7, 10, 14, 20")
    return value


TaxRate = Annotated[Decimal, fields.number(), AfterValidator(_rate)]
Amount = Annotated[Decimal, fields.number()]


class Item(Fields):
    description: fields.Words
    quantity: Amount
    unit_price: Amount
    tax_rate: TaxRate = Decimal(20)


class ItemChange(Fields):
    """An item of an update, where nothing is required: what is missing is that of the line in the same place."""

    description: fields.Words = ""
    quantity: Amount = Decimal(0)
    unit_price: Amount = Decimal(0)
    tax_rate: TaxRate = Decimal(20)


Items = Annotated[list[Item], Field(min_length=1, max_length=MAX_ITEMS)]
ItemChanges = Annotated[list[ItemChange], Field(min_length=1, max_length=MAX_ITEMS)]


def plain(items: Sequence[Item]) -> list[Resource]:
    """Items as they are kept: numbers as decimal strings."""
    return [
        {
            "description": item.description,
            "quantity": format(item.quantity, "f"),
            "unit_price": format(item.unit_price, "f"),
            "tax_rate": format(item.tax_rate, "f"),
        }
        for item in items
    ]


def merged(changes: Sequence[ItemChange], lines: Sequence[Mapping[str, Any]]) -> list[Resource]:
    """The items that an update makes of an invoice's lines. Raises Invalid where one is not complete."""
    items: list[Resource] = []
    problems: list[Problem] = []
    for place, change in enumerate(changes):
        before = lines[place] if place < len(lines) else {}
        given = change.given()
        missing = [name for name in _REQUIRED if name not in given and name not in before]
        problems += [{"field": f"items[{place}].{name}", "message": "is required"} for name in missing]
        item = {name: before.get(name) for name in _REQUIRED} | given
        items.append({**item, "tax_rate": change.tax_rate})
    if problems:
        raise Invalid(*problems)
    return items


def priced(items: Sequence[Mapping[str, Any]]) -> list[Resource]:
    """The lines of an invoice. Each is rounded half up to the cent on its own: its subtotal, and the tax on that."""
    return [_line(item, place) for place, item in enumerate(items)]


def sums(lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """`subtotal`, `total_tax` and `total`: each the exact sum over the lines."""
    names = {"subtotal": "subtotal", "total_tax": "tax_amount", "total": "total"}
    return {total: str(sum((Decimal(line[name]) for line in lines), Decimal("0.00"))) for total, name in names.items()}


def _line(item: Mapping[str, Any], place: int) -> Resource:
    quantity, price, rate = (Decimal(item[name]) for name in ("quantity", "unit_price", "tax_rate"))
    subtotal = (quantity * price).quantize(_CENT, ROUND_HALF_UP)
    tax = (subtotal * rate / 100).quantize(_CENT, ROUND_HALF_UP)
    return {
        "id": new_id("itm"),
        "description": item["description"],
        "quantity": format(quantity, "f"),
        "unit_price": format(price if fields.places(price) > 2 else price.quantize(_CENT), "f"),
        "tax_rate": str(int(rate)),
        "tax_amount": str(tax),
        "subtotal": str(subtotal),
        "total": str(subtotal + tax),
        "sort_order": place,
    }
