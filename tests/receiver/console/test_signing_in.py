"""Who comes in, how often they may try, and when their session ends."""

from __future__ import annotations

import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx
import pytest
from itsdangerous import URLSafeTimedSerializer
from sqlalchemy import Engine

from receiver.console.session import COOKIE
from receiver.console.signing_in import TRIES
from tests.receiver.conftest import Serve
from tests.receiver.console.conftest import Browser, BrowserWith
from workers import api_keys, users
from workers.app import Runtime
from workers.vault import derived

pytestmark = pytest.mark.parametrize("backend", ["embedded"], indirect=True)  # none of it hangs on the servers
PASSWORD = "correct horse battery"


def now() -> datetime:
    return datetime.now(UTC)


def test_who_has_not_signed_in_sees_the_page_for_it_and_nothing_else(stranger: Browser) -> None:
    for path in ("/", "/events/list", "/events/detail?pk=x", "/keys/new", "/api", "/nowhere"):
        answer = stranger.client.get(f"/console{path}")
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/console/login?next=%2Fconsole%2F")
    for path in ("/pulse", "/openapi.json"):
        assert stranger.client.get(f"/console{path}", headers={"accept": "*/*"}).status_code == 401
    assert stranger.do("events", "replay", "evt_01M802JFQ4BKP1Z2J476R6XRE8", 401).text == "sign in first\n"


def test_the_first_who_comes_is_told_how_to_make_a_key_or_a_user(stranger: Browser, engine: Engine) -> None:
    first = stranger.get("/login")
    assert "billhook keys create --scopes full" in first
    assert "billhook users add" in first

    api_keys.create(engine, "first", ["full"], actor="test", now=now())

    assert "Nobody can sign in yet" not in stranger.get("/login")


def test_an_api_key_opens_the_console(browser: Browser) -> None:
    assert "<h1>Dashboard</h1>" in browser.get("/")
    assert browser.client.get("/console", follow_redirects=False).headers["location"] == "/console/"


def test_a_name_and_a_password_do_and_a_wrong_one_does_not(stranger: Browser, engine: Engine) -> None:
    users.add(engine, "Ada", PASSWORD, ["read"], actor="root", now=now())

    for name, secret in (("Ada", "wrong"), ("Eve", PASSWORD), ("", PASSWORD), ("Ada\x00", PASSWORD), ("", "")):
        refused = stranger.sign_in(secret, name, 401)
        assert "That is not right" in refused.text
        assert PASSWORD not in refused.text
        assert COOKIE not in refused.cookies

    assert stranger.sign_in(PASSWORD, "Ada").headers["location"] == "/console/"
    assert "Ada" in stranger.get("/")


def test_who_signs_in_comes_to_the_page_they_wanted_and_never_to_another_site(browser_with: BrowserWith) -> None:
    browser = browser_with()
    for onward, to in (
        ("/console/events/list", "/console/events/list"),
        ("https://evil.example/", "/console/"),
        ("//evil.example/", "/console/"),
        ("/\\evil.example", "/console/"),
        ("javascript:alert(1)", "/console/"),
    ):
        form = {"csrftoken": browser.token(), "name": "", "secret": browser.key}
        answer = browser.client.post("/console/login", params={"next": onward}, data=form)
        assert answer.headers["location"] == to


def test_after_ten_failures_nobody_at_that_address_may_try_for_a_while(stranger: Browser, engine: Engine) -> None:
    users.add(engine, "Ada", PASSWORD, ["read"], actor="root", now=now())
    for _ in range(TRIES):
        stranger.sign_in("wrong", "Ada", 401)

    refused = stranger.sign_in(PASSWORD, "Ada", 429)

    assert re.search(r"Try again in [0-9]+ seconds", refused.text)
    assert 0 < int(refused.headers["retry-after"]) <= 60


def test_the_cookie_is_for_this_console_alone_and_no_script(stranger: Browser, engine: Engine) -> None:
    key = api_keys.create(engine, "Ada", ["read"], actor="test", now=now()).key
    cookie = stranger.sign_in(key).headers["set-cookie"]

    for part in ("HttpOnly", "SameSite=lax", "Path=/console", "Max-Age=43200"):
        assert part in cookie
    assert "Secure" not in cookie
    assert key not in cookie


def test_behind_a_proxy_that_is_trusted_the_cookie_is_secure(serve: Serve, runtime: Runtime) -> None:
    edge = serve(runtime, trusted_proxies=("127.0.0.1",))
    key = api_keys.create(runtime.engine, "Ada", ["read"], actor="test", now=now()).key
    headers = {"accept": "text/html", "x-forwarded-proto": "https"}
    with httpx.Client(base_url=edge.client.base_url, headers=headers, trust_env=False) as client:
        # The client itself speaks http, so it would not send back what is for https alone.
        page = client.get("/console/login")
        token = page.text.split('name="csrftoken" value="')[1].split('"')[0]
        form = {"csrftoken": token, "name": "", "secret": key}
        signed_in = client.post(
            "/console/login", data=form, headers={"cookie": page.headers["set-cookie"].split(";")[0]}
        )

    assert "Secure" in page.headers["set-cookie"]
    assert "Secure" in signed_in.headers["set-cookie"]


