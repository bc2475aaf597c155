"""starlette-admin as this console has it: only the pages that there are, our templates, and no word of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import cast

from jinja2 import Environment, PackageLoader, PrefixLoader
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette_admin.auth import BaseAuthProvider
from starlette_admin.base import BaseAdmin
from starlette_admin.views import CustomView

from handlers.errors import BillhookError
from receiver.console import showing
from workers import database
from workers.logs import log

HERE = Path(__file__).parent
ASSETS = HERE / "assets"
_THERE_ARE = frozenset({"list", "detail", "row-action", "index", "login", "logout", "static"})
"""Of the routes that it would serve, those that we have a use for."""


class Pages(BaseAdmin):
    """The pages, of which each is a view."""

    def __init__(self, secrets: Sequence[str], door: BaseAuthProvider, index: CustomView) -> None:
        # It would log what people type, and everybody who comes without a session.
        logging.getLogger("starlette_admin").setLevel(logging.CRITICAL)
        core = _Nonced("starlette_admin", "templates")
        super().__init__(
            title="Billhook",
            base_url="",
            templates_dir=str(HERE / "templates"),
            additional_loaders=[PrefixLoader({"@core": core}), core],
            index_view=index,
            auth_provider=door,
            secret_key=cast(str, list(secrets)),  # handed to itsdangerous as it is, which takes several
            timezone_config=None,
        )
        # What cannot be read as a form is found out by a middleware, before any that answers with a page.
        self.middlewares.insert(0, Middleware(ExceptionMiddleware, handlers={HTTPException: self._render_error}))
        self.routes = [route for route in self.routes if route.name in _THERE_ARE or route.name == "pulse"]
        self.templates.env.filters |= showing.FILTERS

    def mount_to(self, app: Starlette) -> None:
        super().mount_to(app)
        self.app.add_exception_handler(BillhookError, self._refused)
        self.app.add_exception_handler(SQLAlchemyError, self._no_database)
        self.app.add_exception_handler(Exception, self._failed)

    async def _render_error(
        self,
        request: Request,
        exc: Exception = HTTPException(HTTPStatus.INTERNAL_SERVER_ERROR),  # noqa: B008
    ) -> Response:
        assert isinstance(exc, HTTPException)  # noqa: S101
        context = {"status": exc.status_code, "detail": exc.detail}
        return self.templates.TemplateResponse(request, "error.html", context, exc.status_code)

    async def _refused(self, request: Request, error: Exception) -> Response:
        return await self._render_error(request, HTTPException(409, str(error)))

    async def _no_database(self, request: Request, error: Exception) -> Response:
        if database.unavailable(error) or database.collided(error):
            return await self._render_error(request, HTTPException(503, "The database does not answer. Try again."))
        return await self._failed(request, error)

    async def _failed(self, request: Request, error: Exception) -> Response:
        log.error("a page of the console failed", action="console_failed", path=request.url.path, exc_info=error)
        return await self._render_error(request, HTTPException(500, "Something went wrong here; the log tells more."))


class _Nonced(PackageLoader):
    """Templates whose own scripts a browser runs, while it runs no others that stand in a page."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool] | None]:
        source, name, is_current = super().get_source(environment, template)
        return source.replace("<script>", '<script nonce="{{ request.state.nonce }}">'), name, is_current
