from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers.http import MAX_MESSAGE, RestClient, error_of, retry_after

NOW = datetime(2026, 6, 5, 14, tzinfo=UTC)
Answer = Callable[[httpx.Request], httpx.Response]


def client(answer: Answer | httpx.Response, base_url: str = "https://api.example/v1") -> RestClient:
    def respond(request: httpx.Request) -> httpx.Response:
        return answer if isinstance(answer, httpx.Response) else answer(request)

    return RestClient(base_url, {"Authorization": "Bearer key"}, transport=httpx.MockTransport(respond))


def failure(response: httpx.Response) -> ProviderError:
    with client(response) as rest, pytest.raises(ProviderError) as failed:
        rest.request("GET", "/things")
    return failed.value


def refused(status: int, error: Any, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"success": False, "error": error}, headers=headers)


def test_a_call_carries_path_parameters_headers_and_json() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "https://api.example/v1/things?page=2&since=2026-06-05"
        assert request.headers["authorization"] == "Bearer key"
        assert request.headers["content-type"] == "application/json"
        return httpx.Response(200, content=request.content)

    with client(answer) as rest:
        params = {"page": 2, "since": NOW.date(), "status": None}
        assert rest.request("POST", "/things", params=params, json={"a": [1, "é"]}) == {"a": [1, "é"]}


def test_a_call_without_a_body_sends_none() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.content == b""
        assert "content-type" not in request.headers
        return httpx.Response(200, json=[])

    assert client(answer).request("POST", "/things/1/close") == []


def test_decimals_are_exact_json_numbers() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=request.content.decode())

    numbers = [Decimal("0.10"), Decimal("1E+3"), Decimal("12345678901234567890.123456789"), Decimal("-0.5"), 8]

    written = client(answer).request("POST", "/", json={"n": numbers})

    assert written == '{"n":[0.10,1000,12345678901234567890.123456789,-0.5,8]}'


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("Infinity"), object(), {1, 2}])
def test_what_json_cannot_say_is_a_type_error(value: object) -> None:
    with client(httpx.Response(200, json={})) as rest, pytest.raises(TypeError):
        rest.request("POST", "/", json={"n": value})


def test_a_file_is_returned_as_bytes() -> None:
    assert client(httpx.Response(200, content=b"%PDF-1.4\x00\xff")).download("/file") == b"%PDF-1.4\x00\xff"


def test_a_refusal_has_the_code_of_the_provider() -> None:
    details = [{"field": "issue_date", "message": "is required"}, {"message": "no items"}, "?"]
    error = failure(refused(400, {"code": "VALIDATION_ERROR", "message": "Not valid", "details": details}))

    assert type(error) is ProviderError
    assert (error.code, error.status, error.retry_after) == ("VALIDATION_ERROR", 400, None)
    assert str(error) == "VALIDATION_ERROR: Not valid; issue_date: is required; no items"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_limit_or_a_failure_may_pass(status: int) -> None:
    error = failure(refused(status, {"code": "SOME_CODE", "message": "Later"}, **{"Retry-After": "17"}))

    assert isinstance(error, ProviderUnavailable)
    assert (error.code, error.status, error.retry_after) == ("SOME_CODE", status, 17.0)


def test_a_failure_in_html_is_named_by_its_status() -> None:
    error = failure(httpx.Response(502, html="<h1>Bad Gateway</h1>"))

    assert isinstance(error, ProviderUnavailable)
    assert (error.code, error.status, error.retry_after) == ("HTTP_502", 502, None)


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, html="<h1>Welcome</h1>"),
        httpx.Response(200, content=b""),
        httpx.Response(200, content=b"\xff"),
        httpx.Response(200, content=b"[" * 100_000),
        httpx.Response(301, headers={"Location": "https://elsewhere.example/"}),
        httpx.Response(403, html="<h1>Blocked</h1>"),
        httpx.Response(404, json={"message": "no route"}),
        httpx.Response(400, json=[]),
        httpx.Response(400, json={"error": "bad"}),
        httpx.Response(400, json={"error": {"code": 7}}),
        httpx.Response(400, json={"error": {"code": ""}}),
    ],
)
def test_an_answer_out_of_shape_may_pass(response: httpx.Response) -> None:
    error = failure(response)

    assert isinstance(error, ProviderUnavailable)
    assert (error.code, error.status) == ("BAD_ANSWER", response.status_code)


def test_a_wrong_encoding_is_an_answer_out_of_shape() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"not gzip"))

    with client(answer) as rest, pytest.raises(ProviderUnavailable) as failed:
        rest.request("GET", "/")

    assert failed.value.code == "BAD_ANSWER"


@pytest.mark.parametrize(
    "error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadTimeout, httpx.RemoteProtocolError, httpx.PoolTimeout]
)
def test_no_answer_may_pass(error: type[httpx.TransportError]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error("no")

    with client(answer) as rest, pytest.raises(ProviderUnavailable) as failed:
        rest.request("GET", "/things")

    assert (failed.value.code, failed.value.status) == ("NO_ANSWER", 0)
    assert str(failed.value) == f"NO_ANSWER: GET /things: {error.__name__}"


def test_a_closed_port_is_no_answer() -> None:
    with socket.socket() as bound:  # bound but not listening: refuses, and nobody else can take it
        bound.bind(("127.0.0.1", 0))
        rest = RestClient(f"http://127.0.0.1:{bound.getsockname()[1]}", {})
        with rest, pytest.raises(ProviderUnavailable) as failed:
            rest.request("GET", "/")
    assert failed.value.code == "NO_ANSWER"


def test_a_connection_that_is_hung_up_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            server.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        rest = RestClient(f"http://127.0.0.1:{server.getsockname()[1]}", {})
        with rest, pytest.raises(ProviderUnavailable) as failed:
            rest.request("GET", "/")
    assert failed.value.code == "NO_ANSWER"


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    monkeypatch.setenv("ALL_PROXY", "http://proxy.invalid:1")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

        threading.Thread(target=serve, daemon=True).start()
        with RestClient(f"http://127.0.0.1:{server.getsockname()[1]}", {}) as rest:
            assert rest.request("GET", "/") == {}


@pytest.mark.parametrize("url", ["api.example", "", "ftp://api.example", "//api.example"])
def test_an_address_names_its_scheme(url: str) -> None:
    with pytest.raises(ValueError, match="https://"):
        RestClient(url, {})


@pytest.mark.parametrize("key", ["hisab_live_1\n", "hisab_live_1\r\nX: 1", "hisab_live_é", "hisab_live_\x00", "x\x7f"])
def test_a_key_that_cannot_be_sent_is_refused_without_quoting_it(key: str) -> None:
    with pytest.raises(ValueError, match="Authorization") as refused:
        RestClient("https://api.example", {"Authorization": f"Bearer {key}"})
    assert "hisab_live" not in str(refused.value)


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


def test_the_message_of_an_error_is_cut() -> None:
    assert error_of({"error": {"code": "A", "message": "x" * 10_000}}) == ("A", "x" * MAX_MESSAGE)
