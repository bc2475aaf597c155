"""The Hesabe sandbox as an app: merchant API, gateway and pay pages, and its own surface under `/sandbox`."""

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

from handlers.providers.hesabe.sandbox import (
    answers,
    dashboard,
    invoices,
    login,
    page,
    payments,
    refunds,
    seeds,
    subscriptions,
    switches,
)
from handlers.providers.hesabe.sandbox.access import gateway, merchant_api
from handlers.providers.hesabe.sandbox.due import Due
from handlers.providers.hesabe.sandbox.models import Model, settings_of
from handlers.providers.sandbox import faults as switched
from handlers.providers.sandbox import webhooks as outbox
from handlers.providers.sandbox.machine import Machine
from handlers.providers.sandbox.sender import RETRY_DELAYS, Sender
from handlers.providers.sandbox.store import Store

USER_AGENT = "Hesabe (sandbox)"
"""Hesabe's own is not known."""

MERCHANT_API = (
    ("POST", "/invoice", invoices.create),
    ("POST", "/invoice/", invoices.create_subscription),
    ("POST", "/invoice/resend", invoices.resend),
    ("GET", "/invoice-dashboard", dashboard.list_all),
    ("GET", "/invoice/{id}", invoices.get),
    ("PUT", "/invoice/{id}", invoices.cancel),
    ("POST", "/refund", refunds.request),
    ("GET", "/refund/", refunds.list_all),
    ("GET", "/refund/{id}", refunds.get),
    ("DELETE", "/refund/{id}", refunds.cancel),
)
"""Method and path below /api/v1; encrypted both ways."""
OTHERS = (
    ("POST", "/api/v1/login", login.log_in),
    ("POST", "/api/v1/token-refresh", login.refresh),
    ("GET", "/api/transaction/{id}", payments.enquire),
    ("POST", "/api/subscription/capture", gateway(subscriptions.capture)),
    ("DELETE", "/api/subscription/cancel/{id}", subscriptions.cancel),
    ("GET", "/s/{id}", page.show),
    ("POST", "/s/{id}", page.pay),
)
"""Method and path; the first two are the merchant API's, the last two the customer's, the rest the gateway's."""


def create_app(
    *,
    path: Path | None = None,
    webhooks: Sequence[tuple[str, str]] = (),
    on_demand: str | None = None,
    login_required: bool | None = None,
    clock: datetime | None = None,
    faults: Mapping[str, float] | None = None,
    seed: int = 0,
    retry_delays: Sequence[float] = RETRY_DELAYS,
    now: Callable[[], float] = time.time,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Starlette:
    """Build the sandbox; it takes the credentials in `seeds.API_KEY`, and more that `POST /sandbox/keys` makes.

    `path` is its SQLite file (None: memory). `webhooks` are URLs, each with a secret that stays unused as nothing is
    signed; they are told of every payment, beside the one that an invoice names. `on_demand` is the SubscriptionType
    that is on demand ("1" in a new file), `login_required` whether the merchant API needs a bearer token (in a new file
    it does). `clock` is where the sandbox's time begins, `now` the machine's time in Unix seconds, by which tokens end.
    `faults` has a rate for each kind that shall strike for as long as the sandbox runs. `transport` stands in for the
    network that webhooks go through; they are sent again after `retry_delays`, in seconds: Hesabe's are not known.

    `app.state.sent` lists the attempts to deliver webhooks. Raises StoreError, and ValueError for a webhook, a fault
    or a SubscriptionType that cannot be.
    """
    if on_demand not in (None, "0", "1"):
        raise ValueError('on_demand is "0" or "1": the SubscriptionType that is on demand')
    machine = Machine(
        store=Store(path, Model.metadata),
        sender=Sender(sign=_sign, headers={"user-agent": USER_AGENT}, retry_delays=retry_delays, transport=transport),
        render=answers.refused,
        failures={"error": answers.internal(), "too_many": answers.too_many()},
        wall=now,
        start=clock,
        alarm=Due(),
    )
    with machine.store.transaction() as session:
        seeds.plant(machine, session)
        settings = settings_of(session)
        settings.on_demand = on_demand or settings.on_demand
        if login_required is not None:
            settings.login_required = login_required
        for url, secret in webhooks:
            outbox.add(session, url, secret, now=machine.clock.now())
        switched.disarm_lasting(session)
        switched.arm_all(session, faults or {}, seed)
    app = Starlette(
        routes=_routes(machine),
        lifespan=machine.lifespan,
        exception_handlers={404: _no_such_path, 405: _no_such_path},
    )
    app.router.redirect_slashes = False
    app.state.sent, app.state.machine = machine.sender.sent, machine
    return app


def _routes(machine: Machine) -> list[Route]:
    api = [(method, f"/api/v1{path}", merchant_api(work)) for method, path, work in MERCHANT_API]
    found = [Route(path, machine.endpoint(work), methods=[method]) for method, path, work in (*api, *OTHERS)]
    return [*found, *switches.routes(machine)]


def _sign(
    event_type: str, body: bytes, *, secret: str, delivery_id: str, now: float, forged: bool
) -> Mapping[str, str]:
    """Hesabe signs nothing, and sends no id."""
    return {"content-type": "application/json"}


async def _no_such_path(request: Request, error: Exception) -> Response:
    return answers.refused(answers.not_found("there is no such path"))
