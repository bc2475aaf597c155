"""The HIBR sandbox as an app: its API under `/v1`, OAuth under `/oauth`, its own surface under `/sandbox`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handlers.providers.hibr import PROVIDER
from handlers.providers.hibr.network import TEST
from handlers.providers.hibr.sandbox import catalog, changelog, consent, endpoints, grants, seeds, switches
from handlers.providers.hibr.sandbox.answers import not_found, refusal, refused
from handlers.providers.hibr.sandbox.endpoints import Labelled
from handlers.providers.hibr.sandbox.grants import Application
from handlers.providers.hibr.sandbox.tables import Model
from handlers.providers.hibr.sandbox.turnstile import TIERS, Limiter, Turnstile
from handlers.providers.sandbox import faults as switched
from handlers.providers.sandbox.limits import Limits
from handlers.providers.sandbox.machine import Machine
from handlers.providers.sandbox.sender import RETRY_DELAYS, Sender, signed_by
from handlers.providers.sandbox.store import Store

USER_AGENT = "HIBR-Webhooks/1.0"
CLIENT_ID = "hibr_app_sandbox"
CLIENT_SECRET = "hibr_app_secret_sandbox"  # noqa: S105 - that of the application that everybody has


def create_app(
    *,
    path: Path | None = None,
    webhooks: Sequence[tuple[str, str]] = (),
    api_key: str | None = seeds.API_KEY,
    tier: str = "sandbox",
    rate_limit: int | None = None,
    time_zone: str = seeds.ZONE,
    redirect_uris: Sequence[str] = (),
    clock: datetime | None = None,
    faults: Mapping[str, float] | None = None,
    seed: int = 0,
    retry_delays: Sequence[float] = RETRY_DELAYS,
    now: Callable[[], float] = time.time,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Starlette:
    """Build the sandbox.

    `path` is its SQLite file (None: memory); `tier` (lite, pro, enterprise, sandbox) and `time_zone` are for a new one.
    `webhooks` has an address and a secret for each endpoint. `api_key` is a key with the scope `*`. `rate_limit` (calls
    a minute) stands in for the tier's. `redirect_uris` are those of the OAuth application, beside this machine's.
    `clock` is where the sandbox's time begins, `now` the machine's time in Unix seconds. `faults` has a rate for each
    kind that shall strike for as long as the sandbox runs. `transport` stands in for the network that webhooks go
    through.

    `app.state.sent` lists the attempts to deliver webhooks. Raises StoreError, and ValueError for a tier, zone, key,
    webhook or fault that cannot be.
    """
    if tier not in TIERS:
        raise ValueError(f"a tier is one of {', '.join(TIERS)}")
    if api_key is not None and not api_key.startswith(TEST):
        raise ValueError(f"a key of the sandbox begins with {TEST}")
    switches.check_zone(time_zone)
    machine = _machine(Store(path, Model.metadata), clock, now, retry_delays, transport)
    limiter = Limiter(limits=Limits(now), rate_limit=rate_limit)
    with machine.store.transaction() as session:
        seeds.plant(machine, session, api_key=api_key, tier=tier, time_zone=time_zone)
        for url, secret in webhooks:
            machine.sender.check(secret)
            endpoints.add(session, url, secret, owner=seeds.MAIN, now=machine.clock.now())
        switched.disarm_lasting(session)
        switched.arm_all(session, faults or {}, seed)
    application = Application(
        client_id=CLIENT_ID, client_secret=CLIENT_SECRET, name="Demo application", redirect_uris=redirect_uris
    )
    app = Starlette(
        routes=[
            *catalog.routes(machine),
            *consent.routes(machine, application, seeds.MAIN),
            *grants.routes(machine, application),
            Route("/changelog", machine.endpoint(changelog.listed), methods=["GET"]),
            *switches.routes(machine, limiter),
        ],
        middleware=[Middleware(Turnstile, machine=machine, limiter=limiter)],
        lifespan=machine.lifespan,
        exception_handlers={404: _no_such_path, 405: _no_such_path},
    )
    app.router.redirect_slashes = False
    app.state.sent, app.state.machine = machine.sender.sent, machine
    return app


def _machine(
    store: Store,
    clock: datetime | None,
    now: Callable[[], float],
    retry_delays: Sequence[float],
    transport: httpx.AsyncBaseTransport | None,
) -> Machine:
    return Machine(
        store=store,
        sender=Sender(
            sign=signed_by(PROVIDER),
            headers={"user-agent": USER_AGENT},
            retry_delays=retry_delays,
            transport=Labelled(store, transport),
        ),
        render=refused,
        failures={
            "error": refusal("api_error", "Internal error."),
            "too_many": refusal("rate_limit_error", "Rate limit exceeded.", headers={"Retry-After": "1"}),
        },
        wall=now,
        start=clock,
    )


async def _no_such_path(request: Request, error: Exception) -> Response:
    return refused(not_found("path"))
