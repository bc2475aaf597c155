from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest

from handlers.errors import ProviderError, ProviderUnavailable, VerificationError
from handlers.event import Event
from handlers.providers.hesabe.client import HesabeClient
from handlers.providers.hesabe.webhook import confirm, parse, sample
from tests.handlers.providers.hesabe.server import API_KEY, TOKEN, ok, plain, refused, serving

EVENT = parse([], orjson.dumps(sample("transaction.successful")))
FOUND = {
    "token": TOKEN,
    "amount": "49.000",
    "reference_number": "1695193758",
    "status": "SUCCESSFUL",
    "TransactionID": "424210001296274",
    "Id": 129179,
    "payment_type": "KNET",
    "datetime": "2023-09-20 10:09:36",
}


def answering(answer: httpx.Response | Exception) -> HesabeClient:
    def transport(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return HesabeClient(api_key=API_KEY, transport=httpx.MockTransport(transport), sleep=lambda seconds: None)


def knowing(**changes: Any) -> HesabeClient:
    """A client of an API that has the transaction, with some members replaced; `...` leaves one out."""
    found = {name: value for name, value in {**FOUND, **changes}.items() if value is not ...}
    return answering(httpx.Response(200, json=ok(found, name="data")))


def test_an_event_that_hesabe_knows_is_true() -> None:
    routes = {f"GET /api/transaction/{TOKEN}": lambda _: plain(ok(FOUND, name="data", results=[FOUND]))}
    with serving(routes) as hesabe, HesabeClient(api_key=API_KEY, api_url=hesabe.url) as client:
        confirm(client, EVENT)

    assert hesabe.calls == [f"GET /api/transaction/{TOKEN}"]


@pytest.mark.parametrize("amount", ["49.000", "49", "49.0", 49, 49.0])
def test_amounts_agree_as_numbers(amount: Any) -> None:
    confirm(knowing(amount=amount), EVENT)
    confirm(knowing(), replace(EVENT, data={**EVENT.data, "amount": str(amount)}))


@pytest.mark.parametrize("changes", [{"status": "Successful"}, {"reference_number": 1695193758}, {"datetime": "other"}])
def test_spelling_and_type_do_not_matter(changes: dict[str, Any]) -> None:
    confirm(knowing(**changes), EVENT)


@pytest.mark.parametrize(
    "changes",
    [
        *({"token": "84221716951937729753667644494"}, {"token": None}, {"token": ...}),
        *(
            {"amount": "49.001"},
            {"amount": "48.999"},
            {"amount": 4900},
            {"amount": "49.000 "},
            {"amount": "KWD 49.000"},
        ),
        *({"amount": None}, {"amount": ...}, {"amount": True}, {"amount": []}, {"amount": "NaN"}, {"amount": "٤٩"}),
        *({"reference_number": "1695193759"}, {"reference_number": None}, {"reference_number": ...}),
        *({"status": "FAILED"}, {"status": "REFUNDED"}, {"status": None}, {"status": ...}, {"status": True}),
    ],
)
def test_an_event_that_differs_from_hesabes_record_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(VerificationError) as error:
        confirm(knowing(**changes), EVENT)

    assert error.value.reason == "mismatch"
    assert next(iter(changes)) in str(error.value)
    assert TOKEN not in str(error.value)


@pytest.mark.parametrize("claimed", [{"amount": "49.001"}, {"status": "REFUNDED"}, {"reference_number": "1"}])
def test_a_forged_event_about_a_true_transaction_is_refused(claimed: dict[str, str]) -> None:
    forged = parse([], orjson.dumps({**sample("transaction.successful"), **claimed}))

    with pytest.raises(VerificationError, match=next(iter(claimed))):
        confirm(knowing(), forged)


@pytest.mark.parametrize(
    "answer",
    [
        refused(404, "Transaction not found"),
        refused(200, "Transaction not found"),
        refused(200, {"en": "Transaction not found"}),
        refused(200, "Invalid token", 505),
        refused(500, "Invalid token", 505),
    ],
)
def test_an_event_of_a_transaction_that_hesabe_does_not_know_is_refused(answer: tuple[int, bytes]) -> None:
    with pytest.raises(VerificationError) as error:
        confirm(answering(httpx.Response(answer[0], content=answer[1])), EVENT)

    assert error.value.reason == "mismatch"


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(503, json={"status": False, "message": "down"}),
        httpx.Response(429),
        httpx.Response(429, json={"status": False, "code": 505, "message": "Transaction not found"}),
        httpx.Response(404, text="<html>Not Found</html>"),
        httpx.Response(200, text="<html>Maintenance</html>"),
        httpx.Response(200, json={"status": True, "data": None}),
        httpx.ConnectError("no"),
        httpx.ReadTimeout("slow"),
    ],
)
def test_an_outage_does_not_make_an_event_false(answer: httpx.Response | Exception) -> None:
    with pytest.raises(ProviderUnavailable):
        confirm(answering(answer), EVENT)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (httpx.Response(401, json={"message": "Unauthenticated."}), "UNAUTHORIZED"),
        (httpx.Response(403, json={"status": False, "message": "Forbidden"}), "FORBIDDEN"),
        (httpx.Response(404, json={"message": "no Route matched"}), "HTTP_404"),
        (httpx.Response(200, json={"status": False, "code": 501, "message": "Invalid merchant"}), "INVALID_MERCHANT"),
        (httpx.Response(200, json={"status": False, "message": "Invalid access code"}), "REFUSED"),
    ],
)
def test_a_refused_enquiry_does_not_make_an_event_false(answer: httpx.Response, code: str) -> None:
    with pytest.raises(ProviderError) as error:
        confirm(answering(answer), EVENT)

    assert error.value.code == code
    assert not isinstance(error.value, ProviderUnavailable)


@pytest.mark.parametrize(
    "data", [{}, {"token": None}, {"token": "a/b"}, {"token": ".."}, {"token": 1}, {"token": TOKEN}]
)
def test_an_event_without_a_transaction_is_refused(data: dict[str, Any]) -> None:
    other = Event(type="transaction.successful", data=data, occurred_at=EVENT.occurred_at)

    with pytest.raises(VerificationError, match=r"no transaction|another amount"):
        confirm(knowing(), other)


def test_of_several_attempts_the_one_of_the_event_counts() -> None:
    failed = {**FOUND, "token": "1", "status": "FAILED"}
    routes = {f"GET /api/transaction/{TOKEN}": lambda _: plain(ok(failed, name="data", results=[failed, FOUND]))}
    with serving(routes) as hesabe, HesabeClient(api_key=API_KEY, api_url=hesabe.url) as client:
        confirm(client, EVENT)
