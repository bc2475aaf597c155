"""What every request to the console goes through before it is looked at, and what every answer is sent with.

Addresses in the pages are paths without a host: so the console works behind a proxy whatever that says of itself, and
nobody can have it name another host.
"""

from __future__ import annotations

import secrets
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import URL, URLPath
from starlette.responses import PlainTextResponse
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    b"x-frame-options": b"DENY",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
}
_CHANGES_NOTHING = frozenset({"GET", "HEAD", "OPTIONS"})
_KEPT = ("/static/", "/assets/", "/swagger/")
"""What a browser may keep: it is the same for everybody."""


class Edge:
    """An ASGI application around the console."""

    def __init__(self, console: Starlette, max_body_bytes: int) -> None:
        self._console: ASGIApp = console
        self._paths = _Paths(console.router)
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        nonce = secrets.token_urlsafe(16)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        headers = _HEADERS | {b"content-security-policy": _POLICY.format(nonce=nonce).encode()}
        headers[b"cache-control"] = b"public, max-age=3600" if path.startswith(_KEPT) else b"no-store"

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *headers.items()]
            await send(message)

        # What the receiver's own router has found is of no use here: names are those of this application.
        inner = {name: value for name, value in scope.items() if name not in ("app", "app_root_path")}
        inner |= {"router": self._paths, "state": {**scope.get("state", {}), "nonce": nonce}}
        if _is_from_elsewhere(scope):
            await _REFUSED(inner, receive, answer)
            return
        body = await self._body(receive)
        if body is None:
            await _TOO_LARGE(inner, receive, answer)
        else:
            await self._console(inner, _first(body, receive), answer)

    async def _body(self, receive: Receive) -> bytes | None:
        """All of it, which a form's is read into memory for anyway; None where it is too large."""
        parts, size = [], 0
        while True:
            message = await receive()
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_body_bytes:
                return None
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)


_REFUSED = PlainTextResponse("this form was sent by another site\n", 403)
_TOO_LARGE = PlainTextResponse("the form is too large\n", 413)


def _first(body: bytes, receive: Receive) -> Receive:
    """Gives the body, and then whatever comes."""
    given = False

    async def first() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return first


def _is_from_elsewhere(scope: Scope) -> bool:
    """Whether the browser says that another site has it ask for a change; an old browser says nothing."""
    if scope["method"] in _CHANGES_NOTHING:
        return False
    said = dict(scope["headers"]).get(b"sec-fetch-site", b"none")
    return said not in (b"same-origin", b"none")


class _Path(URLPath):
    def make_absolute_url(self, base_url: str | URL) -> URL:
        return URL(URL(str(base_url)).path.rstrip("/") + str(self))


class _Paths:
    """A router as `url_for` asks it, whose addresses have no host."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def url_path_for(self, name: str, /, **parts: Any) -> URLPath:
        return _Path(str(self._router.url_path_for(name, **parts)))
