"""The browsable page of the API, made by Swagger UI of what the API says of itself."""

from __future__ import annotations

from asyncio import to_thread
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette_admin.routing import route
from starlette_admin.views import CustomView


class Reference(CustomView):
    """For whoever is signed in; what they try there, they try with a key that they give it."""

    path = "/api"
    icon = "fa-solid fa-book"

    def __init__(self) -> None:
        super().__init__(menu_label="API", route_name="api")
        self._described: dict[str, Any] | None = None

    @route("")
    async def index(self, request: Request) -> Response:
        assert self.templates is not None  # noqa: S101 - set when it was added
        return self.templates.TemplateResponse(request, "api.html", {"title": "API · Billhook"})

    async def openapi(self, request: Request) -> Response:
        """The description."""
        if self._described is None:
            self._described = await to_thread(_description)
        prefix = request.scope["root_path"].removesuffix("/console") + "/api/v1"
        return JSONResponse(self._described | {"servers": [{"url": prefix}]})


def _description() -> dict[str, Any]:
    from receiver.api import application

    return dict(application().openapi())
