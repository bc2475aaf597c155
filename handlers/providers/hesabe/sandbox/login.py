"""Bearer tokens of the merchant API (Merchant login; Get refresh token): 15 minutes by the machine's clock.

They look like Hesabe's and mean nothing. Chosen: a refresh token lasts 14 days and works once; with it ends the access
token that it came with.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import TypeVar

import orjson
from sqlalchemy import delete, select
from sqlalchemy.orm import Session
from starlette.responses import Response

from handlers.providers.hesabe.sandbox import answers
from handlers.providers.hesabe.sandbox.models import Merchant, Token
from handlers.providers.sandbox import fields, keys
from handlers.providers.sandbox.fields import Fields, Invalid, NotJson
from handlers.providers.sandbox.machine import Call

LIFETIME = 900
"""Seconds."""
REFRESH_LIFETIME = 14 * 86_400

_HEADER = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9"


F = TypeVar("F", bound=Fields)


class Login(Fields):
    username: fields.Text
    password: fields.Text


class Refresh(Fields):
    refreshToken: fields.Text


def log_in(call: Call) -> Response:
    body = _body(Login, call)
    found = call.session.scalars(select(Merchant).where(Merchant.username == body.username)).one_or_none()
    if found is None or not hmac.compare_digest(found.password.encode(), body.password.encode()):
        raise answers.unauthorized("the username or the password is wrong")
    return _issued(call, found.code)


def refresh(call: Call) -> Response:
    token = _find(call, _body(Refresh, call).refreshToken, refreshes=True)
    if token is None:
        raise answers.unauthorized("the refresh token is unknown, used or too old: log in")
    _end(call.session, token.grant)
    return _issued(call, token.merchant_code)


def check(call: Call, merchant: Merchant) -> None:
    """Raise Refusal unless the call bears a token of this merchant that has not ended."""
    token = _find(call, keys.bearer(call.request.headers.get("authorization")), refreshes=False)
    if token is None or token.merchant_code != merchant.code:
        raise answers.unauthorized("the bearer token is missing, too old, or another merchant's: log in")


def end_all(session: Session) -> None:
    """Every access token ends now; refresh tokens go on."""
    session.execute(delete(Token).where(Token.refreshes.is_(False)))


def _issued(call: Call, merchant_code: str) -> Response:
    now = call.machine.clock.wall()
    call.session.execute(delete(Token).where(Token.expires_at <= now))
    claims = orjson.dumps(
        {"aud": "2", "jti": secrets.token_hex(20), "iat": now, "exp": now + LIFETIME, "scopes": ["*"]}
    )
    access = f"{_HEADER}.{_unpadded(claims)}.{_unpadded(secrets.token_bytes(256))}"
    renewal = f"def50200{secrets.token_hex(160)}"
    grant = secrets.token_hex(8)
    for text, refreshes, lifetime in ((access, False, LIFETIME), (renewal, True, REFRESH_LIFETIME)):
        call.session.add(
            Token(
                hash=_digest(text),
                grant=grant,
                refreshes=refreshes,
                merchant_code=merchant_code,
                expires_at=now + lifetime,
            )
        )
    token = {"token_type": "Bearer", "expires_in": LIFETIME, "access_token": access, "refresh_token": renewal}
    return answers.plain(answers.envelope("Success", {"token": token}))


def _body(model: type[F], call: Call) -> F:
    try:
        return fields.read(model, fields.document(call.raw))
    except (Invalid, NotJson) as error:
        raise answers.not_found(str(error)) from None


def _find(call: Call, text: str, *, refreshes: bool) -> Token | None:
    token = call.session.get(Token, _digest(text))
    if token is None or token.refreshes is not refreshes or token.expires_at <= call.machine.clock.wall():
        return None
    return token


def _end(session: Session, grant: str) -> None:
    session.execute(delete(Token).where(Token.grant == grant))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _unpadded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
