"""Who calls, and what they may: keys, access tokens and scopes (HIBR API reference, Authentication)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from handlers.providers.hibr.models import SCOPES
from handlers.providers.hibr.network import LIVE, TEST
from handlers.providers.hibr.sandbox import bodies
from handlers.providers.hibr.sandbox.answers import malformed, moment, new_id, refusal
from handlers.providers.hibr.sandbox.tables import Account, Resource, Token
from handlers.providers.sandbox import keys
from handlers.providers.sandbox.machine import Call, Machine

ACCESS, REFRESH = "access_token", "refresh_token"
EVERYTHING = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who a key or an access token stands for."""

    name: str
    """Whose calls are counted together: a key, or a consent with all its tokens."""
    account_id: str
    scopes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Visit:
    """An authenticated call."""

    call: Call
    account: Account
    scopes: Sequence[str]

    @classmethod
    def of(cls, call: Call) -> Visit:
        visitor: Visitor = call.request.scope["hibr.visitor"]
        return cls(call=call, account=call.session.get_one(Account, visitor.account_id), scopes=visitor.scopes)

    @property
    def session(self) -> Session:
        return self.call.session

    @property
    def now(self) -> datetime:
        return self.call.now

    @cached_property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.account.time_zone)

    @property
    def today(self) -> str:
        """The date where the account is."""
        return self.now.astimezone(self.zone).date().isoformat()

    def need(self, access: str, noun: str | None) -> None:
        """Raise permission_error unless the key has `read:…` or `write:…`; what no scope is named for needs `*`."""
        scope = EVERYTHING if noun is None else f"{access}:{noun}"
        if EVERYTHING not in self.scopes and scope not in self.scopes:
            raise refusal("permission_error", f"The API key lacks the required scope {scope}.")

    def body(self, currency: str = bodies.CURRENCY) -> Resource:
        """The fields of the request; `currency` is that of the record. Raises invalid_request_error."""
        given = self.call.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if self.call.raw and given != "application/json":
            raise malformed("The Content-Type of a request with a body must be application/json.", "Content-Type")
        return bodies.read(self.call.raw, self.zone, currency)

    def tell(self, event_type: str, resource: Mapping[str, Any], before: Mapping[str, Any]) -> None:
        """Have a webhook sent if this call is carried out; `before` is the resource as it was."""
        changed = {name: before.get(name) for name in resource if resource[name] != before.get(name)}
        changed.pop("updated_at", None)
        announce(
            self.call.machine,
            self.session,
            event_type,
            {"object": resource, "previous_attributes": changed},
            account=self.account,
            now=self.now,
        )


def announce(
    machine: Machine, session: Session, event_type: str, data: Mapping[str, Any], *, account: Account, now: datetime
) -> None:
    """Put an event into the outbox, for the webhook endpoints of an account (hibr.ai/developers/webhooks)."""
    event_id = new_id("evt", now)
    body = {
        "id": event_id,
        "object": "event",
        "type": event_type,
        "created": moment(now),
        "api_version": account.version,
        "livemode": False,
        "data": data,
    }
    machine.emit(session, event_type, body, owner=account.id, delivery_id=event_id)


def visitor_of(session: Session, authorization: str | None, wall: float) -> Visitor:
    """Who calls, at `wall` in Unix seconds. Raises authentication_error; its message quotes nothing of the key."""
    secret = keys.bearer(authorization)
    if not secret:
        raise _stranger("The API key is missing. Send it as Authorization: Bearer hibr_test_…")
    if secret.startswith(LIVE):
        raise _stranger(f"A {LIVE}… key belongs to production. The sandbox takes {TEST}… keys.")
    key = keys.find(session, secret)
    if key is not None:
        return Visitor(name=key.id, account_id=key.owner, scopes=key.scopes)
    token = session.get(Token, digest(secret))
    if token is None or token.kind != ACCESS:
        raise _stranger("The API key is unknown or revoked.")
    if not alive(token, wall):
        raise _stranger("The access token is expired or revoked.")
    return Visitor(name=token.grant_id, account_id=token.grant.account_id, scopes=token.scopes)


def alive(token: Token, wall: float) -> bool:
    return not token.spent and not token.grant.revoked and (token.ends_at is None or wall < token.ends_at)


def check_scopes(scopes: Sequence[str]) -> None:
    """Raise ValueError unless all are documented."""
    for scope in scopes:
        if scope not in SCOPES:
            raise ValueError(f"{scope!r} is no scope; there are {', '.join(SCOPES)}")


def digest(secret: str) -> str:
    """What is kept of codes and tokens."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _stranger(message: str) -> Exception:
    return refusal("authentication_error", message, headers={"WWW-Authenticate": "Bearer"})
