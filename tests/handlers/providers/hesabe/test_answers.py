from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers.hesabe.answers import CODES, Reader, about
from handlers.providers.hesabe.crypto import Cipher
from tests.handlers.providers.hesabe.server import ACCESS_CODE, IV_KEY, SECRET_KEY, ok, sealed

READER = Reader(Cipher(SECRET_KEY, IV_KEY), [ACCESS_CODE, SECRET_KEY])
INVOICE = {"id": 14685, "token": "8417596519189744686058", "amount": "20.000"}


def answer(content: bytes | str, status: int = 200) -> httpx.Response:
    return httpx.Response(status, content=content)


def says(document: Any, status: int = 200) -> httpx.Response:
    return answer(json.dumps(document), status)


def failure(response: httpx.Response) -> ProviderError:
    """The exception, whichever way it comes."""
    if not response.is_success:
        return READER.failure(response)
    with pytest.raises(ProviderError) as refused:
        READER.envelope(response)
    return refused.value


@pytest.mark.parametrize(
    "content",
    [
        sealed(ok(INVOICE)),
        sealed(ok(INVOICE), bits=128),
        f"\n{sealed(ok(INVOICE)).upper()}\r\n",
        json.dumps(sealed(ok(INVOICE))),
        json.dumps({"response": sealed(ok(INVOICE))}),
        json.dumps(ok(INVOICE)),
        json.dumps(ok(INVOICE, name="data")),
        json.dumps(ok(INVOICE, code=200)),
        json.dumps(INVOICE),
        sealed(INVOICE),
    ],
)
def test_an_answer_is_read_in_every_form(content: str) -> None:
    assert about(READER.envelope(answer(content))) == INVOICE


def test_an_answer_may_be_about_nothing() -> None:
    assert about(READER.envelope(says(ok(None)))) is None
    assert about(READER.envelope(says({"status": True, "code": 200, "message": "Subscription cancelled."}))) is None


def test_amounts_are_exact_in_every_form() -> None:
    document = b'{"status":true,"data":{"amount":10.25,"net":14.9,"token":84221716951937729753667644493}}'
    hidden = Cipher(SECRET_KEY, IV_KEY).encrypt(document, block=32)

    for content in (document.decode(), hidden):
        found = about(READER.envelope(answer(content)))
        assert (found["amount"], found["net"]) == (Decimal("10.25"), Decimal("14.9"))
        assert found["token"] == 84221716951937729753667644493


@pytest.mark.parametrize(
    "content",
    [
        *("", " ", "<html>", "null", "[]", "1", "true", '"text"', "[1]", "{", "\xff", '{"a":NaN}', "[" * 100_000),
        *(
            sealed([]),
            sealed("x"),
            sealed(ok())[:-32],
            sealed(ok())[:-2],
            "00" * 16,
            json.dumps({"response": "00" * 16}),
        ),
        *("{}", '{"status":"true"}', '{"status":1}', '{"status":null}', '{"response":{}}', '{"response":"text"}'),
        '{"message":"hello"}',
        b"\xff\xfe",
    ],
)
def test_an_answer_out_of_shape_may_pass(content: str) -> None:
    error = failure(answer(content))

    assert isinstance(error, ProviderUnavailable)
    assert error.code == "BAD_ANSWER"
    assert error.status == 200


