"""Bodies of requests: amounts, dates and moments as the reference wants them, whatever resource they belong to.

Which field is what follows from its name, as in the reference: an amount has a partner that ends in `_currency`, a
calendar date ends in `_date`, a moment in `_at`. Nothing else is known of most resources, and what is given is kept.
The sandbox's own choices: no number has a fraction (a quantity of 1.5 is written "1.5"); amounts are above zero, only
those of VAT may be zero; an amount without a currency is in the `currency` of its record, or AED; a moment without a
zone is one of the account's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from handlers.providers.hibr.models import LARGEST, minor_digits
from handlers.providers.hibr.sandbox.answers import MONEY, against_rules, malformed, moment
from handlers.providers.hibr.sandbox.tables import Resource
from handlers.providers.sandbox import fields
from handlers.providers.sandbox.fields import NotJson
from handlers.providers.sandbox.machine import Refusal

CURRENCY = "AED"
AMOUNTS = frozenset({"amount", "unit_price", "vat_amount"})
"""Amounts by their names alone; others are known by their partners."""
MAX_DEPTH = 16
MAX_BODY = 1024 * 1024
"""Bytes; the sandbox's own limit."""

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)


def read(raw: bytes, zone: ZoneInfo, usual: str = CURRENCY) -> Resource:
    """The fields of a body, moments in UTC and amounts with their currencies. Raises invalid_request_error.

    `usual` is the currency of amounts where the body names none.
    """
    if len(raw) > MAX_BODY:
        raise malformed(f"The request body is longer than {MAX_BODY} bytes.")
    try:
        document = fields.document(raw)
    except (NotJson, RecursionError):
        raise malformed("The request body must be a JSON object.") from None
    currency = document.get("currency")
    return _object("", document, zone, currency if isinstance(currency, str) else usual, 1)


def day(value: object, field: str) -> str:
    """A calendar date (`2026-10-15`). Raises invalid_request_error."""
    if isinstance(value, str) and _DATE.fullmatch(value) is not None:
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            pass
    raise malformed(f"The '{_leaf(field)}' field must be an ISO 8601 date (YYYY-MM-DD).", field)


def instant(value: object, field: str, zone: ZoneInfo) -> str:
    """A moment (`2026-10-15T09:32:14Z`), in UTC. Raises invalid_request_error."""
    if isinstance(value, str) and _MOMENT.fullmatch(value) is not None:
        try:
            found = datetime.fromisoformat(value.upper())
            return moment((found.replace(tzinfo=zone) if found.tzinfo is None else found).astimezone(UTC))
        except (ValueError, OverflowError):
            pass
    raise malformed(f"The '{_leaf(field)}' field must be an RFC 3339 date and time.", field)


def not_money(field: str, currency: str = CURRENCY) -> Refusal:
    """The error of the reference's example."""
    unit = "fils" if currency == CURRENCY else f"minor units of {currency}"
    return malformed(f"The '{_leaf(field)}' field must be a positive integer in {unit}.", field, docs=MONEY)


def required(name: str) -> Refusal:
    return malformed(f"The '{_leaf(name)}' field is required.", name)


def _object(path: str, given: Mapping[str, Any], zone: ZoneInfo, currency: str, depth: int) -> Resource:
    if depth > MAX_DEPTH:
        raise malformed(f"The request body nests deeper than {MAX_DEPTH} levels.")
    read_fields: Resource = {}
    for name, value in given.items():
        place = f"{path}.{name}" if path else name
        partner = f"{name}_currency"
        if value is not None and (name in AMOUNTS or partner in given):
            read_fields[name] = _amount(place, name, value, str(given.get(partner) or currency))
            read_fields[partner] = given.get(partner) or currency
        elif value is None and name in read_fields:
            continue  # a partner that is null: its amount has filled it
        else:
            read_fields[name] = _value(place, name, value, zone, currency, depth)
    return read_fields


def _value(place: str, name: str, value: object, zone: ZoneInfo, currency: str, depth: int) -> Any:
    if value is None:
        return None
    if name.endswith("_date"):
        return day(value, place)
    if name.endswith("_at"):
        return instant(value, place, zone)
    if name == "currency" or name.endswith("_currency"):
        return _currency(place, name, value)
    return _free(place, name, value, zone, currency, depth)


def _free(place: str, name: str, value: object, zone: ZoneInfo, currency: str, depth: int) -> Any:
    if isinstance(value, dict):
        return _object(place, value, zone, currency, depth + 1)
    if isinstance(value, list):
        if depth > MAX_DEPTH:
            raise malformed(f"The request body nests deeper than {MAX_DEPTH} levels.")
        return [_free(f"{place}[{n}]", name, item, zone, currency, depth + 1) for n, item in enumerate(value)]
    if isinstance(value, Decimal | float):
        raise malformed(f"The '{name}' field must be an integer, or a decimal written as a string.", place, docs=MONEY)
    if isinstance(value, int) and abs(value) > LARGEST:
        raise malformed(f"The '{name}' field is too large.", place)
    return value


def _currency(place: str, name: str, value: object) -> str:
    try:
        minor_digits(str(value))
    except ValueError:
        raise malformed(f"The '{name}' field must be a currency code (ISO 4217), such as AED.", place) from None
    return str(value)


def _amount(place: str, name: str, value: object, currency: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value > LARGEST:
        raise not_money(place, currency)
    if name.startswith("vat_"):
        if value < 0:
            raise against_rules(f"The '{name}' field must not be negative.", place)
    elif value <= 0:
        raise not_money(place, currency)
    return value


def _leaf(field: str) -> str:
    return field.rpartition(".")[2]
