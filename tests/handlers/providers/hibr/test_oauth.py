from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urlencode, urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers.hibr.client import HibrClient
from handlers.providers.hibr.models import SCOPES
from handlers.providers.hibr.oauth import Authorization, HibrOAuth, challenge
from handlers.providers.hibr.tokens import Introspection, Tokens

CLIENT_ID, CLIENT_SECRET = "app:1", "s3cret+ü%"
CALLBACK = "https://app.example/hibr/callback"
NOW = datetime(2026, 10, 15, 9, 32, 14, tzinfo=UTC)
TOKENS = {
    "access_token": "at-s3cret-0123456789",
    "token_type": "Bearer",
    "expires_in": 3600,
    "refresh_token": "rt-s3cret-0123456789",
    "scope": "read:invoices",
}


class Endpoints:
    """OAuth endpoints that answer with what the test says, the last answer for ever, and keep what they were asked."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []
        self._answers = list(answers)
        self.oauth = HibrOAuth(
            client_id=CLIENT_ID,
            client_secret=CLIENT_SECRET,
            redirect_uri=CALLBACK,
            transport=httpx.MockTransport(self),
            sleep=self.slept.append,
            now=lambda: NOW,
        )

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._answers[min(len(self.requests), len(self._answers)) - 1]

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.requests[-1].content.decode()))

    def exchange(self, authorization: Authorization | None = None) -> Tokens:
        authorization = authorization or self.oauth.authorize(["read:invoices"])
        return self.oauth.exchange(authorization, callback(authorization))


def callback(authorization: Authorization, **parameters: str) -> str:
    return f"{CALLBACK}?{urlencode({'code': 'code-s3cret', 'state': authorization.state, **parameters})}"


def ok(document: Any) -> httpx.Response:
    return httpx.Response(200, json=document)


def without(*names: str, **others: Any) -> httpx.Response:
    return ok({**{name: value for name, value in TOKENS.items() if name not in names}, **others})


def test_the_challenge_is_the_one_of_the_standard() -> None:
    # RFC 7636, appendix B
    assert challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_the_browser_is_sent_to_the_documented_page() -> None:
    authorization = Endpoints().oauth.authorize(["read:invoices", "write:invoices"])

    page, _, query = authorization.url.partition("?")
    assert page == "https://app.hibr.ai/oauth/authorize"
    assert parse_qs(query) == {
        "response_type": ["code"],
        "client_id": [CLIENT_ID],
        "redirect_uri": [CALLBACK],
        "scope": ["read:invoices write:invoices"],
        "state": [authorization.state],
        "code_challenge": [challenge(authorization.verifier)],
        "code_challenge_method": ["S256"],
    }
    assert authorization.scope == "read:invoices write:invoices"


def test_state_and_verifier_are_fresh_long_and_of_the_characters_of_the_standard() -> None:
    oauth = Endpoints().oauth
    one, other = oauth.authorize(), oauth.authorize()

    assert len({one.state, other.state, one.verifier, other.verifier}) == 4
    for text in (one.state, one.verifier):
        assert 43 <= len(text) <= 128
        assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def test_the_verifier_is_not_shown_and_the_authorization_is_a_value_for_a_session() -> None:
    authorization = Endpoints().oauth.authorize()

    assert authorization.verifier not in repr(authorization)
    assert authorization.verifier not in authorization.url
    assert Authorization(**json.loads(json.dumps(dataclasses.asdict(authorization)))) == authorization
    with pytest.raises(dataclasses.FrozenInstanceError):
        authorization.state = "x"  # type: ignore[misc]  # what is forbidden


def test_without_scopes_none_are_asked_for() -> None:
    assert "scope" not in parse_qs(Endpoints().oauth.authorize().url.partition("?")[2])


def test_every_documented_scope_can_be_asked_for() -> None:
    assert Endpoints().oauth.authorize(SCOPES).scope == " ".join(SCOPES)


@pytest.mark.parametrize("scopes", [["read:invoices write:invoices"], [""], ["a\n"], ['"'], ["\\"], ["é"]])
def test_what_is_no_scope_is_refused(scopes: list[str]) -> None:
    with pytest.raises(ValueError, match="a scope is"):
        Endpoints().oauth.authorize(scopes)


def test_scopes_are_a_list() -> None:
    with pytest.raises(TypeError, match="list of strings"):
        Endpoints().oauth.authorize("read:invoices")


def test_a_code_is_exchanged_for_tokens() -> None:
    endpoints = Endpoints(ok(TOKENS))
    authorization = endpoints.oauth.authorize(["read:invoices"])

    tokens = endpoints.exchange(authorization)

    assert tokens == Tokens(
        access_token="at-s3cret-0123456789",
        refresh_token="rt-s3cret-0123456789",
        expires_at=NOW + timedelta(hours=1),
        scope="read:invoices",
    )
    request = endpoints.requests[0]
    assert (request.method, str(request.url)) == ("POST", "https://api.hibr.ai/oauth/token")
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert endpoints.form == {
        "grant_type": "authorization_code",
        "code": "code-s3cret",
        "redirect_uri": CALLBACK,
        "code_verifier": authorization.verifier,
    }


def test_the_application_is_named_by_http_basic_with_both_halves_encoded() -> None:
    endpoints = Endpoints(ok(TOKENS))

    endpoints.exchange()

    scheme, _, encoded = endpoints.requests[0].headers["authorization"].partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(encoded) == b"app%3A1:s3cret%2B%C3%BC%25"
    assert "client_secret" not in endpoints.form


@pytest.mark.parametrize(
    "change",
    [
        {"state": "another"},
        {"state": ""},
        {"state": "\ud800"},
        {"state": "another", "error": "access_denied"},
    ],
)
def test_a_callback_of_another_browser_is_refused_before_anything_is_sent(change: dict[str, str]) -> None:
    endpoints = Endpoints(ok(TOKENS))
    authorization = endpoints.oauth.authorize()
    query = "&".join(f"{name}={value}" for name, value in {"code": "c", "state": authorization.state, **change}.items())

    with pytest.raises(ProviderError) as failed:
        endpoints.oauth.exchange(authorization, f"{CALLBACK}?{query}")

    assert failed.value.code == "state_mismatch"
    assert endpoints.requests == []


@pytest.mark.parametrize("query", ["", "?", "?code=c", "?state", "#state=s&code=c"])
def test_a_callback_without_a_state_is_refused(query: str) -> None:
    oauth = Endpoints().oauth

    with pytest.raises(ProviderError) as failed:
        oauth.exchange(oauth.authorize(), CALLBACK + query)

    assert failed.value.code == "state_mismatch"


@pytest.mark.parametrize("extra", ["", "&code=", "&code=a&code=b", "&code=a&error=", "&code=a&state=b"])
def test_a_callback_without_exactly_one_code_is_refused(extra: str) -> None:
    oauth = Endpoints().oauth
    authorization = oauth.authorize()

    with pytest.raises(ProviderError):
        oauth.exchange(authorization, f"{CALLBACK}?state={authorization.state}{extra}")


def test_a_user_who_says_no_is_an_error_with_its_code() -> None:
    oauth = Endpoints().oauth
    authorization = oauth.authorize()
    answer = {"state": authorization.state, "error": "access_denied", "error_description": "The user said no"}

    with pytest.raises(ProviderError) as failed:
        oauth.exchange(authorization, f"{CALLBACK}?{urlencode(answer)}")

    assert type(failed.value) is ProviderError
    assert (failed.value.code, str(failed.value)) == ("access_denied", "access_denied: The user said no")


@pytest.mark.parametrize("code", ["temporarily_unavailable", "server_error"])
def test_a_consent_page_that_is_down_may_come_back(code: str) -> None:
    oauth = Endpoints().oauth
    authorization = oauth.authorize()

    with pytest.raises(ProviderUnavailable):
        oauth.exchange(authorization, f"{CALLBACK}?state={authorization.state}&error={code}")


@given(st.text(), st.text(), st.text())
def test_any_callback_ends_in_tokens_or_in_a_provider_error(before: str, error: str, description: str) -> None:
    endpoints = Endpoints(ok(TOKENS))
    authorization = endpoints.oauth.authorize()
    query = f"state={authorization.state}&error={error}&error_description={description}"

    for url in (before, f"{before}?{before}", f"{CALLBACK}?{query}"):
        with contextlib.suppress(ProviderError):
            endpoints.oauth.exchange(authorization, url)


def test_what_the_answer_does_not_say_is_as_it_was_asked_for() -> None:
    endpoints = Endpoints(without("refresh_token", "scope", "expires_in", token_type="bearer"))

    tokens = endpoints.exchange()

    assert (tokens.refresh_token, tokens.expires_at, tokens.scope) == (None, None, "read:invoices")
    assert not tokens.expired(NOW + timedelta(days=9999))
    with pytest.raises(ValueError, match="authorize"):
        endpoints.oauth.refresh(tokens)


@pytest.mark.parametrize("seconds", [3600, "3600", 3600.0])
def test_the_end_of_a_token_may_be_a_number_or_a_text(seconds: object) -> None:
    assert Endpoints(without(expires_in=seconds)).exchange().expires_at == NOW + timedelta(hours=1)


@pytest.mark.parametrize(
    "answer",
    [
        ok([]),
        ok({}),
        without("access_token"),
        without(access_token=""),
        without(access_token="a b"),
        without(access_token="a\r\nX: 1"),
        without(access_token=5),
        without("token_type"),
        without(token_type="mac"),
        without(refresh_token=""),
        without(refresh_token=5),
        without(expires_in=-1),
        without(expires_in=True),
        without(expires_in=[]),
        without(expires_in=1e300),
        without(expires_in="soon"),
        httpx.Response(200, html="<h1>Welcome</h1>"),
        httpx.Response(204),
        httpx.Response(302, headers={"Location": "https://elsewhere.example"}),
    ],
)
def test_an_answer_that_is_no_tokens_is_out_of_shape(answer: httpx.Response) -> None:
    with pytest.raises(ProviderUnavailable) as failed:
        Endpoints(answer).exchange()

    assert failed.value.code == "BAD_ANSWER"
    assert "s3cret" not in str(failed.value)


def test_tokens_are_refreshed_and_keep_what_does_not_change() -> None:
    endpoints = Endpoints(without("refresh_token", "scope", access_token="at-2"))
    old = Tokens(access_token="at-1", refresh_token="rt-1", expires_at=NOW, scope="read:invoices")

    new = endpoints.oauth.refresh(old)

    assert endpoints.form == {"grant_type": "refresh_token", "refresh_token": "rt-1"}
    assert new == Tokens(
        access_token="at-2", refresh_token="rt-1", expires_at=NOW + timedelta(hours=1), scope="read:invoices"
    )


def test_a_refresh_token_may_be_replaced() -> None:
    endpoints = Endpoints(without(refresh_token="rt-2"))

    assert endpoints.oauth.refresh(Tokens(access_token="at-1", refresh_token="rt-1")).refresh_token == "rt-2"


def test_a_token_expires_a_minute_before_its_end() -> None:
    tokens = Tokens(access_token="a", expires_at=NOW)

    assert not tokens.expired(NOW - timedelta(seconds=61))
    assert tokens.expired(NOW - timedelta(seconds=60))
    assert not tokens.expired(NOW - timedelta(seconds=1), leeway=timedelta(0))


def test_a_token_is_revoked_whatever_the_answer_says() -> None:
    endpoints = Endpoints(httpx.Response(200))

    endpoints.oauth.revoke("rt-1", "refresh_token")
    assert endpoints.form == {"token": "rt-1", "token_type_hint": "refresh_token"}

    endpoints.oauth.revoke("at-1")
    assert endpoints.form == {"token": "at-1"}
    assert {str(request.url) for request in endpoints.requests} == {"https://api.hibr.ai/oauth/revoke"}


def test_a_token_can_be_asked_about() -> None:
    document = {"active": True, "scope": "read:invoices", "exp": 1_792_058_400, "client_id": CLIENT_ID}
    endpoints = Endpoints(ok(document), ok({"active": False}), ok({"active": True}))

    assert endpoints.oauth.introspect("at-1", "access_token") == Introspection(
        active=True, scope="read:invoices", expires_at=datetime(2026, 10, 15, 10, 0, tzinfo=UTC), claims=document
    )
    assert str(endpoints.requests[0].url) == "https://api.hibr.ai/oauth/introspect"
    assert endpoints.form == {"token": "at-1", "token_type_hint": "access_token"}
    assert endpoints.oauth.introspect("at-2") == Introspection(active=False, claims={"active": False})
    assert endpoints.oauth.introspect("at-3") == Introspection(active=True, claims={"active": True})


@pytest.mark.parametrize("document", [{}, [], None, {"active": "yes"}, {"active": True, "exp": "soon"}])
def test_an_answer_that_does_not_say_whether_a_token_is_active_is_out_of_shape(document: Any) -> None:
    with pytest.raises(ProviderUnavailable) as failed:
        Endpoints(ok(document)).oauth.introspect("at-1")

    assert failed.value.code == "BAD_ANSWER"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "invalid_request"),
        (401, "invalid_client"),
        (400, "invalid_grant"),
        (400, "unauthorized_client"),
        (400, "unsupported_grant_type"),
        (400, "invalid_scope"),
        (400, "unsupported_token_type"),
    ],
)
def test_a_refusal_has_the_code_of_the_standard(status: int, code: str) -> None:
    answer = httpx.Response(status, json={"error": code, "error_description": "No"})

    with pytest.raises(ProviderError) as failed:
        Endpoints(answer).exchange()

    assert type(failed.value) is ProviderError
    assert (failed.value.code, failed.value.status, str(failed.value)) == (code, status, f"{code}: No")


@pytest.mark.parametrize("description", [None, "", 5, "line\nbreak", "x" * 10_000])
def test_an_error_says_something_in_any_case(description: object) -> None:
    answer = httpx.Response(400, json={"error": "invalid_grant", "error_description": description})

    with pytest.raises(ProviderError) as failed:
        Endpoints(answer).exchange()

    assert len("invalid_grant: ") < len(str(failed.value)) < 600
    assert str(failed.value).isprintable()


def test_an_error_code_that_is_no_word_is_not_passed_on() -> None:
    with pytest.raises(ProviderError) as failed:
        Endpoints(httpx.Response(400, json={"error": 'a"\n'})).exchange()

    assert failed.value.code == "unknown_error"


def test_the_errors_of_the_rest_of_the_api_are_understood_too() -> None:
    error = {"code": "authentication_error", "message": "Who?", "request_id": "req_1"}

    with pytest.raises(ProviderError) as failed:
        Endpoints(httpx.Response(401, json={"error": error})).exchange()

    assert (failed.value.code, failed.value.request_id) == ("authentication_error", "req_1")


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_code_or_a_refresh_token_is_not_sent_again_when_nobody_knows_what_became_of_it(status: int) -> None:
    endpoints = Endpoints(httpx.Response(status))

    with pytest.raises(ProviderUnavailable):
        endpoints.exchange()
    with pytest.raises(ProviderUnavailable):
        endpoints.oauth.refresh(Tokens(access_token="a", refresh_token="r"))

    assert (len(endpoints.requests), endpoints.slept) == (2, [])


def test_revoking_and_asking_are_repeated() -> None:
    endpoints = Endpoints(httpx.Response(503), httpx.Response(200), httpx.Response(503), ok({"active": False}))

    endpoints.oauth.revoke("at-1")
    endpoints.oauth.introspect("at-1")

    assert (len(endpoints.requests), len(endpoints.slept)) == (4, 2)


def test_a_limit_is_waited_out() -> None:
    endpoints = Endpoints(httpx.Response(429, headers={"Retry-After": "9"}), ok(TOKENS))

    assert endpoints.exchange().access_token == TOKENS["access_token"]
    assert endpoints.slept == [9.0]


def test_tokens_show_no_secret() -> None:
    tokens = Tokens(access_token="at-s3cret", refresh_token="rt-s3cret", expires_at=NOW, scope="*")

    assert "s3cret" not in repr(tokens)
    assert "2026, 10, 15" in repr(tokens)
    assert "refresh_token=None" in repr(Tokens(access_token="at-s3cret"))


@pytest.mark.parametrize("field", ["error_description", "message"])
def test_what_the_server_repeats_of_a_secret_is_not_told(field: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def echo(request: httpx.Request) -> httpx.Response:
        said = request.content.decode() + request.headers["authorization"] + CLIENT_SECRET
        said += unquote_plus(request.content.decode())
        if field == "message":
            return httpx.Response(400, json={"error": {"code": "x", "message": said, "field": said}})
        return httpx.Response(400, json={"error": "x", field: said})

    oauth = HibrOAuth(
        client_id="app", client_secret=CLIENT_SECRET, redirect_uri=CALLBACK, transport=httpx.MockTransport(echo)
    )
    authorization = oauth.authorize()
    old = Tokens(access_token="at-s3cret-0", refresh_token="rt-s3cret-0")
    calls: list[Callable[[], object]] = [
        lambda: oauth.exchange(authorization, callback(authorization)),
        lambda: oauth.refresh(old),
        lambda: oauth.revoke("at-s3cret-0"),
    ]

    for call in calls:
        with pytest.raises(ProviderError) as failed:
            call()
        told = str(failed.value) + repr(vars(failed.value)) + caplog.text
        assert "***" in told
        assert "s3cret" not in told
        assert authorization.verifier not in told
        assert failed.value.__cause__ is None
        assert failed.value.__context__ is None
    assert repr(oauth) == "<HibrOAuth of app>"


@pytest.mark.parametrize(
    "wrong",
    [
        {"redirect_uri": "http://app.example/callback"},
        {"redirect_uri": "https://app.example/callback#x"},
        {"redirect_uri": "https://app.example/callback?a=1#x"},
        {"redirect_uri": "/callback"},
        {"redirect_uri": ""},
        {"app_url": "http://app.hibr.ai"},
        {"api_url": "http://api.hibr.ai"},
        {"client_id": ""},
        {"client_secret": ""},
    ],
)
def test_an_application_is_set_up_right_or_not_at_all(wrong: dict[str, str]) -> None:
    (name,) = wrong
    options = {"client_id": "app", "client_secret": "s3cret", "redirect_uri": CALLBACK, **wrong}

    with pytest.raises(ValueError, match=name):
        HibrOAuth(**options)  # type: ignore[arg-type]  # all of these are strings


@pytest.mark.parametrize("uri", [CALLBACK, f"{CALLBACK}?tenant=1", "http://127.0.0.1:8000/callback"])
def test_a_browser_can_be_sent_back_over_tls_or_to_this_machine(uri: str) -> None:
    with HibrOAuth(client_id="app", client_secret="s3cret", redirect_uri=uri) as oauth:
        assert parse_qs(oauth.authorize().url.partition("?")[2])["redirect_uri"] == [uri]


class AuthorizationServer(ThreadingHTTPServer):
    """What RFC 6749 and RFC 7636 ask of a server, and one resource behind it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), AuthorizationHandler)
        self.challenges: dict[str, tuple[str, str]] = {}
        self.refreshing: set[str] = set()
        self.active: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def issue(self) -> dict[str, Any]:
        access, refresh = secrets.token_urlsafe(), secrets.token_urlsafe()
        self.active.add(access)
        self.refreshing.add(refresh)
        return {"access_token": access, "token_type": "Bearer", "expires_in": 3600, "refresh_token": refresh}


