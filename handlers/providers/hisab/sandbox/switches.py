"""What the Hisab sandbox adds to `/sandbox` (see `handlers.providers.sandbox.admin` for the rest).

POST /sandbox/organizations/{id}        {"api_disabled"?, "subscription_expired"?, "plan"?, "entity_cap"?,
                                        "recurring_quota"?, "invoice_prefix"?, "next_invoice_number"?}
                                        a plan is professional or fiduciaire; starter stands for one without API
                                        access. Plan and cap are the account's. A quota of null is none.
POST /sandbox/recurring-invoices/{id}   {"status": "cancelled"}: no call of the API sets it
POST /sandbox/keys                      {"kind": "live" | "test" | "account", "owner"?: the id of an organization or
                                        account, "bundle"?: "read_only" | "invoicing" | "full", "scopes"?: [...],
                                        "key"?: to choose it}; all scopes unless told
GET  /sandbox                           has `organizations` and `accounts` too
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from handlers.providers.hisab.sandbox import organization, recurring
from handlers.providers.hisab.sandbox.access import ACCOUNT, MAX_KEYS, PLANS, SCOPES
from handlers.providers.hisab.sandbox.generation import CANCELLED
from handlers.providers.hisab.sandbox.models import Account, Organization, Schedule
from handlers.providers.hisab.sandbox.seeds import MAIN
from handlers.providers.sandbox import admin, fields, keys
from handlers.providers.sandbox.fields import Fields
from handlers.providers.sandbox.keys import Key
from handlers.providers.sandbox.machine import Call, Machine

NO_API = "starter"
PREFIXES = {"live": "hisab_live_", "test": "hisab_test_", ACCOUNT: "hisab_acct_"}
BUNDLES = {
    "read_only": tuple(scope for scope in SCOPES if scope.endswith((":read", ":export"))),
    "invoicing": tuple(scope for scope in SCOPES if scope.startswith(("invoices:", "recurring:", "customers:"))),
    "full": SCOPES,
}
"""The bundles of the dashboard; the documents name them, what is in them is chosen."""


class Switches(Fields):
    """A default stands for "not given": none of them is ever read."""

    api_disabled: fields.Flag = False
    subscription_expired: fields.Flag = False
    plan: Annotated[str, fields.one_of(*PLANS, NO_API)] = ""
    entity_cap: Annotated[int, fields.whole(0, 10_000)] = 0
    recurring_quota: Annotated[int, fields.whole(0, 10_000)] | None = None
    invoice_prefix: Annotated[str, fields.matching(r"[A-Z0-9-]{1,12}", "must be like FAC")] = ""
    next_invoice_number: Annotated[int, fields.whole(1, 10**9)] = 1


class Status(Fields):
    status: Annotated[str, fields.one_of(CANCELLED)]


class NewKey(Fields):
    kind: Annotated[str, fields.one_of(*PREFIXES)] = "live"
    owner: fields.Words | None = None
    bundle: Annotated[str, fields.one_of(*BUNDLES)] = "full"
    scopes: list[Annotated[str, fields.one_of(*SCOPES)]] | None = None
    key: Annotated[str, fields.matching(r"hisab_[!-~]{4,200}", "must begin with hisab_")] | None = None


def routes(machine: Machine) -> list[Route]:
    """All of `/sandbox`."""
    own = (("/sandbox/organizations/{id}", _switch), ("/sandbox/recurring-invoices/{id}", _cancel))
    return [
        *admin.routes(machine, new_key=_new_key, show=_shown),
        *(Route(path, admin.surface(machine, work), methods=["POST"]) for path, work in own),
    ]


def _switch(call: Call) -> Response:
    found = _organization(call.session, call.id)
    given = fields.read(Switches, fields.document(call.raw)).given()
    for name in ("plan", "entity_cap"):
        if name in given:
            setattr(found.account, name, given.pop(name))
    for name, value in given.items():
        setattr(found, name, value)
    return JSONResponse(organization.shown(found) | {"entity_cap": found.account.entity_cap})


def _cancel(call: Call) -> Response:
    schedule = call.session.scalars(select(Schedule).where(Schedule.id == call.id)).one_or_none()
    if schedule is None:
        raise LookupError("there is no such recurring invoice")
    schedule.status = fields.read(Status, fields.document(call.raw)).status
    return JSONResponse(recurring.shown(schedule))


def _new_key(call: Call) -> tuple[Key, str]:
    body = fields.read(NewKey, fields.document(call.raw))
    session, secret = call.session, body.key or PREFIXES[body.kind] + secrets.token_hex(16)
    if body.kind == ACCOUNT:
        owner = body.owner or MAIN
        if session.get(Account, owner) is None:
            raise LookupError("owner: there is no such account: GET /sandbox lists them")
    else:
        found = _organization(session, body.owner)
        owner, most = found.id, MAX_KEYS.get(found.account.plan)
        live = select(func.count()).where(Key.owner == owner, Key.revoked_at.is_(None))
        if most is not None and (session.scalar(live) or 0) >= most:
            raise ValueError(f"the plan {found.account.plan} has at most {most} API keys: revoke one")
    scopes = BUNDLES[body.bundle] if body.scopes is None else body.scopes
    return keys.add(session, secret, kind=body.kind, owner=owner, scopes=scopes, now=call.now), secret


def _shown(session: Session) -> dict[str, Any]:
    accounts = session.scalars(select(Account)).all()
    organizations = session.scalars(select(Organization).order_by(Organization.number)).all()
    return {
        "accounts": [{"id": one.id, "plan": one.plan, "entity_cap": one.entity_cap} for one in accounts],
        "organizations": [organization.shown(one) | {"account": one.account_id} for one in organizations],
    }


def _organization(session: Session, organization_id: str | None) -> Organization:
    rows = select(Organization).order_by(Organization.number).limit(1)
    if organization_id is not None:
        rows = rows.where(Organization.id == organization_id)
    found = session.scalars(rows).one_or_none()
    if found is None:
        raise LookupError("there is no such organization: GET /sandbox lists them")
    return found
