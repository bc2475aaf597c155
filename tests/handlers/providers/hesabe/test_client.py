from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers import PROVIDERS
from handlers.providers.hesabe.client import DEFAULT_API_URL, SANDBOX_API_URL, HesabeClient
from handlers.providers.hesabe.models import RefundMethod, SingleInvoice, SubscriptionInvoice, SubscriptionType
from tests.handlers.providers.hesabe.server import (
    ACCESS_CODE,
    API_KEY,
    IV_KEY,
    MERCHANT_CODE,
    SECRET_KEY,
    TOKEN,
    ok,
    opened,
    sealed,
)

SHORT_KEY = f"{MERCHANT_CODE}:{ACCESS_CODE}:{SECRET_KEY}:{IV_KEY}"
TRANSACTION: dict[str, Any] = {
    "token": TOKEN,
    "amount": "49.000",
    "reference_number": "1695193758",
    "status": "SUCCESSFUL",
}
SINGLE = SingleInvoice(
    mobile_number="66666666",
    customer_name="TEST",
    amount="20.000",
    invoice_type="1",
    invoice_sub_type="3",
    payment_types=["1"],
    expires_at="2025-12-12",
)
RECURRING = SubscriptionInvoice(
    mobile_number="66666666",
    customer_name="TEST",
    amount="20.000",
    invoice_type="1",
    invoice_sub_type="3",
    payment_types=["1"],
    expires_at="2025-12-12",
    subscription_type=SubscriptionType.ZERO,
    recurrences=3,
    start_date="2025-02-12",
)


