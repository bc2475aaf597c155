"""The door: the page to sign in at, and that nothing else is shown to whoever has not.

With an API key, or with a name and a password. Who fails too often from one address may not try for the rest of the
minute: unlike a key, a password can be guessed.
"""

from __future__ import annotations

import time
from asyncio import to_thread

from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp
from starlette_admin.auth import AdminUser, BaseAuthProvider
from starlette_admin.helpers import safe_redirect_url

from receiver.console.session import Sessions, caller_of
from receiver.throttle import Throttle, origin
from workers import api_keys, users
from workers.api_keys import Caller
from workers.app import Runtime
from workers.leases import utcnow
from workers.logs import log
from workers.users import SignedIn

TRIES = 10
"""That may fail in a minute from one address."""
_OPEN = ("login", "static", "assets")
"""What is shown to whoever has not signed in."""


class Door(BaseAuthProvider):
    """Signs people in and out."""

    def __init__(self, runtime: Runtime, sessions: Sessions) -> None:
        super().__init__()
        self._runtime = runtime
        self._sessions = sessions
        self._failures = Throttle(TRIES)

    async def authenticate(self, request: Request) -> AdminUser | None:
        return await to_thread(self._sessions.visitor, request)

    def get_middleware(self) -> Middleware:
        return Middleware(Gate, door=self)

    def get_routes(self, templates: Jinja2Templates) -> list[Route]:
        async def page(request: Request) -> Response:
            return await self._page(request, templates)

        async def sign_in(request: Request) -> Response:
            return await self._sign_in(request, templates)

        return [
            Route("/login", page, methods=["GET"], name="login"),
            Route("/login", sign_in, methods=["POST"], name="login"),
            Route("/logout", self._sign_out, methods=["POST"], name="logout"),
        ]

    async def _page(
        self, request: Request, templates: Jinja2Templates, problem: str = "", status: int = 200
    ) -> Response:
        engine = self._runtime.engine
        nobody = await to_thread(lambda: api_keys.there_are_none(engine) and users.there_are_none(engine))
        return templates.TemplateResponse(request, "login.html", {"problem": problem, "nobody": nobody}, status)

    async def _sign_in(self, request: Request, templates: Jinja2Templates) -> Response:
        address = request.client.host if request.client else ""
        form = await request.form()
        name, secret = (str(form.get(field) or "") for field in ("name", "secret"))
        # Counted before it is tried: a password takes a while, in which many more could come.
        if wait := self._failures.wait(origin(request.client), time.time()):
            answer = await self._page(request, templates, f"Too many tries. Try again in {wait} seconds.", 429)
            answer.headers["Retry-After"] = str(wait)
            return answer
        who = await to_thread(self._who, name, secret)
        if who is None:
            log.info("somebody could not sign in", action="sign_in_failed", client=address, user=bool(name))
            return await self._page(request, templates, "That is not right. Check it, and try again.", 401)
        self._failures.forgive(origin(request.client), time.time())
        caller = who.caller if isinstance(who, SignedIn) else who
        log.info("somebody signed in", action="signed_in", client=address, who=caller.id)
        home = str(request.url_for("admin:index"))
        onward = safe_redirect_url(request.query_params.get("next") or home, request, home)
        response = RedirectResponse(onward, 303)
        self._sessions.begin(request, response, who)
        return response

    def _who(self, name: str, secret: str) -> Caller | SignedIn | None:
        engine, now = self._runtime.engine, utcnow()
        if name:
            return users.authenticate(engine, name, secret, now)
        return api_keys.authenticate(engine, secret.strip(), now)

    async def _sign_out(self, request: Request) -> Response:
        response = RedirectResponse(str(request.url_for("admin:login")), 303)
        await to_thread(self._sessions.end, request, response)
        log.info("somebody signed out", action="signed_out", who=caller_of(request).id)
        return response


class Gate(BaseHTTPMiddleware):
    """Lets in who is signed in; others see the page to sign in at."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        super().__init__(app)
        self._door = door

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        is_open = _is_open(request)
        # What is shown to anybody is shown without asking the database who that is; a page has a dozen of such.
        visitor = None if is_open else await self._door.authenticate(request)
        request.state.is_anonymous = visitor is None
        if visitor is not None:
            request.state.admin_user = visitor
        elif not is_open:
            if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
                onward = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                return RedirectResponse(str(request.url_for("admin:login").include_query_params(next=onward)), 303)
            return PlainTextResponse("sign in first\n", 401)
        return await call_next(request)


def _is_open(request: Request) -> bool:
    routes = request.scope["app"].routes
    return any(route.name in _OPEN for route in routes if route.matches(request.scope)[0] == Match.FULL)
