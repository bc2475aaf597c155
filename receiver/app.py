"""The receiver's composition root: what is asked of which part, and what each is made of."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from handlers.errors import ProviderError
from receiver import health
from receiver.answers import Receive, Scope, Send
from receiver.gather import Gatherer
from receiver.late import Late
from receiver.server import Take
from receiver.webhooks import NO_UPGRADE, PREFIX, Webhooks
from workers import faults, inbox
from workers.app import Runtime
from workers.clients import Clients
from workers.database import Held
from workers.inbox import Arrival, Outcome, Window
from workers.schedule.generator import DEADLINE
from workers.settings import Settings, SettingsError


class Receiver:
    """The whole application: deliveries go straight to `Webhooks`, everything else through the router."""

    def __init__(self, webhooks: Webhooks, router: Starlette) -> None:
        self._webhooks = webhooks
        self._router = router

    @property
    def take(self) -> Take:
        """The short way of a plain delivery."""
        return self._webhooks.take

    def drain(self) -> None:
        """Say from now on that no more should be sent here; what comes is served all the same."""
        self._router.state.draining = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == "http" and scope["path"].startswith(PREFIX):
                await self._webhooks(scope, receive, send)
            elif scope["type"] == "http" and any(name == b"upgrade" for name, _ in scope["headers"]):
                await NO_UPGRADE.send(send)
            else:
                await self._router(scope, receive, send)
        except Exception as error:  # uvicorn answers 500
            faults.report(error)
            raise


def create_app(runtime: Runtime) -> Receiver:
    """The receiver over this process's database and Redis."""
    settings = runtime.settings
    window = Window(runtime.redis, settings.redis_prefix)

    held = Held(runtime.engine, autocommit=True)

    def accept(arrivals: Sequence[Arrival]) -> list[Outcome]:
        return inbox.accept(held, arrivals, window)

    clients = _askable(settings)
    of_management = Clients(settings, deadline=DEADLINE)
    gatherer = Gatherer(accept, lambda arrivals: inbox.announce(window, arrivals), max_waiting=settings.max_waiting)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        # What lives since the start lives to the end; a collector that walks it each time costs the p99.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 50, 50)
        yield
        await gatherer.close()
        held.close()
        clients.close()
        of_management.close()

    router = Starlette(
        routes=[
            Route("/livez", health.livez),
            Route("/readyz", health.readyz),
            Route("/metrics", health.metrics),
            *(_management(runtime, of_management) if settings.management else ()),
        ],
        exception_handlers={HTTPException: _refused},
        lifespan=lifespan,
    )
    router.router.redirect_slashes = False
    router.state.runtime = runtime
    router.state.draining = False
    return Receiver(Webhooks(settings, gatherer, client=clients.get), router)


def _management(runtime: Runtime, clients: Clients) -> list[BaseRoute]:
    """What people and their programs use; made when it is first asked for: who only receives has no cost of it."""

    def api() -> ASGIApp:
        from receiver.api import create_api

        return create_api(runtime, clients)

    def console() -> ASGIApp:
        from receiver.console import create_console

        return create_console(runtime, clients)

    def to(path: str) -> Callable[[Request], Response]:
        return lambda request: RedirectResponse(request.scope.get("root_path", "") + path, 307)

    return [
        Route("/console", to("/console/")),
        Route("/api/v1/docs", to("/console/api")),
        Mount("/api/v1", Late(api)),
        Mount("/console", Late(console)),
    ]


def _askable(settings: Settings) -> Clients:
    """The clients of the sources whose provider must be asked; raises SettingsError where one cannot be made."""
    clients = Clients(settings)
    for name, source in settings.sources.items():
        if source.inbound().confirm is not None:
            try:
                clients.get(name)
            except ProviderError as error:
                raise SettingsError(f"BILLHOOK_SOURCES__{name.upper()}__API_KEY: {error}") from None
    return clients


_CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for no other
    body = {"success": False, "error": {"code": _CODES.get(error.status_code, "BAD_REQUEST"), "message": error.detail}}
    return JSONResponse(body, error.status_code, error.headers)
