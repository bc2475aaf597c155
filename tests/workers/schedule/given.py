"""What tests of schedules are given: a sandbox of Hisab on a real socket, and a network that a test can break."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from typing import Any

import httpx
import orjson
import pytest
import uvicorn
from sqlalchemy import Engine

from handlers.providers.hisab.client import HisabClient
from handlers.providers.hisab.sandbox import create_app
from handlers.providers.http import trust
from tests.conftest import SECRET
from tests.workers.given import NOW, rows, until
from workers import database
from workers.clients import Clients
from workers.models import AnyRow, AuditEntry, EventRow, Occurrence
from workers.schedule.errors import ScheduleError
from workers.schedule.generate import generate
from workers.schedule.generator import LEASE, Generator
from workers.schedule.plans import Plan
from workers.schedule.schedules import add, get, preview
from workers.schedule.tick import tick
from workers.settings import Settings

KEY = "hisab_test_key"
DAY = 24 * 3600.0
ACTOR = "tester"
HOUR = {"description": "Integration services", "quantity": "8", "unit_price": "1300.00"}


def plan(**values: Any) -> Plan:
    """A monthly schedule from today on."""
    given: dict[str, Any] = {"source": "shop", "customer_id": "cus_2b81fe", "frequency": "monthly", "items": [HOUR]}
    return Plan(**{**given, "start_date": NOW.date(), **values})


def added(engine: Engine, settings: Settings, **values: Any) -> str:
    """Such a schedule, stored; its id."""
    return add(engine, settings, plan(**values), actor=ACTOR, now=NOW)


def of_shop(settings: Settings, **values: Any) -> Settings:
    """The settings, with these of the source `shop`."""
    return settings.model_copy(update={"sources": {"shop": settings.sources["shop"].model_copy(update=values)}})


class Died(BaseException):
    """The process is no more."""


class Network(httpx.BaseTransport):
    """The network to the API: what was called, and what befalls a call before and after it reached the API."""

    def __init__(self) -> None:
        self._real = httpx.HTTPTransport(verify=trust())
        self.calls: list[str] = []
        self.before: Callable[[int], httpx.Response | None] = lambda _: None
        self.after: Callable[[int], None] = lambda _: None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(f"{request.method} {request.url.path.rpartition('/')[2]}")
        number = len(self.calls)
        instead = self.before(number)
        if instead is not None:
            return instead
        response = self._real.handle_request(request)
        response.read()
        self.after(number)
        return response

    def close(self) -> None:
        self._real.close()

    def heal(self) -> None:
        self.before, self.after = lambda _: None, lambda _: None


class OneClient(Clients):
    def __init__(self, settings: Settings, client: HisabClient) -> None:
        super().__init__(settings)
        self._one = client

    def get(self, name: str) -> Any:
        return self._one


def planned(generator: Generator, customer_id: str, **values: Any) -> str:
    """A schedule that is due today, and its occurrence."""
    (occurrence,) = several(generator, customer_id, 1, **values)
    return occurrence


def several(generator: Generator, customer_id: str, count: int, **values: Any) -> list[str]:
    item = {"description": "Hosting", "quantity": "3", "unit_price": "100.10", "tax_rate": "20"}
    given: dict[str, Any] = {"auto_finalize": True, "auto_send": True, "items": [item], "days_until_due": 15, **values}
    for _ in range(count):
        added(generator.engine, generator.settings, customer_id=customer_id, **given)
    return sorted(tick(generator.engine, now=NOW))


def made(books: HisabClient, customer_id: str) -> list[dict[str, Any]]:
    """The invoices that the customer has at the provider."""
    return list(books.invoices.list(customer_id=customer_id))


def reported(generator: Generator) -> list[dict[str, Any]]:
    """What the events in the inbox say."""
    return [orjson.loads(row.body) for row in rows(generator.engine, EventRow)]


def dies_before(network: Network, call: int) -> Callable[[int], None]:
    """The process dies before the `call`-th call from now on reaches the API."""
    fatal = len(network.calls) + call

    def befall(number: int) -> None:
        if number == fatal:
            raise Died

    return befall


dies_after = dies_before
"""The same, once the API has answered."""


def live(generator: Generator, network: Network, occurrence: str, death: tuple[str, int] | None) -> None:
    """One process that takes the occurrence up, and dies at the given call if it gets there; then its lease ends."""
    network.heal()
    if death is not None:
        setattr(network, death[0], dies_before(network, death[1]))
    try:
        generate(generator, [occurrence])
    except Died:
        assert death is not None
    generator.clock.turn(LEASE.total_seconds())  # type: ignore[attr-defined]


@contextmanager
def served(**options: Any) -> Iterator[str]:
    """A sandbox on a socket of its own for the block; the address of its API."""
    heard = httpx.MockTransport(lambda _: httpx.Response(204))
    fake = create_app(webhook_url="http://127.0.0.1:9/", secret=SECRET, api_key=KEY, transport=heard, **options)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(fake, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


@contextmanager
def of_another_process(generator: Generator, **values: Any) -> Iterator[Generator]:
    """The generator of another process: it has connections of its own."""
    engine = database.connect(generator.settings)
    try:
        yield replace(generator, engine=engine, **values)
    finally:
        engine.dispose()


def away(_: int) -> None:
    """No call gets through to the API."""
    raise httpx.ConnectError("refused")


def refusing(code: str, status: int = 422, **headers: str) -> httpx.Response:
    """What the API answers that refuses a call."""
    document = {"success": False, "error": {"code": code, "message": "No"}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, content=orjson.dumps(document), headers=named)


def at_call(
    network: Network, kind: str, answer: Callable[[int], httpx.Response | None], *, turn: int | None = None
) -> Callable[[int], httpx.Response | None]:
    """What befalls the calls of a kind, such as `GET cus_`; with `turn` only that one of them, from 1 now."""
    before = sum(call.startswith(kind) for call in network.calls)

    def befall(number: int) -> httpx.Response | None:
        meant = network.calls[-1].startswith(kind)
        turns = sum(call.startswith(kind) for call in network.calls) - before
        return answer(number) if meant and turn in {None, turns} else None

    return befall


def became(engine: Engine, schedule_id: str) -> dict[str, str]:
    """What became of each due date of a schedule, the oldest first."""
    mine = [row for row in rows(engine, Occurrence) if row.schedule_id == schedule_id]
    return {row.due_on.isoformat(): row.status for row in sorted(mine, key=lambda row: row.due_on)}


def coming(engine: Engine, settings: Settings, schedule_id: str, count: int = 3) -> list[date]:
    """The next due dates of a schedule."""
    return [one.due_on for one in preview(settings, get(engine, schedule_id), count, NOW)]


def told(engine: Engine, kind: str) -> list[AnyRow]:
    """The events of a type, `recurring.` left out."""
    return [row for row in rows(engine, EventRow) if row.type == f"recurring.{kind}"]


def noted(engine: Engine, verb: str) -> AnyRow:
    """The one entry of the audit log on this verb."""
    (entry,) = [row for row in rows(engine, AuditEntry) if row.action == f"schedules.{verb}"]
    return entry


@contextmanager
def refused(code: str, match: str | None = None) -> Iterator[pytest.ExceptionInfo[ScheduleError]]:
    """What is asked of a schedule in the block is refused with this code."""
    with pytest.raises(ScheduleError, match=match) as caught:
        yield caught
    assert caught.value.code == code
