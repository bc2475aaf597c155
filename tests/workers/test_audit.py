from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import Engine, insert, select, update

from handlers import Context, Event
from handlers.providers.hisab.client import HisabClient
from handlers.registry import Registry
from tests.workers.given import NOW, Clock, change, endpoint, received, rows
from workers import database, leases
from workers.app import Runtime
from workers.audit import SHOWN, Balance, Fault, audit
from workers.clients import Clients
from workers.delivery.deliver import Courier
from workers.delivery.egress import Egress
from workers.delivery.flight import deliver
from workers.delivery.gate import Gate
from workers.delivery.sender import Sender
from workers.dispatch import Dispatcher, process
from workers.models import Attempt, Delivery, EventRow, HandlerRun, Message, Model, Occurrence, OnceKey, Schedule
from workers.schedule.generate import generate
from workers.schedule.generator import Generator
from workers.schedule.plans import Plan
from workers.schedule.schedules import add
from workers.schedule.tick import tick
from workers.schedule.verbs import cancel, delete_schedule, pause, resume
from workers.vault import open_vault

LEASE = timedelta(seconds=55)


@pytest.fixture
def endpoint_url() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class OneClient(Clients):
    """The client of an API that makes every invoice it is asked for."""

    def get(self, name: str) -> Any:
        invoice = {"id": "inv_9", "invoice_number": None, "status": "draft", "total": "1.00"}
        customer = {"id": "cus_1", "status": "active"}

        def answered(request: httpx.Request) -> httpx.Response:
            data = customer if "/customers/" in request.url.path else invoice
            return httpx.Response(200, content=orjson.dumps({"success": True, "data": data}))

        transport = httpx.MockTransport(answered)
        return HisabClient(api_key="key", transport=transport)


@pytest.fixture
def lived(runtime: Runtime, endpoint_url: str) -> Engine:
    """A database in which one of everything has happened, by the ways it happens in."""
    engine, settings, clock, registry = runtime.engine, runtime.settings, Clock(), Registry()

    @registry.on("invoice.paid", name="good")
    def _(event: Event, ctx: Context) -> None:
        ctx.emit("receipt.issued", {})

    @registry.on("invoice.voided", name="bad", retries=0)
    @registry.on("invoice.sent", name="slow", retries=5)
    def _(event: Event, ctx: Context) -> None:
        raise ValueError

    registry.on("recurring.*", name="books")(lambda event, ctx: None)
    endpoint(runtime, url=endpoint_url)
    clients = OneClient(settings)
    dispatcher = Dispatcher(engine=engine, settings=settings, registry=registry, clients=clients, clock=clock)
    plan = Plan(
        source="shop",
        customer_id="cus_1",
        frequency="yearly",
        start_date=NOW.date(),
        items=[{"description": "Hosting", "quantity": "1", "unit_price": "1"}],
    )
    add(engine, settings, plan, actor="tester", now=NOW)
    add(engine, settings, plan, actor="tester", now=NOW)
    first, *_rest = tick(engine, now=NOW)
    events = generate(
        Generator(engine=engine, settings=settings, clients=clients, redis=runtime.redis, clock=clock), [first]
    )
    for kind in ("invoice.paid", "invoice.voided", "invoice.sent", "customer.created"):
        events.append(received(engine, kind))
    deliveries = process(dispatcher, events)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    sender = Sender(user_agent="Billhook/test", egress=Egress.of(settings), tls=tls)
    gate = Gate(runtime.redis, settings.redis_prefix, LEASE)
    vault = open_vault(settings)
    deliver(Courier(engine=engine, vault=vault, sender=sender, gate=gate, lease=LEASE, clock=clock), deliveries)
    sender.close()
    process(dispatcher, [received(engine, "invoice.paid")])
    received(engine, "invoice.paid")
    return engine


@contextmanager
def planted(engine: Engine, table: type[Model], where: dict[str, Any], **values: Any) -> Iterator[str]:
    """One row that fits `where` changed to `values` for the block; its id."""
    columns = table.__table__.columns
    fits = select(*columns).where(*(columns[name] == value for name, value in where.items())).limit(1)
    with database.read(engine) as connection:
        row = connection.execute(fits).one()

    def write(new: dict[str, Any]) -> None:
        with database.write(engine) as connection:
            connection.execute(update(table).where(columns["id"] == row.id).values(**new))

    write(values)
    yield row.id
    write({name: getattr(row, name) for name in values})


def test_an_empty_database_is_in_balance(engine: Engine) -> None:
    balance = audit(engine)

    assert balance == Balance(received=0, processed=0, ignored=0, dead=0, waiting=0, faults=())
    assert balance.holds
    assert str(balance) == "received 0 = processed 0 + ignored 0 + dead 0 + waiting 0: in balance"


def test_what_really_happens_is_in_balance(lived: Engine) -> None:
    balance = audit(lived)

    assert balance.faults == ()
    assert str(balance) == "received 7 = processed 3 + ignored 1 + dead 1 + waiting 2: in balance"
    assert sorted(row.status for row in rows(lived, HandlerRun)) == ["dead", *["succeeded"] * 3, "waiting"]
    assert sorted(row.status for row in rows(lived, Delivery)) == ["succeeded", "waiting"]
    assert sorted(row.status for row in rows(lived, Occurrence)) == ["generated", "waiting"]


