"""The next invoice over the API: made once under its key, wherever the process dies, and not waited for without end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from handlers.errors import ProviderUnavailable
from handlers.providers.hisab.client import HisabClient
from receiver.api import create_api
from tests.receiver.api.conftest import Caller, refused
from tests.receiver.edge import serving
from tests.workers.given import Clock, change, only, rows, rung, until
from tests.workers.schedule.given import KEY, Died, Network, OneClient, away, dies_before, made, refusing, served
from workers import api_keys, database, idempotency
from workers.app import GENERATE, PROCESS, Runtime
from workers.idempotency import Answered, Asked
from workers.models import Occurrence
from workers.models import Schedule as Row
from workers.schedule import at_once, on_demand, schedules
from workers.schedule.generate import work_off
from workers.schedule.generator import Generator
from workers.schedule.plans import Plan

TODAY = datetime.now(UTC).date()
DUE = TODAY + timedelta(days=10)
UNDER = {"idempotency-key": "june"}


@pytest.fixture(scope="module")
def api_url() -> Iterator[str]:
    """The sandbox, served for all tests of this module; each has a customer of its own."""
    with served(rate_limit=10**9) as url:
        yield url


@pytest.fixture(scope="module")
def books(api_url: str) -> Iterator[HisabClient]:
    """A look at the sandbox past the network of the test."""
    with HisabClient(api_key=KEY, api_url=api_url) as client:
        yield client


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def clients(runtime: Runtime, api_url: str, network: Network) -> Iterator[OneClient]:
    with HisabClient(api_key=KEY, api_url=api_url, max_wait=0, transport=network) as client:
        yield OneClient(runtime.settings, client)


@pytest.fixture
def caller(runtime: Runtime, clients: OneClient) -> Iterator[Caller]:
    """Somebody who may do everything, at an API that reaches its providers over that network."""
    key = api_keys.create(runtime.engine, "test", ("full",), actor="test", now=datetime.now(UTC)).key
    app = Starlette(routes=[Mount("/api/v1", create_api(runtime, clients))])
    with serving(app, lifespan=False) as edge:
        yield Caller(edge.client, key)


@pytest.fixture
def customer(books: HisabClient) -> str:
    return str(books.customers.create(name="Atlas", type="b2c")["id"])


@pytest.fixture
def schedule(runtime: Runtime, customer: str) -> str:
    """A weekly schedule that is not due yet."""
    item = {"description": "Hosting", "quantity": "3", "unit_price": "100.10", "tax_rate": "20"}
    plan = Plan(
        source="shop", customer_id=customer, frequency="weekly", start_date=DUE, items=[item], auto_finalize=True,
        auto_send=True, max_occurrences=2,
    )  # fmt: skip
    return schedules.add(runtime.engine, runtime.settings, plan, actor="test", now=datetime.now(UTC))


def asked(caller: Caller, schedule: str, *, body: Any = None, headers: dict[str, str] | None = None) -> httpx.Response:
    """The next invoice of the schedule is asked for."""
    return caller.call("POST", f"/recurring-invoices/{schedule}/generate", json=body, headers=headers)


def works_later(runtime: Runtime, clients: OneClient) -> None:
    """A worker takes up what is due, once every lease has ended and what is under way at the provider has settled."""
    clock = Clock(datetime.now(UTC) + timedelta(minutes=5))
    generator = Generator(
        engine=runtime.engine, settings=runtime.settings, clients=clients, redis=runtime.redis, clock=clock
    )
    work_off(generator, "shop")


def nothing_used_up(runtime: Runtime) -> None:
    assert rows(runtime.engine, Occurrence) == []
    assert only(runtime.engine, Row).next_index == 0


def test_the_next_invoice_is_made_at_once(
    caller: Caller, schedule: str, runtime: Runtime, books: HisabClient, customer: str
) -> None:
    answer = asked(caller, schedule, body={"issue_date": "2026-06-01"})

    (invoice,) = made(books, customer)
    assert answer.status_code == 201, answer.text
    data = answer.json()["data"]
    assert (data["status"], data["scheduled_date"]) == ("success", DUE.isoformat())
    assert (data["invoice_id"], data["invoice_number"]) == (invoice["id"], invoice["invoice_number"])
    assert (data["invoice_total"], invoice["issue_date"], invoice["status"]) == ("360.36", "2026-06-01", "sent")
    assert caller.get(f"/recurring-invoices/{schedule}/history") == [data]
    assert rung(runtime, "events") == [(PROCESS, [data["event_id"]])]


def test_asked_again_under_its_key_it_is_not_made_again(
    caller: Caller, schedule: str, books: HisabClient, customer: str, network: Network
) -> None:
    first = asked(caller, schedule, headers=UNDER)
    calls = len(network.calls)
    second = asked(caller, schedule, headers=UNDER)

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert (len(made(books, customer)), len(network.calls)) == (1, calls)
    other = asked(caller, schedule, body={"issue_date": "2026-06-01"}, headers=UNDER)
    refused(other, 409, "IDEMPOTENCY_CONFLICT")


def test_of_many_who_ask_at_once_under_one_key_each_is_told_of_the_same_one(
    caller: Caller, schedule: str, books: HisabClient, customer: str
) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: asked(caller, schedule, headers=UNDER), range(6)))

    assert {answer.status_code for answer in answers} <= {201, 202}
    assert len({answer.json()["data"]["id"] for answer in answers}) == 1
    assert len(made(books, customer)) == 1


def test_the_last_one_is_answered_again_though_the_schedule_is_over(
    caller: Caller, schedule: str, runtime: Runtime
) -> None:
    change(runtime.engine, Row, max_occurrences=1)

    first = asked(caller, schedule, headers=UNDER)

    assert only(runtime.engine, Row).status == "completed"
    assert asked(caller, schedule, headers=UNDER).json() == first.json()
    refused(asked(caller, schedule), 409, "INVALID_STATE")


# The customer is looked at (1) by who asks; then by who makes it (2); then it is created (3), finalized (4), sent (5).
DEATHS = [(when, call) for call in (2, 3, 4, 5) for when in ("before", "after")]


@pytest.mark.parametrize(("when", "call"), DEATHS)
def test_wherever_the_process_dies_it_is_made_once(
    caller: Caller,
    schedule: str,
    runtime: Runtime,
    clients: OneClient,
    books: HisabClient,
    customer: str,
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    call: int,
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # a process that is no more tells nobody
    setattr(network, when, dies_before(network, call))

    # Given that whoever makes it dies, and what was asked is asked again by who waits
    first = asked(caller, schedule, headers=UNDER)
    again = asked(caller, schedule, headers=UNDER)

    assert (first.status_code, again.status_code) == (202, 202), first.text
    assert first.json()["data"]["status"] == again.json()["data"]["status"] == "running"
    refused(asked(caller, schedule), 409, "INVALID_STATE")

    # When a worker finds it
    network.heal()
    works_later(runtime, clients)

    # Then there is one invoice, and who asks again is told of that
    (invoice,) = made(books, customer)
    last = asked(caller, schedule, headers=UNDER)
    assert (last.status_code, last.json()["data"]["invoice_id"]) == (201, invoice["id"])
    assert last.json()["data"]["id"] == first.json()["data"]["id"]
    assert len(rows(runtime.engine, Occurrence)) == 1


def test_dead_before_the_commit_nothing_is_used_up_and_the_key_is_new(
    caller: Caller, schedule: str, runtime: Runtime, clients: OneClient, books: HisabClient, customer: str
) -> None:
    generator = Generator(engine=runtime.engine, settings=runtime.settings, clients=clients, redis=runtime.redis)

    def dies(_: object) -> Answered:
        on_demand.plan_now(generator, schedule, actor="test")
        raise Died

    now = datetime.now(UTC)
    with pytest.raises(Died):
        idempotency.carry_out(runtime.engine, dies, now, asked=Asked("key_1", "june", b"x"), vault=None)

    nothing_used_up(runtime)
    assert idempotency.before(runtime.engine, Asked("key_1", "june", b"x"), now, vault=None) is None
    assert asked(caller, schedule, headers=UNDER).status_code == 201
    assert len(made(books, customer)) == 1


def test_what_takes_long_is_not_waited_for_and_goes_on(
    runtime: Runtime, clients: OneClient, schedule: str, books: HisabClient, customer: str, network: Network
) -> None:
    desk, may_answer = _planned_at(runtime, clients, within=0.2), threading.Event()

    def answers_late(_: int) -> None:
        may_answer.wait(10)

    network.after = answers_late
    occurrence = on_demand.plan_now(desk.generator, schedule, actor="test")

    desk.make(occurrence)

    assert desk.look(occurrence).status == "running"
    may_answer.set()
    until(lambda: desk.look(occurrence).status == "generated")
    assert len(made(books, customer)) == 1
    until(lambda: not [one for one in threading.enumerate() if one.name == "at-once"])


def test_where_too_many_are_waited_for_the_workers_make_it(
    runtime: Runtime, clients: OneClient, schedule: str, books: HisabClient, customer: str, network: Network
) -> None:
    desk = _planned_at(runtime, clients, places=0)
    occurrence = on_demand.plan_now(desk.generator, schedule, actor="test")

    desk.make(occurrence)

    assert desk.look(occurrence).status == "waiting"
    assert (rung(runtime, "schedules"), network.calls) == ([(GENERATE, ["shop"])], [])
    works_later(runtime, clients)
    assert len(made(books, customer)) == 1


def _planned_at(runtime: Runtime, clients: OneClient, **options: Any) -> at_once.AtOnce:
    generator = Generator(engine=runtime.engine, settings=runtime.settings, clients=clients, redis=runtime.redis)
    return at_once.AtOnce(generator, **options)


def test_who_asks_while_too_many_wait_is_asked_to_come_again(
    runtime: Runtime, clients: OneClient, schedule: str, network: Network
) -> None:
    with pytest.raises(ProviderUnavailable, match=r"^BUSY: .*ask again") as caught:
        _planned_at(runtime, clients, places=0).expect_billable(schedule)

    assert (caught.value.retry_after, network.calls) == (5.0, [])
    nothing_used_up(runtime)


def test_where_the_provider_goes_away_it_waits(caller: Caller, schedule: str, network: Network) -> None:
    network.before = lambda number: away(number) if number > 2 else None

    answer = asked(caller, schedule, headers=UNDER)

    assert answer.status_code == 202, answer.text
    data = answer.json()["data"]
    assert (data["status"], data["error_code"], data["attempts"]) == ("waiting", "NO_ANSWER", 1)
    assert datetime.fromisoformat(data["next_attempt_at"]) > datetime.now(UTC)


def test_what_the_provider_refuses_has_ended(caller: Caller, schedule: str, network: Network) -> None:
    network.before = lambda number: refusing("INVALID_ITEMS") if number == 3 else None

    answer = asked(caller, schedule)

    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert (data["status"], data["error_code"], data["invoice_id"]) == ("failed", "INVALID_ITEMS", None)


def test_where_the_provider_cannot_say_of_its_customer_nothing_is_used_up(
    caller: Caller, schedule: str, runtime: Runtime, network: Network
) -> None:
    network.before = away
    answer = asked(caller, schedule, headers=UNDER)
    refused(answer, 503, "PROVIDER_UNAVAILABLE")
    assert int(answer.headers["retry-after"]) >= 1
    network.before = lambda _: refusing("UNAUTHORIZED", 401)
    assert refused(asked(caller, schedule), 409, "PROVIDER_REFUSED")["details"] == {"code": "UNAUTHORIZED"}

    nothing_used_up(runtime)
    network.heal()
    assert asked(caller, schedule, headers=UNDER).status_code == 201


def test_a_customer_who_is_not_to_be_billed(
    caller: Caller, schedule: str, runtime: Runtime, books: HisabClient, customer: str
) -> None:
    books.customers.update(customer, status="inactive")

    refused(asked(caller, schedule), 409, "CUSTOMER_INACTIVE")

    nothing_used_up(runtime)


def test_what_is_not_active_makes_none(caller: Caller, schedule: str, network: Network) -> None:
    caller.post(f"/recurring-invoices/{schedule}/pause")

    refused(asked(caller, schedule), 409, "INVALID_STATE")

    assert network.calls == []


def test_a_date_that_is_none_is_refused(caller: Caller, schedule: str, runtime: Runtime, network: Network) -> None:
    wrong: list[Any] = [{"issue_date": "2026-02-30"}, {"issue_date": 1}, {"due": "2026-06-01"}, [], "2026-06-01"]
    for body in wrong:
        refused(asked(caller, schedule, body=body), 400, "VALIDATION_ERROR")

    nothing_used_up(runtime)
    assert network.calls == []


def test_the_first_and_the_last_day_of_the_calendar_are_the_providers_to_judge(
    caller: Caller, schedule: str, books: HisabClient, customer: str
) -> None:
    for day in (date.min, date.max):
        assert asked(caller, schedule, body={"issue_date": day.isoformat()}).status_code in {200, 201}


def test_of_a_deleted_schedule_nothing_is_known_any_more(caller: Caller, schedule: str) -> None:
    assert asked(caller, schedule, headers=UNDER).status_code == 201
    assert caller.call("DELETE", f"/recurring-invoices/{schedule}").status_code == 204

    refused(asked(caller, schedule, headers=UNDER), 404, "NOT_FOUND")


def test_no_transaction_is_open_while_the_provider_is_called(
    caller: Caller, schedule: str, runtime: Runtime, network: Network
) -> None:
    if runtime.engine.dialect.name == "sqlite":
        statement = None
    else:
        statement = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
        )
    open_ones: list[int] = []

    def look(_: int) -> None:
        with database.write(runtime.engine) as connection:  # on SQLite it would wait for another who writes
            open_ones.append(0 if statement is None else connection.exec_driver_sql(statement).scalar_one())

    network.after = look

    assert asked(caller, schedule, headers=UNDER).status_code == 201

    assert open_ones == [0] * 5
