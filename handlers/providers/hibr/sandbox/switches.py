"""What the HIBR sandbox adds to `/sandbox` (see `handlers.providers.sandbox.admin` for the rest).

POST  /sandbox/keys            {"scopes"?: ["*"], "account"?: "sandbox", "key"?: to choose it}; an account that is not
                               there yet is made, with empty books
PATCH /sandbox/accounts/{id}   {"tier"?, "time_zone"?, "version"?}: lite, pro, enterprise or sandbox; Asia/Dubai; what a
                               request without Hibr-Version is answered in
POST  /sandbox/deprecations    {"version"?, "sunset"?: a date, at least 12 months away}: sends hibr.api.deprecation
POST  /sandbox/outage          {"seconds": 30}: every call is answered 503 until then; 0 ends it
GET   /sandbox                 has `accounts` too
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from handlers.providers.hibr.client import VERSION
from handlers.providers.hibr.models import SCOPES
from handlers.providers.hibr.network import TEST
from handlers.providers.hibr.sandbox import changelog, endpoints
from handlers.providers.hibr.sandbox.seeds import MAIN, add_account
from handlers.providers.hibr.sandbox.tables import Account
from handlers.providers.hibr.sandbox.turnstile import TIERS, VERSIONS, Limiter
from handlers.providers.sandbox import admin, fields, keys
from handlers.providers.sandbox.admin import WebhookBody
from handlers.providers.sandbox.fields import Fields
from handlers.providers.sandbox.keys import Key
from handlers.providers.sandbox.machine import Call, Machine


def check_zone(name: str) -> str:
    """The name of a time zone, such as Asia/Dubai. Raises ValueError."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise ValueError("must be a time zone, such as Asia/Dubai") from None
    return name


class NewKey(Fields):
    scopes: list[Annotated[str, fields.one_of(*SCOPES)]] = ["*"]  # noqa: RUF012 - pydantic copies it
    account: Annotated[str, fields.matching(r"[a-z0-9_-]{1,40}", "must be lower-case letters, digits, _ and -")] = MAIN
    key: Annotated[str, fields.matching(rf"{TEST}[!-~]{{4,200}}", f"must begin with {TEST}")] | None = None


class Settings(Fields):
    """A default stands for "not given": none of them is ever read."""

    tier: Annotated[str, fields.one_of(*TIERS)] = ""
    time_zone: Annotated[fields.Text, AfterValidator(check_zone)] = ""
    version: Annotated[str, fields.one_of(*VERSIONS)] = ""


class Deprecation(Fields):
    version: fields.Words = VERSION
    sunset: fields.Day | None = None


class Outage(Fields):
    seconds: Annotated[int, fields.whole(0, 86_400)]


def routes(machine: Machine, limiter: Limiter) -> list[Route]:
    """All of `/sandbox`."""

    def out(call: Call) -> Response:
        body = fields.read(Outage, fields.document(call.raw))
        limiter.out_until = call.machine.clock.wall() + body.seconds
        return JSONResponse({"seconds": body.seconds})

    own: tuple[tuple[str, str, Callable[[Call], Response]], ...] = (
        ("POST", "/webhooks", _add_endpoint),  # before the one that all sandboxes share: ids here are wh_...
        ("PATCH", "/accounts/{id}", _set_up),
        ("POST", "/deprecations", _deprecate),
        ("POST", "/outage", out),
    )
    made = [Route(f"/sandbox{path}", admin.surface(machine, work), methods=[method]) for method, path, work in own]
    return [*made, *admin.routes(machine, new_key=_new_key, show=_shown)]


def _add_endpoint(call: Call) -> Response:
    body = fields.read(WebhookBody, fields.document(call.raw))
    call.machine.sender.check(body.secret)
    if body.owner is not None and call.session.get(Account, body.owner) is None:
        raise LookupError("owner: there is no such account: GET /sandbox lists them")
    endpoint = endpoints.add(call.session, body.url, body.secret, owner=body.owner or MAIN, now=call.now)
    return JSONResponse(endpoint.shown(), 201)


def _new_key(call: Call) -> tuple[Key, str]:
    body = fields.read(NewKey, fields.document(call.raw))
    if call.session.get(Account, body.account) is None:
        add_account(call.session, body.account, tier=call.session.get_one(Account, MAIN).tier)
    secret = body.key or TEST + secrets.token_hex(16)
    return keys.add(call.session, secret, kind="test", owner=body.account, scopes=body.scopes, now=call.now), secret


def _set_up(call: Call) -> Response:
    account = call.session.get(Account, call.id)
    if account is None:
        raise LookupError("there is no such account: GET /sandbox lists them")
    for name, value in fields.read(Settings, fields.document(call.raw)).given().items():
        setattr(account, name, value)
    return JSONResponse(_account(account))


def _deprecate(call: Call) -> Response:
    body = fields.read(Deprecation, fields.document(call.raw))
    sunset: date = body.sunset or changelog.a_year_after(call.now.date())
    changelog.deprecate(call, body.version, sunset)
    return JSONResponse({"version": body.version, "sunset": sunset.isoformat()}, 201)


def _shown(session: Session) -> dict[str, Any]:
    return {"accounts": [_account(one) for one in session.scalars(select(Account).order_by(Account.id))]}


def _account(account: Account) -> dict[str, Any]:
    return {name: getattr(account, name) for name in ("id", "tier", "time_zone", "version")}