@pytest.mark.parametrize(
    ("document", "status", "code", "may_pass"),
    [
        # Single invoice, in the order of its page
        ({"status": False, "message": "Request not found", "response": None}, 404, "NOT_FOUND", False),
        ({"message": "Internal server error occurred"}, 500, "HTTP_500", True),
        (
            {"status": False, "code": 506, "message": "Invalid Request Data", "response": None},
            506,
            "INVALID_REQUEST_DATA",
            False,
        ),
        # Merchant login; Cancel invoice; Cancel subscription; Transaction enquiry
        ({"status": False, "message": "Invalid Signature.", "response": None}, 401, "UNAUTHORIZED", False),
        ({"status": False, "message": "Invoice status update failed", "response": None}, 400, "HTTP_400", False),
        ({"status": False, "code": 400, "message": "Invalid token"}, 400, "HESABE_400", False),
        ({"status": False, "message": "Transaction not found", "data": None}, 404, "NOT_FOUND", False),
        ({"status": False, "message": "Transaction not found", "data": None}, 200, "NOT_FOUND", False),
        # What is a refusal without any code
        ({"status": False, "message": "No"}, 200, "REFUSED", False),
        ({"status": False}, 200, "REFUSED", False),
        ({"status": False, "message": "No", "code": "506"}, 200, "INVALID_REQUEST_DATA", False),
        ({"status": False, "message": "No", "code": [506]}, 200, "REFUSED", False),
        ({"status": False, "message": "No", "code": True}, 200, "REFUSED", False),
        ({"status": False, "message": "No", "code": -1}, 200, "REFUSED", False),
        ({"status": False, "message": "Forbidden"}, 403, "FORBIDDEN", False),
        ({"message": "Unauthenticated."}, 401, "UNAUTHORIZED", False),
        ({"message": "The given data was invalid."}, 422, "INVALID_INPUT", False),
        # A proxy's word on a path is no word on a transaction
        ({"message": "no Route matched with those values"}, 404, "HTTP_404", False),
        # Over a limit, or failed
        ({"message": "Too Many Attempts."}, 429, "TOO_MANY_REQUESTS", True),
        ({"status": False, "message": "Too many"}, 429, "TOO_MANY_REQUESTS", True),
        ({"status": False, "message": "Too many", "code": 429}, 200, "HESABE_429", True),
        ({"status": False, "message": "Too many", "code": 506}, 429, "TOO_MANY_REQUESTS", True),
        ({"status": False, "message": "down"}, 503, "HTTP_503", True),
        ({"status": False, "message": "down", "code": 503}, 503, "INVALID_MERCHANT_SERVICE", True),
        ({"status": False, "message": "down", "code": 500}, 500, "INVALID_TOKEN", True),
        ({"status": False, "message": "down", "code": 999}, 502, "HESABE_999", True),
        # A documented code under another status is what it says
        ({"status": False, "message": "no", "code": 503}, 200, "INVALID_MERCHANT_SERVICE", False),
        ({"status": False, "message": "no", "code": 505}, 500, "INVALID_PAYMENT_TOKEN", False),
        ({"status": False, "message": "no", "code": 501}, 501, "INVALID_MERCHANT", False),
    ],
)
def test_a_refusal_has_a_stable_code(document: dict[str, Any], status: int, code: str, may_pass: bool) -> None:
    for response in (says(document, status), answer(sealed(document), status)):
        error = failure(response)
        assert (error.code, error.status) == (code, status)
        assert isinstance(error, ProviderUnavailable) is may_pass


@pytest.mark.parametrize(("inner", "code"), CODES.items())
def test_every_documented_code_has_a_name(inner: int, code: str) -> None:
    assert failure(says({"status": False, "code": inner, "message": "no", "response": None})).code == code


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
@pytest.mark.parametrize("content", ["", "<html>Bad Gateway</html>", "[]", "{}", sealed([]), "00"])
def test_a_failure_without_json_may_pass(status: int, content: str) -> None:
    error = READER.failure(answer(content, status))

    assert isinstance(error, ProviderUnavailable)
    assert (error.code, error.status) == (f"HTTP_{status}", status)


@pytest.mark.parametrize("status", [301, 302, 400, 401, 403, 404])
@pytest.mark.parametrize("content", ["", "<html>Not Found</html>", "{}", '{"message": null}'])
def test_an_answer_of_somebody_else_may_pass(status: int, content: str) -> None:
    error = READER.failure(answer(content, status))

    assert isinstance(error, ProviderUnavailable)
    assert (error.code, error.status) == ("BAD_ANSWER", status)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("Invalid Request Data", "Invalid Request Data"),
        ({"en": "Invalid", "ar": "غير صالح"}, "Invalid"),
        ({"ar": "غير صالح"}, "غير صالح"),
        ({"en": "", "ar": "غير صالح"}, "غير صالح"),
        ({"fr": "non"}, ""),
        (None, ""),
        (["a"], ""),
        ("x" * 600, "x" * 500),
        ("a\ud800b", "a?b"),
        (f"for {ACCESS_CODE}", "for ***"),
        ("x" * 480 + ACCESS_CODE, "x" * 480 + "***"),
    ],
)
def test_a_message_is_fit_for_a_log(message: Any, text: str) -> None:
    assert str(failure(says({"status": False, "code": 506, "message": message}))) == f"INVALID_REQUEST_DATA: {text}"


@pytest.mark.parametrize("name", ["data", "errors", "response"])
def test_what_is_said_of_single_fields_is_kept(name: str) -> None:
    told = {"amount": ["The amount is required.", ACCESS_CODE], "other": "text", "expiresAt": ["No date."]}

    error = failure(says({"status": False, "code": 422, "message": "Invalid input", name: told}))

    assert error.details == (
        {"field": "amount", "message": "The amount is required."},
        {"field": "amount", "message": "***"},
        {"field": "expiresAt", "message": "No date."},
    )


@given(st.binary(max_size=200) | st.binary(min_size=16, max_size=64).map(lambda data: data.hex().encode()))
def test_any_answer_is_an_object_or_unavailable(content: bytes) -> None:
    try:
        document = READER.document(answer(content))
    except ProviderUnavailable:
        return
    assert isinstance(document, dict)


@given(st.integers(300, 599), st.binary(max_size=100) | st.text(max_size=20).map(lambda text: sealed(text).encode()))
def test_any_failure_is_an_exception(status: int, content: bytes) -> None:
    assert isinstance(READER.failure(answer(content, status)), ProviderError)
