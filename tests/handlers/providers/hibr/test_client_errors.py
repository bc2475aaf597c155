from __future__ import annotations

import logging
import traceback
from typing import Any

import httpx
import pytest

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers.hibr.client import HibrClient
from handlers.providers.hibr.failures import ERROR_CODES

KEY = "hibr_live_s3cret0123456789"
REFERENCE = """
| HTTP status | Error code (sample) | Meaning |
|---|---|---|
| 400 | invalid_request_error | Request body or query parameter is malformed. |
| 401 | authentication_error | API key missing, malformed, or revoked. |
| 403 | permission_error | API key valid but lacks the required scope. |
| 404 | not_found | Resource doesn't exist or you don't have access. |
| 409 | conflict_error | State conflict (e.g., trying to delete a posted invoice). |
| 422 | validation_error | Business rule violation (e.g., negative VAT amount). |
| 429 | rate_limit_error | Rate limit exceeded. Retry after the Retry-After seconds. |
| 500 | api_error | Internal error. Include the request_id if you contact support. |
| 503 | service_unavailable | Temporary unavailability. Retry with exponential backoff. |
"""
"""The table of the API reference, section Errors."""
SAMPLE = {
    "code": "invalid_request_error",
    "message": "The 'amount' field must be a positive integer in fils.",
    "field": "lines[0].unit_price",
    "docs_url": "https://hibr.ai/developers/api/#money",
    "request_id": "req_01HFQB...",
}


def failure(response: httpx.Response) -> ProviderError:
    transport = httpx.MockTransport(lambda request: response)
    with HibrClient(api_key=KEY, transport=transport, max_wait=0) as client, pytest.raises(ProviderError) as failed:
        client.invoices.get("inv_1")
    return failed.value


def refused(status: int, error: Any, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"error": error}, headers=headers)


def documented() -> list[tuple[str, int]]:
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in REFERENCE.strip().splitlines()[2:]]
    return [(code, int(status)) for status, code, _ in rows]


def test_the_table_of_codes_is_the_one_of_the_reference() -> None:
    assert list(ERROR_CODES.items()) == documented()


@pytest.mark.parametrize(("code", "status"), documented())
def test_each_code_is_an_exception_that_says_whether_to_try_again(code: str, status: int) -> None:
    error = failure(refused(status, {**SAMPLE, "code": code}))

    assert (error.code, error.status) == (code, status)
    assert isinstance(error, ProviderUnavailable) == (status == 429 or status >= 500)


def test_the_documented_error_is_told_with_all_it_says() -> None:
    error = failure(refused(400, SAMPLE))

    assert type(error) is ProviderError
    assert str(error) == (
        "invalid_request_error: The 'amount' field must be a positive integer in fils. "
        "(lines[0].unit_price, req_01HFQB...)"
    )
    assert error.request_id == "req_01HFQB..."
    assert error.details == ({name: SAMPLE[name] for name in ("field", "message", "docs_url")},)


def test_an_error_may_say_less_or_more() -> None:
    bare = failure(refused(418, {"code": "new_error"}))
    nulls = failure(refused(409, {"code": "conflict_error", "message": None, "field": None, "x": {}}))

    assert (bare.code, bare.status, str(bare), bare.details, bare.request_id) == (
        "new_error",
        418,
        "new_error: ",
        (),
        None,
    )
    assert (nulls.code, nulls.details) == ("conflict_error", ())


def test_the_wait_that_a_limit_asks_for_is_told() -> None:
    error = failure(refused(429, {"code": "rate_limit_error", "message": "Slow down"}, **{"Retry-After": "17"}))

    assert isinstance(error, ProviderUnavailable)
    assert (error.code, error.retry_after) == ("rate_limit_error", 17.0)


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(502, html="<h1>Bad Gateway</h1>"),
        httpx.Response(500, json={"error": "oops"}),
        httpx.Response(503),
        httpx.Response(429, json=[]),
    ],
)
def test_a_failure_without_a_code_is_named_by_its_status(response: httpx.Response) -> None:
    error = failure(response)

    assert isinstance(error, ProviderUnavailable)
    assert (error.code, error.status) == (f"HTTP_{response.status_code}", response.status_code)


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, html="<h1>Welcome</h1>"),
        httpx.Response(302, headers={"Location": "https://elsewhere.example/"}),
        httpx.Response(302, json={"error": SAMPLE}),
        httpx.Response(403, html="<h1>Blocked</h1>"),
        refused(400, "bad"),
        refused(400, {"code": 7}),
        refused(400, {"code": ""}),
        refused(400, None),
    ],
)
def test_an_answer_of_somebody_else_may_pass(response: httpx.Response) -> None:
    error = failure(response)

    assert isinstance(error, ProviderUnavailable)
    assert (error.code, error.status) == ("BAD_ANSWER", response.status_code)


def test_the_texts_of_an_error_are_cut() -> None:
    error = failure(refused(400, {**SAMPLE, "message": "x" * 100_000, "field": "y" * 100_000}))

    assert len(str(error)) < 1500


def test_a_key_that_the_api_repeats_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    error = failure(
        refused(401, {"code": "authentication_error", "message": f"no key {KEY}", "field": f"Bearer {KEY}"})
    )

    assert error.code == "authentication_error"
    assert KEY not in "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error)) + caplog.text
