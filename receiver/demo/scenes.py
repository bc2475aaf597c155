"""The demo's scenes, in order. Each does something to the running stack, and waits for what must come of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import httpx

from handlers.providers import PROVIDERS
from handlers.providers.hisab.client import HisabClient
from handlers.providers.hisab.sandbox import Sent
from handlers.testing import SignedRequest, signed_request
from receiver.demo.page import Missing, Page
from receiver.demo.stack import LOOK, Configuration, Stack
from receiver.demo.witness import Witness
from workers.leases import utcnow
from workers.models import AnyRow
from workers.schedule.plans import Plan
from workers.schedule.schedules import add
from workers.settings import Settings

HISAB = PROVIDERS["hisab"]
CUSTOMER = "cus_2b81fe"
"""A customer that the sandbox has from its start."""
PROCESSES = {"serve": "receiving on", "work": "working on", "beat": "ticking"}
"""How the line begins by which each process says that it is up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What the scenes play on; `sent` is what the sandbox has sent, and grows."""

    page: Page
    configuration: Configuration
    settings: Settings
    stack: Stack
    witness: Witness
    http: httpx.Client
    sent: Sequence[Sent]

    def post(self, request: SignedRequest) -> httpx.Response:
        """The receiver's answer. Raises Missing where there is none."""
        try:
            return self.http.post(self.configuration.webhook_url, content=request.body, headers=request.headers)
        except httpx.HTTPError as error:
            self.stack.check()
            raise Missing("received", f"the receiver does not answer: {error}") from None

    def follow(self, event_id: str) -> None:
        """Show what comes of an event, until that is all."""

        def ended() -> bool:
            self.witness.look()
            return self.witness.ended(event_id)

        self.stack.wait("handled", f"the end of {event_id}", ended)


def started(stage: Stage) -> None:
    """The three processes run, and each has said so."""
    stage.page.title("Billhook's three processes, with an embedded database and server")
    for command in PROCESSES:
        stage.page.happened("started", f"billhook {command}", _said(stage, command))


def _said(stage: Stage, command: str) -> str:
    """The line by which a process said that it is up, cut to what fits."""
    words = PROCESSES[command]
    said = stage.stack.wait("started", f"`billhook {command}`", lambda: stage.stack.said(command, words))
    return said.removeprefix("working on ").removesuffix("/webhooks/{source}")


def life(stage: Stage) -> str:
    """Two invoices and a customer live at the sandbox; each of its webhooks is followed to its end.

    The id of the invoice that was paid.
    """
    stage.page.title("The lives of two invoices at Hisab's sandbox, made by its API; it sends a webhook for each step")
    stage.page.say(
        "Their handlers are handlers/examples.py. book_payment is written to fail at its first attempt.", "dim"
    )
    with _hisab(stage.configuration) as hisab:
        customer = str(hisab.customers.create(name="MERIT Sarl", type="b2b", ice="001234567000089")["id"])
        _follow(stage, customer, "customer.created")
        hisab.customers.update(customer, email="finance@example.ma")
        _follow(stage, customer, "customer.updated")
        paid, voided = (_draft(stage, hisab, customer, price) for price in (1300, 90))
        hisab.invoices.update(paid, due_date="2099-12-31")
        _follow(stage, paid, "invoice.updated")
        hisab.invoices.finalize(paid)
        _follow(stage, paid, "invoice.finalized")
        hisab.invoices.send(paid)
        _follow(stage, paid, "invoice.sent")
        hisab.invoices.pay(paid, payment_method="bank_transfer", payment_reference="VIR-20260605")
        _follow(stage, paid, "invoice.paid")
        hisab.invoices.finalize(voided)
        _follow(stage, voided, "invoice.finalized")
        hisab.invoices.void(voided, reason="Duplicate billing")
        _follow(stage, voided, "invoice.voided")
        hisab.customers.archive(customer)
        _follow(stage, customer, "customer.deleted")
    return paid


def _draft(stage: Stage, hisab: HisabClient, customer: str, price: int) -> str:
    invoice = hisab.invoices.create(
        customer_id=customer,
        issue_date=_today(stage),
        items=[{"description": "Integration services", "quantity": 8, "unit_price": price, "tax_rate": 20}],
    )
    _follow(stage, str(invoice["id"]), "invoice.created")
    return str(invoice["id"])


def _follow(stage: Stage, object_id: str, event_type: str) -> None:
    """Wait until the webhook has come, and show what comes of it."""

    def came() -> str | None:
        stage.witness.look()
        return next((row.id for row in stage.witness.events(object_id) if row.type == event_type), None)

    stage.follow(stage.stack.wait("received", f"{event_type} about {object_id}", came))


