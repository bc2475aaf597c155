"""The sandbox's own surface, under `/sandbox`: what stands in for a provider's dashboard, for time, and for bad luck.

    GET    /sandbox                       clock, endpoints, armed faults, keys, deliveries by state, and the provider's
    POST   /sandbox/clock                 {"advance": "30d"} (s, m, h, d, w), or {"to": "2027-01-01"} (a date or moment,
                                          UTC): sets the clock forward; what falls due on the way is done, in order
    GET    /sandbox/webhooks              deliveries, newest first: id, event, state, attempts; ?event= and ?state=
    POST   /sandbox/webhooks              {"url", "secret", "owner"?}: webhooks go there; again for a new secret
    PATCH  /sandbox/webhooks/{id}         {"active"?, "secret"?}: pause an endpoint, rotate its secret
    DELETE /sandbox/webhooks/{id}         what waits for it is given up
    POST   /sandbox/webhooks/{id}/replay  {id} is a delivery's: it is sent once more, under its id
    POST   /sandbox/faults                {"kind", "times"?: 1 or null (all), "rate"?: 1, "seed"?, "seconds"?, "match"?}
    DELETE /sandbox/faults                all are off
    POST   /sandbox/keys                  a key, shown here and never again; the provider says of which kinds
    DELETE /sandbox/keys/{id}             revokes it

It has no key: whoever reaches the sandbox is its owner. Faults do not strike here, and nothing is counted.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from handlers.providers.sandbox import faults, fields, keys, webhooks
from handlers.providers.sandbox.faults import Fault
from handlers.providers.sandbox.fields import Fields, Invalid, NotJson
from handlers.providers.sandbox.keys import Key
from handlers.providers.sandbox.machine import Call, Later, Machine, Refusal, Work
from handlers.providers.sandbox.webhooks import Delivery, Endpoint

SHOWN = 200
"""Deliveries that a list shows."""

_SPAN = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Show = Callable[[Session], dict[str, Any]]
NewKey = Callable[[Call], tuple[Key, str]]
"""Make the key that a body asks for; the key and its secret."""


class ClockBody(Fields):
    advance: Annotated[str, fields.matching(_SPAN.pattern, "must be like 30d: a number and s, m, h, d or w")] | None = (
        None
    )
    to: fields.Text | None = None


class WebhookBody(Fields):
    url: fields.Words
    secret: fields.Words
    owner: fields.Words | None = None


class WebhookChange(Fields):
    active: fields.Flag | None = None
    secret: fields.Words | None = None


class FaultBody(Fields):
    kind: Annotated[str, fields.one_of(*faults.OF_WEBHOOKS, *faults.OF_CALLS)]
    times: Annotated[int, fields.whole(1)] | None = 1
    rate: float = Field(default=1.0, gt=0, le=1)
    seed: Annotated[int, fields.whole(0, 2**31)] = 0
    seconds: float = Field(default=faults.SECONDS, ge=0, le=3600)
    match: fields.Words = "*"


def routes(machine: Machine, *, new_key: NewKey, show: Show | None = None) -> list[Route]:
    """The routes above. `show` gives what the provider adds to `GET /sandbox`."""

    def state(call: Call) -> Response:
        return JSONResponse(_state(call) | ({} if show is None else show(call.session)))

    def add_key(call: Call) -> Response:
        key, secret = new_key(call)
        return JSONResponse({**key.shown(), "key": secret}, 201)

    async def clock(request: Request) -> Response:
        return await _move_clock(machine, request)

    table: tuple[tuple[str, str, Work], ...] = (
        ("GET", "", state),
        ("GET", "/webhooks", _deliveries),
        ("POST", "/webhooks", _add_endpoint),
        ("PATCH", "/webhooks/{id}", _change_endpoint),
        ("DELETE", "/webhooks/{id}", _remove_endpoint),
        ("POST", "/webhooks/{id}/replay", _replay),
        ("POST", "/faults", _arm),
        ("DELETE", "/faults", _disarm),
        ("POST", "/keys", add_key),
        ("DELETE", "/keys/{id}", _revoke),
    )
    made = [Route(f"/sandbox{path}", surface(machine, work), methods=[method]) for method, path, work in table]
    return [*made, Route("/sandbox/clock", clock, methods=["POST"])]


def surface(machine: Machine, work: Work) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint of the sandbox's own: no fault strikes it, and it says `{"error": ...}` when it refuses."""

    def guarded(call: Call) -> Response | Later:
        try:
            return work(call)
        except (ValueError, Invalid, NotJson) as error:
            raise Refusal(400, "INVALID", str(error)) from None
        except LookupError as error:
            raise Refusal(404, "NOT_FOUND", str(error.args[0])) from None

    async def answer(request: Request) -> Response:
        return await machine.answered(guarded, request, await request.body(), _refused)

    return answer