def test_a_session_ends_with_its_key(browser: Browser, engine: Engine) -> None:
    browser.get("/")
    (key,) = api_keys.everyone(engine)

    api_keys.revoke(engine, key.id, actor="test", now=now())

    assert browser.client.get("/console/").status_code == 303


def test_a_session_ends_with_its_user(stranger: Browser, engine: Engine) -> None:
    users.add(engine, "Ada", PASSWORD, ["read"], actor="root", now=now())
    stranger.sign_in(PASSWORD, "Ada")
    stranger.get("/")

    users.disable(engine, "Ada", actor="root", now=now())

    assert stranger.client.get("/console/").status_code == 303


def test_a_session_that_somebody_made_up_is_none(stranger: Browser, browser_with: BrowserWith) -> None:
    browser = browser_with()
    good = browser.client.cookies[COOKIE]
    signed, signature = good.rsplit(".", 1)
    other = f"{signed}.{'B' if signature.startswith('A') else 'A'}{signature[1:]}"
    for forged in (other, "x" + good, signed, good.split(".")[0], "", "null"):
        with httpx.Client(base_url=browser.client.base_url, cookies={COOKIE: forged}, trust_env=False) as client:
            assert client.get("/console/", headers={"accept": "text/html"}).status_code == 303, forged


def test_a_session_of_a_version_that_gave_it_no_id_is_over(browser: Browser, runtime: Runtime) -> None:
    secrets = [key.hex() for key in derived(runtime.settings, "billhook.console")]
    signer = URLSafeTimedSerializer(secrets, salt=COOKIE)
    claim = signer.loads(browser.client.cookies[COOKIE])
    del claim["session"]

    with httpx.Client(base_url=browser.client.base_url, trust_env=False) as client:
        client.cookies[COOKIE] = signer.dumps(claim)
        assert client.get("/console/").status_code == 401


def test_who_signs_out_is_out(browser: Browser) -> None:
    browser.post("/logout", 303)

    assert browser.client.get("/console/").status_code == 303


def test_who_signs_out_ends_that_session_and_no_other_wherever_its_cookie_is(browser_with: BrowserWith) -> None:
    def seen_with(cookie: str) -> int:
        with httpx.Client(base_url=browser.client.base_url, cookies={COOKIE: cookie}, trust_env=False) as client:
            return client.get("/console/").status_code

    earlier = browser_with().client.cookies[COOKIE]
    browser = browser_with()
    copied = browser.client.cookies[COOKIE]
    assert seen_with(copied) == seen_with(earlier) == 200

    browser.post("/logout", 303)

    assert (seen_with(copied), seen_with(earlier)) == (401, 200)


def test_a_session_lives_on_when_the_encryption_keys_are_rotated(
    serve: Serve, runtime: Runtime, browser_with: BrowserWith
) -> None:
    from cryptography.fernet import Fernet
    from pydantic import SecretStr

    browser = browser_with()
    rotated = (SecretStr(Fernet.generate_key().decode()), *runtime.settings.encryption_keys)
    cookie = {"cookie": f"{COOKIE}={browser.client.cookies[COOKIE]}"}

    after = serve(runtime, encryption_keys=rotated).client.get("/console/", headers=cookie)
    without = serve(runtime, encryption_keys=rotated[:1]).client.get("/console/", headers=cookie)

    assert after.status_code == 200
    assert without.status_code == 401


def test_without_a_key_to_sign_cookies_with_the_console_says_what_to_set(serve: Serve, runtime: Runtime) -> None:
    edge = serve(runtime, encryption_keys=(), database_url="postgresql://nowhere/x")

    answer = edge.client.get("/console/")

    assert answer.status_code == 503
    assert "BILLHOOK_ENCRYPTION_KEYS is not set" in answer.text


def test_without_management_there_is_no_console(serve: Serve, runtime: Runtime) -> None:
    assert serve(runtime, management=False).client.get("/console/").status_code == 404


def test_who_tries_many_at_once_may_not_try_more_often(stranger: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[str]()

    def authenticate(_engine: Engine, _name: str, password: str, _now: datetime) -> None:
        tried.append(password)
        time.sleep(0.2)

    monkeypatch.setattr(users, "authenticate", authenticate)
    token, url = stranger.token(), stranger.client.base_url

    def guess(number: int) -> int:
        with httpx.Client(base_url=url, cookies=stranger.client.cookies, trust_env=False, timeout=20) as client:
            form = {"csrftoken": token, "name": "Ada", "secret": str(number)}
            return client.post("/console/login", data=form).status_code

    with ThreadPoolExecutor(2 * TRIES) as guessing:
        answers = Counter(guessing.map(guess, range(2 * TRIES)))

    assert answers == {401: TRIES, 429: TRIES}
    assert len(tried) == TRIES
