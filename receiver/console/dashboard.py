"""The first page: how everything does at the moment. A script asks for its middle anew every few seconds."""

from __future__ import annotations

import threading
import time
from asyncio import to_thread
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette_admin.routing import route
from starlette_admin.views import CustomView

from receiver.console.session import may
from workers.app import Runtime
from workers.leases import utcnow
from workers.overview import Overview, overview

_GOOD_FOR = 3.0
"""Seconds for which a look serves everybody."""


class Dashboard(CustomView):
    """Shows to each what their scopes let them see."""

    path = "/"
    icon = "fa-solid fa-gauge-high"

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(menu_label="Dashboard", route_name="index")
        self._runtime = runtime
        self._lock = threading.Lock()
        self._looked = 0.0
        self._found: Overview | None = None

    @route("")
    async def index(self, request: Request) -> Response:
        return await self._page(request, "dashboard.html")

    @route("/pulse", name="pulse")
    async def pulse(self, request: Request) -> Response:
        """The middle of the page alone."""
        return await self._page(request, "pulse.html")

    async def _page(self, request: Request, name: str) -> Response:
        assert self._admin is not None  # noqa: S101 - set when it was added
        seen = may(request, "stats:read")
        context: dict[str, Any] = {
            "title": "Dashboard · Billhook",
            "look": await to_thread(self._look) if seen else None,
            "sees_endpoints": may(request, "endpoints:read"),
            "sees_schedules": may(request, "recurring:read"),
        }
        return self._admin._template_response(request, name, context)

    def _look(self) -> Overview:
        with self._lock:
            if self._found is None or time.monotonic() - self._looked > _GOOD_FOR:
                self._found, self._looked = overview(self._runtime.engine, utcnow()), time.monotonic()
            return self._found
