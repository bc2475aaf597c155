"""Reconciling against the sandboxes on real sockets, of whose webhooks only some come."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY as METRICS
from redis import Redis
from sqlalchemy import select
from starlette.applications import Starlette
from structlog.testing import capture_logs

from handlers import Context
from handlers.errors import ProviderError
from handlers.event import Event
from handlers.providers import PROVIDERS
from handlers.providers.hibr.client import HibrClient
from handlers.providers.hibr.sandbox import create_app as hibr_app
from handlers.providers.hibr.sandbox.seeds import API_KEY, CUSTOMER, PAID_INVOICE
from handlers.providers.hisab.client import HisabClient
from handlers.providers.hisab.sandbox import create_app as hisab_app
from handlers.providers.http import trust
from handlers.providers.sandbox.webhooks import Delivery
from handlers.registry import Registry
from tests.conftest import SECRET
from tests.handlers.providers.sandbox.served import PATIENCE, serving
from tests.services import free_port
from tests.workers.given import Clock, rows, rung
from workers import beat, ids, inbox
from workers import reconcile as reconciling
from workers.app import PROCESS, Runtime, app
from workers.clients import Clients
from workers.dispatch import Dispatcher, process
from workers.inbox import Arrival
from workers.models import AnyRow, EventRow
from workers.reconcile import CannotReconcile, Reconciler, Totals, patient_client, reconcile, tick
from workers.settings import Settings, SettingsError, Source, load

KEY = "hisab_test_sandbox"
ITEM = {"description": "Integration services", "quantity": 8, "unit_price": 1300}
HOUR, DAY = 3600.0, 86_400.0


class Network(httpx.BaseTransport):
    """The network to the API; a test can have a call answered by something else."""

    def __init__(self) -> None:
        self._real = httpx.HTTPTransport(verify=trust())
        self.instead: Callable[[httpx.Request], httpx.Response | None] = lambda _: None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self.instead(request) or self._real.handle_request(request)

    def close(self) -> None:
        self._real.close()


@dataclass
class Hisab:
    """A Hisab whose webhooks all get lost, and what they said."""

    api: HisabClient
    app: Starlette
    clock: Clock

    def told(self) -> list[tuple[str, bytes]]:
        """Delivery id and body of each webhook, oldest first."""
        return told(self.app)

    def invoice(self, *verbs: str, **fields: Any) -> str:
        """A new invoice, with an hour between its steps; its id."""
        draft: dict[str, Any] = {"customer_id": "cus_2b81fe", "issue_date": "2026-06-05", "items": [ITEM]}
        invoice_id = str(self.api.invoices.create(**draft)["id"])
        for verb in verbs:
            self.clock.turn(HOUR)
            getattr(self.api.invoices, verb)(invoice_id, **fields)
        return invoice_id

    def customer(self, name: str = "Atlas") -> str:
        return str(self.api.customers.create(name=name, type="b2c")["id"])


def told(sandbox: Starlette) -> list[tuple[str, bytes]]:
    with sandbox.state.machine.store.transaction() as session:
        rows = session.scalars(select(Delivery).order_by(Delivery.number))
        return [(row.delivery_id, row.body) for row in rows]


@pytest.fixture
def network() -> Iterator[Network]:
    network = Network()
    yield network
    network.close()


@pytest.fixture
def served(clock: Clock) -> Iterator[tuple[str, Starlette]]:
    """A sandbox of Hisab, and its address."""
    lost = httpx.MockTransport(lambda _: httpx.Response(500))
    sandbox = hisab_app(
        webhook_url="http://127.0.0.1:9/",
        secret=SECRET,
        rate_limit=10**6,
        retry_delays=(),
        transport=lost,
        now=clock.seconds,
    )
    with serving(sandbox, lifespan="off") as url:
        yield f"{url}/api/v1", sandbox


@pytest.fixture
def hisab(served: tuple[str, Starlette], clock: Clock) -> Iterator[Hisab]:
    url, sandbox = served
    with HisabClient(api_key=KEY, api_url=url) as api:
        yield Hisab(api, sandbox, clock)


@pytest.fixture
def settings(settings: Settings, served: tuple[str, Starlette]) -> Settings:
    source = Source(provider="hisab", secrets=SECRET, api_key=KEY, api_url=served[0], reconcile_hours=6)
    return settings.model_copy(update={"sources": {"shop": source}})


@pytest.fixture
def reconciler(runtime: Runtime, hisab: Hisab, served: tuple[str, Starlette], network: Network) -> Iterator[Reconciler]:
    with HisabClient(api_key=KEY, api_url=served[0], max_wait=0, transport=network) as client:
        yield Reconciler(
            engine=runtime.engine, settings=runtime.settings, source="shop", client=client, clock=hisab.clock
        )


def deliver(
    reconciler: Reconciler, *webhooks: tuple[str, bytes], at: datetime | None = None, source: str = "shop"
) -> None:
    """These webhooks came after all, as the receiver would take them."""
    received_at = at or reconciler.clock()
    inbound = reconciler.configured.inbound()
    arrivals = [
        Arrival(
            id=ids.derived("evt", received_at, delivery_id),
            source=source,
            received_at=received_at,
            event=inbound.parse([], body),
            delivery_id=delivery_id,
            event_key=hashlib.sha256(body).hexdigest(),
            body_hash=hashlib.sha256(body).digest(),
            headers={},
        )
        for delivery_id, body in webhooks
    ]
    assert {outcome.kind for outcome in inbox.accept(reconciler.engine, arrivals)} <= {"accepted"}


def taken_in(reconciler: Reconciler) -> Sequence[AnyRow]:
    return [row for row in rows(reconciler.engine, EventRow) if row.reconciled]


def outline(row: AnyRow | Event) -> tuple[Any, ...]:
    return row.type, row.object_kind, row.object_id, row.organization, row.occurred_at, row.provider


def read(webhook: tuple[str, bytes]) -> Event:
    return PROVIDERS["hisab"].inbound({}).parse([], webhook[1])


def since(clock: Clock) -> datetime:
    """From an hour from now on: what a new sandbox has is older."""
    clock.turn(HOUR)
    return clock.now


# --- what is taken in -----------------------------------------------------------------------------


def test_exactly_what_was_not_delivered_becomes_events(reconciler: Reconciler, hisab: Hisab, clock: Clock) -> None:
    start = since(clock)
    customer = hisab.customer()
    clock.turn(HOUR)
    hisab.api.customers.update(customer, phone="+212 5 22 00 00 01")
    hisab.invoice("finalize", "send", "pay")
    void = hisab.invoice("finalize")
    hisab.api.invoices.void(void, reason="Duplicate billing")
    clock.turn(2 * HOUR)
    webhooks = hisab.told()
    deliver(reconciler, *webhooks[1::2])

    totals = reconcile(reconciler, start)

    missed = sorted(outline(read(webhook)) for webhook in webhooks[::2])
    assert sorted(map(outline, taken_in(reconciler))) == missed
    assert totals == Totals(seen=len(webhooks), known=len(webhooks) // 2, missed=len(missed))
    assert {row.status for row in taken_in(reconciler)} == {"waiting"}


def test_a_handler_sees_what_it_would_have_seen(reconciler: Reconciler, hisab: Hisab, clock: Clock) -> None:
    start = since(clock)
    hisab.invoice("finalize", "pay")
    clock.turn(2 * HOUR)

    reconcile(reconciler, start)

    provider, told = PROVIDERS["hisab"], read(hisab.told()[-1])
    (row,) = [row for row in taken_in(reconciler) if row.type == "invoice.paid"]
    seen = replace(provider.inbound({}).parse([], row.body), body=told.body)
    assert provider.data(row.body) == told.data
    assert seen == told
    assert seen.invoice == told.invoice


def test_a_handler_gets_what_was_missed_and_a_late_delivery_of_it_is_ignored(
    reconciler: Reconciler, dispatcher: Dispatcher, registry: Registry, hisab: Hisab, clock: Clock
) -> None:
    seen: list[Event] = []

    @registry.on("invoice.paid")
    def note(event: Event, ctx: Context) -> None:
        seen.append(event)

    start = since(clock)
    hisab.invoice("finalize", "pay")
    clock.turn(2 * HOUR)
    reconcile(reconciler, start)
    process(dispatcher, [row.id for row in taken_in(reconciler)])
    clock.turn(HOUR)
    deliver(reconciler, hisab.told()[-1])
    process(dispatcher, [row.id for row in rows(reconciler.engine, EventRow) if not row.reconciled])

    (event,), told = seen, read(hisab.told()[-1])
    assert (event.type, event.data, event.occurred_at, event.invoice) == (
        told.type,
        told.data,
        told.occurred_at,
        told.invoice,
    )
    assert {row.delivery_id.partition(":")[0]: row.status for row in rows(reconciler.engine, EventRow)} == {
        "reconciled": "processed",
        hisab.told()[-1][0]: "ignored",
    }


def test_what_was_taken_in_is_announced_and_marked_in_the_order_of_its_life(
    reconciler: Reconciler, runtime: Runtime, hisab: Hisab, clock: Clock
) -> None:
    start = since(clock)
    invoice_id = hisab.invoice()
    for verb in ("finalize", "send", "pay"):  # all in one second
        getattr(hisab.api.invoices, verb)(invoice_id)
    clock.turn(2 * HOUR)

    reconcile(reconciler, start)

    events = taken_in(reconciler)
    assert [row.type.partition(".")[2] for row in events] == ["created", "finalized", "sent", "paid"]
    assert rung(runtime, "events") == [(PROCESS, [row.id for row in events])]
    assert events[3].delivery_id == events[3].event_key == f"reconciled:invoice.paid:{invoice_id}"
    assert events[3].received_at == clock.now


def test_comparing_again_takes_in_nothing_more(reconciler: Reconciler, hisab: Hisab, clock: Clock) -> None:
    start = since(clock)
    hisab.invoice("finalize")
    hisab.api.customers.archive(hisab.customer())
    clock.turn(2 * HOUR)
    first = reconcile(reconciler, start)
    stored = taken_in(reconciler)

    again = reconcile(reconciler, start)

    assert (first.missed, again) == (4, Totals(seen=4, known=4))
    assert taken_in(reconciler) == stored


def test_a_later_update_is_taken_in_though_an_earlier_one_was(
    reconciler: Reconciler, hisab: Hisab, clock: Clock
) -> None:
    start = since(clock)
    customer = hisab.customer()
    for phone in ("+212 5 22 00 00 01", "+212 5 22 00 00 02"):
        clock.turn(HOUR)
        hisab.api.customers.update(customer, phone=phone)
        clock.turn(2 * HOUR)
        reconcile(reconciler, start)

    events = taken_in(reconciler)
    assert [row.type for row in events] == ["customer.created", "customer.updated", "customer.updated"]
    assert [json.loads(row.body)["data"]["phone"][-1] for row in events] == ["1", "1", "2"]


def test_an_update_is_known_by_a_later_event_of_the_object(reconciler: Reconciler, hisab: Hisab, clock: Clock) -> None:
    start = since(clock)
    customer = hisab.customer()
    for phone in ("+212 5 22 00 00 01", "+212 5 22 00 00 02"):
        clock.turn(HOUR)
        hisab.api.customers.update(customer, phone=phone)
    clock.turn(2 * HOUR)
    created, _, last = hisab.told()
    deliver(reconciler, created, last)

    assert reconcile(reconciler, start) == Totals(seen=2, known=2)


def test_events_of_another_source_prove_nothing(reconciler: Reconciler, hisab: Hisab, clock: Clock) -> None:
    start = since(clock)
    hisab.invoice()
    clock.turn(2 * HOUR)
    deliver(reconciler, *hisab.told(), source="other")

    assert reconcile(reconciler, start).missed == 1


# --- when -----------------------------------------------------------------------------------------


def test_what_happened_a_moment_ago_is_left_to_its_delivery(reconciler: Reconciler, hisab: Hisab, clock: Clock) -> None:
    start = since(clock)
    hisab.invoice("finalize")
    clock.turn(0.5 * HOUR)

    early = reconcile(reconciler, start)
    clock.turn(0.5 * HOUR)
    late = reconcile(reconciler, start)

    assert (early, late) == (Totals(seen=2, missed=1, too_recent=1), Totals(seen=2, known=1, missed=1))


@pytest.mark.parametrize("delivered", [True, False])
def test_a_payment_that_was_dated_back_may_have_come_long_ago(
    delivered: bool, reconciler: Reconciler, hisab: Hisab, network: Network, clock: Clock
) -> None:
    hisab.invoice("finalize", "pay")
    if delivered:
        deliver(reconciler, *hisab.told())
    clock.turn(20 * DAY)
    start = since(clock)
    clock.turn(2 * HOUR)
    touched = {"updated_at": start.isoformat()}
    network.instead = lambda request: reshaped(request, touched)

    totals = reconcile(reconciler, start)

    assert totals.missed == (0 if delivered else 1)
    assert [row.type for row in taken_in(reconciler)] == ([] if delivered else ["invoice.paid"])


def test_what_may_have_come_before_events_are_kept_is_left_alone(
    reconciler: Reconciler, hisab: Hisab, network: Network, clock: Clock
) -> None:
    hisab.invoice("finalize", "pay")
    clock.turn(35 * DAY)
    start = since(clock)
    clock.turn(2 * HOUR)
    network.instead = lambda request: reshaped(request, {"updated_at": start.isoformat()})

    assert reconcile(reconciler, start) == Totals()


def reshaped(request: httpx.Request, fields: dict[str, Any]) -> httpx.Response | None:
    """The list of invoices, with other values in it."""
    if request.url.path.endswith("/customers"):
        return httpx.Response(200, json={"success": True, "data": [], "meta": {"pagination": {"totalPages": 0}}})
    if not request.url.path.endswith("/invoices"):
        return None
    with httpx.HTTPTransport(verify=trust()) as transport:
        answer = transport.handle_request(request)
        answer.read()
    document = answer.json()
    for invoice in document["data"]:
        invoice.update(fields)
    return httpx.Response(200, json=document)


def test_what_nobody_can_know_any_more_is_not_compared(reconciler: Reconciler, clock: Clock) -> None:
    with pytest.raises(CannotReconcile, match="is known since 2026-05-02 14:00Z: see BILLHOOK_RETENTION_DAYS"):
        reconcile(reconciler, clock.now - timedelta(days=34, seconds=1))

    assert reconcile(reconciler, clock.now - timedelta(days=34)).seen > 0


# --- when something goes wrong --------------------------------------------------------------------


class Died(BaseException):
    """The process is no more."""


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciling, "BATCH", 3)


@pytest.mark.usefixtures("small_batches")
def test_whoever_goes_on_where_another_died_stores_each_once(
    reconciler: Reconciler, hisab: Hisab, clock: Clock
) -> None:
    start = since(clock)
    for _ in range(3):
        hisab.invoice("finalize")
    hisab.customer()
    clock.turn(2 * HOUR)

    for _ in range(3):
        with pytest.raises(Died):
            reconcile(reconciler, start, watch=dies)
    assert len(taken_in(reconciler)) == 3  # each began anew, and found the first batch known

    totals = reconcile(reconciler, start)

    assert totals == Totals(seen=7, known=3, missed=4)
    assert sorted(map(outline, taken_in(reconciler))) == sorted(outline(read(one)) for one in hisab.told())


def dies(_: object) -> None:
    raise Died


def test_whoever_died_while_it_asked_has_lost_nothing(
    reconciler: Reconciler, hisab: Hisab, network: Network, clock: Clock
) -> None:
    start = since(clock)
    hisab.customer()
    hisab.invoice("finalize")
    clock.turn(2 * HOUR)
    network.instead = lambda request: dies(request) if "/invoices" in request.url.path else None
    with pytest.raises(Died):
        reconcile(reconciler, start)
    assert taken_in(reconciler) == []
    network.instead = lambda _: None

    assert reconcile(reconciler, start) == Totals(seen=3, missed=3)


@pytest.mark.parametrize(
    ("status", "code"),
    [(429, "RATE_LIMIT_EXCEEDED"), (500, "INTERNAL_ERROR"), (401, "UNAUTHORIZED")],
)
def test_what_was_found_before_the_api_failed_stays(
    status: int, code: str, reconciler: Reconciler, hisab: Hisab, network: Network, clock: Clock
) -> None:
    start = since(clock)
    hisab.customer()
    hisab.invoice()
    clock.turn(2 * HOUR)
    seen: list[Totals] = []
    failure = {"success": False, "error": {"code": code, "message": "no"}}
    network.instead = lambda request: (
        httpx.Response(status, json=failure, headers={"Retry-After": "7"}) if "/invoices" in request.url.path else None
    )

    with pytest.raises(ProviderError) as failed:
        reconcile(reconciler, start, lambda compared: seen.append(Totals(missed=len(compared.missed))))

    assert failed.value.code == code
    assert [row.type for row in taken_in(reconciler)] == ["customer.created"]
    assert seen == [Totals(missed=1)]
    network.instead = lambda _: None
    assert reconcile(reconciler, start) == Totals(seen=2, known=1, missed=1)


def test_a_list_out_of_shape_is_an_error_of_the_provider(
    reconciler: Reconciler, hisab: Hisab, network: Network, clock: Clock
) -> None:
    start = since(clock)
    hisab.invoice()
    network.instead = lambda request: reshaped(request, {"created_at": "yesterday"})

    with pytest.raises(ProviderError, match="BAD_ANSWER: what it lists is out of shape: created_at"):
        reconcile(reconciler, start)


def test_two_at_once_store_each_once(reconciler: Reconciler, hisab: Hisab, clock: Clock) -> None:
    start = since(clock)
    for _ in range(3):
        hisab.invoice("finalize", "send", "pay")
    clock.turn(2 * HOUR)
    together = threading.Barrier(2)

    def compared(_: int) -> Totals:
        together.wait(PATIENCE)
        return reconcile(reconciler, start)

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(compared, range(2))

    assert one.missed + other.missed == 12
    assert one.seen == other.seen == 12
    assert sorted(map(outline, taken_in(reconciler))) == sorted(outline(read(webhook)) for webhook in hisab.told())


def test_a_dry_run_changes_nothing(reconciler: Reconciler, runtime: Runtime, hisab: Hisab, clock: Clock) -> None:
    start = since(clock)
    hisab.invoice("finalize")
    clock.turn(2 * HOUR)
    missed: list[str] = []
    before = counted("missed")

    totals = reconcile(
        replace(reconciler, dry_run=True), start, lambda found: missed.extend(one.type for one in found.missed)
    )

    assert (totals, missed) == (Totals(seen=2, missed=2), ["invoice.created", "invoice.finalized"])
    assert rows(reconciler.engine, EventRow) == []
    assert rung(runtime, "events") == []
    assert counted("missed") == before


def counted(outcome: str) -> float:
    labels = {"source": "shop", "outcome": outcome}
    return METRICS.get_sample_value("billhook_reconciled_total", labels) or 0.0


def test_what_was_found_is_counted(reconciler: Reconciler, hisab: Hisab, clock: Clock) -> None:
    start = since(clock)
    hisab.invoice("finalize", "send")
    deliver(reconciler, hisab.told()[0])
    clock.turn(0.5 * HOUR)
    before = [counted(outcome) for outcome in ("known", "missed", "too_recent")]

    reconcile(reconciler, start)

    assert [counted(outcome) for outcome in ("known", "missed", "too_recent")] == [count + 1 for count in before]


@pytest.mark.usefixtures("small_batches")
def test_a_batch_is_no_larger_than_it_says(reconciler: Reconciler, hisab: Hisab, clock: Clock) -> None:
    start = since(clock)
    for _ in range(4):
        hisab.customer()
    clock.turn(2 * HOUR)
    batches: list[int] = []

    reconcile(reconciler, start, lambda compared: batches.append(len(compared.missed)))

    assert batches == [3, 1]


# --- HIBR -----------------------------------------------------------------------------------------


@pytest.fixture
def books(runtime: Runtime, clock: Clock) -> Iterator[tuple[Reconciler, Starlette]]:
    """A source of HIBR, whose webhooks all get lost."""
    lost = httpx.MockTransport(lambda _: httpx.Response(500))
    sandbox = hibr_app(
        webhooks=[("http://127.0.0.1:9/", SECRET)],
        rate_limit=10**6,
        retry_delays=(),
        transport=lost,
        now=clock.seconds,
    )
    with (
        serving(sandbox, lifespan="off") as url,
        HibrClient(api_key=API_KEY, api_url=url, max_wait=0) as client,
    ):
        source = Source(provider="hibr", secrets=SECRET, api_key=API_KEY, api_url=url, options={"livemode": False})
        settings = runtime.settings.model_copy(update={"sources": {"books": source}})
        yield (
            Reconciler(engine=runtime.engine, settings=settings, source="books", client=client, clock=clock),
            sandbox,
        )


def test_paid_invoices_of_hibr_that_were_not_told_of_become_events(
    books: tuple[Reconciler, Starlette], clock: Clock
) -> None:
    reconciler, sandbox = books
    start = since(clock)
    line = {"description": "Design", "quantity": 1, "unit_price": 250_000, "unit_price_currency": "AED"}
    for _ in range(3):
        invoice_id = reconciler.client.invoices.create(customer_id=CUSTOMER, lines=[line])["id"]
        reconciler.client.invoices.action(invoice_id, "post")
        clock.turn(HOUR)
        reconciler.client.invoices.action(invoice_id, "pay")
    clock.turn(2 * HOUR)
    webhooks = told(sandbox)[-3:]
    deliver(reconciler, webhooks[1], source="books")

    totals = reconcile(reconciler, start)

    parse, data = PROVIDERS["hibr"].inbound({"livemode": False}).parse, PROVIDERS["hibr"].data
    missed = [parse([], body) for _, body in (webhooks[0], webhooks[2])]
    events = sorted(taken_in(reconciler), key=lambda row: row.occurred_at)
    assert totals == Totals(seen=3, known=1, missed=2)
    assert [outline(row) for row in events] == [outline(event) for event in missed]
    assert [data(row.body) for row in events] == [{**event.data, "previous_attributes": {}} for event in missed]


def test_the_books_of_another_environment_are_refused(books: tuple[Reconciler, Starlette], clock: Clock) -> None:
    reconciler, _ = books
    live = reconciler.configured.model_copy(update={"options": {"livemode": True}})
    settings = reconciler.settings.model_copy(update={"sources": {"books": live}})
    clock.turn(2 * HOUR)

    with pytest.raises(ProviderError, match="livemode is not true"):
        reconcile(replace(reconciler, settings=settings), clock.now - timedelta(days=1))

    assert taken_in(reconciler) == []
    assert reconcile(reconciler, clock.now - timedelta(days=1)).missed == 1
    assert [row.object_id for row in taken_in(reconciler)] == [PAID_INVOICE]


# --- clients --------------------------------------------------------------------------------------


def test_a_client_that_waits_does(served: tuple[str, Starlette], settings: Settings) -> None:
    with patient_client(settings, "shop", 60.0) as client:
        assert isinstance(client, HisabClient)
        assert client.customers.get("cus_2b81fe")["id"] == "cus_2b81fe"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("books", {}, "there is no source 'books'; configured: shop"),
        ("shop", {"api_key": None}, "has no API key: set BILLHOOK_SOURCES__SHOP__API_KEY"),
        ("shop", {"provider": "standard"}, "standard has no API that lists changes"),
        ("shop", {"provider": "hesabe"}, "hesabe has no API that lists changes"),
        ("shop", {"provider": "hibr", "api_url": "ftp://x"}, "the client of source 'shop' cannot be made: api_url"),
    ],
    ids=["source", "key", "standard", "hesabe", "address"],
)
def test_what_is_missing_for_a_client_is_said(name: str, changes: dict[str, Any], message: str) -> None:
    source = Source(provider="hisab", secrets=SECRET, api_key=KEY).model_copy(update=changes)

    with pytest.raises(CannotReconcile, match=message):
        patient_client(Settings(sources={"shop": source}), name, 60.0)


# --- on time --------------------------------------------------------------------------------------


@pytest.fixture
def clients(runtime: Runtime) -> Iterator[Clients]:
    with Clients(runtime.settings) as clients:
        yield clients


def guarded(runtime: Runtime, source: str = "shop") -> int:
    """Seconds until a source may be compared again; -2: at once."""
    return int(runtime.redis.ttl(f"{runtime.settings.redis_prefix}reconciled:{source}"))


def test_a_source_is_compared_when_its_time_has_come(
    runtime: Runtime, clients: Clients, hisab: Hisab, clock: Clock
) -> None:
    clock.turn(2 * DAY)
    hisab.invoice("finalize")
    clock.turn(2 * HOUR)

    with capture_logs() as lines:
        begun = [tick(runtime, clients, clock), tick(runtime, clients, clock)]

    assert begun == [["shop"], []]
    events = rows(runtime.engine, EventRow)
    assert [(row.type, row.reconciled) for row in events] == [("invoice.created", True), ("invoice.finalized", True)]
    assert rung(runtime, "events") == [(PROCESS, [row.id for row in events])]
    assert 5 * HOUR < guarded(runtime) <= 6 * HOUR
    assert lines == [
        {
            "event": "a source was compared with its provider",
            "action": "reconciled",
            "log_level": "warning",
            "source": "shop",
            "seen": 2,
            "known": 0,
            "missed": 2,
            "too_recent": 0,
        }
    ]


def test_it_looks_back_for_two_intervals_and_a_day(
    runtime: Runtime, clients: Clients, hisab: Hisab, clock: Clock
) -> None:
    clock.turn(2 * DAY)
    hisab.customer("Too old")
    clock.turn(1)
    customer = hisab.customer()
    clock.turn(DAY + 12 * HOUR)

    tick(runtime, clients, clock)

    assert [row.object_id for row in rows(runtime.engine, EventRow)] == [customer]


def test_a_guard_that_got_lost_does_no_harm(runtime: Runtime, clients: Clients, hisab: Hisab, clock: Clock) -> None:
    clock.turn(2 * DAY)
    hisab.invoice()
    clock.turn(2 * HOUR)
    tick(runtime, clients, clock)
    runtime.redis.delete(f"{runtime.settings.redis_prefix}reconciled:shop")

    with capture_logs() as lines:
        assert tick(runtime, clients, clock) == ["shop"]

    assert len(rows(runtime.engine, EventRow)) == 1
    assert [(line["log_level"], line["known"], line["missed"]) for line in lines] == [("info", 1, 0)]


def test_of_two_ticks_at_once_one_compares(runtime: Runtime, clients: Clients, clock: Clock) -> None:
    together = threading.Barrier(2)

    def ticked(_: int) -> list[str]:
        together.wait(PATIENCE)
        return tick(runtime, clients, clock)

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(ticked, range(2))) == [[], ["shop"]]


def test_a_source_that_fails_is_tried_again_soon_and_holds_up_no_other(
    runtime: Runtime, hisab: Hisab, clock: Clock
) -> None:
    clock.turn(2 * DAY)
    hisab.invoice()
    clock.turn(2 * HOUR)
    shop = runtime.settings.sources["shop"]
    sources = {
        "refused": shop.model_copy(update={"api_key": None}),
        "by_hand": shop.model_copy(update={"reconcile_hours": None}),
        "shop": shop,
    }
    process = replace(runtime, settings=runtime.settings.model_copy(update={"sources": sources}))
    failures = METRICS.get_sample_value("billhook_reconciled_total", {"source": "refused", "outcome": "failed"}) or 0.0

    with Clients(process.settings) as own, capture_logs() as lines:
        begun = tick(process, own, clock)

    assert begun == ["refused", "shop"]
    assert [line["action"] for line in lines] == ["reconcile_failed", "reconciled"]
    assert lines[0]["error"].startswith("NO_API_KEY")
    assert 0 < guarded(runtime, "refused") <= 15 * 60
    assert guarded(runtime, "by_hand") == -2
    failed = METRICS.get_sample_value("billhook_reconciled_total", {"source": "refused", "outcome": "failed"})
    assert failed == failures + 1


def test_a_limit_of_the_api_is_left_to_the_next_tick(
    runtime: Runtime, served: tuple[str, Starlette], network: Network, clock: Clock
) -> None:
    too_many = {"success": False, "error": {"code": "RATE_LIMIT_EXCEEDED", "message": "no"}}
    network.instead = lambda _: httpx.Response(429, json=too_many, headers={"Retry-After": "30"})

    class OneClient(Clients):
        def get(self, name: str) -> Any:
            return client

    with HisabClient(api_key=KEY, api_url=served[0], max_wait=0, transport=network) as client, capture_logs() as lines:
        tick(runtime, OneClient(runtime.settings), clock)

    assert [line["error"] for line in lines] == ["RATE_LIMIT_EXCEEDED: no"]
    assert guarded(runtime) <= 15 * 60


def test_a_fault_of_ours_is_told_with_its_traceback_and_without_its_text(runtime: Runtime, clock: Clock) -> None:
    class Broken(Clients):
        def get(self, name: str) -> Any:
            raise RuntimeError(f"the key is {KEY}")

    with capture_logs() as lines:
        tick(runtime, Broken(runtime.settings), clock)

    assert [(line["error"], line["log_level"], line["exc_info"]) for line in lines] == [("RuntimeError", "error", True)]


def test_without_redis_nothing_is_compared(runtime: Runtime, clients: Clients, clock: Clock) -> None:
    with Redis.from_url(f"redis://127.0.0.1:{free_port()}/0") as gone, capture_logs() as lines:
        assert tick(replace(runtime, redis=gone), clients, clock) == []

    assert [line["action"] for line in lines] == ["redis_failed"]


def test_the_task_compares_what_this_process_was_started_with(runtime: Runtime, hisab: Hisab) -> None:
    reconciling._clients.cache_clear()

    app.tasks["billhook.schedules.reconcile"]()

    assert guarded(runtime) > 5 * HOUR
    reconciling._clients().get("shop").close()
    reconciling._clients.cache_clear()


def test_beat_ticks_for_sources_that_are_compared_on_time(runtime: Runtime) -> None:
    scheduler = beat.service(runtime.settings).get_scheduler()
    try:
        entry = scheduler.schedule["billhook.schedules.reconcile"]
        scheduler.apply_entry(entry, producer=scheduler.producer)

        assert rung(runtime, "schedules") == [("billhook.schedules.reconcile", [])]
        by_hand = runtime.settings.model_copy(update={"sources": {}})
        assert "billhook.schedules.reconcile" not in beat.service(by_hand).get_scheduler().schedule
    finally:
        app.conf.beat_schedule = {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"PROVIDER": "hisab"}, "reconcile_hours needs an api_key"),
        ({"PROVIDER": "standard", "API_KEY": "k"}, "the API of standard lists no changes: leave reconcile_hours out"),
        ({"PROVIDER": "hisab", "API_KEY": "k", "RECONCILE_HOURS": "0"}, "RECONCILE_HOURS: Input should be greater"),
        ({"PROVIDER": "hisab", "API_KEY": "k", "RECONCILE_HOURS": "169"}, "RECONCILE_HOURS: Input should be less"),
        ({"PROVIDER": "hisab", "API_KEY": "k", "RECONCILE_HOURS": "nan"}, "RECONCILE_HOURS"),
    ],
    ids=["no key", "no list", "never", "too rarely", "no number"],
)
def test_an_interval_that_cannot_be_is_refused(
    options: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    for name, value in ({"SECRETS": secret, "RECONCILE_HOURS": "6"} | options).items():
        monkeypatch.setenv(f"BILLHOOK_SOURCES__SHOP__{name}", value)

    with pytest.raises(SettingsError, match=message):
        load()