def test_the_audit_changes_nothing(lived: Engine) -> None:
    tables = (EventRow, HandlerRun, Message, Delivery, Attempt, Schedule, Occurrence)
    before = [rows(lived, table) for table in tables]

    audit(lived)

    assert [rows(lived, table) for table in tables] == before


WAITING = {"status": "waiting"}
ACTIVE = {"status": "active"}
FAILED_ONCE = {"attempts": 1, "starts": 1, "again": False}
PLANTS: list[tuple[str, type[Model], dict[str, Any], dict[str, Any]]] = [
    ("an event has an unknown status", EventRow, {"status": "ignored"}, {"status": "lost"}),
    ("an ended event has a run that has not ended", EventRow, {"type": "invoice.sent"}, {"status": "ignored"}),
    ("a processed event has no run", EventRow, {"status": "ignored"}, {"status": "processed"}),
    ("a processed event has a dead run", EventRow, {"status": "dead"}, {"status": "processed"}),
    ("an ignored event has a run", EventRow, {"status": "processed"}, {"status": "ignored"}),
    ("a dead event has no dead run", EventRow, {"status": "processed"}, {"status": "dead"}),
    ("a waiting event will never be taken up", EventRow, {"status": "processed"}, {"status": "waiting"}),
    ("a run is open and will never be rung", HandlerRun, WAITING, {"ring_at": None}),
    ("a delivery is open and will never be rung", Delivery, WAITING, {"ring_at": None}),
    ("an occurrence is open and will never be rung", Occurrence, WAITING, {"ring_at": None}),
    ("a run has ended more often than it was started", HandlerRun, WAITING, {"pauses": 1}),
    ("a run that is not running has a place", HandlerRun, WAITING, {"slot": 0}),
    ("an ordered run stands in no line", HandlerRun, {"handler": "bad"}, {"ordered": True, "lane": None}),
    ("an ordered run stands in no line", HandlerRun, {"handler": "bad"}, {"ordered": True, "occurred_at": None}),
    ("a message has no run that succeeded behind it", HandlerRun, {"handler": "good"}, {"status": "discarded"}),
    ("a delivery succeeded without a 2xx answer", Delivery, WAITING, {"status": "succeeded"}),
    ("a delivery was given up without an attempt", Delivery, WAITING, {"status": "exhausted"}),
    ("a delivery was given up without an attempt", Delivery, WAITING, {"status": "refused"}),
    ("a delivery has ended more often than it was started", Delivery, WAITING, {"attempts": 9, "again": True}),
    ("a delivery was asked for anew after an attempt that was never made", Delivery, WAITING, {"prior": 9}),
    ("a delivery that failed stands in line as if it never had", Delivery, WAITING, FAILED_ONCE),
    ("an occurrence ended without an event that reports it", Occurrence, WAITING, {"status": "generated"}),
    ("an occurrence ended without an event that reports it", Occurrence, WAITING, {"status": "failed"}),
    ("an occurrence was generated and has no invoice", Occurrence, {"status": "generated"}, {"invoice_id": None}),
    ("a schedule has more or fewer occurrences than it planned", Schedule, ACTIVE, {"planned": 2}),
    ("a schedule has more or fewer occurrences than it planned", Schedule, ACTIVE, {"planned": 0}),
    ("an active schedule will never be due", Schedule, ACTIVE, {"next_run_at": None}),
    ("a schedule that is not active is due", Schedule, ACTIVE, {"status": "paused"}),
    ("a schedule that is not active is due", Schedule, ACTIVE, {"status": "completed"}),
    ("a schedule that is not active is due", Schedule, ACTIVE, {"status": "cancelled"}),
]


def test_whatever_breaks_a_rule_is_reported_with_its_id(lived: Engine) -> None:
    for rule, table, where, values in PLANTS:
        with planted(lived, table, where, **values) as row_id:
            balance = audit(lived)

        found = {fault.rule: fault.ids for fault in balance.faults}
        assert rule in found, rule
        if rule != "a message has no run that succeeded behind it":
            assert found[rule] == (row_id,), rule
        assert not balance.holds
        assert str(balance).endswith(": NOT IN BALANCE")
        assert audit(lived).holds, rule


def test_a_message_without_a_success_is_named_itself(lived: Engine) -> None:
    with planted(lived, HandlerRun, {"handler": "good"}, status="discarded") as run_id:
        balance = audit(lived)

    events = {row.id: row.event_id for row in rows(lived, HandlerRun)}
    messages = {row.event_id: row.id for row in rows(lived, Message)}
    assert balance.faults == (Fault("a message has no run that succeeded behind it", (messages[events[run_id]],)),)


