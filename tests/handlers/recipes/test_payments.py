from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from handlers import Event
from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers.hesabe import PROVIDER as HESABE
from handlers.providers.hesabe.client import HesabeClient
from handlers.providers.hesabe.models import InvoiceSubType, InvoiceType, PaymentType, SingleInvoice
from handlers.providers.hesabe.sandbox import create_app as hesabe_sandbox
from handlers.providers.hisab.client import HisabClient
from handlers.providers.hisab.sandbox import create_app as hisab_sandbox
from handlers.recipes.payments import match_payment
from handlers.testing import Ran, Store, run
from tests.handlers.providers.hesabe.server import API_KEY
from tests.handlers.providers.sandbox.served import Sink, receiving, serving

NOW = datetime(2026, 6, 5, 14, 0, tzinfo=UTC)


@dataclass
class Dies:
    """Hisab's client as a process sees it that dies right after its payment went through."""

    hisab: HisabClient
    paid: list[str] = field(default_factory=list)

    @property
    def invoices(self) -> Dies:
        return self

    def list(self) -> Iterator[dict[str, Any]]:
        return self.hisab.invoices.list()

    def pay(self, invoice_id: str, **payment: Any) -> None:
        self.hisab.invoices.pay(invoice_id, **payment)
        self.paid.append(invoice_id)
        raise SystemExit


@dataclass
class Scene:
    """A business that invoices with Hisab and is paid over Hesabe."""

    hisab: HisabClient
    hesabe: HesabeClient
    sink: Sink

    def invoice(self, price: int | Decimal, **fields: Any) -> dict[str, Any]:
        """An invoice of Hisab over this amount, sent."""
        item = {"description": "Service", "quantity": 1, "unit_price": price, "tax_rate": 0}
        given = {"customer_id": "cus_2b81fe", "issue_date": "2026-06-05", "currency": "KWD", "items": [item]}
        draft = self.hisab.invoices.create(**(given | fields))
        self.hisab.invoices.finalize(draft["id"])
        return self.hisab.invoices.send(draft["id"])

    def payment(self, reference: str, amount: str) -> Event:
        """What Hesabe's webhook tells of a payment under this reference."""
        asked = self.hesabe.invoices.create(
            SingleInvoice(
                mobile_number="66666666",
                customer_name="TEST",
                reference_number=reference,
                amount=amount,
                invoice_type=InvoiceType.SMS,
                invoice_sub_type=InvoiceSubType.URL,
                payment_types=[PaymentType.KNET],
                expires_at="2026-12-12",
                webhook=self.sink.url,
            )
        )
        assert httpx.post(asked["url"], data={"outcome": "pay"}, follow_redirects=True, trust_env=False).is_success
        (arrived,) = self.sink.take(1)
        told = HESABE.inbound({}).parse(arrived.wire, arrived.body)
        return replace(told, id=f"evt_{told.object_id}", source="pay")

    def run(self, payment: Event, store: Store | None = None, hisab: Any = None, replay: bool = False) -> Ran:
        return run(match_payment, payment, clients={"hisab": hisab or self.hisab}, store=store, replay=replay)

    def settled(self, invoice: dict[str, Any]) -> tuple[str, str | None]:
        found = self.hisab.invoices.get(invoice["id"])
        return found["status"], found["payment_reference"]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with (
        receiving() as sink,
        serving(hisab_sandbox(rate_limit=10_000, now=NOW.timestamp)) as hisab_url,
        serving(hesabe_sandbox(clock=NOW, now=NOW.timestamp)) as hesabe_url,
        HisabClient(api_key="hisab_live_***", api_url=f"{hisab_url}/api/v1") as hisab,
        HesabeClient(api_key=API_KEY, api_url=hesabe_url) as hesabe,
    ):
        yield Scene(hisab, hesabe, sink)


def test_a_payment_settles_the_invoice_it_names(scene: Scene) -> None:
    other, invoice = scene.invoice(20), scene.invoice(20)
    payment = scene.payment(invoice["invoice_number"], "20.000")

    ran = scene.run(payment)

    assert ran.outcome == "succeeded", ran.trace
    assert ran.emitted == [
        ("payment.matched", {"payment": payment.object_id, "invoice": invoice["id"], "total": "20.00"})
    ]
    assert scene.settled(invoice) == ("paid", payment.object_id)
    assert scene.settled(other)[0] == "sent"


