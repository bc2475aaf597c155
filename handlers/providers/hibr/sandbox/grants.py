"""POST /oauth/token, /oauth/revoke and /oauth/introspect (HIBR API reference, OAuth; RFC 6749, 7636, 7009 and 7662).

HIBR documents the addresses, the flow with PKCE and that an application has a client id and secret. The rest is the
RFCs', and where these leave a choice the sandbox's own: an access token lives an hour, a code ten minutes, by the
machine's clock; a refresh token lives until it is used, and each use gives a new one; a code or refresh token that
comes a second time ends the whole consent, as does revoking a refresh token; errors are those of RFC 6749, not of
the rest of the API.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import parse_qsl, unquote_plus

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from handlers.providers.hibr.sandbox.access import ACCESS, REFRESH, alive, digest
from handlers.providers.hibr.sandbox.tables import Code, Token
from handlers.providers.sandbox.machine import Call, Machine

LIFE = 3600
"""Seconds of an access token."""

_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """One that is registered in Settings > Developers > OAuth Apps."""

    client_id: str
    client_secret: str = field(repr=False)
    name: str
    redirect_uris: Sequence[str]


class Denied(Exception):
    """An error of RFC 6749, section 5.2. What was done so far is kept."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code, self.description = code, description


Form = Mapping[str, str]


def routes(machine: Machine, application: Application) -> list[Route]:
    work = {"token": _token, "revoke": _revoke, "introspect": _introspect}
    return [
        Route(f"/oauth/{name}", machine.endpoint(partial(_answer, application, one)), methods=["POST"])
        for name, one in work.items()
    ]


def form(raw: bytes) -> Form:
    """The fields of a form or a query. Raises Denied where one stands twice (RFC 6749, section 3.1)."""
    pairs = parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True)
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise Denied("invalid_request", "A parameter stands twice.")
    return fields


def _answer(application: Application, work: Callable[[Call, Application, Form], Response], call: Call) -> Response:
    # Answered, not raised: a refusal would take back that a stolen code ended its consent.
    try:
        given = call.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given != "application/x-www-form-urlencoded":
            raise Denied("invalid_request", "The Content-Type must be application/x-www-form-urlencoded.")
        fields = form(call.raw)
        _authenticate(call, application, fields)
        response = work(call, application, fields)
    except Denied as denied:
        body = {"error": denied.code, "error_description": denied.description}
        response = JSONResponse(body, 401 if denied.code == "invalid_client" else 400)
        if response.status_code == 401:
            response.headers["WWW-Authenticate"] = "Basic"
    response.headers["Cache-Control"] = "no-store"
    return response


def _authenticate(call: Call, application: Application, fields: Form) -> None:
    """By HTTP Basic, or in the form (RFC 6749, section 2.3.1)."""
    client_id, secret = fields.get("client_id", ""), fields.get("client_secret", "")
    scheme, _, encoded = call.request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            before, _, after = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            before, after = "", ""
        client_id, secret = unquote_plus(before), unquote_plus(after)
    known = hmac.compare_digest(client_id.encode(), application.client_id.encode())
    if not (known & hmac.compare_digest(secret.encode(), application.client_secret.encode())):
        raise Denied("invalid_client", "The client id or secret is wrong.")


def _token(call: Call, application: Application, fields: Form) -> Response:
    kind = fields.get("grant_type")
    if kind == "authorization_code":
        return _exchange(call, fields)
    if kind == "refresh_token":
        return _refresh(call, fields)
    raise Denied("unsupported_grant_type", "The grant_type must be authorization_code or refresh_token.")


def _exchange(call: Call, fields: Form) -> Response:
    code = call.session.get(Code, digest(_given(fields, "code")))
    verifier = _given(fields, "code_verifier")
    if code is None:
        raise Denied("invalid_grant", "The code is unknown.")
    if code.spent:
        code.grant.revoked = True
        raise Denied("invalid_grant", "The code was used before: the consent has ended.")
    code.spent = True
    if call.machine.clock.wall() >= code.ends_at:
        raise Denied("invalid_grant", "The code has expired.")
    if fields.get("redirect_uri") != code.redirect_uri:
        raise Denied("invalid_grant", "The redirect_uri is not that of the authorization.")
    made = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    if _VERIFIER.fullmatch(verifier) is None or not hmac.compare_digest(made, code.challenge):
        raise Denied("invalid_grant", "The code_verifier does not fit the code_challenge.")
    return _tokens(call, code.grant_id, code.grant.scopes, code.grant.scopes)


def _refresh(call: Call, fields: Form) -> Response:
    token = call.session.get(Token, digest(_given(fields, "refresh_token")))
    if token is None or token.kind != REFRESH or token.grant.revoked:
        raise Denied("invalid_grant", "The refresh token is unknown or revoked.")
    if token.spent:
        token.grant.revoked = True
        raise Denied("invalid_grant", "The refresh token was used before: the consent has ended.")
    scopes = fields["scope"].split() if fields.get("scope") else token.scopes
    if not set(scopes) <= set(token.scopes):
        raise Denied("invalid_scope", "The scope is more than what was granted.")
    token.spent = True
    return _tokens(call, token.grant_id, scopes, token.scopes)


def _tokens(call: Call, grant_id: str, scopes: Sequence[str], refreshable: Sequence[str]) -> Response:
    wall = call.machine.clock.wall()
    access, refresh = f"hibr_at_{secrets.token_urlsafe(24)}", f"hibr_rt_{secrets.token_urlsafe(24)}"
    for kind, secret, granted, ends_at in (
        (ACCESS, access, scopes, wall + LIFE),
        (REFRESH, refresh, refreshable, None),
    ):
        call.session.add(
            Token(
                hash=digest(secret),
                kind=kind,
                grant_id=grant_id,
                scopes=list(granted),
                made_at=wall,
                ends_at=ends_at,
                spent=False,
            )
        )
    return JSONResponse(
        {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": LIFE,
            "refresh_token": refresh,
            "scope": " ".join(scopes),
        }
    )


def _revoke(call: Call, application: Application, fields: Form) -> Response:
    token = _found(call, application, fields)
    if token is not None:
        token.spent = True
        token.grant.revoked |= token.kind == REFRESH
    return JSONResponse({})


def _introspect(call: Call, application: Application, fields: Form) -> Response:
    token = _found(call, application, fields)
    if token is None or not alive(token, call.machine.clock.wall()):
        return JSONResponse({"active": False})
    told = {
        "active": True,
        "scope": " ".join(token.scopes),
        "client_id": application.client_id,
        "sub": token.grant.account_id,
        "iat": int(token.made_at),
    }
    if token.ends_at is not None:
        told |= {"exp": int(token.ends_at), "token_type": "Bearer"}
    return JSONResponse(told)


def _found(call: Call, application: Application, fields: Form) -> Token | None:
    token = call.session.get(Token, digest(_given(fields, "token")))
    return token if token is not None and token.grant.client_id == application.client_id else None


def _given(fields: Form, name: str) -> str:
    if not fields.get(name):
        raise Denied("invalid_request", f"The parameter {name} is missing.")
    return fields[name]