@pytest.mark.parametrize("status", ["active", "completed", "cancelled"])
def test_only_a_paused_schedule_holds_occurrences_back(lived: Engine, status: str) -> None:
    (waiting,) = [row for row in rows(lived, Occurrence) if row.status == "waiting"]
    pause(lived, waiting.schedule_id, actor="tester", now=NOW)
    assert [row.status for row in rows(lived, Occurrence) if row.id == waiting.id] == ["held"]
    assert audit(lived).holds

    with planted(lived, Schedule, {"id": waiting.schedule_id}, status=status):
        found = {fault.rule: fault.ids for fault in audit(lived).faults}

    assert found["a schedule that is not paused holds occurrences back"] == (waiting.schedule_id,)


def test_a_schedule_is_in_balance_through_all_that_is_done_to_it(lived: Engine) -> None:
    (waiting,) = [row for row in rows(lived, Occurrence) if row.status == "waiting"]
    schedule_id, later = waiting.schedule_id, NOW + timedelta(days=800)

    pause(lived, schedule_id, actor="tester", now=NOW)
    assert audit(lived).holds
    resume(lived, schedule_id, next_run_date=later.date(), actor="tester", now=later)
    assert audit(lived).holds
    tick(lived, now=later)
    assert audit(lived).holds
    cancel(lived, schedule_id, actor="tester", now=later)
    assert audit(lived).holds
    delete_schedule(lived, schedule_id, actor="tester", now=later)
    assert audit(lived).holds


def test_an_occurrence_of_long_ago_may_have_outlived_the_event_that_reported_it(lived: Engine) -> None:
    with planted(lived, Occurrence, {"status": "generated"}, event_id="evt_gone"):
        assert audit(lived, lambda: NOW + timedelta(days=29)).faults != ()
        assert audit(lived, lambda: NOW + timedelta(days=31)).holds


def test_only_a_2xx_makes_a_delivery_a_success(lived: Engine) -> None:
    for status in (None, 199, 300, 410, 500):
        with planted(lived, Attempt, {}, status=status):
            faults = audit(lived).faults

        assert [fault.rule for fault in faults] == ["a delivery succeeded without a 2xx answer"]


def test_a_running_row_counts_as_open(lived: Engine) -> None:
    with planted(lived, HandlerRun, WAITING, status="running", ring_at=None) as run_id:
        faults = audit(lived).faults

    assert faults == (Fault("a run is open and will never be rung", (run_id,)),)


def test_an_event_in_the_middle_of_its_run_is_in_balance(lived: Engine) -> None:
    (run,) = [row for row in rows(lived, HandlerRun) if row.status == "waiting"]
    with database.write(lived) as connection:
        leases.claim(connection, HandlerRun, [run.id], now=NOW + timedelta(days=1), lease=LEASE)

    assert audit(lived).holds


@contextmanager
def broken_index(engine: Engine, name: str) -> Iterator[None]:
    """An index of the runs that forbids nothing for the block."""
    (index,) = [index for index in HandlerRun.metadata.tables["handler_runs"].indexes if index.name == name]
    index.drop(engine)
    yield
    index.create(engine)


def test_two_runs_of_one_object_at_once_are_found_where_their_index_let_them_pass(lived: Engine) -> None:
    line = {"ordered": True, "lane": "shop/invoice/inv_7", "handler": "books", "status": "running"}
    with ExitStack() as plants:
        plants.enter_context(broken_index(lived, "uq_handler_runs_lane"))
        bad = plants.enter_context(planted(lived, HandlerRun, {"handler": "bad"}, **line))
        assert "ordered runs of one object run at once" not in {fault.rule for fault in audit(lived).faults}

        slow = plants.enter_context(planted(lived, HandlerRun, {"handler": "slow"}, **line))
        assert Fault("ordered runs of one object run at once", tuple(sorted([bad, slow]))) in audit(lived).faults


def test_a_key_is_done_only_by_a_run_that_succeeded_now_or_before_a_replay(lived: Engine) -> None:
    runs = {row.handler: row.id for row in rows(lived, HandlerRun)}
    keys = [
        {"handler": handler, "key": "cus_1", "run_id": run_id, "done": handler != "slow", "created_at": NOW}
        for handler, run_id in {**runs, "pruned": "run_gone"}.items()
    ]
    with database.write(lived) as connection:
        connection.execute(insert(OnceKey), keys)

    assert audit(lived).faults == (Fault("a once key of a run that never succeeded is done", (runs["bad"],)),)
    with planted(lived, HandlerRun, {"handler": "bad"}, replays=1):
        assert audit(lived).holds


def test_of_many_faults_the_first_are_shown(engine: Engine) -> None:
    ids = sorted(received(engine) for _ in range(SHOWN + 5))
    change(engine, EventRow, ring_at=None)

    balance = audit(engine)

    assert balance.faults == (Fault("a waiting event will never be taken up", tuple(ids[:SHOWN])),)
    assert str(balance) == "received 25 = processed 0 + ignored 0 + dead 0 + waiting 25: NOT IN BALANCE"


def test_a_sum_that_does_not_add_up_does_not_hold() -> None:
    assert not Balance(received=2, processed=1, ignored=0, dead=0, waiting=0, faults=()).holds
