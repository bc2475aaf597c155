from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import pytest

from handlers.providers.http import trust
from tests.receiver.console.world import World, world
from tests.receiver.edge import Edge
from workers import api_keys, passwords
from workers.app import Runtime

_TOKEN = re.compile(r'name="csrftoken" value="([^"]+)"')


@dataclass(frozen=True, slots=True)
class Browser:
    """Somebody at the console, without a browser's scripts."""

    client: httpx.Client
    key: str = ""

    def get(self, path: str, expect: int = 200, **params: str) -> str:
        """A page, which answers with this status."""
        answer = self.client.get(f"/console{path}", params=params or None)
        assert answer.status_code == expect, answer.text[:2000]
        return answer.text

    def post(
        self, path: str, expect: int = 200, *, token: str | None = None, **form: str | list[str]
    ) -> httpx.Response:
        """Send a form with the token of a page that has one."""
        given = self.token() if token is None else token
        answer = self.client.post(f"/console{path}", data={"csrftoken": given, **form})
        assert answer.status_code == expect, answer.text[:2000]
        return answer

    def do(self, key: str, action: str, pk: str, expect: int = 200, **form: str) -> httpx.Response:
        """What the button of a row does."""
        return self.post(f"/_api/{key}/row-action?pk={pk}&name={action}", expect, **form)

    def token(self) -> str:
        """Of the page to sign in at, or of any other."""
        found = _TOKEN.search(self.client.get("/console/login").text)
        assert found is not None
        return found[1]

    def sign_in(self, secret: str, name: str = "", expect: int = 303) -> httpx.Response:
        """Fill in the page."""
        return self.post("/login", expect, name=name, secret=secret)


BrowserWith = Callable[..., Browser]


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each guess of a password costs is no matter of these tests."""
    monkeypatch.setattr(passwords, "_COST", 16)
    monkeypatch.setattr(passwords, "_NOBODYS", passwords.stored("nobody knows it"))


@pytest.fixture
def stranger(edge: Edge) -> Iterator[Browser]:
    """Somebody who has not signed in."""
    headers = {"accept": "text/html"}
    base = edge.client.base_url
    with httpx.Client(base_url=base, headers=headers, trust_env=False, verify=trust(), timeout=20) as client:
        yield Browser(client)


@pytest.fixture
def browser_with(runtime: Runtime, stranger: Browser) -> BrowserWith:
    """Signs somebody in whose key has these scopes; `full` without any."""

    def make(*scopes: str) -> Browser:
        made = api_keys.create(runtime.engine, "Ada", scopes or ("full",), actor="test", now=datetime.now(UTC))
        browser = Browser(stranger.client, made.key)
        browser.sign_in(made.key)
        return browser

    return make


@pytest.fixture
def browser(browser_with: BrowserWith) -> Browser:
    """Somebody who may do everything."""
    return browser_with()


@pytest.fixture
def full(runtime: Runtime) -> Iterator[World]:
    """A little of everything is there."""
    with world(runtime) as made:
        yield made