def _hisab(configuration: Configuration) -> HisabClient:
    return HisabClient(api_key=configuration.api_key, api_url=configuration.api_url)


def _today(stage: Stage) -> date:
    return utcnow().astimezone(ZoneInfo(stage.settings.sources["hisab"].timezone)).date()


def forged(stage: Stage) -> None:
    """A delivery signed with a wrong secret is refused, and nothing of it is stored."""
    stage.page.title("One that is signed with a wrong secret")
    before = stage.witness.events()
    answer = stage.post(signed_request(HISAB, "invoice.paid", stage.configuration.secret, forged=True))
    if answer.status_code != 401 or stage.witness.events() != before:
        raise Missing("refused", f"a forged delivery was answered {answer.status_code}, not 401")
    stage.page.happened("refused", "invoice.paid", "401, nothing is stored")


def repeated(stage: Stage) -> None:
    """A delivery that the sandbox sends once more is recognised, and does nothing more."""
    stage.page.title("One that the sandbox sends a second time, as it does when an answer was lost")
    before, sent = stage.witness.events(), len(stage.sent)
    first = next(one for one in stage.sent if one.event_type == "invoice.paid")
    answer = stage.http.post(f"{stage.configuration.sandbox_url}/sandbox/webhooks/{first.delivery_id}/replay", json={})
    if not answer.is_success:
        raise Missing("duplicate", f"the sandbox did not send {first.delivery_id} again: {answer.text[:80]}")
    again = stage.stack.wait("duplicate", "the second delivery", lambda: stage.sent[sent:])[0]
    if (again.delivery_id, again.status) != (first.delivery_id, 200):
        raise Missing("duplicate", f"the repeat of {first.delivery_id} was answered {again.status}, not 200")
    if stage.witness.events() != before:
        raise Missing("duplicate", f"the repeat of {first.delivery_id} changed what is stored")
    stage.page.happened("duplicate", "invoice.paid", f"{first.delivery_id}  200, nothing is stored")


def recurring(stage: Stage) -> str:
    """A schedule that is due makes an invoice, whose webhooks come back in; the invoice's id."""
    stage.page.title("A recurring invoice that is due today: made at the sandbox, which sends webhooks in its turn")
    today = _today(stage)
    plan = Plan(
        source="hisab",
        customer_id=CUSTOMER,
        frequency="monthly",
        start_date=today,
        items=[{"description": "Hosting", "quantity": "1", "unit_price": "1300.00", "tax_rate": "20"}],
        auto_finalize=True,
        auto_send=True,
    )
    schedule_id = add(stage.witness.engine, stage.settings, plan, actor="demo", now=utcnow())
    stage.page.happened("scheduled", "monthly", f"{schedule_id}  from {today}")
    for row in _events_about(stage, schedule_id, 1):
        stage.follow(row.id)
    invoice = _only_invoice(stage.configuration)
    for row in _events_about(stage, invoice["id"], 3):
        stage.follow(row.id)
    refused = [sent for sent in stage.sent if sent.status not in {202, 200}]
    if refused:
        raise Missing("received", f"a webhook of the sandbox was not answered 202: {refused[0]}")
    money = f"{invoice['total']} {invoice['currency']}"
    stage.page.happened("issued", invoice["invoice_number"], f"{invoice['id']}  {money}, {invoice['status']}")
    return str(invoice["id"])


def _events_about(stage: Stage, object_id: str, count: int) -> list[AnyRow]:
    def enough() -> list[AnyRow] | None:
        stage.witness.look()
        rows = stage.witness.events(object_id)
        return rows if len(rows) >= count else None

    return stage.stack.wait("received", f"{count} events about {object_id}", enough)


def _only_invoice(configuration: Configuration) -> dict[str, Any]:
    """The schedule's invoice as the sandbox has it. Raises Missing where there is not exactly one that was sent."""
    with _hisab(configuration) as hisab:
        invoices: list[dict[str, Any]] = list(hisab.invoices.list(customer_id=CUSTOMER))
    if [invoice["status"] for invoice in invoices] != ["sent"]:
        raise Missing("issued", f"not one invoice that is sent, but {[invoice['status'] for invoice in invoices]}")
    return invoices[0]


def watch(stage: Stage) -> None:
    """Go on showing what happens. Ends by an exception only: Ctrl-C, or Missing where a process has ended."""
    while True:
        stage.stack.check()
        try:
            stage.witness.look()
        except Missing as missing:
            stage.page.missing(missing)
        time.sleep(LOOK)
