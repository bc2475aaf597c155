"""The sandbox's OAuth endpoints, called as a browser and an application call them."""

from __future__ import annotations

import base64
import html
import re
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from handlers.providers.hibr.oauth import challenge
from handlers.providers.hibr.sandbox.app import CLIENT_ID, CLIENT_SECRET
from tests.handlers.providers.hibr.sandboxes import Sandbox, refusal

CALLBACK = "https://app.example/hibr/callback"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
ASKED = {
    "response_type": "code",
    "client_id": CLIENT_ID,
    "redirect_uri": CALLBACK,
    "scope": "read:invoices write:invoices",
    "state": 'a "state" & more',
    "code_challenge": challenge(VERIFIER),
    "code_challenge_method": "S256",
}


def sandbox() -> Sandbox:
    return Sandbox(redirect_uris=[CALLBACK])


def opened(at: Sandbox, **changes: str) -> httpx.Response:
    """The answer to the address that an application sends a browser to."""
    asked = {name: value for name, value in (ASKED | changes).items() if value}
    return at.call("GET", f"/oauth/authorize?{urlencode(asked)}", key=None)


def pressed(at: Sandbox, page: httpx.Response, decision: str) -> dict[str, str]:
    """What the browser brings back to the application when a button of the page is pressed."""
    hidden = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page.text)
    fields = {html.unescape(name): html.unescape(value) for name, value in hidden} | {"decision": decision}
    response = at.call("POST", "/oauth/authorize", key=None, data=fields)
    assert response.status_code == 303
    return brought(response)


def brought(response: httpx.Response) -> dict[str, str]:
    place, _, query = response.headers["location"].partition("?")
    assert place == CALLBACK
    return {name: values[0] for name, values in parse_qs(query).items()}


def code(at: Sandbox, **changes: str) -> str:
    return pressed(at, opened(at, **changes), "approve")["code"]


def post(at: Sandbox, path: str, basic: str | None = f"{CLIENT_ID}:{CLIENT_SECRET}", **fields: str) -> httpx.Response:
    headers = {} if basic is None else {"Authorization": f"Basic {base64.b64encode(basic.encode()).decode()}"}
    return at.call("POST", f"/oauth/{path}", key=None, headers=headers, data=fields)


def exchange(at: Sandbox, given: str, **changes: str) -> httpx.Response:
    fields = {"grant_type": "authorization_code", "code": given, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
    return post(at, "token", **(fields | changes))


def tokens(at: Sandbox, **changes: str) -> Any:
    answer = exchange(at, code(at, **changes))
    assert answer.status_code == 200
    return answer.json()


def error(response: httpx.Response) -> str:
    assert response.status_code in {400, 401}
    assert response.json()["error_description"]
    return str(response.json()["error"])


def works(at: Sandbox, token: str) -> bool:
    return at.call("GET", "/v1/invoices", key=token).status_code == 200


def test_the_page_names_what_is_asked_and_runs_no_script() -> None:
    page = opened(sandbox())

    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<code>read:invoices</code>" in page.text
    assert page.text.count("<button") == 2
    assert "<script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_nothing_of_the_address_is_html() -> None:
    page = opened(sandbox(), state='"><script>alert(1)</script>')

    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text


def test_approval_brings_a_code_and_the_state_and_the_code_a_token_with_its_scopes() -> None:
    at = sandbox()
    back = pressed(at, opened(at), "approve")
    answer = exchange(at, back["code"])
    granted = answer.json()

    assert back["state"] == ASKED["state"]
    assert answer.headers["cache-control"] == "no-store"
    assert (granted["token_type"], granted["expires_in"], granted["scope"]) == ("Bearer", 3600, ASKED["scope"])
    assert works(at, granted["access_token"])
    refused = at.call("GET", "/v1/customers", key=granted["access_token"])
    assert refusal(refused)[:2] == (403, "permission_error")
    assert not works(at, granted["refresh_token"])


def test_a_user_may_say_no() -> None:
    at = sandbox()
    back = pressed(at, opened(at), "deny")

    assert (back["error"], back["state"]) == ("access_denied", ASKED["state"])
    assert "code" not in back


def test_without_a_scope_everything_is_to_be_read() -> None:
    assert tokens(sandbox(), scope="")["scope"].split() == [
        "read:invoices",
        "read:customers",
        "read:payments",
        "read:vat",
        "read:payroll",
        "read:reports",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "other"},
        {"client_id": ""},
        {"redirect_uri": ""},
        {"redirect_uri": "https://evil.example/"},
        {"redirect_uri": f"{CALLBACK}/more"},
        {"redirect_uri": "http://127.0.0.1@evil.example/"},
        {"redirect_uri": "http://127.0.0.1/#fragment"},
        {"redirect_uri": "javascript:alert(1)"},
        {"redirect_uri": "http://[::1"},
    ],
)
def test_nobody_is_sent_to_an_address_that_is_not_registered(changes: dict[str, str]) -> None:
    page = opened(sandbox(), **changes)

    assert page.status_code == 400
    assert "location" not in page.headers


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": ""}, "invalid_request"),
        ({"scope": "read:everything"}, "invalid_scope"),
    ],
)
def test_any_other_mistake_is_told_to_the_application(changes: dict[str, str], word: str) -> None:
    back = brought(opened(sandbox(), **changes))

    assert (back["error"], back["state"]) == (word, ASKED["state"])


