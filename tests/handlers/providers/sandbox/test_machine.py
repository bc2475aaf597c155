"""The machinery, with the smallest provider there can be: one that does not sign, and is told where its webhooks go."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from handlers.providers.sandbox import admin, faults, keys
from handlers.providers.sandbox.keys import Key
from handlers.providers.sandbox.machine import Call, Later, Machine, Refusal
from handlers.providers.sandbox.sender import Sender
from handlers.providers.sandbox.store import Store
from handlers.providers.sandbox.webhooks import Attempt

NOW = datetime(2026, 6, 5, 14, tzinfo=UTC)


def unsigned(
    event_type: str, body: bytes, *, secret: str, delivery_id: str, now: float, forged: bool
) -> Mapping[str, str]:
    return {"content-type": "application/json"}


def render(refusal: Refusal) -> Response:
    return JSONResponse({"code": refusal.code}, refusal.status, refusal.headers)


class Daily:
    """Something that is due each midnight."""

    def __init__(self) -> None:
        self.last = datetime(2026, 6, 5, tzinfo=UTC)

    def next(self, session: Session) -> datetime | None:
        return self.last + timedelta(days=1)

    def ring(self, machine: Machine, session: Session, moment: datetime) -> None:
        assert machine.clock.now() == moment
        self.last = moment
        machine.emit(session, "midnight", {"at": moment.isoformat()}, url="http://sink.test/midnight")


class Toy:
    """`POST /{what}` does what it says."""

    def __init__(self, daily: Daily | None = None, network: httpx.AsyncBaseTransport | None = None) -> None:
        self.posted: list[httpx.Request] = []
        self.machine = Machine(
            store=Store(None),
            sender=Sender(
                sign=unsigned,
                headers={"user-agent": "Toy/1"},
                retry_delays=(),
                transport=network or httpx.MockTransport(self._hear),
            ),
            render=render,
            failures={"error": Refusal(500, "BROKEN", "x"), "too_many": Refusal(429, "SLOWER", "x")},
            start=NOW,
            alarm=daily,
        )
        self.app = Starlette(
            routes=[
                *admin.routes(self.machine, new_key=_no_key),
                Route("/{id}", self.machine.endpoint(self._do), methods=["POST"]),
            ],
            lifespan=self.machine.lifespan,
        )

    def _hear(self, request: httpx.Request) -> httpx.Response:
        self.posted.append(request)
        return httpx.Response(204)

    def _do(self, call: Call) -> Response | Later:
        call.emit("done", {"what": call.id}, url="http://sink.test/named", delivery_id="del_1")
        if call.id == "refuse":
            raise Refusal(409, "NO", "x", headers={"Retry-After": "3"})
        if call.id == "crash":
            raise ZeroDivisionError
        if call.id == "later":
            return lambda: JSONResponse({"thread": threading.current_thread() is threading.main_thread()})
        if call.id == "later-refuse":
            return _refuse
        return JSONResponse({"now": call.now.isoformat()})

    def post(self, path: str, body: object = None) -> httpx.Response:
        async def exchange() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://toy.test") as http:
                return await http.post(path, json=body)

        return asyncio.run(exchange())


def _refuse() -> Response:
    raise Refusal(409, "NO", "x")


def _no_key(call: Call) -> tuple[Key, str]:
    return keys.add(call.session, "k", kind="only", owner="o", scopes=[], now=call.now), "k"


class SlowToConnect(httpx.AsyncBaseTransport):
    """A network whose sockets are left open by who is cancelled before they are connected."""

    def __init__(self) -> None:
        self.connecting = asyncio.Event()
        self.connected = asyncio.Event()
        self.left_open = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.connecting.set()
        try:
            await self.connected.wait()
        except asyncio.CancelledError:
            self.left_open = True
            raise
        return httpx.Response(204)


def test_a_sandbox_that_stops_lets_the_webhook_in_flight_connect_first() -> None:
    async def stop_while_connecting() -> bool:
        network = SlowToConnect()
        toy = Toy(network=network)
        async with toy.machine.lifespan(toy.app):
            with toy.machine.store.transaction() as session:
                toy.machine.emit(session, "done", {}, url="http://sink.test/named")
            await network.connecting.wait()
            asyncio.get_running_loop().call_later(0.01, network.connected.set)
        return network.left_open

    assert asyncio.run(stop_while_connecting()) is False


def test_a_webhook_goes_where_the_request_said_without_a_signature() -> None:
    toy = Toy()

    toy.post("/now")

    (request,) = toy.posted
    assert str(request.url) == "http://sink.test/named"
    assert (request.headers["user-agent"], request.content) == ("Toy/1", b'{"what":"now"}')
    assert toy.machine.sender.sent[0].delivery_id == "del_1"


@pytest.mark.parametrize(("what", "status", "code"), [("refuse", 409, "NO"), ("crash", 500, "BROKEN")])
def test_what_is_refused_or_breaks_tells_nothing(
    what: str, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    toy = Toy()

    with caplog.at_level(logging.CRITICAL, "handlers.providers.sandbox.machine"):
        response = toy.post(f"/{what}")

    assert (response.status_code, response.json()) == (status, {"code": code})
    assert toy.posted == []


def test_the_rest_of_an_answer_is_made_in_a_thread_after_the_commit() -> None:
    toy = Toy()

    assert toy.post("/later").json() == {"thread": False}
    assert toy.post("/later-refuse").status_code == 409
    assert len(toy.posted) == 2


def test_what_falls_due_is_done_at_its_time_in_order() -> None:
    toy = Toy(Daily())

    answer = toy.post("/sandbox/clock", {"advance": "3d"})

    assert answer.json() == {"clock": "2026-06-08T14:00:00+00:00", "fell_due": 3}
    assert [request.content for request in toy.posted] == [
        b'{"at":"2026-06-%02dT00:00:00+00:00"}' % day for day in (6, 7, 8)
    ]


def test_a_replay_of_a_named_address_goes_there_again() -> None:
    toy = Toy()
    toy.post("/now")

    toy.post("/sandbox/webhooks/del_1/replay")

    assert [request.content for request in toy.posted] == [b'{"what":"now"}'] * 2
    with toy.machine.store.transaction() as session:
        assert [attempt.status for attempt in session.scalars(select(Attempt))] == [204, 204]


def test_faults_of_several_kinds_strike_together() -> None:
    store = Store(None)
    with store.transaction() as session:
        faults.arm(session, "delay", times=2, seconds=1.0, match="invoice.*")
        faults.arm(session, "drop", times=1)

        struck = [
            set(faults.strike(session, faults.OF_WEBHOOKS, event))
            for event in ("customer.created", "invoice.paid", "invoice.paid", "invoice.paid")
        ]

    assert struck == [{"drop"}, {"delay"}, {"delay"}, set()]


@pytest.mark.parametrize(
    "wrong", [{"kind": "x"}, {"kind": "drop", "rate": 0}, {"kind": "drop", "times": 0}, {"kind": "slow", "seconds": -1}]
)
def test_a_fault_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with Store(None).transaction() as session, pytest.raises(ValueError, match=r"fault is one of|rate is above"):
        faults.arm(session, **wrong)  # type: ignore[arg-type] # wrong on purpose


def test_the_share_that_is_struck_is_the_rate() -> None:
    with Store(None).transaction() as session:
        faults.arm_all(session, {"error": 0.3}, seed=1)
        struck = sum(bool(faults.strike(session, ["error"], "GET /")) for _ in range(1000))

    assert 240 < struck < 360
