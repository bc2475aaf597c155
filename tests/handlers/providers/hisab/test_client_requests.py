"""What the client refuses by Hisab's API reference, before a byte is sent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers.hisab.client import HisabClient, InvalidRequest
from handlers.providers.hisab.client.checks import body, day, moment, one_of, text
from handlers.providers.hisab.models import ERROR_CODES, Frequency, InvoiceItem, NewInvoice

DAY = date(2026, 6, 5)
ITEM = {"description": "Hosting", "quantity": 1, "unit_price": Decimal("100.10")}


@pytest.fixture
def client() -> HisabClient:
    def never(request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"{request.method} {request.url} was sent")

    return HisabClient(api_key="hisab_test_key", transport=httpx.MockTransport(never))


def invoice(client: HisabClient, **fields: Any) -> None:
    client.invoices.create(**{"customer_id": "cus_1", "issue_date": DAY, "items": [ITEM], **fields})


def schedule(client: HisabClient, **fields: Any) -> None:
    given = {"customer_id": "cus_1", "frequency": "monthly", "start_date": DAY, "items": [ITEM], **fields}
    client.recurring_invoices.create(**given)


def line(client: HisabClient, **fields: Any) -> None:
    invoice(client, items=[ITEM, {**ITEM, **fields}])


def customer(client: HisabClient, **fields: Any) -> None:
    client.customers.create(**{"name": "Atlas", "type": "b2c", **fields})


Send = Callable[..., None]

REFUSED: list[tuple[Send, str, Any, str]] = [
    # numbers within their bounds
    (schedule, "day_of_month", 29, "day_of_month is 29; it must be an integer from 1 to 28"),
    (schedule, "day_of_month", 0, "integer from 1 to 28"),
    (schedule, "day_of_week", 7, "day_of_week is 7; it must be an integer from 0 to 6"),
    (schedule, "day_of_week", -1, "integer from 0 to 6"),
    (schedule, "interval_count", 0, "interval_count is 0; it must be an integer from 1 to 12"),
    (schedule, "interval_count", 13, "integer from 1 to 12"),
    (schedule, "days_until_due", 366, "days_until_due is 366; it must be an integer from 0 to 365"),
    (schedule, "days_until_due", "30", "days_until_due is a str"),
    (schedule, "interval_count", True, "interval_count is a bool"),
    (schedule, "interval_count", 1.0, "interval_count is a float"),
    (schedule, "max_occurrences", "12", "max_occurrences is a str; it must be an integer"),
    # words and flags
    (schedule, "frequency", "daily", "frequency is 'daily'; it must be one of: weekly, biweekly, monthly,"),
    (schedule, "frequency", ["monthly"], "frequency is"),
    (schedule, "auto_finalize", "yes", "auto_finalize is a str; it must be True or False"),
    (schedule, "auto_send", 1, "auto_send is an int"),
    (customer, "type", "B2B", "type is 'B2B'; it must be one of: b2b, b2c"),
    # money
    (line, "unit_price", 0.1, r"items\[1\].unit_price is a float, which is not exact; write Decimal\('0.1'\)"),
    (line, "quantity", 7.5, "quantity is a float"),
    (line, "unit_price", "100.10", r"unit_price is a str; write Decimal\('100.10'\)"),
    (line, "unit_price", True, "unit_price is a bool"),
    (line, "unit_price", Decimal("NaN"), "unit_price is NaN"),
    (line, "unit_price", Decimal("-Infinity"), "unit_price is -Infinity"),
    (line, "tax_rate", 19, r"items\[1\].tax_rate is 19; it must be one of: 0, 7, 10, 14, 20"),
    (line, "tax_rate", Decimal("0.2"), "tax_rate is 0.2"),
    (line, "tax_rate", 20.0, "tax_rate is a float"),
    # dates and moments
    (invoice, "issue_date", "05/06/2026", "issue_date is '05/06/2026'; it must be a date of the form YYYY-MM-DD"),
    (invoice, "issue_date", "2026-6-5", "YYYY-MM-DD"),
    (invoice, "issue_date", "20260605", "YYYY-MM-DD"),
    (invoice, "issue_date", "2026-W23-5", "YYYY-MM-DD"),
    (invoice, "issue_date", "2026-06-05T00:00:00Z", "YYYY-MM-DD"),
    (invoice, "issue_date", "٢٠٢٦-06-05", "YYYY-MM-DD"),
    (invoice, "due_date", "2026-02-30", "due_date is '2026-02-30'"),
    (invoice, "due_date", datetime(2026, 6, 5, tzinfo=UTC), "due_date is a datetime; it must be a date"),
    (invoice, "due_date", 20260605, "due_date is an int"),
    (schedule, "start_date", "today", "start_date is 'today'"),
    (schedule, "end_date", "", "end_date is ''"),
    # what must be there
    (invoice, "items", [], "items is empty; an invoice has at least one item"),
    (invoice, "items", None, "items is required"),
    (invoice, "items", ITEM, "items is a dict; it must be a list"),
    (invoice, "items", "hosting", "items is a str"),
    (invoice, "items", [1], r"items\[0\] is an int; it must be an object"),
    (invoice, "customer_id", "", "customer_id is empty"),
    (invoice, "customer_id", None, "customer_id is required"),
    (invoice, "customer_id", 7, "customer_id is an int; it must be a string"),
    (line, "description", " ", r"items\[1\].description is empty"),
    (line, "description", None, r"items\[1\].description is required"),
    (customer, "name", "\t", "name is empty"),
    (schedule, "items", (), "items is empty"),
    # what is not there
    (invoice, "discount", 5, "discount is no field of this request, which takes: customer_id, issue_date"),
    (line, "tax", 20, r"items\[1\].tax is no field"),
    (customer, "address", {"town": "Fes"}, "address.town is no field of this request, which takes: street, city"),
    # Moroccan identifiers, and the rest
    (customer, "ice", "01234567000089", "ice is '01234567000089'; it must be 15 digits"),
    (customer, "ice", "00123456700008A", "15 digits"),
    (customer, "ice", "٠٠١٢٣٤٥٦٧٠٠٠٠٨٩", "15 digits"),
    (customer, "ice", 1234567000089, "ice is an int; it must be a string of 15 digits"),
    (customer, "address", "12, rue des Orangers", "address is a str; it must be an object"),
    (customer, "address", {"city": 7}, "address.city is an int"),
    (customer, "tags", "vip", "tags is a str; it must be a list"),
    (customer, "tags", ["vip", 1], r"tags\[1\] is an int"),
    (customer, "email", b"a@b", "email is a bytes"),
    (customer, "notes", "\ud800", "notes has a character that UTF-8 cannot write"),
]


@pytest.mark.parametrize(("send", "field", "value", "rule"), REFUSED)
def test_what_the_reference_forbids_is_not_sent(
    client: HisabClient, send: Send, field: str, value: Any, rule: str
) -> None:
    with pytest.raises(InvalidRequest, match=rule):
        send(client, **{field: value})


# Any: a type checker would refuse most of these calls.
OTHERS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda c: c.invoices.list(status="open"), "status is 'open'; it must be one of: draft, finalized,"),
    (lambda c: c.invoices.list(per_page=101), "per_page is 101; it must be an integer from 1 to 100"),
    (lambda c: c.invoices.list(per_page=0), "per_page is 0"),
    (lambda c: c.invoices.list(page=0), "page is 0; it must be an integer of at least 1"),
    (lambda c: c.invoices.list(order="newest"), "order is 'newest'"),
    (lambda c: c.invoices.list(date_from="June"), "date_from is 'June'"),
    (lambda c: c.invoices.list(from_date="2026-06-05"), "from_date is no field"),
    (lambda c: c.invoices.list(customer_id=""), "customer_id is empty"),
    (lambda c: c.invoices.pages(status="voided"), "status is 'voided'"),
    (lambda c: c.customers.list(status="deleted"), "status is 'deleted'; it must be one of: active,"),
    (lambda c: c.customers.list(type="person"), "type is 'person'"),
    (lambda c: c.recurring_invoices.list(status="draft"), "one of: active, paused, completed, cancelled"),
    (lambda c: c.recurring_invoices.list(frequency="hourly"), "frequency is 'hourly'"),
    (lambda c: c.invoices.update("inv_1", items=[]), "items is empty"),
    (lambda c: c.invoices.update("inv_1", internal_notes="x"), "internal_notes is no field"),
    (lambda c: c.invoices.update("inv_1", items=[{**ITEM, "unit_price": 1.5}]), "unit_price is a float"),
    (lambda c: c.customers.update("cus_1", status="gone"), "status is 'gone'"),
    (lambda c: c.recurring_invoices.update("rec_1", days_until_due=-1), "days_until_due is -1"),
    (lambda c: c.recurring_invoices.update("rec_1", day_of_month=1), "day_of_month is no field"),
    (lambda c: c.recurring_invoices.generate("rec_1", issue_date="now"), "issue_date is 'now'"),
    (lambda c: c.recurring_invoices.resume("rec_1", next_run_date="soon"), "next_run_date is 'soon'"),
    (lambda c: c.recurring_invoices.history("rec_1", limit=101), "limit is 101; it must be an integer from 1 to 100"),
    (lambda c: c.invoices.void("inv_1", reason=""), "reason is empty"),
    (lambda c: c.invoices.void("inv_1", reason="  "), "reason is empty"),
    (lambda c: c.invoices.void("inv_1", reason=None), "reason is None; it must be a string"),
    (lambda c: c.invoices.pdf("inv_1", locale="de"), "locale is 'de'; it must be one of: fr, en, ar"),
    (lambda c: c.invoices.pay("inv_1", paid_at="2026-06-05"), "paid_at is '2026-06-05'; it must be an ISO 8601"),
    (lambda c: c.invoices.pay("inv_1", paid_at="Tomorrow"), "paid_at is 'Tomorrow'"),
    (lambda c: c.invoices.pay("inv_1", paid_at=1780750800), "paid_at is an int"),
    (lambda c: c.invoices.pay("inv_1", paid_at=datetime(2026, 6, 5)), "paid_at has no time zone"),  # noqa: DTZ001 - that is the fault
    (lambda c: c.invoices.pay("inv_1", amount=5), "amount is no field"),
    (lambda c: c.organization.update(website="hisab.ma"), "website is 'hisab.ma'; it must be a URL that begins with"),
    (lambda c: c.organization.update(website="https://["), "website is 'https://\\['"),
    (lambda c: c.organization.update(ice="1"), "ice is '1'"),
    (lambda c: c.organization.update(billing_address="Rabat"), "billing_address is a str"),
    (lambda c: c.organizations.create(legal_name=""), "legal_name is empty"),
    (lambda c: c.organizations.create(ice="002345678000071"), "legal_name is required"),
    (lambda c: c.organizations.list(include_archived="no"), "include_archived is a str"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "rule"), OTHERS, ids=[rule[:40] for _, rule in OTHERS])
def test_no_call_sends_what_the_reference_forbids(client: HisabClient, call: Callable[[Any], Any], rule: str) -> None:
    with pytest.raises(InvalidRequest, match=rule):
        call(client)


def test_a_refused_request_is_a_wrong_value_and_what_the_api_would_have_answered(client: HisabClient) -> None:
    for kind in (ValueError, TypeError, ProviderError):
        with pytest.raises(kind) as refused:
            schedule(client, day_of_month=29)

    error = refused.value
    assert isinstance(error, InvalidRequest)
    assert not isinstance(error, ProviderUnavailable)
    assert (error.code, error.status, error.retry_after) == ("VALIDATION_ERROR", 0, None)
    assert error.code in ERROR_CODES
    assert error.details == ({"field": "day_of_month", "message": "is 29; it must be an integer from 1 to 28"},)


def test_what_the_reference_leaves_open_is_sent() -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"success": True, "data": {}})

    client = HisabClient(api_key="hisab_test_key", transport=httpx.MockTransport(answer))

    schedule(client, auto_send=True)  # without auto_finalize
    customer(client, type="b2b")  # without an ICE
    invoice(client, due_date="2020-01-01")  # before its issue
    line(client, unit_price=-5, tax_rate=Decimal("20.00"))  # a discount
    client.invoices.update("inv_1", items=[{"description": "Only this"}, {"tax_rate": 7}])
    client.invoices.pay("inv_1", paid_at="2026-06-05T14:00")

    assert len(sent) == 6


@given(st.dates())
def test_every_date_is_written_as_the_reference_has_it(value: date) -> None:
    assert day("issue_date", value) == day("issue_date", value.isoformat()) == value.strftime("%Y-%m-%d").rjust(10, "0")


@given(st.datetimes(timezones=st.timezones(), min_value=datetime(1900, 1, 1), max_value=datetime(2100, 1, 1)))  # noqa: DTZ001 - hypothesis adds the zone
def test_every_moment_is_written_in_utc(value: datetime) -> None:
    written = moment("paid_at", value)

    assert written.endswith("Z")
    assert datetime.fromisoformat(written) == value.astimezone(UTC)
    assert moment("paid_at", written) == written


@given(st.dictionaries(st.text() | st.sampled_from([*NewInvoice.__annotations__]), st.none() | st.text() | st.floats()))
def test_any_fields_are_sent_or_refused(fields: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidRequest):
        assert set(body(NewInvoice, fields)) <= set(NewInvoice.__annotations__)


def test_a_field_can_have_another_check_in_one_request() -> None:
    class Filter(NewInvoice, total=False):
        status: Literal["a"]

    given_fields = {"customer_id": "c", "issue_date": DAY, "items": [ITEM], "status": "a"}

    assert body(Filter, given_fields, status=one_of(Literal["a"]))["status"] == "a"
    assert text("any", "") == ""
    assert one_of(Frequency)("frequency", "weekly") == "weekly"
    assert InvoiceItem(description="a", quantity=1, unit_price=1)["quantity"] == 1
