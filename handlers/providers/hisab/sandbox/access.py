"""Who may call what: keys, scopes, limits and the states of an organization (API reference, Authentication and Scopes).

The order is chosen: key (401), limit (429), plan, key kind, organization, scope (403), and only then what was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import Response

from handlers.providers.hisab.sandbox.answers import invalid, moment, not_found, refusal
from handlers.providers.hisab.sandbox.models import Account, Organization
from handlers.providers.sandbox import fields, keys
from handlers.providers.sandbox.fields import Fields, Invalid, NotJson
from handlers.providers.sandbox.keys import Key
from handlers.providers.sandbox.limits import Limits, Usage
from handlers.providers.sandbox.machine import Call, Later, Machine, Refusal, Work

ACCOUNT = "account"
PLANS = {"professional": 120, "fiduciaire": 300}
"""Requests a minute; API access is available on these plans only (Getting started)."""
MAX_KEYS = {"professional": 10}
SCOPES = (
    *(f"invoices:{verb}" for verb in ("read", "write", "finalize", "send", "payment", "void", "export")),
    *(f"recurring:{verb}" for verb in ("read", "write", "delete")),
    *(f"customers:{verb}" for verb in ("read", "write", "delete")),
    *("organization:read", "organization:write", "webhooks:read", "webhooks:write"),
    *("organizations:read", "organizations:write", "organizations:archive"),
)
ZONE = ZoneInfo("Africa/Casablanca")
"""Where Hisab's days begin; its documents do not say, and it is a Moroccan product."""

F = TypeVar("F", bound=Fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """One organization in one transaction."""

    machine: Machine
    session: Session
    organization: Organization
    now: datetime

    @property
    def today(self) -> date:
        return self.now.astimezone(ZONE).date()

    def tell(self, event_type: str, data: Mapping[str, Any]) -> None:
        """Have a webhook sent, if the transaction is committed. The body is fixed now: the resource lives on."""
        body = {
            "event": event_type,
            "data": data,
            "organization_id": self.organization.id,
            "created_at": moment(self.now),
        }
        self.machine.emit(self.session, event_type, body, owner=self.organization.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """An authorised call; `desk` is that of the organization it is about."""

    call: Call
    desk: Desk

    @property
    def id(self) -> str:
        return self.call.id

    @property
    def session(self) -> Session:
        return self.call.session

    def body(self, model: type[F]) -> F:
        """Raises Invalid or NotJson."""
        return fields.read(model, fields.document(self.call.raw))

    def query(self, model: type[F]) -> F:
        return fields.read(model, self.call.request.query_params)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountVisit:
    """An authorised call of an account key to the endpoints of organizations."""

    call: Call
    account: Account

    @property
    def session(self) -> Session:
        return self.call.session


@dataclass(frozen=True, slots=True)
class Gate:
    """`rate_limit` stands in for that of the plan."""

    limits: Limits
    rate_limit: int | None = None

    def organization(self, scope: str, work: Callable[[Visit], Response | Later]) -> Work:
        """A regular endpoint, which needs this scope."""

        def enter(call: Call, key: Key, account: Account) -> Response | Later:
            desk = Desk(machine=call.machine, session=call.session, organization=_entity(call, key), now=call.now)
            if desk.organization.archived_at is not None:
                # Frozen everywhere; with which code is not documented.
                raise refusal("API_DISABLED", "The organization is archived")
            if desk.organization.api_disabled:
                raise refusal("API_DISABLED", "API access is disabled for this organization")
            if desk.organization.subscription_expired:
                raise refusal("SUBSCRIPTION_EXPIRED", "The subscription of this organization has expired")
            _need(key, scope)
            return work(Visit(call=call, desk=desk))

        return self._guarded(enter)

    def account(self, scope: str, work: Callable[[AccountVisit], Response | Later]) -> Work:
        """An endpoint of organizations, which needs an account key and this scope."""

        def enter(call: Call, key: Key, account: Account) -> Response | Later:
            if key.kind != ACCOUNT:
                raise refusal("ACCOUNT_KEY_REQUIRED", "This endpoint requires an account key (hisab_acct_)")
            _need(key, scope)
            return work(AccountVisit(call=call, account=account))

        return self._guarded(enter)

    def _guarded(self, enter: Callable[[Call, Key, Account], Response | Later]) -> Work:
        def work(call: Call) -> Response | Later:
            key = keys.find(call.session, keys.bearer(call.request.headers.get("authorization")))
            if key is None:
                raise refusal("UNAUTHORIZED", "Invalid or missing API key")
            account = _account(call.session, key)
            usage = self.limits.count(key.id, self.rate_limit or PLANS.get(account.plan, PLANS["professional"]))
            with _Headers(usage):
                if usage.exceeded:
                    retry = {"Retry-After": str(usage.retry_after)}
                    raise refusal("RATE_LIMIT_EXCEEDED", "Too many requests", headers=retry)
                if account.plan not in PLANS:
                    raise refusal("API_TIER_NOT_SUPPORTED", f"The plan {account.plan} has no API access")
                answer = enter(call, key, account)
            if isinstance(answer, Response):
                answer.headers.update(usage.headers)
                return answer
            return _later(answer, usage)

        return work


@dataclass(frozen=True, slots=True)
class _Headers:
    """What is raised in the block becomes a Refusal of ours that reports the usage."""

    usage: Usage

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, NotJson):
            error = refusal("INVALID_JSON", f"Invalid JSON: {error}")
        if isinstance(error, Invalid):
            error = invalid(*error.problems)
        if isinstance(error, Refusal):
            error.headers.update(self.usage.headers)
            raise error from None


def _later(answer: Later, usage: Usage) -> Later:
    def complete() -> Response:
        with _Headers(usage):
            response = answer()
        response.headers.update(usage.headers)
        return response

    return complete


def _account(session: Session, key: Key) -> Account:
    if key.kind == ACCOUNT:
        return session.get_one(Account, key.owner)
    return session.scalars(select(Organization).where(Organization.id == key.owner)).one().account


def _entity(call: Call, key: Key) -> Organization:
    """The organization that a call to a regular endpoint is about."""
    if key.kind != ACCOUNT:
        return call.session.scalars(select(Organization).where(Organization.id == key.owner)).one()
    named = call.request.headers.get("x-organization-id")
    if not named:
        raise refusal("ORG_HEADER_REQUIRED", "An account key needs the X-Organization-Id header on this endpoint")
    owned = select(Organization).where(Organization.id == named, Organization.account_id == key.owner)
    organization = call.session.scalars(owned).one_or_none()
    if organization is None:
        raise not_found()
    return organization


def _need(key: Key, scope: str) -> None:
    if scope not in key.scopes:
        needed = {"field": "scope", "message": scope}
        raise refusal("FORBIDDEN", f"The API key lacks the required scope {scope}", [needed])