def _state(call: Call) -> dict[str, Any]:
    session = call.session
    counts = session.execute(select(Delivery.state, func.count().label("count")).group_by(Delivery.state))
    return {
        "clock": call.now.isoformat(),
        "webhooks": [endpoint.shown() for endpoint in session.scalars(select(Endpoint))],
        "deliveries": {row.state: row.count for row in counts},
        "faults": [fault.shown() for fault in session.scalars(select(Fault))],
        "keys": [key.shown() for key in session.scalars(select(Key))],
    }


async def _move_clock(machine: Machine, request: Request) -> Response:
    try:
        body = fields.read(ClockBody, fields.document(await request.body()))
        rung = await machine.advance(_target(body, machine.clock.now()))
    except (ValueError, Invalid, NotJson) as error:
        return _refused(Refusal(400, "INVALID", str(error)))

    def done(call: Call) -> Response:
        return JSONResponse({"clock": call.now.isoformat(), "fell_due": rung})

    return await machine.answered(done, request, b"", _refused)


def _target(body: ClockBody, now: datetime) -> datetime:
    if (body.advance is None) == (body.to is None):
        raise ValueError('give either {"advance": "30d"} or {"to": "2027-01-01"}')
    try:
        if body.advance is not None:
            amount, unit = body.advance[:-1], body.advance[-1]
            return now + timedelta(**{_UNITS[unit]: int(amount)})
        moment = datetime.fromisoformat(body.to or "")
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("that is too far in the future") from None
    except ValueError:
        raise ValueError("to: must be a date (YYYY-MM-DD), or a date and time (ISO 8601)") from None


def _deliveries(call: Call) -> Response:
    rows = select(Delivery).order_by(Delivery.number.desc()).limit(SHOWN)
    query = call.request.query_params
    if "event" in query:
        rows = rows.where(Delivery.event_type == query["event"])
    if "state" in query:
        rows = rows.where(Delivery.state == query["state"])
    return JSONResponse({"deliveries": [delivery.shown() for delivery in call.session.scalars(rows)]})


def _add_endpoint(call: Call) -> Response:
    body = fields.read(WebhookBody, fields.document(call.raw))
    call.machine.sender.check(body.secret)
    endpoint = webhooks.add(call.session, body.url, body.secret, owner=body.owner, now=call.now)
    return JSONResponse(endpoint.shown(), 201)


def _change_endpoint(call: Call) -> Response:
    endpoint = _endpoint(call)
    body = fields.read(WebhookChange, fields.document(call.raw))
    if body.secret is not None:
        call.machine.sender.check(body.secret)
        endpoint.secret = body.secret
    if body.active is not None:
        endpoint.active = body.active
    return JSONResponse(endpoint.shown())


def _remove_endpoint(call: Call) -> Response:
    endpoint = _endpoint(call)
    webhooks.remove(call.session, endpoint)
    return JSONResponse(endpoint.shown())


def _endpoint(call: Call) -> Endpoint:
    endpoint = call.session.get(Endpoint, call.id)
    if endpoint is None:
        raise LookupError("there is no such endpoint: GET /sandbox lists them under webhooks")
    return endpoint


def _replay(call: Call) -> Response:
    delivery = webhooks.replay(call.session, call.id, call.machine.sender.timer())
    if delivery is None:
        raise LookupError("there is no such delivery: GET /sandbox/webhooks lists them")
    return JSONResponse(delivery.shown(), 202)


def _arm(call: Call) -> Response:
    body = fields.read(FaultBody, fields.document(call.raw))
    return JSONResponse(faults.arm(call.session, **body.model_dump()).shown(), 201)


def _disarm(call: Call) -> Response:
    faults.disarm(call.session)
    return JSONResponse({"faults": []})


def _revoke(call: Call) -> Response:
    key = keys.revoke(call.session, call.id, call.now)
    if key is None:
        raise LookupError("there is no such key: GET /sandbox lists their ids")
    return JSONResponse(key.shown())


def _refused(refusal: Refusal) -> Response:
    return JSONResponse({"error": refusal.message}, refusal.status)
