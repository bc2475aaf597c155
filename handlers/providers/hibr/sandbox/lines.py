"""The lines of an invoice and what they come to, in integers of the minor unit.

Published is `lines[].unit_price` alone. The sandbox's own choices: `description`, `quantity` (an integer, or a
decimal as a string), `vat_rate` in percent (0, or the UAE's 5, which is usual); each line is rounded half up on its
own; an `amount` or `vat_amount` that is given must fit (the latter to within one unit); the totals are sums over the
lines; all lines are in one currency; the rates of exchange below.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from handlers.providers.hibr.models import to_amount, to_minor
from handlers.providers.hibr.sandbox import bodies
from handlers.providers.hibr.sandbox.answers import against_rules, malformed
from handlers.providers.hibr.sandbox.tables import Resource

VAT_RATES = (0, 5)
MAX_LINES = 500
MAX_TOTAL = 10**15
"""Minor units."""
RATES = {
    "AED": "1",
    "USD": "3.6725",
    "EUR": "4.0000",
    "GBP": "4.7000",
    "SAR": "0.9793",
    "KWD": "12.0000",
    "BHD": "9.7400",
    "OMR": "9.5500",
    "QAR": "1.0089",
    "INR": "0.0430",
    "JPY": "0.0250",
}
"""AED for one unit, on every day: sample values, except that the dollar is pegged so."""

_QUANTITY = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")


def priced(given: object) -> list[Resource]:
    """The lines of an invoice with their amounts. Raises invalid_request_error or validation_error."""
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_LINES:
        raise malformed(f"The 'lines' field must be a list of 1 to {MAX_LINES} lines.", "lines")
    lines = [_line(f"lines[{place}]", line) for place, line in enumerate(given)]
    for place, line in enumerate(lines):
        if line["unit_price_currency"] != lines[0]["unit_price_currency"]:
            field = f"lines[{place}].unit_price_currency"
            raise against_rules("All lines of an invoice must be in one currency.", field)
    if sum(line["amount"] + line["vat_amount"] for line in lines) > MAX_TOTAL:
        raise against_rules("The total of the invoice is too large.", "lines")
    return lines


def totals(lines: Sequence[Resource]) -> Resource:
    """What the lines come to, in their currency, and in AED."""
    currency = lines[0]["unit_price_currency"]
    subtotal = sum(line["amount"] for line in lines)
    vat = sum(line["vat_amount"] for line in lines)
    if currency not in RATES:
        raise against_rules(f"The sandbox has no rate of exchange for {currency}.", "lines[0].unit_price_currency")
    in_aed = _rounded(to_amount(subtotal + vat, currency) * Decimal(RATES[currency]), "AED")
    return {
        "currency": currency,
        **_money("subtotal", subtotal, currency),
        **_money("vat_amount", vat, currency),
        **_money("total", subtotal + vat, currency),
        **_money("total_aed", in_aed, "AED"),
        "exchange_rate": RATES[currency],
    }


def _line(path: str, line: Any) -> Resource:
    if not isinstance(line, dict):
        raise malformed("A line must be an object.", path)
    if line.get("unit_price") is None:
        raise bodies.required(f"{path}.unit_price")
    currency = line["unit_price_currency"]
    quantity = _quantity(f"{path}.quantity", line.get("quantity", 1))
    amount = int((quantity * line["unit_price"]).to_integral_value(ROUND_HALF_UP))
    rate = line.get("vat_rate", VAT_RATES[-1])
    if isinstance(rate, bool) or rate not in VAT_RATES:
        raise against_rules("The 'vat_rate' field must be 0 or 5.", f"{path}.vat_rate")
    if line.get("amount") not in {None, amount}:
        raise against_rules("The 'amount' field does not fit quantity and unit_price.", f"{path}.amount")
    usual = int((Decimal(amount) * rate / 100).to_integral_value(ROUND_HALF_UP))
    vat = usual if line.get("vat_amount") is None else line["vat_amount"]
    if abs(vat - usual) > 1:
        raise against_rules("The 'vat_amount' field does not fit amount and vat_rate.", f"{path}.vat_amount")
    if line.get("vat_amount_currency", currency) != currency:
        raise against_rules("A line is in one currency.", f"{path}.vat_amount_currency")
    return {
        **line,
        "quantity": line.get("quantity", 1),
        "vat_rate": rate,
        **_money("amount", amount, currency),
        **_money("vat_amount", vat, currency),
    }


def _quantity(path: str, value: object) -> Decimal:
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if _QUANTITY.fullmatch(text) is None or Decimal(text) == 0:
        raise malformed("The 'quantity' field must be above 0: an integer, or a decimal as a string.", path)
    return Decimal(text)


def _money(name: str, units: int, currency: str) -> Resource:
    return {name: units, f"{name}_currency": currency}


def _rounded(amount: Decimal, currency: str) -> int:
    return to_minor(amount.quantize(to_amount(1, currency), ROUND_HALF_UP), currency)
