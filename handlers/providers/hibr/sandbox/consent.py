"""GET and POST /oauth/authorize: the page on which a user allows an application, or does not (RFC 6749 and 7636).

HIBR documents that there is one. This one is the sandbox's own: plain HTML, nobody logs in, the account is the
sandbox's first. An address to send the browser back to is one of the application's, or any on this machine; without
a `scope` everything is to be read and nothing written; PKCE is required, and S256 its only method. What is wrong
with the application or that address is said on the page, anything else at that address (RFC 6749, section 4.1.2.1).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from urllib.parse import urlencode

import httpx
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from handlers.providers.hibr.models import SCOPES
from handlers.providers.hibr.network import is_loopback
from handlers.providers.hibr.sandbox.access import check_scopes, digest
from handlers.providers.hibr.sandbox.answers import new_id
from handlers.providers.hibr.sandbox.grants import Application, Denied, Form, form
from handlers.providers.hibr.sandbox.tables import Code, Grant
from handlers.providers.sandbox.machine import Call, Machine

LIFE = 600
"""Seconds of a code."""

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_SENT = ("response_type", "client_id", "redirect_uri", "scope", "state", "code_challenge", "code_challenge_method")
_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:32em;margin:4em auto;padding:0 1em}button{font:inherit;margin-right:1em}"
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
}


class Unusable(Exception):
    """Nobody can be sent back."""


@dataclass(frozen=True, slots=True)
class Back:
    """Where the browser is sent in the end."""

    uri: str
    state: str | None

    def redirect(self, **told: str) -> Response:
        query = urlencode(told | ({} if self.state is None else {"state": self.state}))
        joint = "&" if "?" in self.uri else "?"
        return RedirectResponse(f"{self.uri}{joint}{query}", 303, headers={"Cache-Control": "no-store"})


def routes(machine: Machine, application: Application, account_id: str) -> list[Route]:
    ask, decide = partial(_answer, application, None), partial(_answer, application, account_id)
    return [
        Route("/oauth/authorize", machine.endpoint(ask), methods=["GET"]),
        Route("/oauth/authorize", machine.endpoint(decide), methods=["POST"]),
    ]


def _answer(application: Application, account_id: str | None, call: Call) -> Response:
    """The page, or with an account the answer to what was pressed on it."""
    try:
        fields = form(call.request.url.query.encode() if account_id is None else call.raw)
        back = _back(application, fields)
    except (Denied, Unusable) as error:
        return _page("This cannot be authorised", f"<p>{escape(str(error))}</p>", 400)
    try:
        scopes = _scopes(fields)
        if account_id is None:
            return _question(application, fields, scopes)
        if fields.get("decision") != "approve":
            raise Denied("access_denied", "The user did not allow it.")
    except Denied as denied:
        return back.redirect(error=denied.code, error_description=denied.description)
    return back.redirect(code=_code(call, application, account_id, back, fields["code_challenge"], scopes))


def _back(application: Application, fields: Form) -> Back:
    if fields.get("client_id") != application.client_id:
        raise Unusable("There is no application with this client_id.")
    uri = fields.get("redirect_uri", "")
    if uri not in application.redirect_uris and not _is_local(uri):
        raise Unusable("This redirect_uri is not registered for the application.")
    return Back(uri, fields.get("state"))


def _is_local(uri: str) -> bool:
    try:
        parts = httpx.URL(uri)
    except httpx.InvalidURL:
        return False
    return parts.scheme in {"http", "https"} and is_loopback(parts.host) and not parts.userinfo and "#" not in uri


def _scopes(fields: Form) -> Sequence[str]:
    if fields.get("response_type") != "code":
        raise Denied("unsupported_response_type", "The response_type must be code.")
    if fields.get("code_challenge_method") != "S256" or _CHALLENGE.fullmatch(fields.get("code_challenge", "")) is None:
        raise Denied("invalid_request", "A code_challenge of the method S256 is required.")
    scopes = fields.get("scope", "").split()
    try:
        check_scopes(scopes)
    except ValueError as error:
        raise Denied("invalid_scope", str(error).replace('"', "'")) from None
    return scopes or [scope for scope in SCOPES if scope.startswith("read:")]


def _code(
    call: Call, application: Application, account_id: str, back: Back, challenge: str, scopes: Sequence[str]
) -> str:
    grant = Grant(
        id=new_id("grant", call.now),
        client_id=application.client_id,
        account_id=account_id,
        scopes=list(scopes),
        revoked=False,
    )
    secret = secrets.token_urlsafe(24)
    call.session.add(grant)
    call.session.flush()
    call.session.add(
        Code(
            hash=digest(secret),
            grant_id=grant.id,
            redirect_uri=back.uri,
            challenge=challenge,
            ends_at=call.machine.clock.wall() + LIFE,
            spent=False,
        )
    )
    return secret


def _question(application: Application, fields: Form, scopes: Sequence[str]) -> Response:
    hidden = "".join(
        f'<input type="hidden" name="{name}" value="{escape(fields[name])}">' for name in _SENT if name in fields
    )
    listed = "".join(f"<li><code>{escape(scope)}</code></li>" for scope in scopes)
    return _page(
        f"Allow {application.name}?",
        f"<p>{escape(application.name)} asks the HIBR sandbox for:</p><ul>{listed}</ul>"
        f'<form method="post" action="/oauth/authorize">{hidden}'
        '<button name="decision" value="approve">Approve</button>'
        '<button name="decision" value="deny">Deny</button></form>',
    )


def _page(title: str, content: str, status: int = 200) -> Response:
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    html = f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{escape(title)}</h1>{content}</body></html>'
    return HTMLResponse(html, status, headers=_HEADERS)
