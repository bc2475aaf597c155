from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.providers.hesabe import fields
from handlers.providers.hesabe.models import (
    InvoiceSubType,
    InvoiceType,
    Item,
    PaymentType,
    SingleInvoice,
    SubscriptionInvoice,
    SubscriptionType,
)

SINGLE: Mapping[str, Any] = {
    "mobile_number": "66666666",
    "customer_name": "TEST",
    "amount": "20.000",
    "invoice_type": "1",
    "invoice_sub_type": "3",
    "payment_types": ["1", "2"],
    "expires_at": "2025-12-12",
}
RECURRING: Mapping[str, Any] = {
    **SINGLE,
    "subscription_type": SubscriptionType.ONE,
    "recurrences": 1,
    "start_date": "2025-02-12",
}
PHONE = Item(title="Iphone", rate="120.000", quantity="1", amount="120.000")
OTHER_PHONE = Item(title="Iphone 13", rate="160.000", quantity=1, amount=Decimal("160.000"))


def single(**changes: Any) -> Mapping[str, Any]:
    return SingleInvoice(**{**SINGLE, **changes}).members()


def recurring(**changes: Any) -> Mapping[str, Any]:
    return SubscriptionInvoice(**{**RECURRING, **changes}).members()


def test_a_single_invoice_has_the_documented_members_in_their_order() -> None:
    members = single(
        reference_number="12349899",
        description="Invoice testing",
        customer_email="test@gmail.com",
        webhook="https://yourdomain.com/example",
    )

    assert list(members.items()) == [
        ("mobileNumber", "66666666"),
        ("customerName", "TEST"),
        ("referenceNumber", "12349899"),
        ("amount", "20.000"),
        ("countryCode", "965"),
        ("invoiceType", "1"),
        ("invoiceSubType", "3"),
        ("allocatePayType", "1,2"),
        ("description", "Invoice testing"),
        ("customerEmail", "test@gmail.com"),
        ("expiresAt", "2025-12-12"),
        ("webhook", "https://yourdomain.com/example"),
    ]


def test_a_subscription_has_the_documented_members_in_their_order() -> None:
    members = recurring(
        reference_number="1234",
        amount="280.000",
        country_code="+965",
        invoice_sub_type="2",
        description="Invoice testing",
        customer_email="test@gmail.com",
        payment_types=["1", "2"],
        items=[PHONE, OTHER_PHONE],
        language="en",
    )

    assert list(members) == [
        *("mobileNumber", "customerName", "referenceNumber", "amount", "countryCode", "invoiceType"),
        *("invoiceSubType", "description", "customerEmail", "allocatePayType", "itemsList", "subscription"),
        *("language", "expiresAt", "frequency", "noofRecurrence", "SubscriptionType", "startDate"),
    ]
    assert members["allocatePayType"] == [1, 2]
    assert members["countryCode"] == "+965"
    assert (members["subscription"], members["frequency"], members["noofRecurrence"]) == ("1", "1", "1")
    assert members["SubscriptionType"] == "1"
    assert members["itemsList"] == [
        {"itemTitle": "Iphone", "rate": "120.000", "quantity": "1", "amount": "120.000"},
        {"itemTitle": "Iphone 13", "rate": "160.000", "quantity": "1", "amount": "160.000"},
    ]


def test_names_may_stand_for_the_documented_values() -> None:
    named = single(
        invoice_type=InvoiceType.SMS,
        invoice_sub_type=InvoiceSubType.URL,
        payment_types=[PaymentType.KNET, PaymentType.GOOGLE_PAY],
        expires_at=date(2025, 12, 12),
        amount=Decimal("20.000"),
    )

    assert named == single(payment_types=("1", "16"))


@pytest.mark.parametrize(
    "amount",
    [
        *("20", "20.00", "20.0000", "20.", ".500", "020.000", "-20.000", "+20.000", "0.000", "00.000", "", " 20.000"),
        *("20.000 ", "20,000", "1e3", "2e1.000", "٢٠.000", "20.000\n", "1234567890.000", "NaN", "Infinity"),
        *(Decimal("20"), Decimal("20.00"), Decimal("20.0000"), Decimal("-20.000"), Decimal("0.000"), Decimal("NaN")),
        *(Decimal("-0.000"), Decimal("Infinity"), Decimal("sNaN"), Decimal("1E+999999"), Decimal("9999999999.000")),
    ],
)
def test_an_amount_without_exactly_three_decimals_is_refused(amount: Any) -> None:
    for make in (single, recurring):
        with pytest.raises(ValueError, match="amount must be above zero, with exactly three decimals"):
            make(amount=amount)
    with pytest.raises(ValueError, match="rate must"):
        Item(title="x", rate=amount, quantity=1, amount="1.000")


@pytest.mark.parametrize("amount", [20.0, 20, True, None, b"20.000", ["20.000"]])
def test_an_amount_that_is_neither_decimal_nor_text_is_refused(amount: Any) -> None:
    for make in (single, recurring):
        with pytest.raises(TypeError, match=rf'amount is a {type(amount).__name__}; write Decimal\("20.000"\)'):
            make(amount=amount)


@given(st.integers(1, 10**12 - 1))
def test_every_amount_of_fils_is_written_as_it_is(fils: int) -> None:
    amount = Decimal(fils).scaleb(-3)

    assert Decimal(fields.money("amount", amount)) == amount
    assert fields.money("amount", fields.money("amount", amount)) == fields.money("amount", amount)


