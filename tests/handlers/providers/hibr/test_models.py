from __future__ import annotations

import decimal
import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.providers.hibr.models import LARGEST, RESOURCES, SCOPES, minor_digits, to_amount, to_minor

PREFIXES = """
cust_ | Customer |
supp_ | Supplier |
inv_ | Invoice (sales) |
bill_ | Bill (purchase invoice) |
cn_ | Credit note |
pay_ | Payment |
je_ | Journal entry |
item_ | Item (product or service) |
acct_ | Account (chart of accounts) |
emp_ | Employee |
vat_ | VAT return |
ct_ | Corporate tax return |
wps_ | WPS payroll run |
wh_ | Webhook endpoint |
"""
"""As the reference has them."""
KEY_SCOPES = """
read:invoices, write:invoicesread:customers, write:customersread:payments, write:paymentsread:vat, write:vat
read:payroll, write:payrollread:reports* — full access (use with care)
"""

currencies = st.sampled_from(["AED", "EUR", "KWD", "JPY", "CLF"])
units = st.integers(-LARGEST, LARGEST)


def test_each_documented_prefix_has_its_resource() -> None:
    assert list(RESOURCES.values()) == re.findall(r"^([a-z]+)_ \|", PREFIXES, re.MULTILINE)


def test_the_scopes_are_the_documented_ones() -> None:
    assert sorted(SCOPES) == sorted({*re.findall(r"(?:read|write):[a-z]+?(?=read|,|\*|\n)", KEY_SCOPES), "*"})


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        (Decimal("5250.00"), "AED", 525_000),  # the sample of the reference
        (Decimal(5250), "AED", 525_000),
        (5250, "AED", 525_000),
        ("5250.00", "AED", 525_000),
        ("-0.05", "AED", -5),
        (Decimal("1.5E+3"), "AED", 150_000),
        ("20.125", "KWD", 20_125),
        ("20.125", "BHD", 20_125),
        ("20.125", "OMR", 20_125),
        ("20.125", "JOD", 20_125),
        ("20.125", "TND", 20_125),
        ("1500", "JPY", 1500),
        ("0", "AED", 0),
        ("0.00000", "AED", 0),
    ],
)
def test_an_amount_becomes_minor_units(amount: Decimal | int | str, currency: str, minor: int) -> None:
    assert to_minor(amount, currency) == minor


@pytest.mark.parametrize(
    ("minor", "currency", "amount"),
    [(525_000, "AED", "5250.00"), (-5, "AED", "-0.05"), (20_125, "KWD", "20.125"), (1500, "JPY", "1500")],
)
def test_minor_units_become_an_amount_with_all_its_digits(minor: int, currency: str, amount: str) -> None:
    assert str(to_amount(minor, currency)) == amount


@given(units, currencies)
def test_an_amount_survives_the_way_there_and_back(minor: int, currency: str) -> None:
    with decimal.localcontext(prec=4):  # whatever precision a program has set
        assert to_minor(to_amount(minor, currency), currency) == minor
        assert to_minor(str(to_amount(minor, currency)), currency) == minor


@pytest.mark.parametrize(
    "amount", ["0.005", "5250.001", Decimal("1E-18"), Decimal("1E-1000000000"), Decimal("NaN"), Decimal("-Infinity")]
)
def test_what_a_currency_cannot_hold_is_refused_and_not_rounded(amount: Decimal | str) -> None:
    with pytest.raises(ValueError, match=r"finer|not an amount"):
        to_minor(amount, "AED")


@pytest.mark.parametrize("amount", [Decimal("1E+1000000000"), Decimal("1E+18"), LARGEST // 100 + 1, "9" * 40])
def test_an_amount_too_large_is_refused(amount: Decimal | int | str) -> None:
    with pytest.raises(ValueError, match=r"too large|not an amount"):
        to_minor(amount, "AED")


@pytest.mark.parametrize("amount", ["", " 5", "5,25", "1_000", "5.", ".5", "1E3", "NaN", "\u0665", "5\n", "AED 5"])
def test_a_text_that_is_no_plain_number_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match=r"5250\.00"):
        to_minor(amount, "AED")


@pytest.mark.parametrize("amount", [5250.0, 0.1, True, None, b"5"])
def test_an_amount_is_never_a_float(amount: object) -> None:
    with pytest.raises(TypeError, match="an amount is"):
        to_minor(amount, "AED")  # type: ignore[arg-type]  # what an untyped caller does


@pytest.mark.parametrize("minor", [5250.0, Decimal(5), "5", True, None])
def test_minor_units_are_an_integer(minor: object) -> None:
    with pytest.raises(TypeError, match="minor units are an int"):
        to_amount(minor, "AED")  # type: ignore[arg-type]  # what an untyped caller does


@pytest.mark.parametrize("currency", ["", "aed", "AEDS", "A€D", "XXX", "XAU", "AED\n"])
def test_what_is_no_currency_is_refused(currency: str) -> None:
    with pytest.raises(ValueError, match="ISO 4217"):
        minor_digits(currency)