@pytest.mark.parametrize(
    ("fields", "amount", "because"),
    [
        ({}, "19.999", "19.999 was paid, and the invoice is of 20.00"),
        ({}, "20.001", "20.001 was paid, and the invoice is of 20.00"),
        ({"currency": "MAD"}, "20.000", "the invoice is in MAD"),
    ],
)
def test_a_payment_that_differs_is_left_to_a_person(
    fields: dict[str, str], amount: str, because: str, scene: Scene
) -> None:
    invoice = scene.invoice(20, **fields)
    payment = scene.payment(invoice["invoice_number"], amount)

    ran = scene.run(payment)

    assert ran.emitted == [
        (
            "payment.unmatched",
            {"payment": payment.object_id, "reference": invoice["invoice_number"], "because": because},
        )
    ]
    assert scene.settled(invoice) == ("sent", None)


def test_a_payment_under_an_unknown_reference_is_left_to_a_person(scene: Scene) -> None:
    ran = scene.run(scene.payment("12349899", "20.000"))

    assert [(emitted.type, emitted.data["because"]) for emitted in ran.emitted] == [
        ("payment.unmatched", "there is no invoice of this number")
    ]


def test_a_second_payment_of_one_invoice_is_left_to_a_person(scene: Scene) -> None:
    invoice = scene.invoice(20)
    first, second = (scene.payment(invoice["invoice_number"], "20.000") for _ in range(2))

    store = scene.run(first).store
    ran = scene.run(second, store)

    assert [(emitted.type, emitted.data["because"]) for emitted in ran.emitted] == [
        ("payment.unmatched", "the invoice is paid")
    ]
    assert scene.settled(invoice) == ("paid", first.object_id)


def test_a_process_that_dies_between_the_payment_and_its_step_does_not_pay_twice(scene: Scene) -> None:
    invoice = scene.invoice(20)
    payment = scene.payment(invoice["invoice_number"], "20.000")
    dying = Dies(scene.hisab)

    died = scene.run(payment, hisab=dying)
    again = scene.run(payment, died.store)

    assert (died.outcome, died.emitted, dying.paid) == ("failed", [], [invoice["id"]])
    assert [emitted.type for emitted in again.emitted] == ["payment.matched"]
    assert scene.settled(invoice) == ("paid", payment.object_id)


def test_an_invoice_that_somebody_else_settles_in_between_is_an_error_to_look_at(scene: Scene) -> None:
    invoice = scene.invoice(20)
    payment = scene.payment(invoice["invoice_number"], "20.000")

    class Slow(Dies):
        def pay(self, invoice_id: str, **payment: Any) -> None:
            self.hisab.invoices.pay(invoice_id, payment_reference="a cheque")
            self.hisab.invoices.pay(invoice_id, **payment)

        def get(self, invoice_id: str) -> dict[str, Any]:
            return self.hisab.invoices.get(invoice_id)

    ran = scene.run(payment, hisab=Slow(scene.hisab))

    assert (ran.outcome, ran.emitted) == ("failed", [])
    assert isinstance(ran.error, ProviderError)
    assert scene.settled(invoice) == ("paid", "a cheque")


def test_a_failing_api_is_tried_again_and_the_invoice_is_not_looked_for_twice(scene: Scene) -> None:
    invoice = scene.invoice(20)
    payment = scene.payment(invoice["invoice_number"], "20.000")

    class Down(Dies):
        def pay(self, invoice_id: str, **payment: Any) -> None:
            raise ProviderUnavailable("HTTP_503", "later")

    class NoList(Dies):
        def list(self) -> Iterator[dict[str, Any]]:
            raise AssertionError("it was found before")

        def pay(self, invoice_id: str, **payment: Any) -> dict[str, Any]:  # type: ignore[override]
            return self.hisab.invoices.pay(invoice_id, **payment)

    failed = scene.run(payment, hisab=Down(scene.hisab))
    again = scene.run(payment, failed.store, hisab=NoList(scene.hisab))

    assert (failed.outcome, again.outcome) == ("failed", "succeeded")
    assert scene.settled(invoice) == ("paid", payment.object_id)


def test_a_replay_moves_no_money_and_tells_the_same(scene: Scene) -> None:
    invoice = scene.invoice(20)
    payment = scene.payment(invoice["invoice_number"], "20.000")
    first = scene.run(payment)

    class NoPayment(Dies):
        def pay(self, invoice_id: str, **payment: Any) -> None:
            raise AssertionError("money moved again")

    replayed = scene.run(payment, first.store, hisab=NoPayment(scene.hisab), replay=True)

    assert (replayed.outcome, replayed.emitted, replayed.keys) == ("succeeded", first.emitted, first.keys)
