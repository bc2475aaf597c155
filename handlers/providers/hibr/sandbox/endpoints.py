"""Webhook endpoints: where the sandbox sends what it tells.

Published are the prefix `wh_`, the header Hibr-Webhook-Endpoint, and that a secret is shared when an endpoint is
made. The sandbox's own choices: the fields `url`, `active` and `secret`; a secret may be given, is made otherwise,
and is shown in the answer to the creation only; `*` is the scope.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import datetime

import httpx
from sqlalchemy import Integer, literal_column, select
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from handlers.providers.hibr.sandbox import bodies, listing
from handlers.providers.hibr.sandbox.access import Visit
from handlers.providers.hibr.sandbox.answers import malformed, moment, new_id, not_found
from handlers.providers.hibr.sandbox.listing import Row
from handlers.providers.hibr.sandbox.tables import Resource
from handlers.providers.sandbox import webhooks
from handlers.providers.sandbox.store import Store
from handlers.providers.sandbox.webhooks import Delivery, Endpoint

HEADER = "Hibr-Webhook-Endpoint"

_GIVEN = frozenset({"url", "active", "secret"})


class Endpoints:
    """The resource `webhook_endpoints`."""

    scope = None

    def listed(self, visit: Visit) -> Response:
        return JSONResponse(listing.page(_rows(visit), visit.call.request.query_params, visit.zone))

    def got(self, visit: Visit) -> Response:
        return JSONResponse(shown(_endpoint(visit)))

    def made(self, visit: Visit) -> Response:
        asked = _asked(visit)
        if "url" not in asked:
            raise bodies.required("url")
        secret = asked.get("secret") or secrets.token_hex(32)
        endpoint = add(visit.session, asked["url"], secret, owner=visit.account.id, now=visit.now)
        endpoint.active = asked.get("active", True)
        return JSONResponse(shown(endpoint) | {"secret": secret})

    def changed(self, visit: Visit) -> Response:
        endpoint = _endpoint(visit)
        for name, value in _asked(visit).items():
            setattr(endpoint, name, value)
        return JSONResponse(shown(endpoint))

    def deleted(self, visit: Visit) -> Response:
        endpoint = _endpoint(visit)
        visit.body()
        webhooks.remove(visit.session, endpoint)
        return Response(status_code=204)

    def acted(self, visit: Visit) -> Response:
        raise not_found("action")


class Labelled(httpx.AsyncBaseTransport):
    """Adds the header that names the endpoint, which is not among what is signed."""

    def __init__(self, store: Store, inner: httpx.AsyncBaseTransport | None) -> None:
        # Nothing is kept open between two webhooks, so nobody has to close it.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._inner = inner or httpx.AsyncHTTPTransport(trust_env=False, limits=limits)
        self._store = store

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        with self._store.transaction() as session:
            rows = select(Delivery).where(Delivery.delivery_id == request.headers.get("hibr-event-id"))
            for delivery in session.scalars(rows):
                if delivery.endpoint_id is not None and httpx.URL(delivery.url) == request.url:
                    request.headers[HEADER] = delivery.endpoint_id
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


def add(session: Session, url: str, secret: str, *, owner: str | None, now: datetime) -> Endpoint:
    """Have webhooks sent to `url`. One that is there already gets the new secret. Raises ValueError."""
    webhooks.check_url(url)
    endpoint = session.scalars(select(Endpoint).where(Endpoint.url == url, Endpoint.owner == owner)).one_or_none()
    if endpoint is None:
        endpoint = Endpoint(id=new_id("wh", now), url=url, owner=owner, active=True, created_at=now)
        session.add(endpoint)
    endpoint.secret = secret
    session.flush()
    return endpoint


def shown(endpoint: Endpoint) -> Resource:
    return {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "url": endpoint.url,
        "active": endpoint.active,
        "created_at": moment(endpoint.created_at),
    }


def _rows(visit: Visit) -> Iterable[Row]:
    # SQLite's own number of a row: the order in which endpoints were made, also within one second.
    number = literal_column(f"{Endpoint.__tablename__}.rowid", Integer)
    own = select(number, Endpoint).where(Endpoint.owner == visit.account.id)
    return ((place, shown(endpoint)) for place, endpoint in visit.session.execute(own))


def _endpoint(visit: Visit) -> Endpoint:
    endpoint = visit.session.get(Endpoint, visit.call.id)
    if endpoint is None or endpoint.owner != visit.account.id:
        raise not_found("webhook endpoint")
    return endpoint


def _asked(visit: Visit) -> Resource:
    asked = visit.body()
    for name in asked.keys() - _GIVEN:
        raise malformed(f"The '{name}' field cannot be given: an endpoint has url, active and secret.", name)
    if not isinstance(asked.get("active", True), bool):
        raise malformed("The 'active' field must be true or false.", "active")
    for name in ("url", "secret"):
        if name in asked and (not isinstance(asked[name], str) or not asked[name]):
            raise malformed(f"The '{name}' field must be a string.", name)
    if "url" in asked:
        try:
            webhooks.check_url(asked["url"])
        except ValueError:
            raise malformed("The 'url' field must be the address of a web server.", "url") from None
    return asked
