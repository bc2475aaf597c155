"""What HIBR documents as data: resources and the prefixes of their ids, scopes, money.

Amounts are integers of the currency's minor unit: 525000 in AED is AED 5,250.00. Every monetary field has a partner
whose name ends in `_currency` and holds the ISO 4217 code, so that `unit_price` is read with
`unit_price_currency`; beside the original, HIBR keeps the amount in AED at the rate of the transaction's date (HIBR
API reference, Money). A JSON number with a fraction is answered 400.

    line = {"description": "Design", "unit_price": to_minor(Decimal("5250.00"), "AED"), "unit_price_currency": "AED"}
    to_amount(line["unit_price"], line["unit_price_currency"])      # Decimal("5250.00")
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

RESOURCES: Mapping[str, str] = {
    "customers": "cust",
    "suppliers": "supp",
    "invoices": "inv",
    "bills": "bill",
    "credit_notes": "cn",
    "payments": "pay",
    "journal_entries": "je",
    "items": "item",
    "accounts": "acct",
    "employees": "emp",
    "vat_returns": "vat",
    "corporate_tax_returns": "ct",
    "payroll_runs": "wps",
    "webhook_endpoints": "wh",
}
"""Each resource and the prefix of its ids (HIBR API reference, Resource IDs).

Only the path `/v1/invoices` is written in the reference; the other names follow its pattern from what the prefixes
stand for. Two more of the 16 resources are not named at all.
"""

SCOPES = (
    "read:invoices",
    "write:invoices",
    "read:customers",
    "write:customers",
    "read:payments",
    "write:payments",
    "read:vat",
    "write:vat",
    "read:payroll",
    "write:payroll",
    "read:reports",
    "*",
)
"""What a key or an access token may be limited to; `*` is everything (HIBR API reference, Authentication)."""

LARGEST = 2**63 - 1
"""The largest amount that is written, in minor units."""

_AMOUNT = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?")
_CODE = re.compile(r"[A-Z]{3}")
_USUAL_DIGITS = 2
_UNUSUAL_DIGITS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
_DIGITS = {code: digits for digits, codes in _UNUSUAL_DIGITS.items() for code in codes.split()}
_UNDIVIDED = re.compile(r"XAG|XAU|XB[ABCD]|XDR|XP[DT]|XSU|XTS|XUA|XXX")
"""Metals, units of account and test codes."""
_LONGEST = 40


def minor_digits(currency: str) -> int:
    """Decimal digits of a currency's minor unit by ISO 4217: AED 2, KWD 3, JPY 0. Raises ValueError on no currency."""
    if _CODE.fullmatch(currency) is None or _UNDIVIDED.fullmatch(currency):
        raise ValueError(f"{currency!r} is not a currency: write its ISO 4217 code, such as AED")
    return _DIGITS.get(currency, _USUAL_DIGITS)


def to_minor(amount: Decimal | int | str, currency: str) -> int:
    """An amount in minor units: Decimal("5250.00") in AED is 525000. Nothing is ever rounded.

    Raises TypeError on a float, and ValueError where the amount is no number, is finer than the currency, or has more
    than 64 bits in minor units.
    """
    if isinstance(amount, bool) or not isinstance(amount, Decimal | int | str):
        raise TypeError(f"an amount is a Decimal, an int or a string, not a {type(amount).__name__}")
    digits = minor_digits(currency)
    if isinstance(amount, str) and _AMOUNT.fullmatch(amount) is None:
        raise ValueError("an amount is written in digits with a point before the decimals, such as 5250.00")
    exact = Decimal(amount)
    # Before the arithmetic: the exponent of a short text can ask for gigabytes.
    if not exact.is_finite() or not -_LONGEST <= exact.adjusted() < _LONGEST:
        raise ValueError(f"{exact} is not an amount")
    units = Fraction(exact) * 10**digits
    if units.denominator != 1:
        raise ValueError(f"{exact} is finer than {currency}, which has {digits} decimal digits: round it first")
    if abs(units) > LARGEST:
        raise ValueError(f"{exact} {currency} is too large")
    return int(units)


def to_amount(units: int, currency: str) -> Decimal:
    """Minor units as an amount with all its digits: 525000 in AED is Decimal("5250.00").

    Raises TypeError unless `units` is an int, ValueError on no currency.
    """
    if isinstance(units, bool) or not isinstance(units, int):
        raise TypeError(f"minor units are an int, not a {type(units).__name__}")
    # From text, because arithmetic rounds to the precision of the current decimal context.
    return Decimal(f"{units}E-{minor_digits(currency)}")
