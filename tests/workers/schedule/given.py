"""What tests of schedules are given: a sandbox of Hisab on a real socket, and a network that a test can break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import orjson
from sqlalchemy import Engine

from handlers.providers.hisab.client import HisabClient
from tests.workers.given import NOW, rows
from workers.clients import Clients
from workers.models import EventRow
from workers.schedule.generate import generate
from workers.schedule.generator import LEASE, Generator
from workers.schedule.plans import Plan
from workers.schedule.schedules import add
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


class Died(BaseException):
    """The process is no more."""


class Network(httpx.BaseTransport):
    """The network to the API: what was called, and what befalls a call before and after it reached the API."""

    def __init__(self) -> None:
        self._real = httpx.HTTPTransport()
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
