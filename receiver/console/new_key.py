"""The page that makes an API key, and shows it, once."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette_admin.routing import route
from starlette_admin.views import CustomView

from receiver.console.session import caller_of, may
from workers import api_keys
from workers.api_keys import SCOPES, ApiKeyError, BeyondOwn, Caller
from workers.api_keys import NewKey as Made
from workers.app import Runtime
from workers.leases import utcnow

_LASTS = {"": None, "30": timedelta(days=30), "90": timedelta(days=90), "365": timedelta(days=365)}
"""Days after which a key ends."""


class NewKey(CustomView):
    """A form."""

    path = "/keys/new"
    add_to_menu = False

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(menu_label="New key")
        self._runtime = runtime

    def is_accessible(self, request: Request) -> bool:
        return may(request, "keys:write")

    @route("", methods=["GET"], name="new-key")
    async def index(self, request: Request) -> Response:
        return self._form(request, "", ())

    @route("", methods=["POST"], name="create-key")
    async def create(self, request: Request) -> Response:
        form = await request.form()
        name, lasts = (str(form.get(field) or "").strip() for field in ("name", "lasts"))
        scopes = [str(scope) for scope in form.getlist("scopes")]
        caller = caller_of(request)
        if lasts not in _LASTS:  # it must not come to last for ever by that
            raise HTTPException(400, f"There is no {lasts!r} to choose.")
        now, length = utcnow(), _LASTS[lasts]
        ends = None if length is None else now + length
        try:
            made = await to_thread(self._create, name, scopes, caller, now, ends)
        except BeyondOwn as error:
            raise HTTPException(403, str(error)) from None
        except ApiKeyError as error:
            return self._form(request, name, scopes, str(error))
        back = request.url_for("admin:detail", key="keys").include_query_params(pk=made.id)
        context = {"title": "The key is made", "of": made.id, "told": [("API key", made.key)], "back": back}
        return self._page(request, "once.html", context)

    def _create(self, name: str, scopes: Sequence[str], maker: Caller, now: datetime, ends: datetime | None) -> Made:
        engine, actor = self._runtime.engine, maker.actor
        return api_keys.create(engine, name, scopes, actor=actor, now=now, expires_at=ends, maker=maker)

    def _form(self, request: Request, name: str, chosen: Sequence[str], problem: str = "") -> Response:
        mine = caller_of(request).scopes
        scopes = {scope: meaning for scope, meaning in SCOPES.items() if scope in mine}
        context = {
            "title": "New API key",
            "problem": problem,
            "name": name,
            "chosen": chosen,
            "scopes": scopes,
            "lasts": [days for days in _LASTS if days],
        }
        return self._page(request, "new_key.html", context, 422 if problem else 200)

    def _page(self, request: Request, name: str, context: dict[str, Any], status: int = 200) -> Response:
        assert self.templates is not None  # noqa: S101 - set when it was added
        return self.templates.TemplateResponse(request, name, context, status)
