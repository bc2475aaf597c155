"""The sums of an invoice, for any lines."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from handlers.providers.hisab.sandbox.lines import TAX_RATES, Item, Items, plain, priced, sums
from handlers.providers.sandbox import fields
from handlers.providers.sandbox.fields import Fields


class Lines(Fields):
    items: Items


AMOUNTS = st.decimals(min_value=0, max_value=10**9, places=6, allow_nan=False) | st.integers(0, 10**9)
ITEMS = st.lists(
    st.fixed_dictionaries(
        {
            "description": st.just("x"),
            "quantity": AMOUNTS,
            "unit_price": AMOUNTS,
            "tax_rate": st.sampled_from(TAX_RATES),
        }
    ),
    min_size=1,
    max_size=8,
)


def cents(value: Fraction) -> Decimal:
    """Rounded half up, by other arithmetic than the sandbox's."""
    return Decimal((value.numerator * 200 + value.denominator) // (2 * value.denominator)) / 100


@given(ITEMS)
def test_each_line_is_rounded_half_up_on_its_own(items: list[dict[str, object]]) -> None:
    given_items: list[Item] = fields.read(Lines, {"items": items}).items

    for item, line in zip(given_items, priced(plain(given_items)), strict=True):
        subtotal = cents(Fraction(item.quantity) * Fraction(item.unit_price))
        tax = cents(Fraction(subtotal) * Fraction(item.tax_rate) / 100)
        assert (Decimal(line["subtotal"]), Decimal(line["tax_amount"])) == (subtotal, tax)
        assert Decimal(line["total"]) == subtotal + tax
        assert (Decimal(line["quantity"]), Decimal(line["unit_price"])) == (item.quantity, item.unit_price)


@given(ITEMS)
def test_the_totals_are_the_sums_of_the_lines_to_the_cent(items: list[dict[str, object]]) -> None:
    lines = priced(plain(fields.read(Lines, {"items": items}).items))

    totals = {name: Decimal(value) for name, value in sums(lines).items()}

    assert totals["subtotal"] == sum(Decimal(line["subtotal"]) for line in lines)
    assert totals["total_tax"] == sum(Decimal(line["tax_amount"]) for line in lines)
    assert totals["total"] == totals["subtotal"] + totals["total_tax"]
    assert all(value == value.quantize(Decimal("0.01"), ROUND_HALF_UP) for value in totals.values())


@given(ITEMS)
def test_what_is_kept_prices_to_the_same_lines_again(items: list[dict[str, object]]) -> None:
    lines = priced(plain(fields.read(Lines, {"items": items}).items))

    again = priced(lines)

    without_ids = [[{**line, "id": None} for line in found] for found in (lines, again)]
    assert without_ids[0] == without_ids[1]
