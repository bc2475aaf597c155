"""Pictures of the console for the documents: `python -m tests.browser.screenshots` writes docs/screenshots anew.

On a receiver of its own, with an embedded database and server in a folder that is gone afterwards.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page
from sqlalchemy import Engine, select, update

from receiver.app import create_app
from tests.browser import chromium
from tests.conftest import SECRET
from tests.receiver.console.world import World, world
from tests.receiver.edge import serving
from workers import api_keys, app, database, logs
from workers.app import Runtime
from workers.leases import utcnow
from workers.models import HandlerRun
from workers.settings import Settings

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
DESKTOP, PHONE = (1280, 800), (390, 844)


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="billhook-screenshots-") as folder, _running(Path(folder)) as runtime:
        receiver = create_app(runtime)
        with serving(receiver, take=receiver.take) as edge, chromium.browser() as browser:
            url = str(edge.client.base_url)
            _first_run(browser, url)
            with world(runtime) as full:
                full.bustle(utcnow() - timedelta(minutes=1))
                _as_on_a_server(runtime.engine)
                _pages(browser, url, full)


@contextmanager
def _running(folder: Path) -> Iterator[Runtime]:
    settings = Settings.model_validate(
        {
            "state_dir": folder,
            "sources": {"shop": {"provider": "hisab", "secrets": SECRET, "api_key": "hisab_test_key"}},
            "egress_networks": "127.0.0.0/8",
            "egress_ports": "*",
            "log_level": "error",
        }
    )
    logs.configure(settings)
    runtime = app.start(settings)
    database.ensure_schema(settings, runtime.engine)
    try:
        yield runtime
    finally:
        runtime.engine.dispose()


def _as_on_a_server(engine: Engine) -> None:
    """Have handlers have taken their time, and code have lain where the image has it."""
    with database.write(engine) as connection:
        for number, run in enumerate(connection.execute(select(HandlerRun.id, HandlerRun.error)).all()):
            error = run.error and run.error.replace(str(FOLDER.parents[1]), "/opt/billhook")
            taken = {"duration_ms": 18 + number * 37 % 260, "error": error}
            connection.execute(update(HandlerRun).where(HandlerRun.id == run.id).values(taken))


def _first_run(browser: Browser, url: str) -> None:
    with _page(browser, url, DESKTOP) as page:
        page.goto("/console/login")
        _take(page, "first-run")


def _pages(browser: Browser, url: str, full: World) -> None:
    key = api_keys.create(full.runtime.engine, "Ada", ["full"], actor="root@billhook", now=utcnow()).key
    paths = {"dashboard": "/", "new-endpoint": "/endpoints/new", "new-key": "/keys/new", "api": "/api"}
    paths |= {name: f"/{name}/list" for name in _LISTS}
    details = {"events": full.dead, "endpoints": full.endpoint, "deliveries": full.delivery, "schedules": full.schedule}
    paths |= {_LISTS[name]: f"/{name}/detail?pk={pk}" for name, pk in details.items()}
    for kind, size in (("", DESKTOP), ("-phone", PHONE)):
        with _page(browser, url, size) as page:
            page.goto("/console/login")
            _take(page, f"sign-in{kind}")
            page.get_by_label("Password or API key").fill(key)
            page.get_by_role("button", name="Sign in").click()
            for name, path in paths.items():
                page.goto(f"/console{path}")
                page.wait_for_load_state("networkidle")
                _take(page, f"{name}{kind}")
            page.emulate_media(color_scheme="dark")
            page.goto("/console/")
            _take(page, f"dashboard-dark{kind}")
            if size == DESKTOP:
                page.goto(f"/console/events/detail?pk={full.dead}")
                page.get_by_role("button", name="Replay").click()
                page.get_by_role("dialog").get_by_role("button", name="Replay").wait_for()
                page.wait_for_timeout(300)  # until it has come to rest
                _take(page, "replay")


_LISTS = {
    "events": "event", "runs": "", "endpoints": "endpoint", "deliveries": "delivery", "schedules": "schedule",
    "keys": "", "audit": "",
}  # fmt: skip
"""The lists, and what the page of a row is called."""


@contextmanager
def _page(browser: Browser, url: str, size: tuple[int, int]) -> Iterator[Page]:
    viewport = {"width": size[0], "height": size[1]}
    context = browser.new_context(base_url=url, viewport=viewport, reduced_motion="reduce")  # type: ignore[arg-type]
    yield context.new_page()
    context.close()


def _take(page: Page, name: str) -> None:
    page.mouse.move(0, 0)
    taken = Image.open(BytesIO(page.screenshot()))
    # A page has few colours, and the repository is to stay small.
    taken.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
