"""Schedules with HIBR and with Hesabe: exactly one invoice, whoever dies or is not heard; and captures on demand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from handlers.providers.hesabe.client import HesabeClient
from handlers.providers.hesabe.models import InvoiceKind
from handlers.providers.hesabe.sandbox import create_app as hesabe_app
from handlers.providers.hesabe.sandbox import seeds as hesabe_seeds
from handlers.providers.hibr.client import HibrClient
from handlers.providers.hibr.sandbox import create_app as hibr_app
from handlers.providers.hibr.sandbox import seeds as hibr_seeds
from tests.conftest import SECRET
from tests.handlers.providers.sandbox.served import serving
from tests.workers.given import Clock, change, only, rows
from tests.workers.schedule.given import ACTOR, Died, Network, OneClient, dies_before, plan
from workers.app import Runtime
from workers.audit import audit
from workers.models import EventRow, Occurrence, Schedule
from workers.schedule.generate import generate, work_off
from workers.schedule.generator import LEASE, Generator
from workers.schedule.schedules import add
from workers.schedule.tick import tick
from workers.schedule.verbs import pause, resume, retry, update_schedule
from workers.settings import Settings, Source

BEGINNING = datetime(2026, 6, 5, 14, 0, tzinfo=UTC)
HESABE = {"mobile_number": "66666666", "customer_name": "Noura", "payment_types": ["1"]}
ON_DEMAND = {**HESABE, "subscription": {"type": "1", "on_demand": True}}
AUTOMATIC = {**HESABE, "subscription": {"type": "0", "on_demand": False}}
once = pytest.mark.parametrize("backend", ["embedded"], indirect=True)  # what the database has no part in
ITEM = {"description": "Rent", "quantity": "1", "unit_price": "1300.00"}


@pytest.fixture
def clock() -> Clock:
    return Clock(BEGINNING)


@dataclass
class Scene:
    """A source of one provider, what schedules make there, and the network to it."""

    generator: Generator
    network: Network
    client: Any
    fields: dict[str, Any]

    @property
    def clock(self) -> Clock:
        assert isinstance(self.generator.clock, Clock)
        return self.generator.clock

    def scheduled(self, **fields: Any) -> str:
        """A schedule that is due today; its id."""
        given = {"auto_finalize": True, "auto_send": True, "items": [ITEM], **self.fields, **fields}
        whole = plan(**{"start_date": BEGINNING.date(), **given})
        return add(self.generator.engine, self.generator.settings, whole, actor=ACTOR, now=BEGINNING)

    def due(self) -> str:
        """The occurrence that is due."""
        (occurrence,) = tick(self.generator.engine, now=self.clock())
        return occurrence

    def turned(self, to: datetime) -> None:
        self.clock.now = to

    def live(self, occurrence: str, death: tuple[str, int] | None) -> None:
        """A process takes it up, and dies at this call; then its lease ends."""
        self.network.heal()
        if death is not None:
            setattr(self.network, death[0], dies_before(self.network, death[1]))
        try:
            generate(self.generator, [occurrence])
        except Died:
            assert death is not None
        self.clock.turn(LEASE.total_seconds())

    def told(self) -> list[dict[str, Any]]:
        return [orjson.loads(row.body) for row in rows(self.generator.engine, EventRow)]


def scene_of(runtime: Runtime, clock: Clock, source: Source, client: Any, network: Network) -> Scene:
    settings: Settings = runtime.settings.model_copy(update={"sources": {"shop": source}})
    generator = Generator(
        engine=runtime.engine,
        settings=settings,
        clients=OneClient(settings, client),
        redis=runtime.redis,
        clock=clock,
        chance=lambda: 0.0,
    )
    return Scene(generator, network, client, {})


@pytest.fixture
def hibr(runtime: Runtime, clock: Clock, network: Network) -> Iterator[Scene]:
    app = hibr_app(tier="enterprise", rate_limit=10**6, clock=BEGINNING, now=clock.seconds)
    with (
        serving(app) as url,
        HibrClient(api_key=hibr_seeds.API_KEY, api_url=url, transport=network, max_wait=0, retries=0) as client,
    ):
        source = Source(provider="hibr", secrets=SECRET, api_key=hibr_seeds.API_KEY, api_url=url)
        scene = scene_of(runtime, clock, source, client, network)
        scene.fields = {"customer_id": hibr_seeds.CUSTOMER, "currency": "AED"}
        yield scene


@pytest.fixture
def hesabe(runtime: Runtime, clock: Clock, network: Network) -> Iterator[Scene]:
    app = hesabe_app(clock=BEGINNING, on_demand="1", login_required=False)
    with (
        serving(app) as url,
        HesabeClient(api_key=hesabe_seeds.API_KEY, api_url=url, transport=network, max_wait=0) as client,
    ):
        word = "a-word-that-stands-in-the-path-1"
        source = Source(provider="hesabe", secrets=word, api_key=hesabe_seeds.API_KEY, api_url=url)
        scene = scene_of(runtime, clock, source, client, network)
        scene.fields = {"customer_id": "noura", "currency": "KWD", "options": HESABE}
        yield scene


def hibr_invoices(scene: Scene) -> list[dict[str, Any]]:
    return [one for one in scene.client.invoices.list() if "reference" in one]


def hesabe_invoices(scene: Scene, kind: InvoiceKind = InvoiceKind.SINGLE) -> list[dict[str, Any]]:
    return list(scene.client.invoices.list(from_date=date(2020, 1, 1), to_date=date(2040, 1, 1), invoice_type=kind))


# HIBR


def test_hibr_makes_posts_and_sends(hibr: Scene) -> None:
    hibr.scheduled(days_until_due=15)
    occurrence = hibr.due()

    generate(hibr.generator, [occurrence])

    (invoice,) = hibr_invoices(hibr)
    assert (invoice["status"], invoice["invoice_date"], invoice["due_date"]) == ("open", "2026-06-05", "2026-06-20")
    assert (invoice["reference"], invoice["lines"][0]["unit_price"]) == (f"billhook:{occurrence}", 130_000)
    assert invoice["sent_at"] is not None
    row = only(hibr.generator.engine, Occurrence)
    assert (row.status, row.invoice_number, row.invoice_total) == ("generated", invoice["invoice_no"], "1365.00")


@once
@pytest.mark.parametrize("death", [(when, call) for call in (1, 2, 3) for when in ("before", "after")])
def test_hibr_has_exactly_one_invoice_whenever_the_process_dies(hibr: Scene, death: tuple[str, int]) -> None:
    hibr.scheduled()
    occurrence = hibr.due()

    hibr.live(occurrence, death)
    hibr.live(occurrence, None)

    (invoice,) = hibr_invoices(hibr)
    assert invoice["sent_at"] is not None
    assert only(hibr.generator.engine, Occurrence).status == "generated"
    assert len(hibr.told()) == 1


def test_hibr_is_asked_again_under_its_key_and_not_searched(hibr: Scene) -> None:
    hibr.scheduled()
    occurrence = hibr.due()
    hibr.live(occurrence, ("after", 1))

    hibr.live(occurrence, None)

    assert hibr.network.calls == ["POST invoices", "POST invoices", "POST post", "POST send"]
    assert len(hibr_invoices(hibr)) == 1


def test_hibr_is_searched_once_it_has_forgotten_its_keys(hibr: Scene) -> None:
    hibr.scheduled()
    occurrence = hibr.due()
    hibr.live(occurrence, ("after", 1))
    hibr.clock.turn(25 * 3600)

    hibr.live(occurrence, None)

    assert hibr.network.calls[1] == "GET invoices"
    assert len(hibr_invoices(hibr)) == 1


def test_what_a_restored_database_forgot_is_found_after_a_pause_too(hibr: Scene) -> None:
    schedule = hibr.scheduled()
    occurrence = hibr.due()
    hibr.live(occurrence, None)
    engine = hibr.generator.engine
    # As in a backup of the moment after it was planned; whoever restores it pauses what is in doubt.
    forgotten = {"status": "waiting", "step": "planned", "intended_at": None, "invoice_id": None, "draft": None}
    change(engine, Occurrence, **forgotten, attempts=0, starts=0, ended_at=None, next_attempt_at=hibr.clock())
    hibr.clock.turn(25 * 3600)  # longer than HIBR remembers its idempotency keys
    pause(engine, schedule, actor=ACTOR, now=hibr.clock())
    resume(engine, schedule, actor=ACTOR, now=hibr.clock())

    hibr.live(occurrence, None)

    assert len(hibr_invoices(hibr)) == 1
    assert [row.status for row in rows(engine, Occurrence)] == ["generated"]


def test_a_change_of_the_schedule_does_not_change_what_was_asked_of_hibr(hibr: Scene) -> None:
    """Under the same key only the same can be asked again."""
    schedule = hibr.scheduled()
    occurrence = hibr.due()
    hibr.live(occurrence, ("after", 1))
    dearer = {"items": [{**ITEM, "unit_price": "2000.00"}]}
    update_schedule(hibr.generator.engine, hibr.generator.settings, schedule, dearer, actor=ACTOR, now=hibr.clock())

    hibr.live(occurrence, None)

    assert [one["lines"][0]["unit_price"] for one in hibr_invoices(hibr)] == [130_000]
    hibr.turned(BEGINNING + timedelta(days=30))
    generate(hibr.generator, [hibr.due()])
    assert sorted(one["lines"][0]["unit_price"] for one in hibr_invoices(hibr)) == [130_000, 200_000]


def test_what_failed_at_hibr_and_is_tried_again_is_looked_for_first(hibr: Scene) -> None:
    """Its key is another one then, under which HIBR would make a second invoice."""
    schedule = hibr.scheduled()
    occurrence = hibr.due()
    refusal = httpx.Response(422, json={"error": {"code": "validation_error", "message": "No."}})
    hibr.network.before = lambda number: refusal if number == 2 else None
    generate(hibr.generator, [occurrence])
    assert only(hibr.generator.engine, Occurrence).status == "failed"
    hibr.network.heal()
    # As if the answer to its creation had never been heard.
    change(hibr.generator.engine, Occurrence, step="intended", invoice_id=None)

    assert retry(hibr.generator.engine, schedule, actor=ACTOR, now=hibr.clock()) == 1
    hibr.turned(only(hibr.generator.engine, Occurrence).next_attempt_at)
    generate(hibr.generator, [occurrence])

    assert len(hibr_invoices(hibr)) == 1
    assert only(hibr.generator.engine, Occurrence).status == "generated"


# Hesabe


@pytest.mark.parametrize(("sends", "channel"), [(True, 0), (False, 3)])
def test_hesabe_makes_one_invoice_by_sms_or_as_a_link(hesabe: Scene, sends: bool, channel: int) -> None:
    hesabe.scheduled(auto_send=sends)
    occurrence = hesabe.due()

    generate(hesabe.generator, [occurrence])

    (invoice,) = hesabe_invoices(hesabe)
    assert (invoice["reference_number"], invoice["amount"]) == (f"billhook:{occurrence}", "1300.000")
    assert invoice["invoice_sub_type"] == channel
    row = only(hesabe.generator.engine, Occurrence)
    assert (row.status, row.invoice_id, row.invoice_total) == ("generated", str(invoice["id"]), "1300.000")


@pytest.mark.parametrize("when", ["before", "after"])
def test_hesabe_has_exactly_one_invoice_whenever_the_process_dies(hesabe: Scene, when: str) -> None:
    hesabe.scheduled()
    occurrence = hesabe.due()

    hesabe.live(occurrence, (when, 1))
    hesabe.live(occurrence, None)

    assert len(hesabe_invoices(hesabe)) == 1
    assert only(hesabe.generator.engine, Occurrence).status == "generated"


def agree(scene: Scene, invoice_id: str) -> None:
    """The customer consents, on the page that the invoice leads to."""
    url = scene.client.invoices.get(invoice_id)["url"]
    assert httpx.post(url, data={"outcome": "pay"}).status_code < 400


def captures(scene: Scene) -> list[dict[str, Any]]:
    """What was captured for each occurrence, by its reference."""
    references = [f"billhook:{row.id}:capture" for row in rows(scene.generator.engine, Occurrence)]
    return [one for reference in references for one in scene.client.transactions.find(reference)]


def test_a_subscription_on_demand_is_agreed_on_once_and_captured_at_each_due_date(hesabe: Scene) -> None:
    hesabe.scheduled(options=ON_DEMAND, max_occurrences=3)
    first = hesabe.due()

    # The customer has not agreed: it waits.
    assert generate(hesabe.generator, [first]) == []
    row = only(hesabe.generator.engine, Occurrence)
    assert (row.status, row.error_code, row.step) == ("waiting", "NOT_AGREED", "created")
    assert row.next_attempt_at == BEGINNING + timedelta(hours=1)
    agree(hesabe, row.invoice_id)
    hesabe.turned(row.next_attempt_at)
    generate(hesabe.generator, [first])
    for month in (7, 8):
        hesabe.turned(datetime(2026, month, 5, tzinfo=UTC))
        generate(hesabe.generator, [hesabe.due()])

    (agreement,) = hesabe_invoices(hesabe, InvoiceKind.SUBSCRIPTION)
    schedule = only(hesabe.generator.engine, Schedule)
    assert (schedule.agreement, schedule.status) == (str(agreement["id"]), "completed")
    assert [(one["amount"], one["status"]) for one in captures(hesabe)] == [("1300.000", "SUCCESSFUL")] * 3
    assert [event["type"] for event in hesabe.told()].count("recurring.generated") == 3
    assert hesabe.told()[0]["data"]["payment"]["amount"] == "1300.000"
    assert audit(hesabe.generator.engine, hesabe.clock).holds


def test_a_change_of_price_is_captured_from_the_next_due_date(hesabe: Scene) -> None:
    schedule = hesabe.scheduled(options=ON_DEMAND, max_occurrences=3)
    first = hesabe.due()
    generate(hesabe.generator, [first])
    agree(hesabe, only(hesabe.generator.engine, Occurrence).invoice_id)
    hesabe.clock.turn(3600)
    generate(hesabe.generator, [first])
    dearer = {"items": [{**ITEM, "unit_price": "1500.000"}]}
    update_schedule(
        hesabe.generator.engine, hesabe.generator.settings, schedule, dearer, actor=ACTOR, now=hesabe.clock()
    )
    hesabe.turned(datetime(2026, 7, 5, tzinfo=UTC))

    generate(hesabe.generator, [hesabe.due()])

    assert [one["amount"] for one in captures(hesabe)] == ["1300.000", "1500.000"]


@once
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", range(1, 6))
def test_money_is_taken_once_whenever_the_process_dies(hesabe: Scene, when: str, call: int) -> None:
    hesabe.scheduled(options=ON_DEMAND, max_occurrences=3)
    first = hesabe.due()
    generate(hesabe.generator, [first])
    agree(hesabe, only(hesabe.generator.engine, Occurrence).invoice_id)
    hesabe.clock.turn(3600)

    hesabe.live(first, (when, call))
    hesabe.live(first, None)

    assert [one["status"] for one in captures(hesabe)] == ["SUCCESSFUL"]
    assert len(hesabe_invoices(hesabe, InvoiceKind.SUBSCRIPTION)) == 1
    assert only(hesabe.generator.engine, Occurrence).status == "generated"


def test_a_lost_answer_to_a_capture_takes_the_money_once(hesabe: Scene) -> None:
    hesabe.scheduled(options=ON_DEMAND, max_occurrences=3)
    first = hesabe.due()
    generate(hesabe.generator, [first])
    agree(hesabe, only(hesabe.generator.engine, Occurrence).invoice_id)
    hesabe.clock.turn(3600)

    def lose(_: int) -> None:
        if hesabe.network.calls[-1] == "POST capture":
            raise httpx.ReadTimeout("no answer")

    hesabe.network.after = lose
    assert generate(hesabe.generator, [first]) == []
    hesabe.network.heal()
    hesabe.turned(only(hesabe.generator.engine, Occurrence).next_attempt_at)
    generate(hesabe.generator, [first])

    assert [one["status"] for one in captures(hesabe)] == ["SUCCESSFUL"]
    assert only(hesabe.generator.engine, Occurrence).status == "generated"


def test_an_automatic_subscription_is_made_once_and_its_payments_are_hesabes(hesabe: Scene) -> None:
    hesabe.scheduled(options=AUTOMATIC, max_occurrences=3)
    generate(hesabe.generator, [hesabe.due()])
    for month in (7, 8):
        hesabe.turned(datetime(2026, month, 5, tzinfo=UTC))
        generate(hesabe.generator, [hesabe.due()])

    assert len(hesabe_invoices(hesabe, InvoiceKind.SUBSCRIPTION)) == 1
    found = rows(hesabe.generator.engine, Occurrence)
    assert [row.status for row in found] == ["generated", "skipped", "skipped"]
    assert "takes this payment itself" in found[1].error
    assert [event["type"] for event in hesabe.told()] == ["recurring.generated", "recurring.completed"]


def test_two_due_dates_at_once_make_one_agreement(hesabe: Scene) -> None:
    """In their order: the second waits until the customer has agreed to the first."""
    hesabe.scheduled(options=ON_DEMAND, max_occurrences=3)
    hesabe.turned(datetime(2026, 7, 6, tzinfo=UTC))
    tick(hesabe.generator.engine, now=hesabe.clock())

    work_off(hesabe.generator, "shop")
    work_off(hesabe.generator, "shop")

    assert len(hesabe_invoices(hesabe, InvoiceKind.SUBSCRIPTION)) == 1
    assert [row.step for row in rows(hesabe.generator.engine, Occurrence)] == ["created", "planned"]
