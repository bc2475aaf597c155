"""The console, under `/console`: what is stored, how it does, and what a person may do about it, in a browser.

`create_console` is the composition root; a module for each kind of page says what is on it. It is built on
starlette-admin: its assets, its menu, its actions with their confirmation, its messages and its tokens against forged
forms. What is shown comes from the engine's pages, and never from a table that somebody counts.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from receiver.console.access import ApiKeyView
from receiver.console.audit import AuditView
from receiver.console.dashboard import Dashboard
from receiver.console.deliveries import DeliveryView
from receiver.console.edge import Edge
from receiver.console.endpoints import EndpointView
from receiver.console.events import EventView
from receiver.console.new_endpoint import NewEndpoint
from receiver.console.new_key import NewKey
from receiver.console.pages import ASSETS, Pages
from receiver.console.reference import Reference
from receiver.console.runs import RunView
from receiver.console.schedules import ScheduleView
from receiver.console.session import Sessions
from receiver.console.signing_in import Door
from workers.app import Runtime
from workers.clients import Clients
from workers.vault import VaultError, derived

PREFIX = "/console"
_PURPOSE = "billhook.console"


def create_console(runtime: Runtime, clients: Clients) -> ASGIApp:
    """The application under `/console`, over this process's database, Redis, and clients of the sources' APIs."""
    try:
        # The newest key signs; itsdangerous wants it last.
        secrets = [key.hex() for key in reversed(derived(runtime.settings, _PURPOSE))]
    except VaultError as error:
        return PlainTextResponse(f"the console cannot sign its cookies: {error}\n", 503)
    pages = Pages(secrets, Door(runtime, Sessions(runtime.engine, secrets)), Dashboard(runtime))
    reference = Reference()
    for view in (
        EventView(runtime), RunView(runtime), EndpointView(runtime), DeliveryView(runtime),
        ScheduleView(runtime, clients), ApiKeyView(runtime), AuditView(runtime), NewEndpoint(runtime), NewKey(runtime),
        reference,
    ):  # fmt: skip
        pages.add_view(view)
    pages.routes.insert(0, Route("/openapi.json", reference.openapi, name="openapi"))
    pages.routes.insert(0, Mount("/assets", StaticFiles(directory=ASSETS), name="assets"))
    swagger = StaticFiles(packages=[("fastapi_offline", "static")])
    pages.routes.insert(0, Mount("/swagger", swagger, name="swagger"))
    outer = Starlette()
    pages.mount_to(outer)
    return Edge(outer, runtime.settings.max_body_bytes)