class AuthorizationHandler(BaseHTTPRequestHandler):
    server: AuthorizationServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        if parts.path == "/oauth/authorize":
            assert query["response_type"] == "code"
            assert query["code_challenge_method"] == "S256"
            code = secrets.token_urlsafe()
            self.server.challenges[code] = (query["code_challenge"], query["redirect_uri"])
            back = f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"
            self.answer(302, None, Location=back)
        elif self.headers["authorization"].removeprefix("Bearer ") in self.server.active:
            self.answer(200, {"id": parts.path.rpartition("/")[2], "object": "invoice"})
        else:
            self.answer(401, {"error": {"code": "authentication_error", "message": "Revoked", "request_id": "req_1"}})

    def do_POST(self) -> None:
        form = dict(parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
        user, _, password = base64.b64decode(self.headers["authorization"].removeprefix("Basic ")).partition(b":")
        if (unquote_plus(user.decode()), unquote_plus(password.decode())) != (CLIENT_ID, CLIENT_SECRET):
            self.answer(401, {"error": "invalid_client"})
        elif self.path == "/oauth/token":
            self.token(form)
        elif self.path == "/oauth/revoke":
            self.server.active.discard(form["token"])
            self.server.refreshing.discard(form["token"])
            self.answer(200, None)
        else:
            self.answer(200, {"active": form["token"] in self.server.active})

    def token(self, form: dict[str, str]) -> None:
        if form["grant_type"] == "authorization_code":
            known = self.server.challenges.pop(form["code"], None)
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            proof = base64.urlsafe_b64encode(digest).decode().rstrip("=")
            granted = known == (proof, form["redirect_uri"])
        else:
            granted = form["refresh_token"] in self.server.refreshing
            self.server.refreshing.discard(form["refresh_token"])
        self.answer(200, self.server.issue()) if granted else self.answer(400, {"error": "invalid_grant"})

    def answer(self, status: int, document: Any, **headers: str) -> None:
        content = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's word
        pass


@pytest.fixture
def server() -> Iterator[AuthorizationServer]:
    server = AuthorizationServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def oauth(server: AuthorizationServer) -> Iterator[HibrOAuth]:
    with HibrOAuth(
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        redirect_uri=CALLBACK,
        app_url=server.url,
        api_url=server.url,
    ) as oauth:
        yield oauth


def consent(authorization: Authorization) -> str:
    """Where the browser is sent back to, once its user has agreed."""
    return httpx.get(authorization.url, trust_env=False).headers["location"]


def test_the_whole_flow_ends_in_a_client_that_reads_an_invoice(server: AuthorizationServer, oauth: HibrOAuth) -> None:
    authorization = oauth.authorize(["read:invoices"])
    tokens = oauth.exchange(authorization, consent(authorization))

    with HibrClient(api_key=tokens.access_token, api_url=server.url) as client:
        assert client.invoices.get("inv_1") == {"id": "inv_1", "object": "invoice"}

    assert tokens.scope == "read:invoices"
    assert not tokens.expired(datetime.now(UTC))
    assert oauth.introspect(tokens.access_token).active


def test_a_revoked_token_reads_nothing(server: AuthorizationServer, oauth: HibrOAuth) -> None:
    authorization = oauth.authorize()
    tokens = oauth.exchange(authorization, consent(authorization))
    oauth.revoke(tokens.access_token)

    with HibrClient(api_key=tokens.access_token, api_url=server.url) as client, pytest.raises(ProviderError) as failed:
        client.invoices.get("inv_1")

    assert (failed.value.code, failed.value.status) == ("authentication_error", 401)
    assert not oauth.introspect(tokens.access_token).active


def test_a_code_works_once(oauth: HibrOAuth) -> None:
    authorization = oauth.authorize()
    url = consent(authorization)
    oauth.exchange(authorization, url)

    with pytest.raises(ProviderError) as failed:
        oauth.exchange(authorization, url)

    assert (failed.value.code, failed.value.status) == ("invalid_grant", 400)


def test_a_stolen_code_is_worth_nothing_without_the_verifier(oauth: HibrOAuth) -> None:
    victim, thief = oauth.authorize(), oauth.authorize()
    stolen = dict(parse_qsl(urlsplit(consent(victim)).query))["code"]

    with pytest.raises(ProviderError) as failed:
        oauth.exchange(thief, f"{CALLBACK}?{urlencode({'code': stolen, 'state': thief.state})}")

    assert failed.value.code == "invalid_grant"


def test_tokens_are_refreshed_again_and_again(oauth: HibrOAuth) -> None:
    authorization = oauth.authorize(["read:invoices"])
    first = oauth.exchange(authorization, consent(authorization))

    second = oauth.refresh(first)
    third = oauth.refresh(second)

    assert len({first.access_token, second.access_token, third.access_token}) == 3
    assert third.scope == "read:invoices"
    with pytest.raises(ProviderError) as failed:
        oauth.refresh(first)
    assert failed.value.code == "invalid_grant"


def test_another_secret_is_refused(server: AuthorizationServer) -> None:
    with HibrOAuth(
        client_id=CLIENT_ID, client_secret="wrong", redirect_uri=CALLBACK, app_url=server.url, api_url=server.url
    ) as stranger:
        authorization = stranger.authorize()
        with pytest.raises(ProviderError) as failed:
            stranger.exchange(authorization, consent(authorization))

    assert (failed.value.code, failed.value.status) == ("invalid_client", 401)