@pytest.mark.parametrize(
    ("name", "member", "values"),
    [
        ("invoice_type", "invoiceType", ["2", "", 1, None, True, "SMS"]),
        ("invoice_sub_type", "invoiceSubType", ["4", "", 3, None, "URL"]),
        (
            "payment_types",
            "allocatePayType",
            [[], (), "1,2", "1", b"1", None, 1, ["0"], ["3"], ["15"], [1], ["1", "1"]],
        ),
        (
            "expires_at",
            "expiresAt",
            [
                *("2025-13-01", "2025-02-29", "12-12-2025", "2025-1-1", "20251212", "2025-W01-1", "", None, 0),
                *(datetime(2025, 12, 12, tzinfo=UTC), "2025-12-12T00:00:00", "٢٠٢٥-12-12", "2025-12-12\n"),
            ],
        ),
        (
            "mobile_number",
            "mobileNumber",
            ["", "12345", "+96566666666", "6666 6666", "6" * 16, 66666666, None, "٦" * 8],
        ),
        ("country_code", "countryCode", ["", "+", "0965", "00965", "KW", "96512", 965, None, "965 ", "++965"]),
        ("customer_name", "customerName", ["", " ", "x" * 256, None, 1, "a\x00b", "a\rb", "\ud800", "a\u202eb"]),
        ("reference_number", "referenceNumber", ["", " ", "x" * 256, 1, "a\tb"]),
        ("description", "description", ["", "x" * 1001, 1, "\x7f"]),
        (
            "customer_email",
            "customerEmail",
            ["", "test", "@", "a@", "@b", "a b@c", "a@b@c", f"{'a' * 250}@b.kw", 1, "é@b"],
        ),
        (
            "webhook",
            "webhook",
            ["", "yourdomain.com", "ftp://x", "http:/x", "https://a b", f"https://{'a' * 2050}", 1],
        ),
        ("language", "language", ["", "fr", "EN", 1]),
    ],
)
def test_a_value_that_is_not_documented_is_refused(name: str, member: str, values: list[Any]) -> None:
    for value in values:
        for make in (single, recurring):
            with pytest.raises(ValueError, match=member) as refused:
                make(**{name: value})
            assert not isinstance(value, str) or len(value) < 6 or value not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "member", "values"),
    [
        ("subscription_type", "SubscriptionType", ["2", "", None, 0, 1, "on demand"]),
        ("recurrences", "noofRecurrence", [0, -1, "0", "01", "", None, True, 1.0, "1.0", 10**9]),
        ("start_date", "startDate", ["2025-02-30", "", None]),
        ("frequency", "frequency", ["0", "2", "", 1, None]),
    ],
)
def test_a_value_of_a_subscription_that_is_not_documented_is_refused(name: str, member: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=member):
            recurring(**{name: value})


def test_the_type_of_a_subscription_is_never_chosen_for_its_merchant() -> None:
    with pytest.raises(TypeError, match="subscription_type"):
        SubscriptionInvoice(**SINGLE, recurrences=1, start_date="2025-02-12")
    for value in SubscriptionType:
        assert recurring(subscription_type=value)["SubscriptionType"] == value.value
    text = str(SubscriptionType.__doc__)
    assert "contradict" in text
    assert text.count("on demand") == 2


def test_an_invoice_by_email_needs_an_address() -> None:
    with pytest.raises(ValueError, match='customerEmail is needed where invoiceSubType is "2"'):
        recurring(invoice_sub_type="2")
    assert recurring(invoice_sub_type=InvoiceSubType.EMAIL, customer_email="a@b.kw")["customerEmail"] == "a@b.kw"


@pytest.mark.parametrize("channel", [InvoiceSubType.WHATSAPP, InvoiceSubType.EMAIL])
def test_a_single_invoice_goes_by_sms_or_as_a_link(channel: InvoiceSubType) -> None:
    with pytest.raises(ValueError, match="invoiceSubType"):
        single(invoice_sub_type=channel, customer_email="a@b.kw")
    assert recurring(invoice_sub_type=channel, customer_email="a@b.kw")["invoiceSubType"] == channel


@pytest.mark.parametrize("make", [single, recurring])
def test_items_may_not_add_up_to_less_than_the_invoice(make: Any) -> None:
    assert make(amount="280.000", items=[PHONE, OTHER_PHONE])["itemsList"]
    assert make(amount="279.999", items=[PHONE, OTHER_PHONE])["itemsList"]
    with pytest.raises(ValueError, match="add up to less"):
        make(amount="280.001", items=[PHONE, OTHER_PHONE])


@pytest.mark.parametrize("make", [single, recurring])
def test_an_invoice_without_items_has_no_list_of_them(make: Any) -> None:
    assert "itemsList" not in make(items=[])
    with pytest.raises(TypeError, match="Item"):
        make(items=[{"itemTitle": "Iphone"}])


@pytest.mark.parametrize(
    "changes", [{"title": ""}, {"title": None}, {"quantity": "1.5"}, {"quantity": 0}, {"amount": "1"}]
)
def test_an_item_out_of_shape_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"itemTitle|quantity|amount"):
        Item(**{"title": "Iphone", "rate": "120.000", "quantity": 1, "amount": "120.000", **changes})


def test_a_description_may_have_lines_and_any_letters() -> None:
    assert single(description="فاتورة\nInvoice — 1")["description"] == "فاتورة\nInvoice — 1"
