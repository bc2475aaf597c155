from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handlers import Context, Discard, Event
from handlers.errors import ProviderError
from handlers.providers.hisab import PROVIDER
from handlers.providers.hisab.client import HisabClient
from handlers.providers.hisab.sandbox import create_app
from handlers.recipes.dunning import first_reminder, last_reminder, second_reminder
from handlers.testing import Ran, Store, event, run
from tests.handlers.providers.sandbox.served import Sink, receiving, serving

NOW = datetime(2026, 6, 5, 14, 0, tzinfo=UTC)
FIRST = datetime(2026, 7, 8, 8, 0, tzinfo=UTC)  # three days after it was due, 9 o'clock in Casablanca
ITEM = {"description": "Integration services", "quantity": 8, "unit_price": 1300, "tax_rate": 20}
REMINDERS = (first_reminder, second_reminder, last_reminder)
Reminder = Callable[[Event, Context], None]


@dataclass
class Shop:
    """A business whose invoices are at the sandbox."""

    hisab: HisabClient
    sink: Sink

    def sent(self, **fields: Any) -> Event:
        """The webhook of an invoice that was made, finalized and sent."""
        given = {"customer_id": "cus_2b81fe", "issue_date": "2026-06-05", "due_date": "2026-07-05", "items": [ITEM]}
        draft = self.hisab.invoices.create(**(given | fields))
        self.hisab.invoices.finalize(draft["id"])
        self.hisab.invoices.send(draft["id"])
        *_, arrived = self.sink.take(3)
        return PROVIDER.inbound({}).parse(arrived.wire, arrived.body)

    def run(self, reminder: Reminder, sent: Event, now: datetime, store: Store | None = None) -> Ran:
        return run(reminder, sent, now=now, store=store, clients={"hisab": self.hisab})


@pytest.fixture
def shop() -> Iterator[Shop]:
    with (
        receiving() as sink,
        serving(
            create_app(webhook_url=sink.url, secret="whsec_test_secret_key_123456", rate_limit=1_000, now=NOW.timestamp)
        ) as url,
        HisabClient(api_key="hisab_live_***", api_url=f"{url}/api/v1") as hisab,
    ):
        yield Shop(hisab, sink)


def test_an_invoice_that_stays_unpaid_is_reminded_of_three_times(shop: Shop) -> None:
    sent = shop.sent()
    number = shop.hisab.invoices.get(str(sent.object_id))["invoice_number"]

    for reminder, days, which in zip(REMINDERS, (0, 7, 21), ("first", "second", "last"), strict=True):
        paused = shop.run(reminder, sent, NOW)
        ran = shop.run(reminder, sent, FIRST + timedelta(days=days), paused.store)

        assert (paused.outcome, paused.paused_until, paused.emitted) == ("paused", FIRST + timedelta(days=days), [])
        assert ran.outcome == "succeeded", ran.trace
        assert ran.emitted == [
            (
                "invoice.reminder",
                {"invoice": sent.object_id, "number": number, "total": "12480.00", "reminder": which},
            )
        ]


def test_a_start_before_the_day_pauses_again_and_asks_nobody(shop: Shop) -> None:
    sent = shop.sent()
    paused = shop.run(first_reminder, sent, NOW)

    again = run(first_reminder, sent, now=FIRST - timedelta(seconds=1), store=paused.store)

    assert (again.outcome, again.paused_until) == ("paused", FIRST)


@pytest.mark.parametrize("verb", ["paid", "void"])
def test_an_invoice_that_is_settled_meanwhile_is_not_reminded_of(verb: str, shop: Shop) -> None:
    sent = shop.sent()
    invoice_id = str(sent.object_id)
    paused = shop.run(second_reminder, sent, NOW)
    if verb == "paid":
        shop.hisab.invoices.pay(invoice_id)
    else:
        shop.hisab.invoices.void(invoice_id, reason="Duplicate billing")

    ran = shop.run(second_reminder, sent, FIRST + timedelta(days=7), paused.store)

    assert ran.outcome == "discarded"
    assert str(ran.error) == f"the invoice is {verb}"


def test_an_invoice_that_is_sent_twice_is_reminded_of_once(shop: Shop) -> None:
    sent = shop.sent()
    again = event("invoice.sent", data=sent.data, occurred_at=NOW + timedelta(days=1))

    first = shop.run(first_reminder, sent, FIRST)
    second = shop.run(first_reminder, again, FIRST, first.store)
    other = shop.run(second_reminder, again, FIRST + timedelta(days=7), first.store)

    assert [ran.outcome for ran in (first, second, other)] == ["succeeded", "discarded", "succeeded"]


def test_an_invoice_without_a_due_date_is_nothing_to_wait_for() -> None:
    ran = run(first_reminder, event("invoice.sent", data={"due_date": None}))

    assert isinstance(ran.error, Discard)


def test_an_api_that_refuses_fails_the_run_which_is_tried_again(shop: Shop) -> None:
    sent = event("invoice.sent", data={"id": "inv_missing"})

    ran = shop.run(first_reminder, sent, NOW + timedelta(days=90))

    assert ran.outcome == "failed"
    assert isinstance(ran.error, ProviderError)
    assert ran.error.code == "NOT_FOUND"
