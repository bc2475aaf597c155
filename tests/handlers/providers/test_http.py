from __future__ import annotations

import contextlib
import gzip
import itertools
import socket
import ssl
import threading
import traceback
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers.http import FIRST_WAIT, MAX_ANSWER, RateLimit, RestClient, segment, trust

KEY = "hisab_live_s3cret"
DATE = "Fri, 05 Jun 2026 14:00:00 GMT"
NOW = datetime(2026, 6, 5, 14, tzinfo=UTC)
UNSAFE = ["POST", "PATCH", "PUT", "DELETE"]
Answer = Callable[[httpx.Request], httpx.Response]


class Clock:
    """Time that passes only where somebody sleeps, or where a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Api:
    """Answers with what the test says, the last one again and again, and keeps the requests."""

    def __init__(self, *answers: httpx.Response | type[httpx.TransportError] | Answer, **options: Any) -> None:
        self.requests: list[httpx.Request] = []
        self.clock = Clock()
        self._answers = answers
        self.rest = RestClient(
            options.pop("base_url", "https://api.example/v1"),
            {"Authorization": f"Bearer {KEY}"},
            **{
                "transport": httpx.MockTransport(self._answer),
                "sleep": self.clock.sleep,
                "clock": self.clock,
                **options,
            },
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
        if isinstance(answer, httpx.Response):
            return answer
        if isinstance(answer, type):
            raise answer("no", request=request)
        return answer(request)

    def fails(self, method: str = "GET", **options: Any) -> ProviderError:
        with pytest.raises(ProviderError) as failed:
            self.rest.request(method, "/things", **options)
        return failed.value

    @property
    def slept(self) -> list[float]:
        return self.clock.slept


def refused(status: int, code: str = "SOME_CODE", **headers: Any) -> httpx.Response:
    error = {"code": code, "message": "Later"}
    named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    return httpx.Response(status, json={"success": False, "error": error}, headers={"Date": DATE, **named})


OK = httpx.Response(200, json={"ok": True})


# Requests


def test_a_call_carries_path_parameters_headers_and_json() -> None:
    api = Api(lambda request: httpx.Response(200, content=request.content))
    params = {"page": 2, "since": NOW.date(), "at": NOW, "archived": False, "status": None}

    assert api.rest.request("POST", "/things", params=params, json={"a": [1, "é"]}) == {"a": [1, "é"]}

    (request,) = api.requests
    query = "page=2&since=2026-06-05&at=2026-06-05T14%3A00%3A00%2B00%3A00&archived=false"
    assert str(request.url) == f"https://api.example/v1/things?{query}"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"] == "application/json"


def test_a_call_without_a_body_sends_none() -> None:
    api = Api(httpx.Response(200, json=[]))

    assert api.rest.request("POST", "/things/1/close") == []
    assert api.requests[0].content == b""
    assert "content-type" not in api.requests[0].headers


def test_a_body_may_be_a_form_or_bytes() -> None:
    api = Api(OK)

    api.rest.request("POST", "/token", form={"grant_type": "refresh token", "é": "&"})
    api.rest.request("POST", "/raw", content=b"\x00", headers={"Content-Type": "application/octet-stream"})

    form, raw = api.requests
    assert form.content == b"grant_type=refresh+token&%C3%A9=%26"
    assert form.headers["content-type"] == "application/x-www-form-urlencoded"
    assert (raw.content, raw.headers["content-type"]) == (b"\x00", "application/octet-stream")


def test_a_call_has_one_body() -> None:
    api = Api(OK)

    with pytest.raises(TypeError, match="one body"):
        api.rest.request("POST", "/", json={}, form={})

    assert api.requests == []


def test_a_header_of_one_call_is_of_that_call_alone() -> None:
    api = Api(OK)

    api.rest.request("POST", "/", headers={"Idempotency-Key": "a", "Accept": "text/plain"})
    api.rest.request("POST", "/")

    assert [request.headers.get("idempotency-key") for request in api.requests] == ["a", None]
    assert [request.headers["accept"] for request in api.requests] == ["text/plain", "application/json"]


def test_decimals_are_exact_json_numbers() -> None:
    api = Api(OK)
    numbers = [Decimal("0.10"), Decimal("1E+3"), Decimal("12345678901234567890.123456789"), Decimal("-0.5"), 8]

    api.rest.request("POST", "/", json={"n": numbers})

    assert api.requests[0].content == b'{"n":[0.10,1000,12345678901234567890.123456789,-0.5,8]}'


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("Infinity"), object(), {1, 2}])
def test_what_json_cannot_say_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError):
        Api(OK).rest.request("POST", "/", json={"n": value})


@pytest.mark.parametrize("path", ["https://elsewhere.example/", "things", "", "//elsewhere.example/"])
def test_a_path_leads_nowhere_but_to_the_api(path: str) -> None:
    api = Api(OK)

    with contextlib.suppress(ValueError):
        api.rest.request("GET", path)

    assert [request.url.host for request in api.requests] in ([], ["api.example"])


@pytest.mark.parametrize("url", ["api.example", "", "ftp://api.example", "//api.example"])
def test_an_address_names_its_scheme(url: str) -> None:
    with pytest.raises(ValueError, match="https://"):
        RestClient(url, {})


def test_an_id_is_one_segment() -> None:
    assert segment("../a?b#c/é") == "..%2Fa%3Fb%23c%2F%C3%A9"


@pytest.mark.parametrize("value", ["", ".", "..", None, 7])
def test_what_is_no_id_is_refused(value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="id is"):
        segment(value)


# Answers


def test_a_file_is_returned_as_bytes() -> None:
    api = Api(httpx.Response(200, content=b"%PDF-1.4\x00\xff"))

    assert api.rest.download("/file", params={"locale": "fr"}) == b"%PDF-1.4\x00\xff"
    assert api.requests[0].headers["accept"] == "*/*"


def test_the_whole_answer_can_be_had() -> None:
    packed = httpx.Response(
        201,
        headers=[("Content-Encoding", "gzip"), ("Content-Type", "text/xml"), ("X-Two", "1"), ("X-Two", "2")],
        stream=httpx.ByteStream(gzip.compress(b"<a/>")),
    )

    answer = Api(packed).rest.exchange("GET", "/x")

    assert (answer.status_code, answer.content, answer.text) == (201, b"<a/>", "<a/>")
    assert answer.headers.get_list("x-two") == ["1", "2"]
    assert answer.headers["content-length"] == "4"


def test_an_answer_that_its_transport_read_already_is_taken_as_it_is(server: Server) -> None:
    class Looking(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            response = super().handle_request(request)
            response.read()
            return response

    with RestClient(server.url, {}, transport=Looking()) as rest:
        assert rest.request("GET", "/") == {}


def test_no_content_is_none() -> None:
    assert Api(httpx.Response(204)).rest.request("DELETE", "/things/1") is None


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, html="<h1>Welcome</h1>"),
        httpx.Response(200, content=b""),
        httpx.Response(200, content=b"\xff"),
        httpx.Response(200, content=b"[" * 100_000),
        httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"not gzip")),
        httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(gzip.compress(b"{}")[:-3])),
        httpx.Response(200, headers={"Content-Encoding": "gzip, gzip"}, stream=httpx.ByteStream(b"{}")),
        httpx.Response(200, headers={"Content-Encoding": "br"}, stream=httpx.ByteStream(b"{}")),
    ],
)
def test_an_answer_out_of_shape_may_pass_and_is_not_asked_for_again(response: httpx.Response) -> None:
    api = Api(response)

    error = api.fails()

    assert isinstance(error, ProviderUnavailable)
    assert error.code == "BAD_ANSWER"
    assert len(api.requests) == 1


def plain() -> Iterator[bytes]:
    while True:
        yield bytes(2**20)


def bomb() -> Iterator[bytes]:
    """A gzip of zeros: a thousand bytes for each that is sent."""
    packer = zlib.compressobj(wbits=31)
    while True:
        yield packer.compress(bytes(2**24))


def tail() -> Iterator[bytes]:
    """A small gzip, and then more and more after its end."""
    yield gzip.compress(b"{}")
    yield from plain()


@pytest.mark.parametrize(("encoding", "pieces"), [("identity", plain), ("gzip", bomb), ("gzip", tail)])
def test_an_answer_without_end_is_not_read_to_its_end(encoding: str, pieces: Callable[[], Iterator[bytes]]) -> None:
    class Stream(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            return itertools.islice(pieces(), 50)

    tracemalloc.start()
    error = Api(httpx.Response(200, headers={"Content-Encoding": encoding}, stream=Stream())).fails()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert error.code == "BAD_ANSWER"
    assert f"longer than {MAX_ANSWER} bytes" in str(error)
    assert peak < 3 * MAX_ANSWER


def test_an_answer_that_drips_ends_with_the_deadline() -> None:
    api = Api(OK, deadline=30.0)

    def drip(request: httpx.Request) -> httpx.Response:
        class Stream(httpx.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                while True:
                    api.clock.now += 8.0
                    yield b" "

        return httpx.Response(200, stream=Stream())

    api._answers = (drip,)
    error = api.fails()

    assert (error.code, str(error)) == ("NO_ANSWER", "NO_ANSWER: GET /things: no whole answer within 30 s")
    assert len(api.requests) == 1


# Failures


def test_a_refusal_is_not_repeated() -> None:
    api = Api(refused(404, "NOT_FOUND"))

    error = api.fails()

    assert type(error) is ProviderError
    assert (error.code, error.status, error.retry_after) == ("NOT_FOUND", 404, None)
    assert len(api.requests) == 1


def test_the_failure_is_what_the_provider_makes_of_the_answer() -> None:
    api = Api(httpx.Response(422), failure=lambda response: ProviderError("OWN", "own", status=response.status_code))

    assert str(api.fails()) == "OWN: own"


@pytest.mark.parametrize(
    "error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadTimeout, httpx.RemoteProtocolError, httpx.PoolTimeout]
)
def test_no_answer_may_pass(error: type[httpx.TransportError]) -> None:
    failed = Api(error, retries=0).fails()

    assert isinstance(failed, ProviderUnavailable)
    assert (failed.code, failed.status) == ("NO_ANSWER", 0)
    assert str(failed) == f"NO_ANSWER: GET /things: {error.__name__}: no"


@pytest.mark.parametrize("key", ["hisab_live_1\n", "hisab_live_1\r\nX: 1", "hisab_live_é", "hisab_live_\x00", "x\x7f"])
def test_a_key_that_cannot_be_sent_is_refused_without_quoting_it(key: str) -> None:
    with pytest.raises(ValueError, match="Authorization") as refusal:
        RestClient("https://api.example", {"Authorization": f"Bearer {key}"})
    with pytest.raises(ValueError, match="X-Token"):
        Api(OK).rest.request("GET", "/", headers={"X-Token": key})
    assert "hisab_live" not in str(refusal.value)


def echo(request: httpx.Request) -> httpx.Response:
    """An API that repeats what it was sent."""
    key = request.headers["authorization"]
    error = {"code": "UNAUTHORIZED", "message": f"no such key: {key}", "details": [{"field": "key", "message": key}]}
    return httpx.Response(401, json={"error": error})


@pytest.mark.parametrize("answer", [echo, httpx.ConnectError, httpx.Response(200, content=b"?")])
def test_the_key_shows_in_no_error_and_no_repr(answer: Any) -> None:
    api = Api(answer)

    error = api.fails()

    chain = "".join(traceback.format_exception(error))
    assert KEY not in chain + repr(error) + repr(error.details) + repr(api.rest) + repr(vars(api.rest))
    assert error.__suppress_context__ or error.__context__ is None


# Repeating


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_safe_call_is_repeated_after_a_failure_with_growing_waits(status: int, method: str) -> None:
    api = Api(refused(status), refused(status), OK)

    assert api.rest.request(method, "/things") == {"ok": True}
    first, second = api.slept
    assert FIRST_WAIT / 2 <= first <= FIRST_WAIT <= second <= FIRST_WAIT * 2


def test_a_safe_call_is_repeated_when_no_answer_came() -> None:
    api = Api(httpx.ConnectError, httpx.ReadTimeout, OK)

    assert api.rest.request("GET", "/things") == {"ok": True}
    assert len(api.slept) == 2


@pytest.mark.parametrize("answer", [refused(503), refused(503, Retry_After=1), httpx.ReadTimeout])
@pytest.mark.parametrize("method", UNSAFE)
def test_a_call_that_may_have_changed_something_is_not_repeated(method: str, answer: Any) -> None:
    api = Api(answer)

    assert isinstance(api.fails(method), ProviderUnavailable)
    assert len(api.requests) == 1
    assert api.slept == []


@pytest.mark.parametrize("answer", [refused(503), httpx.ReadTimeout])
@pytest.mark.parametrize("method", UNSAFE)
def test_the_caller_says_what_is_safe_to_repeat(method: str, answer: Any) -> None:
    api = Api(answer, OK)

    assert api.rest.request(method, "/things", json={"a": 1}, safe=True) == {"ok": True}
    assert [request.content for request in api.requests] == [b'{"a":1}'] * 2


def test_a_read_can_be_said_to_be_unsafe() -> None:
    api = Api(refused(503))

    api.fails(safe=False)

    assert len(api.requests) == 1


@pytest.mark.parametrize("status", [500, 501])
def test_a_fault_of_the_api_is_not_asked_for_again(status: int) -> None:
    api = Api(refused(status))

    assert isinstance(api.fails(), ProviderUnavailable)
    assert len(api.requests) == 1


@pytest.mark.parametrize("method", ["GET", *UNSAFE])
@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry_After": "17"}, 17.0),
        ({"Retry_After": "Fri, 05 Jun 2026 14:00:30 GMT"}, 30.0),
        ({"Retry_After": "Fri, 05 Jun 2026 13:00:00 GMT"}, 0.0),
        ({"X_RateLimit_Limit": 120, "X_RateLimit_Remaining": 0, "X_RateLimit_Reset": int(NOW.timestamp()) + 40}, 40.0),
        (
            {"X_RateLimit_Limit": 1, "X_RateLimit_Remaining": 0, "X_RateLimit_Reset": 1_990_000_000, "Retry_After": 2},
            2.0,
        ),
    ],
)
def test_over_its_limit_the_api_says_how_long_to_wait_for_any_call(
    method: str, headers: dict[str, Any], wait: float
) -> None:
    api = Api(refused(429, **headers), OK)

    assert api.rest.request(method, "/things") == {"ok": True}
    assert api.slept == ([wait] if wait else [])


def test_a_limit_that_names_no_time_is_waited_for_with_growing_waits() -> None:
    api = Api(refused(429), refused(429, Retry_After="soon"), OK)

    assert api.rest.request("POST", "/things") == {"ok": True}
    assert api.slept == sorted(api.slept)
    assert len(api.slept) == 2


def test_a_failure_that_names_a_time_is_not_asked_sooner() -> None:
    api = Api(refused(503, Retry_After=9), OK)

    api.rest.request("GET", "/things")

    assert api.slept == [9.0]


@pytest.mark.parametrize(
    ("asked", "options"),
    [(61, {}), (11, {"max_wait": 10.0}), (1, {"max_wait": 0.0}), (50, {"deadline": 50.0}), (1, {"retries": 0})],
)
def test_a_wait_that_does_not_fit_is_left_to_the_caller(asked: int, options: dict[str, Any]) -> None:
    api = Api(refused(429, Retry_After=asked), OK, **options)

    error = api.fails()

    assert isinstance(error, ProviderUnavailable)
    assert error.retry_after == asked
    assert api.slept == []


@pytest.mark.parametrize("answer", [refused(503), refused(429), httpx.ConnectError])
def test_without_leave_to_wait_nothing_sleeps(answer: Any) -> None:
    api = Api(answer, max_wait=0)

    api.fails()

    assert (len(api.requests), api.slept) == (1, [])


def test_the_repetitions_are_numbered() -> None:
    api = Api(refused(429, Retry_After=3), retries=4)

    assert api.fails().retry_after == 3.0
    assert (len(api.requests), api.slept) == (5, [3.0] * 4)


def test_the_deadline_is_for_all_attempts_together() -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        api.clock.now += 20.0
        return refused(429, Retry_After=15)

    api = Api(slow, retries=99, deadline=90.0)

    api.fails()

    assert len(api.requests) == 3  # 20 + 15 + 20 + 15 + 20 = 90
    assert api.clock.now - 1000.0 <= 90.0


def test_no_attempt_gets_more_time_than_is_left() -> None:
    given: list[dict[str, float]] = []

    def limited(request: httpx.Request) -> httpx.Response:
        given.append(request.extensions["timeout"])
        return refused(429, Retry_After=27)

    Api(limited, deadline=30.0).fails()

    assert [(timeout["connect"], timeout["read"]) for timeout in given] == [(5.0, 10.0), (3.0, 3.0)]


def test_the_wait_is_told_even_where_the_provider_makes_its_own_failure() -> None:
    api = Api(refused(429, Retry_After=70), failure=lambda _: ProviderUnavailable("OWN", "own", status=429))

    assert api.fails().retry_after == 70.0


# Limits


def test_the_limit_is_known_from_the_last_answer_that_told_it() -> None:
    told = {"X-RateLimit-Limit": "120", "X-RateLimit-Remaining": "119", "X-RateLimit-Reset": "1780750800"}
    api = Api(httpx.Response(200, json={}, headers=told), OK, refused(404, **{**told, "X-RateLimit-Remaining": "7"}))

    assert api.rest.rate_limit is None
    api.rest.request("GET", "/")
    first = api.rest.rate_limit
    api.rest.request("GET", "/")
    silent = api.rest.rate_limit
    api.fails()

    assert first == RateLimit(limit=120, remaining=119, resets_at=datetime(2026, 6, 6, 13, tzinfo=UTC))
    assert silent == first
    assert api.rest.rate_limit is not None
    assert api.rest.rate_limit.remaining == 7


def test_clients_over_the_same_connections_know_the_same_limit_and_have_their_own_headers() -> None:
    told = {"X-RateLimit-Limit": "120", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "1780750800"}
    api = Api(httpx.Response(200, json={}, headers=told))

    with api.rest.with_headers({"X-Organization-Id": "org_1"}) as derived:
        derived.request("GET", "/")
    api.rest.request("GET", "/")

    assert [request.headers.get("x-organization-id") for request in api.requests] == ["org_1", None]
    assert derived.rate_limit is api.rest.rate_limit
    with pytest.raises(ValueError, match="X-Organization-Id"):
        api.rest.with_headers({"X-Organization-Id": ""})


# Sockets


class Server:
    """An API on a real socket: `calls` as they came, `connections` by their ports, answered by path."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.connections: set[int] = set()
        self.url = ""


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            told.calls.append(f"{self.command} {self.path}")
            told.connections.add(self.client_address[1])
            status = 302 if self.path == "/moved" else 200
            body = b'{"cut":' if self.path == "/cut" else b"{}"
            if self.path == "/hung":
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Location", f"{told.url}/elsewhere")
            self.send_header("Content-Length", str(len(body) + (9 if self.path == "/cut" else 0)))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = self.path == "/cut"

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        told.url = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield told
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/hung", "/cut"])
def test_an_answer_that_breaks_off_is_none_and_a_read_is_asked_for_again(server: Server, path: str) -> None:
    clock = Clock()
    with RestClient(server.url, {}, sleep=clock.sleep) as rest:
        for method in ("GET", "POST"):
            with pytest.raises(ProviderUnavailable, match=f"NO_ANSWER: {method} {path}: RemoteProtocolError"):
                rest.request(method, path)

    assert server.calls == [f"GET {path}"] * 3 + [f"POST {path}"]


