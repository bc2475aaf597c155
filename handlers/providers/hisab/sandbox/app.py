"""The Hisab sandbox as an app: its API under `/api/v1`, its own surface under `/sandbox`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handlers.providers.hisab import PROVIDER
from handlers.providers.hisab.sandbox import (
    customers,
    documents,
    invoices,
    organization,
    organizations,
    recurring,
    seeds,
    switches,
)
from handlers.providers.hisab.sandbox.access import Gate
from handlers.providers.hisab.sandbox.answers import not_found, refusal, refused
from handlers.providers.hisab.sandbox.generation import Schedules
from handlers.providers.hisab.sandbox.models import Model
from handlers.providers.sandbox import faults as switched
from handlers.providers.sandbox import webhooks as outbox
from handlers.providers.sandbox.limits import Limits
from handlers.providers.sandbox.machine import Machine
from handlers.providers.sandbox.sender import RETRY_DELAYS, Sender, signed_by
from handlers.providers.sandbox.store import Store

USER_AGENT = "Hisab-Webhooks/1.0"

ENDPOINTS = (
    ("GET", "/invoices", "invoices:read", invoices.list_invoices),
    ("POST", "/invoices", "invoices:write", invoices.create_invoice),
    ("GET", "/invoices/{id}", "invoices:read", invoices.get_invoice),
    ("PATCH", "/invoices/{id}", "invoices:write", invoices.change_invoice),
    ("POST", "/invoices/{id}/finalize", "invoices:finalize", invoices.finalize_invoice),
    ("POST", "/invoices/{id}/send", "invoices:write", invoices.send_invoice),
    ("POST", "/invoices/{id}/pay", "invoices:write", invoices.pay_invoice),
    ("POST", "/invoices/{id}/void", "invoices:write", invoices.void_invoice),
    ("GET", "/invoices/{id}/pdf", "invoices:export", documents.pdf),
    ("GET", "/invoices/{id}/xml", "invoices:export", documents.xml),
    ("GET", "/customers", "customers:read", customers.list_customers),
    ("POST", "/customers", "customers:write", customers.create_customer),
    ("GET", "/customers/{id}", "customers:read", customers.get_customer),
    ("PATCH", "/customers/{id}", "customers:write", customers.change_customer),
    ("DELETE", "/customers/{id}", "customers:delete", customers.archive_customer),
    ("GET", "/recurring-invoices", "invoices:read", recurring.list_schedules),
    ("POST", "/recurring-invoices", "invoices:write", recurring.create_schedule),
    ("GET", "/recurring-invoices/{id}", "invoices:read", recurring.get_schedule),
    ("PUT", "/recurring-invoices/{id}", "invoices:write", recurring.change_schedule),
    ("DELETE", "/recurring-invoices/{id}", "invoices:write", recurring.delete_schedule),
    ("POST", "/recurring-invoices/{id}/generate", "invoices:write", recurring.generate_now),
    ("GET", "/recurring-invoices/{id}/history", "invoices:read", recurring.list_history),
    ("POST", "/recurring-invoices/{id}/pause", "invoices:write", recurring.pause),
    ("POST", "/recurring-invoices/{id}/resume", "invoices:write", recurring.resume),
    ("GET", "/organization", "organization:read", organization.get_organization),
    ("PATCH", "/organization", "organization:write", organization.change_organization),
)
"""Method, path, and the scope that the reference annotates the endpoint with, also where it has one of its own."""
ACCOUNT_ENDPOINTS = (
    ("GET", "/organizations", "organizations:read", organizations.list_organizations),
    ("POST", "/organizations", "organizations:write", organizations.create_organization),
    ("GET", "/organizations/{id}", "organizations:read", organizations.get_organization),
    ("POST", "/organizations/{id}/archive", "organizations:archive", organizations.archive),
    ("POST", "/organizations/{id}/restore", "organizations:archive", organizations.restore),
)


def create_app(
    *,
    path: Path | None = None,
    webhook_url: str | None = None,
    secret: str | None = None,
    webhooks: Sequence[tuple[str, str]] = (),
    api_key: str | None = "hisab_test_sandbox",
    organization_id: str = "org_4d11a7",
    plan: str = "professional",
    entity_cap: int = seeds.ENTITY_CAP,
    rate_limit: int | None = None,
    clock: datetime | None = None,
    faults: Mapping[str, float] | None = None,
    seed: int = 0,
    retry_delays: Sequence[float] = RETRY_DELAYS,
    now: Callable[[], float] = time.time,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Starlette:
    """Build the sandbox.

    `path` is its SQLite file (None: memory); the arguments that describe the organization are for a new one.
    `webhooks`, and `webhook_url` with `secret`, are what Settings > Webhooks of the dashboard would hold. `api_key`
    is a further key with all scopes. `rate_limit` (calls a minute) stands in for the plan's. `clock` is where the
    sandbox's time begins, `now` the machine's time in Unix seconds. `faults` has a rate for each kind that shall
    strike for as long as the sandbox runs. `transport` stands in for the network that webhooks go through.

    `app.state.sent` lists the attempts to deliver webhooks. Raises StoreError, and ValueError for a webhook or a
    fault that cannot be.
    """
    sender = Sender(
        sign=signed_by(PROVIDER), headers={"user-agent": USER_AGENT}, retry_delays=retry_delays, transport=transport
    )
    machine = _machine(Store(path, Model.metadata), sender, now, clock)
    targets = [*webhooks, *([(webhook_url, secret)] if webhook_url is not None and secret is not None else [])]
    with machine.store.transaction() as session:
        given_keys = [] if api_key is None else [api_key]
        seeds.plant(
            machine, session, organization_id=organization_id, api_keys=given_keys, plan=plan, entity_cap=entity_cap
        )
        for url, given in targets:
            machine.sender.check(given)
            outbox.add(session, url, given, now=machine.clock.now())
        switched.disarm_lasting(session)
        switched.arm_all(session, faults or {}, seed)
    app = Starlette(
        routes=_routes(machine, Gate(Limits(now), rate_limit)),
        lifespan=machine.lifespan,
        exception_handlers={404: _no_such_path, 405: _no_such_path},
    )
    app.state.sent, app.state.machine = machine.sender.sent, machine
    return app


def _machine(store: Store, sender: Sender, wall: Callable[[], float], start: datetime | None) -> Machine:
    return Machine(
        store=store,
        sender=sender,
        render=refused,
        failures={
            "error": refusal("INTERNAL_ERROR", "Internal server error"),
            "too_many": refusal("RATE_LIMIT_EXCEEDED", "Too many requests", headers={"Retry-After": "1"}),
        },
        wall=wall,
        start=start,
        alarm=Schedules(),
    )


def _routes(machine: Machine, gate: Gate) -> list[Route]:
    found = [(method, path, gate.organization(scope, work)) for method, path, scope, work in ENDPOINTS]
    found += [(method, path, gate.account(scope, work)) for method, path, scope, work in ACCOUNT_ENDPOINTS]
    api = [Route(f"/api/v1{path}", machine.endpoint(work), methods=[method]) for method, path, work in found]
    return [*api, *switches.routes(machine)]


async def _no_such_path(request: Request, error: Exception) -> Response:
    return refused(not_found())