def test_a_parameter_that_stands_twice_is_a_mistake() -> None:
    response = sandbox().call("GET", f"/oauth/authorize?{urlencode(ASKED)}&state=other", key=None)

    assert (response.status_code, "location" in response.headers) == (400, False)


def test_any_port_of_this_machine_may_be_come_back_to() -> None:
    at = sandbox()
    there = "http://127.0.0.1:51234/callback?from=hibr"
    response = at.call(
        "POST", "/oauth/authorize", key=None, data=ASKED | {"redirect_uri": there, "decision": "approve"}
    )

    parts = urlsplit(response.headers["location"])
    assert (parts.port, parts.path) == (51234, "/callback")
    assert set(parse_qs(parts.query)) == {"from", "code", "state"}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"code": "unknown"}, "invalid_grant"),
        ({"code": ""}, "invalid_request"),
        ({"redirect_uri": "https://app.example/other"}, "invalid_grant"),
        ({"code_verifier": VERIFIER[::-1]}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "refresh_token"}, "invalid_request"),
    ],
)
def test_a_code_is_exchanged_only_by_who_began(changes: dict[str, str], word: str) -> None:
    at = sandbox()
    assert error(exchange(at, code(at), **changes)) == word


def test_a_code_that_comes_twice_ends_the_consent() -> None:
    at = sandbox()
    given = code(at)
    access = exchange(at, given).json()["access_token"]
    assert works(at, access)

    assert error(exchange(at, given)) == "invalid_grant"
    assert not works(at, access)


def test_a_code_lives_ten_minutes_and_an_access_token_an_hour() -> None:
    at = sandbox()
    in_time, too_late = code(at), code(at)
    at.now += 599
    access = exchange(at, in_time).json()["access_token"]
    at.now += 1
    assert error(exchange(at, too_late)) == "invalid_grant"
    at.now += 3598
    assert works(at, access)
    at.now += 1
    assert not works(at, access)


def test_a_refresh_token_is_exchanged_once_for_new_tokens() -> None:
    at = sandbox()
    first = tokens(at)
    second = post(at, "token", grant_type="refresh_token", refresh_token=first["refresh_token"]).json()
    narrow = post(
        at, "token", grant_type="refresh_token", refresh_token=second["refresh_token"], scope="read:invoices"
    ).json()

    assert works(at, second["access_token"])
    assert (second["scope"], narrow["scope"]) == (ASKED["scope"], "read:invoices")
    assert len({first["refresh_token"], second["refresh_token"], narrow["refresh_token"]}) == 3
    again = post(at, "token", grant_type="refresh_token", refresh_token=first["refresh_token"])
    assert error(again) == "invalid_grant"
    assert not works(at, narrow["access_token"])


def test_a_refresh_cannot_ask_for_more() -> None:
    at = sandbox()
    refresh = tokens(at)["refresh_token"]

    assert error(post(at, "token", grant_type="refresh_token", refresh_token=refresh, scope="*")) == "invalid_scope"


@pytest.mark.parametrize(("kind", "left"), [("access_token", [False, True]), ("refresh_token", [False, False])])
def test_revoking_a_refresh_token_ends_the_consent_and_an_access_token_only_itself(kind: str, left: list[bool]) -> None:
    at = sandbox()
    first = tokens(at)
    second = post(at, "token", grant_type="refresh_token", refresh_token=first["refresh_token"]).json()
    revoked = first if kind == "access_token" else second

    assert post(at, "revoke", token=revoked[kind]).status_code == 200
    assert [works(at, one["access_token"]) for one in (first, second)] == left


def test_what_is_no_token_is_revoked_without_a_word() -> None:
    assert post(sandbox(), "revoke", token="none").status_code == 200


def test_introspection_tells_whether_a_token_is_active() -> None:
    at = sandbox()
    granted = tokens(at)
    told = post(at, "introspect", token=granted["access_token"]).json()
    of_refresh = post(at, "introspect", token=granted["refresh_token"]).json()
    at.now += 3600
    later = post(at, "introspect", token=granted["access_token"]).json()

    assert (told["active"], told["scope"], told["client_id"]) == (True, ASKED["scope"], CLIENT_ID)
    assert told["exp"] - told["iat"] == 3600
    assert (of_refresh["active"], "exp" in of_refresh) == (True, False)
    assert later == post(at, "introspect", token="none").json() == {"active": False}


@pytest.mark.parametrize("path", ["token", "revoke", "introspect"])
@pytest.mark.parametrize(
    "basic", [None, "", CLIENT_ID, f"{CLIENT_ID}:wrong", f"other:{CLIENT_SECRET}", "\u00fc:\u00fc"]
)
def test_an_application_proves_who_it_is(path: str, basic: str | None) -> None:
    response = post(sandbox(), path, basic, token="any")

    assert (response.status_code, error(response)) == (401, "invalid_client")
    assert response.headers["www-authenticate"] == "Basic"


def test_the_secret_may_stand_in_the_form() -> None:
    at = sandbox()
    fields = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "token": "none"}

    assert post(at, "introspect", None, **fields).status_code == 200


def test_these_endpoints_take_forms() -> None:
    response = sandbox().call("POST", "/oauth/token", key=None, json={"grant_type": "authorization_code"})

    assert error(response) == "invalid_request"