class Recorder:
    """Answers with what the test says, and keeps the requests."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []
        self._answers = list(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, api_key: str = SHORT_KEY, **options: Any) -> HesabeClient:
        return HesabeClient(
            api_key=api_key, transport=httpx.MockTransport(self), sleep=self.slept.append, clock=lambda: 0.0, **options
        )

    @property
    def calls(self) -> list[str]:
        return [f"{request.method} {request.url.host}{request.url.raw_path.decode()}" for request in self.requests]

    def sent(self) -> list[tuple[str, Any]]:
        """The members of the last request, in their order."""
        request = self.requests[-1]
        data = request.url.params["data"] if request.method == "GET" else json.loads(request.content)["data"]
        return list(opened(data).items())


def says(document: Any, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=document)


def hidden(document: Any) -> httpx.Response:
    return httpx.Response(200, json={"response": sealed(document)})


@pytest.mark.parametrize(
    ("call", "expected", "members"),
    [
        (
            lambda hesabe: hesabe.invoices.get(14696),
            f"GET merchantapi.hesabe.com/api/v1/invoice/14696?data={sealed({'merchantCode': MERCHANT_CODE})}",
            [],
        ),
        (
            lambda hesabe: hesabe.invoices.resend("1782", mobile_number="66666666"),
            "POST merchantapi.hesabe.com/api/v1/invoice/resend",
            [("mobileNumber", "66666666"), ("resendId", "1782"), ("countryCode", "965")],
        ),
        (
            lambda hesabe: hesabe.refunds.create(token=TOKEN, amount=Decimal("10.000"), method=RefundMethod.FULL),
            "POST merchantapi.hesabe.com/api/v1/refund",
            [("refundAmount", "10.000"), ("refundMethod", "1"), ("token", TOKEN)],
        ),
        (
            lambda hesabe: hesabe.refunds.create(token=TOKEN, amount="1.000", method="2"),
            "POST merchantapi.hesabe.com/api/v1/refund",
            [("refundAmount", "1.000"), ("refundMethod", "2"), ("token", TOKEN)],
        ),
        (
            lambda hesabe: hesabe.refunds.get("1468"),
            f"GET merchantapi.hesabe.com/api/v1/refund/1468?data={sealed({'merchantCode': MERCHANT_CODE})}",
            [],
        ),
        (
            lambda hesabe: hesabe.subscriptions.capture(token=TOKEN, amount="10.000", reference_number="1000"),
            "POST api.hesabe.com/api/subscription/capture",
            [("amount", "10.000"), ("orderReferenceNumber", "1000"), ("paymentToken", TOKEN)],
        ),
    ],
)
def test_each_call_has_its_path_and_its_members(
    call: Callable[[HesabeClient], Any], expected: str, members: list[tuple[str, Any]]
) -> None:
    hesabe = Recorder(hidden(ok({"id": 1})))

    assert call(hesabe.client()) == {"id": 1}
    assert hesabe.calls == [expected]
    assert hesabe.sent() == [("merchantCode", MERCHANT_CODE), *members]
    assert hesabe.requests[0].headers["accesscode"] == ACCESS_CODE


def test_both_kinds_of_invoice_are_created() -> None:
    hesabe = Recorder(hidden(ok({"id": 1})))
    client = hesabe.client()

    assert client.invoices.create(SINGLE) == {"id": 1}
    assert hesabe.sent()[:2] == [("merchantCode", MERCHANT_CODE), ("mobileNumber", "66666666")]
    assert client.invoices.create_subscription(RECURRING) == {"id": 1}
    assert hesabe.sent()[-3:] == [("noofRecurrence", "3"), ("SubscriptionType", "0"), ("startDate", "2025-02-12")]
    assert hesabe.calls == [f"POST merchantapi.hesabe.com/api/v1/invoice{end}" for end in ("", "/")]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda hesabe: hesabe.invoices.cancel("8417596678339677489"), "PUT {}/api/v1/invoice/8417596678339677489"),
        (lambda hesabe: hesabe.refunds.cancel(1461), "DELETE {}/api/v1/refund/1461"),
        (lambda hesabe: hesabe.subscriptions.cancel(TOKEN), f"DELETE api.hesabe.com/api/subscription/cancel/{TOKEN}"),
    ],
)
def test_what_is_cancelled_gives_nothing(call: Callable[[HesabeClient], None], expected: str) -> None:
    hesabe = Recorder(says({"status": True, "code": 200, "message": "Subscription cancelled."}))

    call(hesabe.client())

    assert hesabe.calls == [expected.format("merchantapi.hesabe.com")]


def test_a_subscription_is_cancelled_without_credentials() -> None:
    hesabe = Recorder(says(ok()))

    hesabe.client(API_KEY).subscriptions.cancel(TOKEN)

    assert not {"accesscode", "authorization"} & set(hesabe.requests[0].headers)
    assert hesabe.requests[0].content == b""


@pytest.mark.parametrize(
    ("options", "merchant", "gateway"),
    [
        ({}, "merchantapi.hesabe.com", "api.hesabe.com"),
        ({"api_url": DEFAULT_API_URL}, "merchantapi.hesabe.com", "api.hesabe.com"),
        ({"api_url": SANDBOX_API_URL}, "merchantapisandbox.hesabe.com", "sandbox.hesabe.com"),
        ({"api_url": f"{SANDBOX_API_URL}/"}, "merchantapisandbox.hesabe.com", "sandbox.hesabe.com"),
        ({"api_url": "http://127.0.0.1:8010"}, "127.0.0.1", "127.0.0.1"),
        ({"gateway_url": "https://gate.example"}, "merchantapi.hesabe.com", "gate.example"),
        ({"merchant_api_url": SANDBOX_API_URL}, "merchantapisandbox.hesabe.com", "sandbox.hesabe.com"),
        ({"merchant_api_url": "https://a.example", "gateway_url": "https://b.example"}, "a.example", "b.example"),
    ],
)
def test_the_gateway_follows_from_the_merchant_api(options: dict[str, str], merchant: str, gateway: str) -> None:
    hesabe = Recorder(says(ok({"token": TOKEN}, name="data")))
    client = hesabe.client(**options)

    client.invoices.get(1)
    client.transactions.get(TOKEN)

    assert [request.url.host for request in hesabe.requests] == [merchant, gateway]


def test_a_transaction_is_found_by_its_token() -> None:
    hesabe = Recorder(says(ok(TRANSACTION, name="data", results=[TRANSACTION])))

    assert hesabe.client(API_KEY).transactions.get(TOKEN) == TRANSACTION
    assert hesabe.calls == [f"GET api.hesabe.com/api/transaction/{TOKEN}"]
    assert hesabe.requests[0].headers["accesscode"] == ACCESS_CODE
    assert "authorization" not in hesabe.requests[0].headers


@pytest.mark.parametrize(
    "envelope",
    [
        ok({**TRANSACTION, "token": "1"}, name="data", results=[{"token": "2"}, TRANSACTION]),
        ok({"data": [{"token": "2"}, TRANSACTION]}, name="data"),
        ok([TRANSACTION], name="data"),
        ok(None, name="data", results=[TRANSACTION]),
        {"status": True, "results": [TRANSACTION]},
    ],
)
def test_of_several_attempts_the_one_with_the_token_is_meant(envelope: dict[str, Any]) -> None:
    assert Recorder(says(envelope)).client().transactions.get(TOKEN) == TRANSACTION


def test_a_token_that_is_a_number_is_compared_exactly() -> None:
    other = TOKEN[:-1] + "4"
    content = f'{{"status":true,"data":[{{"token":{other}}},{{"token":{TOKEN}}}]}}'

    found = Recorder(httpx.Response(200, content=content)).client().transactions.get(TOKEN)

    assert found == {"token": int(TOKEN)}


def test_every_attempt_under_a_reference_is_found() -> None:
    failed = {**TRANSACTION, "token": "1", "status": "FAILED"}
    hesabe = Recorder(says(ok(TRANSACTION, name="data", results=[failed, TRANSACTION])))

    assert hesabe.client().transactions.find("1695193758") == [failed, TRANSACTION]
    assert hesabe.calls == ["GET api.hesabe.com/api/transaction/1695193758?isOrderReference=1"]
    single: list[dict[str, Any]] = [{"data": TRANSACTION}, {"data": TRANSACTION, "results": []}]
    for alone in (*single, {"data": {"data": [TRANSACTION]}}):
        assert Recorder(says({"status": True, **alone})).client().transactions.find("1") == [TRANSACTION]


@pytest.mark.parametrize("status", [200, 404])
def test_a_transaction_that_does_not_exist_is_told_from_an_outage(status: int) -> None:
    missing = {"status": False, "message": "Transaction not found", "data": None}

    for enquire in ("get", "find"):
        with pytest.raises(ProviderError) as refused:
            getattr(Recorder(says(missing, status)).client().transactions, enquire)(TOKEN)
        assert refused.value.code == "NOT_FOUND"
        assert not isinstance(refused.value, ProviderUnavailable)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(503),
        httpx.Response(404, text="<html>Not Found</html>"),
        httpx.Response(200, text="<html>Maintenance</html>"),
        httpx.ConnectError("no"),
        httpx.ReadTimeout("slow"),
        says({"status": True, "data": None}),
        says({"status": True, "data": []}),
        says({"status": True, "data": "x"}),
        says({"status": True, "data": {"data": []}}),
    ],
)
def test_an_outage_says_nothing_of_a_transaction(answer: httpx.Response | Exception) -> None:
    for enquire in ("get", "find"):
        with pytest.raises(ProviderUnavailable):
            getattr(Recorder(answer).client().transactions, enquire)(TOKEN)


@pytest.mark.parametrize("found", [None, [], "text", True])
def test_an_answer_without_a_resource_may_pass(found: Any) -> None:
    client = Recorder(hidden(ok(found))).client()
    calls: list[Callable[[], Any]] = [
        lambda: client.invoices.create(SINGLE),
        lambda: client.invoices.create_subscription(RECURRING),
        lambda: client.invoices.get(1),
        lambda: client.invoices.resend(1, mobile_number="66666666"),
        lambda: client.refunds.create(token=TOKEN, amount="1.000", method="2"),
        lambda: client.refunds.get(1),
        lambda: client.subscriptions.capture(token=TOKEN, amount="1.000", reference_number="1"),
    ]

    for call in calls:
        with pytest.raises(ProviderUnavailable, match="BAD_ANSWER"):
            call()


@pytest.mark.parametrize(
    "call",
    [
        lambda hesabe: hesabe.invoices.get(0),
        lambda hesabe: hesabe.invoices.get("../login"),
        lambda hesabe: hesabe.invoices.get(True),
        lambda hesabe: hesabe.invoices.cancel(".."),
        lambda hesabe: hesabe.invoices.resend(1, mobile_number="x"),
        lambda hesabe: hesabe.invoices.resend(1, mobile_number="66666666", country_code=""),
        lambda hesabe: hesabe.transactions.get(""),
        lambda hesabe: hesabe.transactions.find(".."),
        lambda hesabe: hesabe.refunds.create(token=TOKEN, amount="10.00", method="1"),
        lambda hesabe: hesabe.refunds.create(token=TOKEN, amount="10.000", method="0"),
        lambda hesabe: hesabe.refunds.create(token="", amount="10.000", method="1"),
        lambda hesabe: hesabe.refunds.cancel("1/2"),
        lambda hesabe: hesabe.subscriptions.capture(token=TOKEN, amount="10", reference_number="1"),
        lambda hesabe: hesabe.subscriptions.capture(token=TOKEN, amount="10.000", reference_number=""),
        lambda hesabe: hesabe.subscriptions.capture(token="", amount="10.000", reference_number="1"),
        lambda hesabe: hesabe.subscriptions.cancel("."),
    ],
)
def test_what_cannot_be_right_is_refused_before_a_byte_is_sent(call: Callable[[HesabeClient], Any]) -> None:
    hesabe = Recorder(hidden(ok({"id": 1})))

    with pytest.raises(ValueError, match=r"must|not an id"):
        call(hesabe.client(API_KEY))

    assert hesabe.calls == []


def test_an_id_stays_within_its_segment() -> None:
    hesabe = Recorder(says(ok({"token": "x"}, name="data")))

    hesabe.client().transactions.get("../api/v1?x=1#y")

    assert hesabe.calls == ["GET api.hesabe.com/api/transaction/..%2Fapi%2Fv1%3Fx%3D1%23y"]


def test_a_lost_answer_is_asked_for_again_only_where_nothing_changes() -> None:
    reading = Recorder(httpx.ConnectError("no"), hidden(ok({"id": 1})))
    writing = Recorder(httpx.ConnectError("no"), hidden(ok({"id": 1})))

    assert reading.client().invoices.get(1) == {"id": 1}
    with pytest.raises(ProviderUnavailable, match="NO_ANSWER"):
        writing.client().invoices.create(SINGLE)

    assert (len(reading.calls), len(writing.calls)) == (2, 1)


def test_a_limit_is_waited_out() -> None:
    hesabe = Recorder(httpx.Response(429, headers={"Retry-After": "7"}), hidden(ok({"id": 1})))

    assert hesabe.client().invoices.create(SINGLE) == {"id": 1}
    assert hesabe.slept == [7.0]


def test_a_caller_that_does_not_wait_is_told_how_long() -> None:
    hesabe = Recorder(httpx.Response(429, headers={"Retry-After": "7"}))

    with pytest.raises(ProviderUnavailable) as failed:
        hesabe.client(max_wait=0).invoices.create(SINGLE)

    assert (failed.value.status, failed.value.retry_after, hesabe.slept) == (429, 7.0, [])


def test_no_credential_shows_in_an_error() -> None:
    echo = {"status": False, "code": 506, "message": f"bad {ACCESS_CODE} {SECRET_KEY}"}

    with pytest.raises(ProviderError) as refused:
        Recorder(says(echo, 506)).client().invoices.get(1)

    assert str(refused.value) == "INVALID_REQUEST_DATA: bad *** ***"


def test_a_closed_client_is_closed_for_both_apis() -> None:
    with Recorder(hidden(ok({"id": 1}))).client() as client:
        pass

    with pytest.raises(RuntimeError, match="closed"):
        client.invoices.get(1)
    with pytest.raises(RuntimeError, match="closed"):
        client.transactions.get(TOKEN)


def test_the_table_of_providers_makes_the_client() -> None:
    make = PROVIDERS["hesabe"].client

    assert make is not None
    with make(api_key=API_KEY, api_url=SANDBOX_API_URL) as client:
        assert isinstance(client, HesabeClient)


def test_deliveries_are_read_without_an_http_client_or_the_cipher() -> None:
    code = (
        "import sys, handlers.providers.hesabe.webhook as webhook; webhook.sample('transaction.failed');"
        "print({'httpx', 'starlette', 'handlers.providers.hesabe.crypto'} & set(sys.modules))"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "set()"
