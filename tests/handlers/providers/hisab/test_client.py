from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import httpx
import orjson
import pytest

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers import PROVIDERS
from handlers.providers.hisab.client import DEFAULT_API_URL, HisabClient

KEY = "hisab_live_s3cret"


class Recorder:
    """Answers with what the test says, and keeps the requests."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.requests: list[httpx.Request] = []
        self._answers = list(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._answers[min(len(self.requests), len(self._answers)) - 1]

    @property
    def client(self) -> HisabClient:
        return HisabClient(api_key=KEY, transport=httpx.MockTransport(self))

    @property
    def calls(self) -> list[str]:
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.requests]

    def body(self) -> Any:
        return orjson.loads(self.requests[-1].content)


def ok(data: Any, **meta: Any) -> httpx.Response:
    return httpx.Response(200, json={"success": True, "data": data} | ({"meta": meta} if meta else {}))


def page(items: list[dict[str, Any]], number: int, pages: int, key: str = "totalPages") -> httpx.Response:
    return ok(items, pagination={"total": 99, "page": number, "perPage": 100, key: pages})


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


def test_amounts_are_written_as_exact_numbers() -> None:
    hisab = Recorder(ok({"id": "inv_1"}))
    item = {"description": "Hour", "quantity": Decimal("7.10"), "unit_price": Decimal("99999999999999999.99")}

    hisab.client.invoices.create(customer_id="cus_1", issue_date="2026-06-05", items=[item], internal_notes="occ_1")

    assert b'"quantity":7.10,"unit_price":99999999999999999.99' in hisab.requests[0].content


def test_a_float_is_refused_before_anything_is_sent() -> None:
    hisab = Recorder(ok({}))

    with pytest.raises(TypeError, match="unit_price is a float"):
        hisab.client.invoices.create(customer_id="c", issue_date="2026-06-05", items=[{"unit_price": 0.1}])

    assert hisab.calls == []


@pytest.mark.parametrize(
    ("call", "expected", "body"),
    [
        (lambda client: client.invoices.finalize("inv_1"), "POST /api/v1/invoices/inv_1/finalize", b""),
        (lambda client: client.invoices.send("inv_1"), "POST /api/v1/invoices/inv_1/send", b""),
        (lambda client: client.invoices.pay("inv_1"), "POST /api/v1/invoices/inv_1/pay", b"{}"),
        (
            lambda client: client.invoices.pay("inv_1", payment_method="cash", payment_reference="R"),
            "POST /api/v1/invoices/inv_1/pay",
            b'{"payment_method":"cash","payment_reference":"R"}',
        ),
        (
            lambda client: client.invoices.void("inv_1", reason="Duplicate billing"),
            "POST /api/v1/invoices/inv_1/void",
            b'{"reason":"Duplicate billing"}',
        ),
        (lambda client: client.customers.get("cus_2b81fe"), "GET /api/v1/customers/cus_2b81fe", b""),
    ],
)
def test_each_call_has_its_path(call: Callable[[HisabClient], Any], expected: str, body: bytes) -> None:
    hisab = Recorder(ok({"id": "x"}))

    assert call(hisab.client) == {"id": "x"}
    assert hisab.calls == [expected]
    assert hisab.requests[0].content == body


def test_a_pdf_is_downloaded() -> None:
    hisab = Recorder(httpx.Response(200, content=b"%PDF-1.4", headers={"Content-Type": "application/pdf"}))

    assert hisab.client.invoices.pdf("inv_1", locale="ar") == b"%PDF-1.4"
    assert hisab.calls == ["GET /api/v1/invoices/inv_1/pdf?locale=ar"]


@pytest.mark.parametrize("key", ["totalPages", "total_pages"])
def test_a_list_goes_over_all_pages(key: str) -> None:
    hisab = Recorder(page([{"id": "3"}, {"id": "2"}], 1, 2, key), page([{"id": "1"}], 2, 2, key))

    invoices = hisab.client.invoices.list(customer_id="cus_1", date_from=date(2026, 6, 1), date_to="2026-06-30")

    assert [invoice["id"] for invoice in invoices] == ["3", "2", "1"]
    filters = "customer_id=cus_1&date_from=2026-06-01&date_to=2026-06-30&per_page=100"
    assert hisab.calls == [f"GET /api/v1/invoices?{filters}&page={number}" for number in (1, 2)]


def test_an_empty_list_is_one_page() -> None:
    hisab = Recorder(page([], 1, 0))

    assert list(hisab.client.invoices.list()) == []
    assert len(hisab.calls) == 1


def test_a_list_is_not_read_further_than_needed() -> None:
    hisab = Recorder(page([{"id": "9", "internal_notes": None}, {"id": "8", "internal_notes": "run occ_1"}], 1, 50))

    found = next(i for i in hisab.client.invoices.list() if "occ_1" in (i["internal_notes"] or ""))

    assert found["id"] == "8"
    assert len(hisab.calls) == 1


def test_an_id_stays_within_its_segment() -> None:
    hisab = Recorder(ok({}))

    hisab.client.invoices.get("../customers?x=1#y/é")

    assert hisab.calls == ["GET /api/v1/invoices/..%2Fcustomers%3Fx%3D1%23y%2F%C3%A9"]


@pytest.mark.parametrize("invoice_id", ["", ".", ".."])
def test_what_is_no_id_is_refused(invoice_id: str) -> None:
    hisab = Recorder(ok({}))

    with pytest.raises(ValueError, match="id"):
        hisab.client.invoices.finalize(invoice_id)

    assert hisab.calls == []


def test_a_refusal_has_the_code_of_hisab() -> None:
    error = {"success": False, "error": {"code": "INVOICE_NOT_DRAFT", "message": "Only a draft can be finalized"}}
    hisab = Recorder(httpx.Response(409, json=error), httpx.Response(200, json=error))

    for status in (409, 200):
        with pytest.raises(ProviderError) as refused:
            hisab.client.invoices.finalize("inv_1")
        assert (refused.value.code, refused.value.status) == ("INVOICE_NOT_DRAFT", status)
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
    "answer",
    [
        ok({}),
        ok([]),
        ok([], other=1),
        ok([], pagination=[]),
        ok([], pagination={"page": 1}),
        page([], 1, None),  # type: ignore[arg-type]
        page(["x"], 1, 1),  # type: ignore[list-item]
    ],
)
def test_a_list_without_its_pages_may_pass(answer: httpx.Response) -> None:
    with pytest.raises(ProviderUnavailable) as failed:
        list(Recorder(answer).client.invoices.list())
    assert failed.value.code == "BAD_ANSWER"


def test_nothing_is_retried() -> None:
    hisab = Recorder(httpx.Response(503))

    with pytest.raises(ProviderUnavailable):
        hisab.client.invoices.get("inv_1")

    assert len(hisab.calls) == 1


def test_the_key_shows_in_no_error_and_no_repr() -> None:
    client = HisabClient(api_key=KEY, api_url="http://127.0.0.1:1", transport=httpx.MockTransport(_fail))

    with client, pytest.raises(ProviderUnavailable) as failed:
        client.invoices.get("inv_1")

    assert KEY not in repr(failed.value) + str(failed.value) + repr(client) + repr(vars(client))


def test_the_table_of_providers_makes_the_client() -> None:
    with PROVIDERS["hisab"].client(api_key=KEY, api_url="http://127.0.0.1:1/api/v1") as client:
        assert isinstance(client, HisabClient)


def _fail(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("no", request=request)


def test_the_providers_are_imported_without_a_server_or_an_http_client() -> None:
    code = "import sys, handlers.providers, handlers.testing; print({'starlette', 'httpx'} & set(sys.modules))"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "set()"