def test_a_redirect_is_not_followed(server: Server) -> None:
    with RestClient(server.url, {}) as rest, pytest.raises(ProviderUnavailable, match="BAD_ANSWER") as failed:
        rest.request("GET", "/moved")

    assert failed.value.status == 302
    assert server.calls == ["GET /moved"]


def test_connections_are_kept_and_shared_and_closed_by_their_owner(server: Server) -> None:
    with RestClient(server.url, {}) as rest:
        with rest.with_headers({"X-Organization-Id": "org_1"}) as derived:
            derived.request("GET", "/a")
        rest.request("GET", "/b")
        assert len(server.connections) == 1

    with pytest.raises(RuntimeError, match="closed"):
        derived.request("GET", "/c")


def test_a_closed_port_is_no_answer() -> None:
    clock = Clock()
    with socket.socket() as bound:  # bound but not listening: refuses, and nobody else can take it
        bound.bind(("127.0.0.1", 0))
        rest = RestClient(f"http://127.0.0.1:{bound.getsockname()[1]}", {}, sleep=clock.sleep)
        with rest, pytest.raises(ProviderUnavailable, match="ConnectError") as failed:
            rest.request("GET", "/")
    assert failed.value.code == "NO_ANSWER"
    assert len(clock.slept) == 2


def test_proxies_of_the_environment_are_ignored(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    monkeypatch.setenv("ALL_PROXY", "http://proxy.invalid:1")

    with RestClient(server.url, {}) as rest:
        assert rest.request("GET", "/") == {}


def hello(context: ssl.SSLContext) -> bytes:
    """What a client of it says first."""
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="api.example.com").do_handshake()
    return sent.read()


def test_what_all_clients_share_is_not_changed_by_their_connections() -> None:
    shared = trust()

    # As their library does at each connection, while other threads are about to say what was set before
    shared.set_alpn_protocols(["spdy/3"])

    assert shared is trust()
    assert b"\x08http/1.1" in hello(shared)
    assert b"spdy/3" not in hello(shared)


def test_who_asks_for_a_newer_tls_changes_nothing_for_others() -> None:
    newer = trust(ssl.TLSVersion.TLSv1_3)

    assert newer.minimum_version == ssl.TLSVersion.TLSv1_3
    assert trust().minimum_version == ssl.TLSVersion.TLSv1_2
