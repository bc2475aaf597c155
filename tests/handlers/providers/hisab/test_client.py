from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import httpx
import orjson
import pytest

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers import PROVIDERS
from handlers.providers.hisab.client import DEFAULT_API_URL, HisabClient, Page, RateLimit
from handlers.providers.hisab.models import InvoiceItem

KEY = "hisab_live_s3cret"


class Recorder:
    """Answers with what the test says, and keeps the requests."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []
        self._answers = list(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._answers[min(len(self.requests), len(self._answers)) - 1]

    @property
    def client(self) -> HisabClient:
        return self.made()

    def made(self, **options: Any) -> HisabClient:
        given = {"api_key": KEY, "transport": httpx.MockTransport(self), "sleep": self.slept.append}
        return HisabClient(**{**given, **options})

    @property
    def calls(self) -> list[str]:
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.requests]

    def body(self) -> Any:
        return orjson.loads(self.requests[-1].content)


def ok(data: Any, **meta: Any) -> httpx.Response:
    return httpx.Response(200, json={"success": True, "data": data} | ({"meta": meta} if meta else {}))


def page(items: list[dict[str, Any]], number: int, pages: Any, key: str = "totalPages") -> httpx.Response:
    return ok(items, pagination={"total": 99, "page": number, "perPage": 100, key: pages})


# Invoices


def test_a_call_goes_to_the_documented_address_with_the_key() -> None:
    hisab = Recorder(ok({"id": "inv_1", "total": "12480.00"}))

    with hisab.client as client:
        invoice = client.invoices.get("inv_1")

    assert invoice == {"id": "inv_1", "total": "12480.00"}
    assert DEFAULT_API_URL == "https://hisab.ma/api/v1"
    assert str(hisab.requests[0].url) == "https://hisab.ma/api/v1/invoices/inv_1"
    assert hisab.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_the_documented_invoice_is_created() -> None:
    hisab = Recorder(ok({"id": "inv_1", "status": "draft"}))
    item = {"description": "Integration services", "quantity": 8, "unit_price": 1300, "tax_rate": 20}

    hisab.client.invoices.create(customer_id="cus_2b81fe", issue_date=date(2026, 6, 5), items=[item])

    assert hisab.calls == ["POST /api/v1/invoices"]
    assert hisab.body() == {"customer_id": "cus_2b81fe", "issue_date": "2026-06-05", "items": [item]}


def test_an_item_may_be_typed_and_what_is_none_is_left_out() -> None:
    hisab = Recorder(ok({"id": "inv_1"}))
    item = InvoiceItem(description="Hour", quantity=1, unit_price=Decimal("99.90"), tax_rate=None)

    hisab.client.invoices.create(customer_id="cus_1", issue_date="2026-06-05", items=(item,), due_date=None, notes="é")

    assert hisab.body() == {
        "customer_id": "cus_1",
        "issue_date": "2026-06-05",
        "items": [{"description": "Hour", "quantity": 1, "unit_price": 99.9}],
        "notes": "é",
    }


def test_amounts_are_written_as_exact_numbers() -> None:
    hisab = Recorder(ok({"id": "inv_1"}))
    item = {"description": "Hour", "quantity": Decimal("7.10"), "unit_price": Decimal("99999999999999999.99")}

    hisab.client.invoices.create(customer_id="cus_1", issue_date="2026-06-05", items=[item], internal_notes="occ_1")

    assert b'"quantity":7.10,"unit_price":99999999999999999.99' in hisab.requests[0].content


def test_a_draft_is_changed_by_the_fields_given_and_none_clears_one() -> None:
    hisab = Recorder(ok({"id": "inv_1"}))

    hisab.client.invoices.update("inv_1", due_date=date(2026, 8, 5), notes=None)

    assert hisab.calls == ["PATCH /api/v1/invoices/inv_1"]
    assert hisab.body() == {"due_date": "2026-08-05", "notes": None}


def test_a_payment_has_its_moment_in_utc() -> None:
    hisab = Recorder(ok({"id": "inv_1"}))
    moment = datetime(2026, 6, 5, 15, tzinfo=timezone(timedelta(hours=1)))

    hisab.client.invoices.pay("inv_1", paid_at=moment, payment_method="bank_transfer")

    assert hisab.body() == {"paid_at": "2026-06-05T14:00:00Z", "payment_method": "bank_transfer"}


Call = Callable[[HisabClient], Any]

DAY = date(2026, 8, 1)
ITEM = {"description": "Hour", "quantity": 1, "unit_price": 1}
CALLS: list[tuple[Call, str, bytes]] = [
    (lambda c: c.invoices.finalize("inv_1"), "POST /invoices/inv_1/finalize", b""),
    (lambda c: c.invoices.send("inv_1"), "POST /invoices/inv_1/send", b""),
    (lambda c: c.invoices.pay("inv_1"), "POST /invoices/inv_1/pay", b"{}"),
    (
        lambda c: c.invoices.pay("inv_1", paid_at="2026-06-05T14:00:00+01:00", payment_reference="R"),
        "POST /invoices/inv_1/pay",
        b'{"paid_at":"2026-06-05T14:00:00+01:00","payment_reference":"R"}',
    ),
    (
        lambda c: c.invoices.void("inv_1", reason="Duplicate billing"),
        "POST /invoices/inv_1/void",
        b'{"reason":"Duplicate billing"}',
    ),
    (
        lambda c: c.customers.create(name="MERIT Sarl", type="b2b", ice="001234567000089", email="c@example.ma"),
        "POST /customers",
        b'{"name":"MERIT Sarl","type":"b2b","ice":"001234567000089","email":"c@example.ma"}',
    ),
    (
        lambda c: c.customers.create(name="A", type="b2c", address={"city": "Fes", "country": None}, tags=("vip",)),
        "POST /customers",
        b'{"name":"A","type":"b2c","address":{"city":"Fes"},"tags":["vip"]}',
    ),
    (lambda c: c.customers.get("cus_1"), "GET /customers/cus_1", b""),
    (
        lambda c: c.customers.update("cus_1", email="finance@example.ma", ice=None, status="inactive"),
        "PATCH /customers/cus_1",
        b'{"email":"finance@example.ma","ice":null,"status":"inactive"}',
    ),
    (lambda c: c.customers.archive("cus_1"), "DELETE /customers/cus_1", b""),
    (
        lambda c: c.recurring_invoices.create(
            customer_id="cus_2b81fe",
            frequency="monthly",
            start_date=date(2026, 7, 1),
            auto_send=True,
            interval_count=12,
            day_of_month=28,
            day_of_week=0,
            days_until_due=365,
            items=[{"description": "Monthly retainer", "quantity": 1, "unit_price": 10400, "tax_rate": 0}],
        ),
        "POST /recurring-invoices",
        (
            b'{"customer_id":"cus_2b81fe","frequency":"monthly","start_date":"2026-07-01","auto_send":true,'
            b'"interval_count":12,"day_of_month":28,"day_of_week":0,"days_until_due":365,'
            b'"items":[{"description":"Monthly retainer","quantity":1,"unit_price":10400,"tax_rate":0}]}'
        ),
    ),
    (lambda c: c.recurring_invoices.get("rec_1"), "GET /recurring-invoices/rec_1", b""),
    (
        lambda c: c.recurring_invoices.update("rec_1", auto_send=True, end_date=None),
        "PUT /recurring-invoices/rec_1",
        b'{"auto_send":true,"end_date":null}',
    ),
    (lambda c: c.recurring_invoices.generate("rec_1"), "POST /recurring-invoices/rec_1/generate", b""),
    (
        lambda c: c.recurring_invoices.generate("rec_1", issue_date=DAY),
        "POST /recurring-invoices/rec_1/generate",
        b'{"issue_date":"2026-08-01"}',
    ),
    (lambda c: c.recurring_invoices.pause("rec_1"), "POST /recurring-invoices/rec_1/pause", b""),
    (lambda c: c.recurring_invoices.resume("rec_1"), "POST /recurring-invoices/rec_1/resume", b""),
    (
        lambda c: c.recurring_invoices.resume("rec_1", next_run_date="2026-08-01"),
        "POST /recurring-invoices/rec_1/resume",
        b'{"next_run_date":"2026-08-01"}',
    ),
    (lambda c: c.organization.get(), "GET /organization", b""),
    (
        lambda c: c.organization.update(
            phone="+212 5 22 00 00 01", website="https://a.ma", billing_address={"city": "Rabat"}
        ),
        "PATCH /organization",
        b'{"phone":"+212 5 22 00 00 01","website":"https://a.ma","billing_address":{"city":"Rabat"}}',
    ),
    (
        lambda c: c.organizations.create(legal_name="Filiale Casablanca SARL", ice="002345678000071"),
        "POST /organizations",
        b'{"legal_name":"Filiale Casablanca SARL","ice":"002345678000071"}',
    ),
    (lambda c: c.organizations.get("org_1"), "GET /organizations/org_1", b""),
    (lambda c: c.organizations.archive("org_1"), "POST /organizations/org_1/archive", b""),
    (lambda c: c.organizations.restore("org_1"), "POST /organizations/org_1/restore", b""),
]


@pytest.mark.parametrize(("call", "expected", "body"), CALLS, ids=[expected for _, expected, _ in CALLS])
def test_each_call_has_its_path_and_its_body(call: Call, expected: str, body: bytes) -> None:
    hisab = Recorder(ok({"id": "x"}))

    assert call(hisab.client) == {"id": "x"}
    assert hisab.calls == [expected.replace(" ", " /api/v1", 1)]
    assert hisab.requests[0].content == body


# Files


def test_a_pdf_is_downloaded() -> None:
    hisab = Recorder(httpx.Response(200, content=b"%PDF-1.4", headers={"Content-Type": "application/pdf"}))

    assert hisab.client.invoices.pdf("inv_1", locale="ar") == b"%PDF-1.4"
    assert hisab.calls == ["GET /api/v1/invoices/inv_1/pdf?locale=ar"]


@pytest.mark.parametrize("ubl", [b'<?xml version="1.0"?><Invoice/>', b"\xef\xbb\xbf<Invoice/>", b"\n<Invoice/>"])
def test_the_xml_is_downloaded_as_it_is(ubl: bytes) -> None:
    hisab = Recorder(httpx.Response(200, content=ubl))

    assert hisab.client.invoices.xml("inv_1") == ubl
    assert hisab.calls == ["GET /api/v1/invoices/inv_1/xml"]


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><p>Hi", b"<HTML>", b'{"success": true}', b"PDF"])
def test_what_is_no_file_is_not_handed_on_as_one(content: bytes) -> None:
    hisab = Recorder(httpx.Response(200, content=content))

    for download in (hisab.client.invoices.pdf, hisab.client.invoices.xml):
        with pytest.raises(ProviderUnavailable) as failed:
            download("inv_1")
        assert failed.value.code == "BAD_ANSWER"


def test_a_refused_file_has_the_code_of_hisab() -> None:
    error = {"success": False, "error": {"code": "PDF_NOT_AVAILABLE", "message": "Finalize it first"}}
    hisab = Recorder(httpx.Response(409, json=error), httpx.Response(200, json=error))

    for status in (409, 200):
        with pytest.raises(ProviderError, match="PDF_NOT_AVAILABLE: Finalize it first") as refused:
            hisab.client.invoices.pdf("inv_1")
        assert (refused.value.code, refused.value.status) == ("PDF_NOT_AVAILABLE", status)


# Lists


@pytest.mark.parametrize("key", ["totalPages", "total_pages"])
def test_a_list_goes_over_all_pages(key: str) -> None:
    hisab = Recorder(page([{"id": "3"}, {"id": "2"}], 1, 2, key), page([{"id": "1"}], 2, 2, key))

    invoices = hisab.client.invoices.list(customer_id="cus_1", date_from=date(2026, 6, 1), date_to="2026-06-30")

    assert [invoice["id"] for invoice in invoices] == ["3", "2", "1"]
    filters = "customer_id=cus_1&date_from=2026-06-01&date_to=2026-06-30"
    assert hisab.calls == [f"GET /api/v1/invoices?per_page=100&{filters}&page={number}" for number in (1, 2)]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            lambda c: c.customers.list(search="MERIT & co", type="b2b", status="active", order="asc"),
            "/customers?per_page=100&search=MERIT+%26+co&type=b2b&status=active&order=asc&page=1",
        ),
        (
            lambda c: c.recurring_invoices.list(status="paused", frequency="biannually", customer_id=None),
            "/recurring-invoices?per_page=100&status=paused&frequency=biannually&page=1",
        ),
        (lambda c: c.invoices.list(status="void", per_page=7), "/invoices?per_page=7&status=void&page=1"),
    ],
)
def test_each_list_has_its_filters(call: Call, expected: str) -> None:
    hisab = Recorder(page([{"id": "1"}], 1, 1))

    assert list(call(hisab.client)) == [{"id": "1"}]
    assert hisab.calls == [f"GET /api/v1{expected}"]


def test_one_page_can_be_had() -> None:
    hisab = Recorder(page([{"id": "x"}], 3, 5))

    assert next(hisab.client.customers.pages(page=3, per_page=100)) == Page(
        items=[{"id": "x"}], page=3, per_page=100, total=99, total_pages=5
    )
    assert hisab.calls == ["GET /api/v1/customers?per_page=100&page=3"]


def test_an_empty_list_is_one_page() -> None:
    hisab = Recorder(page([], 1, 0))

    assert list(hisab.client.invoices.list()) == []
    assert len(hisab.calls) == 1


def test_a_list_is_not_read_further_than_needed() -> None:
    hisab = Recorder(page([{"id": "9", "internal_notes": None}, {"id": "8", "internal_notes": "run occ_1"}], 1, 50))

    listed = hisab.client.invoices.list()
    assert hisab.calls == []
    found = next(i for i in listed if "occ_1" in (i["internal_notes"] or ""))

    assert found["id"] == "8"
    assert len(hisab.calls) == 1


@pytest.mark.parametrize(
    "answer",
    [
        ok({}),
        ok([]),
        ok([], other=1),
        ok([], pagination=[]),
        ok([], pagination={"page": 1}),
        page([], 1, None),
        page([{}], 1, True),
        page([{}], 1, "3"),
        page(["x"], 1, 1),  # type: ignore[list-item] # that is the fault
        page([{"id": "1"}], 2, 3),  # another page than was asked for
        page([], 1, 2),  # nothing on it, and more to come
    ],
)
def test_a_list_without_its_pages_may_pass(answer: httpx.Response) -> None:
    with pytest.raises(ProviderUnavailable) as failed:
        list(Recorder(answer).client.invoices.list())
    assert failed.value.code == "BAD_ANSWER"


def test_organizations_are_listed_with_pages_or_without() -> None:
    whole = Recorder(ok([{"id": "org_1"}, {"id": "org_2"}]))
    paged = Recorder(page([{"id": "org_1"}], 1, 2), page([{"id": "org_2"}], 2, 2))

    for hisab in (whole, paged):
        assert [found["id"] for found in hisab.client.organizations.list(include_archived=True)] == ["org_1", "org_2"]

    assert whole.calls == ["GET /api/v1/organizations?include_archived=true"]
    assert paged.calls[1:] == ["GET /api/v1/organizations?include_archived=true&page=2"]


def test_the_history_of_a_schedule_is_one_list() -> None:
    hisab = Recorder(ok([{"status": "success"}, {"status": "failed"}]))

    runs = hisab.client.recurring_invoices.history("rec_1", limit=100)
    hisab.client.recurring_invoices.history("rec_1")

    assert [run["status"] for run in runs] == ["success", "failed"]
    assert [call.partition("history")[2] for call in hisab.calls] == ["?limit=100", ""]


@pytest.mark.parametrize("answer", [httpx.Response(204), ok(None), ok({"id": "x"}), ok("removed")])
def test_deleting_needs_no_answer_but_success(answer: httpx.Response) -> None:
    hisab = Recorder(answer)

    hisab.client.recurring_invoices.delete("rec_1")
    archived = hisab.client.customers.archive("cus_1")

    assert archived in ({}, {"id": "x"})
    assert hisab.calls == ["DELETE /api/v1/recurring-invoices/rec_1", "DELETE /api/v1/customers/cus_1"]


def test_deleting_is_refused_as_everything_is() -> None:
    error = {"success": False, "error": {"code": "NOT_FOUND", "message": "No such schedule"}}

    for status in (404, 200):
        with pytest.raises(ProviderError) as refused:
            Recorder(httpx.Response(status, json=error)).client.recurring_invoices.delete("rec_1")
        assert refused.value.code == "NOT_FOUND"


# Entities


def test_an_account_acts_for_an_entity() -> None:
    hisab = Recorder(ok({"id": "x"}))

    with hisab.made(organization_id="org_1") as one:
        with one.for_organization("org_2") as other:
            other.invoices.get("inv_2")
        one.customers.get("cus_1")  # closing the other left the connections open
    hisab.client.organization.get()

    assert [request.headers.get("x-organization-id") for request in hisab.requests] == ["org_2", "org_1", None]
    assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in hisab.requests)


@pytest.mark.parametrize("organization_id", ["", "org_1\n", "é"])
def test_an_entity_that_cannot_be_named_is_refused(organization_id: str) -> None:
    hisab = Recorder(ok({}))

    with pytest.raises(ValueError, match="X-Organization-Id"):
        hisab.made(organization_id=organization_id)
    with pytest.raises(ValueError, match="X-Organization-Id"):
        hisab.client.for_organization(organization_id)


def test_the_limit_of_the_key_is_known() -> None:
    told = {"X-RateLimit-Limit": "120", "X-RateLimit-Remaining": "119", "X-RateLimit-Reset": "1780750800"}
    client = Recorder(httpx.Response(200, json={"success": True, "data": {}}, headers=told)).client

    assert client.rate_limit is None
    entity = client.for_organization("org_1")
    entity.organization.get()

    assert client.rate_limit == entity.rate_limit == RateLimit(120, 119, datetime(2026, 6, 6, 13, tzinfo=UTC))


# Failures


def test_an_id_stays_within_its_segment() -> None:
    hisab = Recorder(ok({}))

    hisab.client.invoices.get("../customers?x=1#y/é")

    assert hisab.calls == ["GET /api/v1/invoices/..%2Fcustomers%3Fx%3D1%23y%2F%C3%A9"]


@pytest.mark.parametrize("object_id", ["", ".", "..", None])
@pytest.mark.parametrize(
    "call",
    [
        lambda c, i: c.invoices.finalize(i),
        lambda c, i: c.customers.archive(i),
        lambda c, i: c.recurring_invoices.delete(i),
        lambda c, i: c.organizations.archive(i),
    ],
)
def test_what_is_no_id_is_refused(call: Callable[[HisabClient, Any], Any], object_id: Any) -> None:
    hisab = Recorder(ok({}))

    with pytest.raises((ValueError, TypeError), match="id"):
        call(hisab.client, object_id)

    assert hisab.calls == []


def test_a_refusal_has_the_code_of_hisab() -> None:
    details = [{"field": "status", "message": "is paid"}]
    error = {"code": "INVOICE_NOT_DRAFT", "message": "Only a draft can be finalized", "details": details}
    answer = {"success": False, "error": error}
    hisab = Recorder(httpx.Response(409, json=answer), httpx.Response(200, json=answer))

    for status in (409, 200):
        with pytest.raises(ProviderError) as refused:
            hisab.client.invoices.finalize("inv_1")
        assert (refused.value.code, refused.value.status) == ("INVOICE_NOT_DRAFT", status)
        assert refused.value.details == tuple(details)
        assert not isinstance(refused.value, ProviderUnavailable)


@pytest.mark.parametrize(
    "answer",
    [
        [],
        None,
        {},
        {"success": True},
        {"success": True, "data": None},
        {"success": True, "data": []},
        {"success": "true", "data": {}},
        {"success": False},
        {"data": {}},
    ],
)
def test_an_answer_without_the_envelope_may_pass(answer: Any) -> None:
    with pytest.raises(ProviderUnavailable) as failed:
        Recorder(httpx.Response(200, json=answer)).client.invoices.get("inv_1")
    assert failed.value.code == "BAD_ANSWER"


@pytest.mark.parametrize(
    ("call", "times"),
    [
        (lambda c: c.invoices.get("inv_1"), 3),
        (lambda c: next(c.invoices.list()), 3),
        (lambda c: c.invoices.pdf("inv_1"), 3),
        (lambda c: c.recurring_invoices.update("rec_1", auto_send=True), 3),
        (lambda c: c.invoices.create(customer_id="c", issue_date=DAY, items=[ITEM]), 1),
        (lambda c: c.invoices.update("inv_1", notes="x"), 1),
        (lambda c: c.invoices.finalize("inv_1"), 1),
        (lambda c: c.customers.archive("cus_1"), 1),
        (lambda c: c.recurring_invoices.generate("rec_1"), 1),
        (lambda c: c.recurring_invoices.delete("rec_1"), 1),
    ],
)
def test_only_what_changes_nothing_twice_is_repeated(call: Call, times: int) -> None:
    hisab = Recorder(httpx.Response(503))

    with pytest.raises(ProviderUnavailable):
        call(hisab.client)

    assert (len(hisab.calls), len(hisab.slept)) == (times, times - 1)


def test_over_the_limit_every_call_waits_and_goes_on() -> None:
    error = {"success": False, "error": {"code": "RATE_LIMIT_EXCEEDED", "message": "Slow down"}}
    limited = httpx.Response(429, json=error, headers={"Retry-After": "7"})
    patient, worker = Recorder(limited, ok({"id": "inv_1"})), Recorder(limited)

    assert patient.client.invoices.finalize("inv_1") == {"id": "inv_1"}
    with pytest.raises(ProviderUnavailable) as refused:
        worker.made(max_wait=0).invoices.finalize("inv_1")

    assert patient.slept == [7.0]
    assert worker.slept == []
    assert (refused.value.code, refused.value.retry_after) == ("RATE_LIMIT_EXCEEDED", 7.0)


def test_the_key_shows_in_no_error_and_no_repr() -> None:
    client = HisabClient(api_key=KEY, api_url="http://127.0.0.1:1", transport=httpx.MockTransport(_fail), retries=0)

    with client, pytest.raises(ProviderUnavailable) as failed:
        client.invoices.get("inv_1")

    assert KEY not in repr(failed.value) + str(failed.value) + repr(client) + repr(vars(client))


def test_the_table_of_providers_makes_the_client() -> None:
    make = PROVIDERS["hisab"].client
    assert make is not None

    with make(api_key=KEY, api_url="http://127.0.0.1:1/api/v1") as client:
        assert isinstance(client, HisabClient)


def _fail(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("no", request=request)


def test_the_providers_are_imported_without_a_server_or_an_http_client() -> None:
    code = "import sys, handlers.providers, handlers.testing; print({'starlette', 'httpx'} & set(sys.modules))"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "set()"
