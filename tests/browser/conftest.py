from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import chromium
from tests.receiver.conftest import serve
from tests.receiver.console.world import World, world
from tests.receiver.edge import Edge
from workers import api_keys
from workers.app import Runtime

__all__ = ["serve"]
expect.set_options(timeout=15_000)


@pytest.fixture(scope="module")  # while Playwright is there, its event loop is, and nobody else can run one
def chrome() -> Iterator[Browser]:
    """A real browser; without one these tests are left out, and tests/receiver/console asks the same of the pages."""
    try:
        with chromium.browser() as running:
            yield running
    except chromium.Lacking as lacking:
        pytest.skip(str(lacking))


@pytest.fixture
def full(runtime: Runtime) -> Iterator[World]:
    """A little of everything is there."""
    with world(runtime) as made:
        yield made


@dataclass(frozen=True, slots=True)
class Somebody:
    """Somebody at a browser, and what it complained of."""

    page: Page
    complaints: list[str]

    def sign_in(self, secret: str, name: str = "") -> None:
        self.page.goto("/console/")
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password or API key").fill(secret)
        self.page.get_by_role("button", name="Sign in").click()

    def menu(self, name: str) -> None:
        """Choose a page of the menu."""
        self.page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        expect(self.page.get_by_role("heading", level=1, name=name)).to_be_visible()

    def press(self, action: str, confirm: str) -> None:
        """Press a button of the page, and the one that confirms it."""
        self.page.locator("main").get_by_role("button", name=action, exact=True).click()
        dialog = self.page.get_by_role("dialog").filter(has_text=re.compile(r"\?"))
        expect(dialog).to_be_visible()
        dialog.get_by_role("button", name=confirm, exact=True).click()


SomebodyWith = Callable[..., Somebody]


@pytest.fixture
def somebody(chrome: Browser, edge: Edge) -> Iterator[Somebody]:
    """Somebody who has not signed in; at the end nothing was complained of, and nothing asked of another host."""
    context = chrome.new_context(base_url=str(edge.client.base_url), reduced_motion="reduce")
    page, complaints = context.new_page(), list[str]()
    page.on("console", lambda told: complaints.append(told.text) if told.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    own = str(edge.client.base_url).rstrip("/")
    page.on("request", lambda asked: None if asked.url.startswith((own, "data:")) else complaints.append(asked.url))
    yield Somebody(page, complaints)
    context.close()
    assert complaints == []


@pytest.fixture
def edge(serve: Callable[..., Edge], runtime: Runtime) -> Edge:
    """A receiver that runs."""
    return serve(runtime)


@pytest.fixture
def with_key(runtime: Runtime, somebody: Somebody) -> SomebodyWith:
    """Signs somebody in whose key has these scopes; `full` without any."""

    def make(*scopes: str) -> Somebody:
        made = api_keys.create(runtime.engine, "Ada", scopes or ("full",), actor="test", now=datetime.now(UTC))
        somebody.sign_in(made.key)
        expect(somebody.page.get_by_role("heading", level=1, name="Dashboard")).to_be_visible()
        return somebody

    return make
