"""Each page, empty and full."""

from __future__ import annotations

import pytest

from tests.receiver.console.conftest import Browser
from tests.receiver.console.world import LEDGER_DOWN, World

LISTS = ("events", "runs", "endpoints", "deliveries", "schedules", "keys", "audit")


def test_every_page_explains_itself_while_there_is_nothing(browser: Browser) -> None:
    assert "Nothing came in the last hour" in browser.get("/")
    for key in LISTS:
        page = browser.get(f"/{key}/list")
        assert f"<h1>{'' if key != 'keys' else 'API keys'}" in page
        if key not in ("keys", "audit"):
            assert "yet." in page
            assert "<table" not in page


def test_every_list_shows_what_is_there(browser: Browser, full: World) -> None:
    for key in LISTS:
        page = browser.get(f"/{key}/list")
        assert "<table" in page, key
        assert "That is all." in page
    assert full.dead in browser.get("/events/list")
    assert LEDGER_DOWN in browser.get("/runs/list", status="dead")


def test_the_dashboard_shows_what_needs_somebody(browser: Browser, full: World) -> None:
    page = browser.get("/")

    for words in ("events nobody acknowledged", "Accounting", "Old shop", "Support, monthly", "<svg", "Oldest"):
        assert words in page


def test_each_thing_has_a_page_that_tells_all_of_it(browser: Browser, full: World) -> None:
    event = browser.get("/events/detail", pk=full.dead)
    for words in ("inv_2210", LEDGER_DOWN, "ConnectionError", "Timeline", "step pdf done", "receipt.issued", "attempt"):
        assert words in event, words
    assert "http://127.0.0.1:9/accounting" in browser.get("/endpoints/detail", pk=full.endpoint)
    delivery = browser.get("/deliveries/detail", pk=full.delivery)
    assert "Attempt 2" in delivery
    assert "500" in delivery
    schedule = browser.get("/schedules/detail", pk=full.schedule)
    assert "Support, monthly" in schedule
    assert "1300.00" in schedule


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_what_is_not_there_is_404(browser: Browser) -> None:
    for key in ("events", "endpoints", "deliveries", "schedules", "keys"):
        for pk in ("evt_01M802JFQ4BKP1Z2J476R6XRE8", "x", "", "\x00", "'; --", "a" * 5000):
            assert "There is no such page" in browser.get(f"/{key}/detail", 404, pk=pk)


def test_the_api_is_shown_to_whoever_is_signed_in(browser: Browser) -> None:
    moved = browser.client.get("/api/v1/docs")
    assert (moved.status_code, moved.headers["location"]) == (307, "/console/api")
    assert 'data-description="/console/openapi.json"' in browser.get("/api")

    described = browser.client.get("/console/openapi.json").json()

    assert described["servers"] == [{"url": "/api/v1"}]
    assert "/events" in described["paths"]
