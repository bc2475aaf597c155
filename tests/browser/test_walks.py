"""What people come to the console for, walked through in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Somebody, SomebodyWith
from tests.receiver.console.world import LEDGER_DOWN, World
from workers.delivery import endpoints

_UNREADABLE = Path(__file__).with_name("readable.js").read_text("utf-8")
pytestmark = pytest.mark.parametrize("backend", ["embedded"], indirect=True)


def test_whoever_has_no_key_does_not_come_in(somebody: Somebody) -> None:
    somebody.sign_in("bh_live_made_up")

    expect(somebody.page.get_by_role("alert")).to_have_text("That is not right. Check it, and try again.")
    somebody.complaints.clear()  # the browser tells of a 401


def test_a_failed_event_is_found_read_replayed_and_seen_processed(with_key: SomebodyWith, full: World) -> None:
    ada = with_key()
    ada.page.get_by_role("link", name=re.compile("^Dead")).click()
    ada.page.get_by_role("link", name=full.dead).click()
    expect(ada.page.get_by_label("Error of ledger.book")).to_contain_text(LEDGER_DOWN)

    full.mended = True
    ada.press("Replay", confirm="Replay")
    expect(ada.page.get_by_text("It is being replayed.")).to_be_visible()
    full.work()
    ada.page.reload()

    expect(ada.page.get_by_role("heading", level=1)).to_contain_text("processed")
    expect(ada.page.get_by_text("1 replay")).to_be_visible()


def test_an_endpoint_is_made_its_secret_rotated_and_a_test_sent(with_key: SomebodyWith, full: World) -> None:
    ada = with_key()
    ada.menu("Endpoints")
    ada.page.get_by_role("link", name="New endpoint").click()
    ada.page.get_by_label("URL").fill("http://127.0.0.1:9/made")
    ada.page.get_by_label("Description").fill("Made here")
    ada.page.get_by_role("button", name="Add the endpoint").click()
    first = ada.page.get_by_label("Signing secret").inner_text()
    ada.page.get_by_role("link", name="I have it").click()

    ada.press("Rotate secret", confirm="Rotate")
    second = ada.page.get_by_label("Signing secret").inner_text()
    assert first != second
    assert {first[:6], second[:6]} == {"whsec_"}
    ada.page.get_by_role("link", name="I have it").click()

    ada.press("Send a test", confirm="Send")
    expect(ada.page.get_by_text("The test is on its way")).to_be_visible()
    expect(ada.page.get_by_text("billhook.test")).to_be_visible()
    assert "whsec_" not in ada.page.content()


def test_a_schedule_is_paused_from_the_list(with_key: SomebodyWith, full: World) -> None:
    ada = with_key()
    ada.menu("Schedules")
    row = ada.page.get_by_role("row").filter(has_text="Support, monthly")
    row.get_by_role("button", name="Actions").click()
    row.get_by_text("Pause").click()
    ada.page.get_by_role("dialog").get_by_role("button", name="Pause").click()

    expect(ada.page.get_by_text("The schedule is paused.")).to_be_visible()
    expect(row).to_contain_text("paused")


def test_a_refusal_is_said_on_the_page(with_key: SomebodyWith, full: World) -> None:
    ada = with_key()
    ada.page.goto(f"/console/endpoints/detail?pk={full.endpoint}")
    endpoints.switch_off(full.runtime.engine, full.endpoint, "meanwhile", actor="Bob", now=full.dispatcher.clock())

    ada.press("Send a test", confirm="Send")

    expect(ada.page.get_by_text("is disabled: enable it first")).to_be_visible()
    ada.complaints.clear()  # the browser tells of a 400


def test_whoever_may_only_read_is_offered_nothing(with_key: SomebodyWith, full: World) -> None:
    reader = with_key("read")
    for page in ("Events", "Endpoints", "Deliveries", "Schedules", "API keys"):
        reader.menu(page)
        expect(reader.page.get_by_role("button", name="Actions")).to_have_count(0)
    reader.page.goto(f"/console/events/detail?pk={full.dead}")
    expect(reader.page.locator("main").get_by_role("button")).to_have_count(0)


def test_a_form_of_another_site_is_refused(with_key: SomebodyWith, full: World) -> None:
    ada = with_key()
    url = f"{ada.page.url}_api/events/row-action?pk={full.dead}&name=acknowledge"
    # A page of no origin at all, as a forged one is to this console.
    forged = ada.page.context.new_page()
    forged.set_content(
        f'<form method="post" action="{url}"><input name="csrftoken" value="x"><button>Win</button></form>'
    )
    with forged.expect_navigation():
        forged.get_by_role("button", name="Win").click()

    assert "CSRF" in forged.content() or "another site" in forged.content()
    ada.page.goto(url.split("_api", maxsplit=1)[0] + f"events/detail?pk={full.dead}")
    expect(ada.page.locator("main").get_by_role("button", name="Acknowledge")).to_be_visible()


def test_the_figures_keep_up_by_themselves(with_key: SomebodyWith, full: World) -> None:
    ada = with_key()
    ada.page.clock.install()
    ada.page.goto("/console/")
    asked = list[str]()
    ada.page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/pulse") else None)
    expect(ada.page.get_by_role("link", name=re.compile("^Waiting 1"))).to_be_visible()

    ada.page.evaluate("Object.defineProperty(document, 'hidden', { configurable: true, get: () => true })")
    ada.page.clock.run_for(60_000)
    assert asked == []  # nobody would see it

    ada.page.evaluate("Object.defineProperty(document, 'hidden', { configurable: true, get: () => false })")
    full.work()
    while not ada.page.get_by_role("link", name=re.compile("^Waiting 0")).is_visible():
        with ada.page.expect_response("**/pulse"):
            ada.page.clock.run_for(5_000)


def test_the_keyboard_is_enough(with_key: SomebodyWith, full: World) -> None:
    ada = with_key()
    ada.page.goto("/console/events/list?status=dead")
    ada.page.keyboard.press("Tab")
    expect(ada.page.get_by_role("link", name="Skip to the content")).to_be_focused()
    ada.page.keyboard.press("Enter")
    for _ in range(20):
        ada.page.keyboard.press("Tab")
        if ada.page.evaluate("document.activeElement.className") == "row-link":
            break
    ada.page.keyboard.press("Enter")
    expect(ada.page.get_by_label("Error of ledger.book")).to_be_visible()

    ada.page.locator("main").get_by_role("button", name="Acknowledge").focus()
    ada.page.keyboard.press("Space")
    expect(ada.page.get_by_role("dialog")).to_be_visible()
    ada.page.get_by_role("dialog").get_by_role("button", name="Acknowledge").press("Enter")

    expect(ada.page.get_by_text("It is acknowledged.")).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_of_it_fits_on_a_phone_and_can_be_read(with_key: SomebodyWith, full: World, theme: str) -> None:
    ada = with_key()
    ada.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    ada.page.set_viewport_size({"width": 390, "height": 844})
    paths = [f"{key}/list" for key in ("events", "runs", "endpoints", "deliveries", "schedules", "keys", "audit")]
    details = {"events": full.dead, "endpoints": full.endpoint, "deliveries": full.delivery, "schedules": full.schedule}
    paths += [f"{key}/detail?pk={pk}" for key, pk in details.items()]
    for path in ("", *paths, "endpoints/new", "keys/new"):
        ada.page.goto(f"/console/{path}")
        assert ada.page.evaluate("document.documentElement.dataset.bsTheme") == theme
        assert ada.page.evaluate(_UNREADABLE) == [], path
