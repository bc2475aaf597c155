"""The page that adds an endpoint, and shows its secret, once."""

from __future__ import annotations

import re
from asyncio import to_thread
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette_admin.routing import route
from starlette_admin.views import CustomView

from receiver.console.endpoints import shown_once
from receiver.console.session import caller_of, may
from workers.app import Runtime
from workers.delivery import endpoints
from workers.delivery.egress import Egress
from workers.delivery.endpoints import EndpointError, EndpointSpec, Made, Rules
from workers.delivery.keys import SIGNING
from workers.leases import utcnow
from workers.vault import open_vault

_SEPARATORS = re.compile(r"[\s,]+")


class NewEndpoint(CustomView):
    """A form."""

    path = "/endpoints/new"
    add_to_menu = False

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(menu_label="New endpoint")
        self._runtime = runtime

    def is_accessible(self, request: Request) -> bool:
        return may(request, "endpoints:write")

    @route("", methods=["GET"], name="new-endpoint")
    async def index(self, request: Request) -> Response:
        return self._form(request, {})

    @route("", methods=["POST"], name="add-endpoint")
    async def add(self, request: Request) -> Response:
        form = await request.form()
        filled = {name: str(value).strip() for name, value in form.items()} | {"sources": form.getlist("sources")}
        try:
            made = await to_thread(self._add, filled, caller_of(request).actor)
        except EndpointError as error:
            return self._form(request, filled, str(error))
        return shown_once(self, request, made, "The endpoint is added")

    def _add(self, filled: dict[str, Any], actor: str) -> Made:
        settings, now = self._runtime.settings, utcnow()
        types = tuple(one for one in _SEPARATORS.split(filled.get("event_types", "")) if one)
        spec = EndpointSpec(
            url=filled.get("url", ""),
            description=filled.get("description", ""),
            event_types=types or ("*",),
            sources=tuple(filled["sources"]),
            forward=filled.get("forward") == "yes",
            signing=filled.get("signing") or SIGNING[0],
        )
        rules = Rules(Egress.of(settings), settings.sources.keys())
        return endpoints.add(self._runtime.engine, open_vault(settings), spec, rules, actor=actor, now=now)

    def _form(self, request: Request, filled: dict[str, Any], problem: str = "") -> Response:
        if self.templates is None:
            raise HTTPException(503)
        context = {
            "title": "New endpoint",
            "filled": filled,
            "problem": problem,
            "sources": sorted(self._runtime.settings.sources),
            "signing": SIGNING,
        }
        return self.templates.TemplateResponse(request, "new_endpoint.html", context, 422 if problem else 200)
