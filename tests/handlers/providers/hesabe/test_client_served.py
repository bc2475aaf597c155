"""The client over a real socket, against a server that speaks Hesabe's encryption."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers.hesabe.client import HesabeClient
from handlers.providers.hesabe.models import InvoiceSubType, InvoiceType, PaymentType, RefundMethod, SingleInvoice
from tests import samples
from tests.handlers.providers.hesabe.server import (
    ACCESS_CODE,
    API_KEY,
    PASSWORD,
    TOKEN,
    Answer,
    Hesabe,
    Received,
    encrypted,
    ok,
    opened,
    plain,
    refused,
    sealed,
    serving,
)

VECTORS = {
    vector["name"]: vector
    for vector in json.loads((Path(samples.__file__).parent / "hesabe" / "vectors.json").read_text())["documented"]
}
SAMPLE = SingleInvoice(
    mobile_number="66666666",
    customer_name="TEST",
    reference_number="12349899",
    amount=Decimal("20.000"),
    country_code="965",
    invoice_type=InvoiceType.SMS,
    invoice_sub_type=InvoiceSubType.URL,
    payment_types=[PaymentType.KNET, PaymentType.MPGS],
    description="Invoice testing",
    customer_email="test@gmail.com",
    expires_at="2025-12-12",
)
"""The sample of the page "Single invoice", as it was encrypted: without its webhook."""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def client_of(hesabe: Hesabe, **options: Any) -> HesabeClient:
    return HesabeClient(api_key=API_KEY, api_url=hesabe.url, **options)


def documented(name: str) -> Answer:
    return 200, json.dumps({"response": VECTORS[name]["ciphertext"]}).encode()


def found(request: Received) -> Answer:
    return encrypted(ok({"id": 1}))


def test_the_documented_invoice_goes_over_the_wire_byte_for_byte_and_its_answer_is_read() -> None:
    routes = {"POST /api/v1/invoice": lambda _: documented("single-invoice response")}
    with serving(routes) as hesabe, client_of(hesabe) as client:
        invoice = client.invoices.create(SAMPLE)

    request = hesabe.received[-1]
    assert request.body == b'{"data":"%s"}' % VECTORS["single-invoice request"]["ciphertext"].encode()
    assert request.headers["accesscode"] == ACCESS_CODE
    assert request.headers["authorization"] == "Bearer access-1"
    assert request.headers["content-type"] == request.headers["accept"] == "application/json"
    assert invoice["token"] == "8417596678339677489"
    assert invoice["amount"] == "20.000"
    assert "مبلغ الصفقة" in invoice["ar_sms"]


def test_the_other_documented_requests_go_over_the_wire_byte_for_byte() -> None:
    routes = {
        "PUT /api/v1/invoice/8417596678339677489": lambda _: documented("cancel invoice response"),
        "POST /api/v1/invoice/resend": found,
        "POST /api/v1/refund": found,
        "GET /api/v1/invoice/14696": found,
        "DELETE /api/v1/refund/1461": lambda _: documented("cancel refund response"),
    }
    with serving(routes) as hesabe, client_of(hesabe) as client:
        client.invoices.cancel("8417596678339677489")
        client.invoices.resend(1782, mobile_number="66666666")
        client.refunds.create(token="84221717575602869376365549977", amount="10.000", method=RefundMethod.FULL)
        client.invoices.get(14696)
        client.refunds.cancel(1461)

    sent = [request.data for request in hesabe.received if request.call in hesabe.calls]
    names = ["cancel invoice request", "resend invoice request", "refund request", *["merchantCode only"] * 2]
    assert sent == [VECTORS[name]["ciphertext"] for name in names]


def test_letters_of_any_alphabet_arrive() -> None:
    arabic = SingleInvoice(
        mobile_number="66666666",
        customer_name="أحمد",
        amount="9.900",
        invoice_type="0",
        invoice_sub_type="3",
        payment_types=["1"],
        expires_at="2026-12-12",
    )
    with serving({"POST /api/v1/invoice": found}) as hesabe, client_of(hesabe) as client:
        client.invoices.create(arabic)

    assert opened(hesabe.received[-1].data)["customerName"] == "أحمد"


@pytest.mark.parametrize("form", [lambda text: text, json.dumps, lambda text: json.dumps({"response": text})])
def test_an_encrypted_answer_is_read_in_every_form(form: Any) -> None:
    answer = form(sealed(ok({"id": 1, "transaction": {"net_amount": 14.9}}))).encode()
    with serving({"GET /api/v1/invoice/1": lambda _: (200, answer)}) as hesabe, client_of(hesabe) as client:
        assert client.invoices.get(1)["transaction"] == {"net_amount": Decimal("14.9")}


def test_a_transaction_is_enquired_for_in_the_clear() -> None:
    transaction = {"token": TOKEN, "amount": "49.000", "status": "SUCCESSFUL"}
    routes = {
        f"GET /api/transaction/{TOKEN}": lambda _: plain(ok(transaction, name="data", results=[transaction])),
        "GET /api/transaction/0": lambda _: refused(404, "Transaction not found"),
        "GET /api/transaction/1": lambda _: (502, b"<html>Bad Gateway</html>"),
    }
    with serving(routes) as hesabe, client_of(hesabe, sleep=lambda seconds: None) as client:
        assert client.transactions.get(TOKEN) == transaction
        with pytest.raises(ProviderError, match="NOT_FOUND"):
            client.transactions.get("0")
        with pytest.raises(ProviderUnavailable, match="HTTP_502"):
            client.transactions.get("1")

    assert hesabe.logins == 0


def test_a_server_that_is_not_there_is_an_outage() -> None:
    with serving() as hesabe:
        pass

    with client_of(hesabe, sleep=lambda seconds: None) as client, pytest.raises(ProviderUnavailable) as failed:
        client.transactions.get(TOKEN)

    assert failed.value.code == "NO_ANSWER"
    assert PASSWORD not in str(failed.value)


def test_a_login_lasts_for_many_calls_and_is_renewed_before_it_ends() -> None:
    clock = Clock()
    with serving({"GET /api/v1/invoice/1": found}) as hesabe, client_of(hesabe, clock=clock) as client:
        for clock.now in (0.0, 400.0, 839.0):
            client.invoices.get(1)
        assert (hesabe.logins, hesabe.refreshes) == (1, 0)

        clock.now = 841.0
        client.invoices.get(1)
        assert (hesabe.logins, hesabe.refreshes) == (1, 1)
        assert hesabe.received[-1].headers["authorization"] == "Bearer access-2"


def test_a_token_that_is_turned_down_is_renewed_once_and_the_call_made_again() -> None:
    with serving({"POST /api/v1/invoice": found}) as hesabe, client_of(hesabe) as client:
        client.invoices.create(SAMPLE)
        hesabe.valid.clear()

        assert client.invoices.create(SAMPLE) == {"id": 1}

    assert (hesabe.logins, hesabe.refreshes) == (1, 1)
    assert len(hesabe.calls) == 3


def test_where_the_refresh_token_is_dead_too_the_login_is_used() -> None:
    with serving({"GET /api/v1/invoice/1": found}) as hesabe, client_of(hesabe) as client:
        client.invoices.get(1)
        hesabe.valid.clear()
        hesabe.refreshes = 10  # other refresh tokens than ours are now good

        client.invoices.get(1)

    assert (hesabe.logins, hesabe.refreshes) == (2, 11)


def test_a_refresh_that_nobody_answers_is_an_outage() -> None:
    clock = Clock()
    with serving({"GET /api/v1/invoice/1": found}) as hesabe, client_of(hesabe, clock=clock, max_wait=0) as client:
        client.invoices.get(1)
        clock.now = 841.0
        hesabe._token = lambda: (503, b"")  # type: ignore[method-assign]  # the server's trouble
        with pytest.raises(ProviderUnavailable, match="HTTP_503"):
            client.invoices.get(1)

    assert (hesabe.logins, hesabe.refreshes) == (1, 1)


def test_a_fresh_token_that_is_turned_down_is_an_error() -> None:
    routes = {"GET /api/v1/invoice/1": lambda _: refused(401, "Invalid Signature.")}
    with serving(routes) as hesabe, client_of(hesabe) as client, pytest.raises(ProviderError, match="UNAUTHORIZED"):
        client.invoices.get(1)

    assert len(hesabe.calls) == 2


def test_another_refusal_costs_no_new_token() -> None:
    routes = {"GET /api/v1/invoice/1": lambda _: refused(506, {"en": "Invalid Request Data", "ar": "لا"}, 506)}
    with serving(routes) as hesabe, client_of(hesabe) as client, pytest.raises(ProviderError) as error:
        client.invoices.get(1)

    assert str(error.value) == "INVALID_REQUEST_DATA: Invalid Request Data"
    assert (hesabe.logins, hesabe.refreshes, len(hesabe.calls)) == (1, 0, 1)


def test_a_wrong_password_is_an_error_that_does_not_show_it() -> None:
    with (
        serving({"GET /api/v1/invoice/1": found}) as hesabe,
        HesabeClient(api_key=f"{API_KEY}x", api_url=hesabe.url) as client,
        pytest.raises(ProviderError, match="UNAUTHORIZED") as error,
    ):
        client.invoices.get(1)

    assert PASSWORD not in str(error.value)
    assert hesabe.calls == []


def test_without_a_login_the_access_code_alone_is_sent() -> None:
    short_key = API_KEY.rsplit(":", 2)[0]
    with (
        serving({"GET /api/v1/invoice/1": found}) as hesabe,
        HesabeClient(api_key=short_key, api_url=hesabe.url) as client,
        pytest.raises(ProviderError, match="UNAUTHORIZED"),
    ):
        client.invoices.get(1)

    assert "authorization" not in hesabe.received[0].headers
    assert hesabe.logins == 0


def test_many_threads_log_in_once_and_renew_once() -> None:
    start = threading.Barrier(8)

    def call(client: HesabeClient) -> Any:
        start.wait(10)
        return client.invoices.get(1)

    with (
        serving({"GET /api/v1/invoice/1": found}) as hesabe,
        client_of(hesabe) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        assert list(pool.map(call, [client] * 8)) == [{"id": 1}] * 8
        assert (hesabe.logins, hesabe.refreshes) == (1, 0)
        hesabe.valid.clear()
        assert list(pool.map(call, [client] * 8)) == [{"id": 1}] * 8

    assert (hesabe.logins, hesabe.refreshes) == (1, 1)


@pytest.mark.parametrize(
    "token",
    [
        *({}, None, [], {"access_token": None}, {"access_token": ""}, {"access_token": "a\nb"}),
        *({"access_token": "a b"}, {"access_token": "é"}, {"access_token": 1}),
    ],
)
def test_a_login_without_a_usable_token_is_an_outage(token: Any) -> None:
    with serving() as hesabe, client_of(hesabe) as client:
        hesabe._token = lambda: plain(ok({"token": token}))  # type: ignore[method-assign]  # another login page
        with pytest.raises(ProviderUnavailable, match="BAD_ANSWER"):
            client.invoices.get(1)

    assert hesabe.calls == []


@pytest.mark.parametrize(
    ("expires_in", "lasts"),
    [(900, 840), ("900", 840), (100, 50), (0, 0), (None, 840), (-1, 840), ("soon", 840), (10**9, 840), (1.5, 840)],
)
def test_a_token_lasts_as_long_as_it_says(expires_in: Any, lasts: float) -> None:
    token = {"access_token": "access", "expires_in": expires_in}
    clock = Clock()
    with serving({"GET /api/v1/invoice/1": found}) as hesabe, client_of(hesabe, clock=clock) as client:
        hesabe.valid.add("access")
        hesabe._token = lambda: plain(ok({"token": token}))  # type: ignore[method-assign]  # another login page
        client.invoices.get(1)
        for clock.now, logins in ((max(0, lasts - 1), 1 if lasts else 2), (lasts + 1, 2 if lasts else 3)):
            client.invoices.get(1)
            assert hesabe.logins == logins

    assert hesabe.refreshes == 0  # it gave no refresh token
