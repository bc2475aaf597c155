"""Whatever is sent to the Hesabe sandbox, it answers with one of its documented bodies and never breaks."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.providers.hesabe.crypto import Cipher
from tests.handlers.providers.hesabe.server import IV_KEY, SECRET_KEY
from tests.handlers.providers.hesabe.test_sandbox import (
    INTERNAL,
    INVALID,
    INVOICE,
    NOT_FOUND,
    SUBSCRIPTION,
    Sandbox,
)

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=4), children, max_size=3),
    max_leaves=6,
)
CALLS = [
    ("POST", "/api/v1/invoice", INVOICE),
    ("POST", "/api/v1/invoice/", SUBSCRIPTION),
    ("PUT", "/api/v1/invoice/1", {"statusId": "3"}),
    ("POST", "/api/v1/invoice/resend", {"mobileNumber": "66666666", "resendId": "1", "countryCode": "965"}),
    ("POST", "/api/v1/refund", {"refundAmount": "1.000", "refundMethod": "1", "token": "1"}),
    ("POST", "/api/subscription/capture", {"amount": "1.000", "orderReferenceNumber": "1", "paymentToken": "1"}),
]


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox()


def is_documented(answer: httpx.Response) -> bool:
    if answer.is_success:
        return True
    return answer.json() != INTERNAL and (
        answer.json() in (INVALID, NOT_FOUND) or answer.json()["code"] in (501, 505, 507)
    )


@SLOW
@given(call=st.sampled_from(CALLS), data=st.data())
def test_any_value_in_any_field_is_taken_or_refused(sandbox: Sandbox, call: Any, data: Any) -> None:
    method, path, members = call
    changes = data.draw(st.dictionaries(st.sampled_from(sorted({**INVOICE, **members})), VALUES, max_size=3))

    assert is_documented(sandbox.call(method, path, **(members | changes)))


@SLOW
@given(
    plain=st.binary(max_size=80) | st.text(max_size=40).map(lambda text: json.dumps({"merchantCode": text}).encode())
)
def test_any_plaintext_is_refused(sandbox: Sandbox, plain: bytes) -> None:
    answer = sandbox.post_sealed("POST", "/api/v1/invoice", Cipher(SECRET_KEY, IV_KEY).encrypt(plain))

    assert not answer.is_success
    assert is_documented(answer)


@SLOW
@given(body=st.binary(max_size=200))
def test_any_body_is_refused(sandbox: Sandbox, body: bytes) -> None:
    answers = [
        sandbox.send("POST", path, headers=sandbox.headers, content=body)
        for path in ("/api/v1/login", "/api/v1/token-refresh", "/api/v1/invoice", "/api/subscription/capture")
    ]

    assert all(not answer.is_success and is_documented(answer) for answer in answers)


@pytest.mark.parametrize("amount", ["1e-9", "1e-400", "1e400", "1E+999999999", "1e-999999999", "-0.0"])
def test_an_amount_of_any_exponent_is_refused_at_once(sandbox: Sandbox, amount: str) -> None:
    members = '"merchantCode":"842217","orderReferenceNumber":"1","paymentToken":"1"'
    hidden = Cipher(SECRET_KEY, IV_KEY).encrypt(f'{{{members},"amount":{amount}}}')

    answer = sandbox.post_sealed("POST", "/api/subscription/capture", hidden)

    assert (answer.status_code, answer.json()) == (506, INVALID)


@pytest.mark.parametrize("header", ["accessCode", "Authorization"])
@pytest.mark.parametrize("value", [b"", b"\xff", b"Bearer", b"Bearer \xff\xfe", b"Bearer " + b"x" * 5000])
def test_any_header_is_unauthorized(sandbox: Sandbox, header: str, value: bytes) -> None:
    headers: dict[str, Any] = {**sandbox.headers, header: value}

    assert sandbox.send("POST", "/api/v1/invoice", headers=headers, json={}).status_code == 401
