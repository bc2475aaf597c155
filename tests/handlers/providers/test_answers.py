from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers.answers import (
    MAX_DETAILS,
    MAX_MESSAGE,
    RateLimit,
    failure_of_envelope,
    rate_limit,
    refusal,
    retry_after,
    wait_asked,
)

NOW = datetime(2026, 6, 5, 14, tzinfo=UTC)
DATE = "Fri, 05 Jun 2026 14:00:00 GMT"

json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["code", "message", "details", "field"]), inner),
)


def refused(status: int, error: Any, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"success": False, "error": error}, headers=headers)


def test_a_refusal_has_the_code_of_the_provider_and_its_details() -> None:
    details = [{"field": "issue_date", "message": "is required"}, {"message": "no items", "rule": 7}, {}]
    answer = refused(400, {"code": "VALIDATION_ERROR", "message": "Not valid", "details": details}, X_Request_Id="no")
    answer.headers["X-Request-Id"] = "req_1"

    error = failure_of_envelope(answer)

    assert type(error) is ProviderError
    assert (error.code, error.status, error.request_id) == ("VALIDATION_ERROR", 400, "req_1")
    assert error.details == ({"field": "issue_date", "message": "is required"}, {"message": "no items"})
    assert str(error) == "VALIDATION_ERROR: Not valid; issue_date: is required; no items"


@pytest.mark.parametrize(
    ("details", "read"),
    [
        (None, ()),
        ("invoices:write", ()),
        (["invoices:write"], ({"message": "invoices:write"},)),
        ({"scopes": ["a:read", "a:write"]}, ({"field": "scopes", "message": "a:read, a:write"},)),
        ([{"field": None, "message": {"a": 1}}], ({"field": "", "message": ""},)),
        ([{"field": "limit", "message": 7}], ({"field": "limit", "message": "7"},)),
        ([{"message": "x"}] * (MAX_DETAILS + 1), ({"message": "x"},) * MAX_DETAILS),
    ],
)
def test_details_may_have_another_shape(details: Any, read: tuple[dict[str, str], ...]) -> None:
    error = refusal({"error": {"code": "FORBIDDEN", "message": "No", "details": details}}, status=403)

    assert error is not None
    assert error.details == read


@given(json)
def test_any_error_is_an_exception_or_none(error: Any) -> None:
    found = refusal({"error": error}, status=400)

    assert found is None or len(str(found)) <= 2 * MAX_MESSAGE + 2


def test_the_message_of_an_error_is_cut() -> None:
    error = refusal({"error": {"code": "A", "message": "x" * 10_000}}, status=400)

    assert str(error) == f"A: {'x' * MAX_MESSAGE}"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_limit_or_a_failure_may_pass(status: int) -> None:
    error = failure_of_envelope(refused(status, {"code": "SOME_CODE", "message": "Later"}))

    assert isinstance(error, ProviderUnavailable)
    assert (error.code, error.status) == ("SOME_CODE", status)


def test_a_failure_in_html_is_named_by_its_status() -> None:
    error = failure_of_envelope(httpx.Response(502, html="<h1>Bad Gateway</h1>"))

    assert isinstance(error, ProviderUnavailable)
    assert (error.code, error.status, error.retry_after) == ("HTTP_502", 502, None)


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(301, headers={"Location": "https://elsewhere.example/"}),
        refused(302, {"code": "MOVED", "message": "elsewhere"}),
        httpx.Response(403, html="<h1>Blocked</h1>"),
        httpx.Response(404, json={"message": "no route"}),
        httpx.Response(400, json=[]),
        httpx.Response(400, json={"error": "bad"}),
        httpx.Response(400, json={"error": {"code": 7}}),
        httpx.Response(400, json={"error": {"code": ""}}),
    ],
)
def test_a_refusal_out_of_shape_may_pass(response: httpx.Response) -> None:
    error = failure_of_envelope(response)

    assert isinstance(error, ProviderUnavailable)
    assert (error.code, error.status) == ("BAD_ANSWER", response.status_code)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        ("Fri, 05 Jun 2026 14:01:30 GMT", 90.0),
        ("Fri, 05 Jun 2026 14:01:30 -0000", 90.0),
        ("Fri, 05 Jun 2026 15:01:30 +0100", 90.0),
        ("Fri, 05 Jun 2026 13:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("١٢", None),
        ("9" * 5000, None),
        ("Fri, 05 Jun 99999 14:01:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,6} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{1,12} [-+A-Z0-9]{1,8}"))
def test_any_retry_after_is_a_wait_or_nothing(value: str) -> None:
    seconds = retry_after(value, NOW)

    assert seconds is None or seconds >= 0


def test_a_moment_to_wait_for_is_measured_by_the_clock_of_the_api() -> None:
    headers = {"Date": "Fri, 05 Jun 2020 14:00:00 GMT", "Retry-After": "Fri, 05 Jun 2020 14:00:05 GMT"}

    assert wait_asked(httpx.Response(503, headers=headers)) == 5.0


def test_only_over_the_limit_does_the_limit_say_how_long_to_wait() -> None:
    headers = {
        "X-RateLimit-Limit": "1",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": f"{NOW.timestamp() + 9:.0f}",
    }

    waits = [wait_asked(httpx.Response(status, headers={"Date": DATE, **headers})) for status in (429, 503)]

    assert waits == [9.0, None]


def test_a_limit_is_read_whole_or_not_at_all() -> None:
    told = {"X-RateLimit-Limit": "120", "X-RateLimit-Remaining": "119", "X-RateLimit-Reset": "1780750800"}

    assert rate_limit(httpx.Headers(told)) == RateLimit(120, 119, datetime(2026, 6, 6, 13, tzinfo=UTC))
    for name in told:
        for odd in ("", "-1", "1.5", "soon", "9" * 12):
            assert rate_limit(httpx.Headers({**told, name: odd})) is None
    assert rate_limit(httpx.Headers({**told, "X-RateLimit-Reset": "9" * 11})) is not None
