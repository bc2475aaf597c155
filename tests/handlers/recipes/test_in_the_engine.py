"""All recipes in a whole Billhook of real processes, between the sandboxes of Hisab and Hesabe."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from handlers.providers.hesabe.client import HesabeClient
from handlers.providers.hesabe.models import InvoiceSubType, InvoiceType, PaymentType, SingleInvoice
from handlers.providers.hesabe.sandbox import create_app as hesabe_sandbox
from handlers.providers.hisab.client import HisabClient
from handlers.providers.hisab.sandbox import create_app as hisab_sandbox
from tests.acceptance.stack import SECRET, Sink, Stack, await_
from tests.handlers.providers.hesabe.server import API_KEY
from tests.handlers.providers.sandbox.served import serving
from tests.handlers.recipes.conftest import RECIPES
from tests.handlers.recipes.crm import Crm, serving_crm

WORD = "a-long-random-word-of-the-source"
LONG_AGO = (datetime.now(UTC) - timedelta(days=60)).date()


class Business:
    """Billhook with all recipes, what is around it, and the clients of the two providers."""

    def __init__(self, folder: Path) -> None:
        self.stack = Stack(folder, {})
        self.sink = Sink()
        self.ledger, self.queue = folder / "ledger.db", folder / "queue"

    def begin(self, crm: Crm, hisab_url: str, hesabe_url: str) -> None:
        shop = {"provider": "hisab", "secrets": [SECRET], "api_key": "hisab_live_***", "api_url": f"{hisab_url}/api/v1"}
        pay = {"provider": "hesabe", "secrets": [WORD], "api_key": API_KEY, "api_url": hesabe_url}
        self.stack.environment |= {
            "BILLHOOK_SOURCES": json.dumps({"shop": shop, "pay": pay}),
            "BILLHOOK_HANDLERS": ",".join(f"handlers.recipes.{recipe}" for recipe in RECIPES),
            "LEDGER_FILE": str(self.ledger),
            "QUEUE_FOLDER": str(self.queue),
            "CRM_URL": crm.url,
            "NO_PROXY": "127.0.0.1",
        }
        assert self.stack.run("check").returncode == 0
        assert self.stack.run("endpoints", "add", self.sink.url).returncode == 0
        self.stack.start("serve", "work", "beat")

    def sent(self) -> list[dict[str, Any]]:
        """What the endpoint got so far."""
        return [json.loads(body) for _, body in self.sink.received]

    def gets(self, **counts: int) -> list[dict[str, Any]]:
        """Wait until the endpoint has so many messages of each type (dots as _); all it has."""
        wanted = Counter({name.replace("_", "."): count for name, count in counts.items()})
        await_(lambda: Counter(message["type"] for message in self.sent()) >= wanted, f"{wanted} at the endpoint")
        return self.sent()


@pytest.fixture
def business(tmp_path: Path) -> Iterator[tuple[Business, HisabClient, HesabeClient, Crm]]:
    business = Business(tmp_path)
    url = f"{business.stack.url}/webhooks"
    with (
        serving_crm() as crm,
        serving(hisab_sandbox(webhook_url=f"{url}/shop", secret=SECRET, rate_limit=10_000)) as hisab_url,
        serving(hesabe_sandbox()) as hesabe_url,
        HisabClient(api_key="hisab_live_***", api_url=f"{hisab_url}/api/v1") as hisab,
        HesabeClient(api_key=API_KEY, api_url=hesabe_url) as hesabe,
    ):
        business.begin(crm, hisab_url, hesabe_url)
        try:
            yield business, hisab, hesabe, crm
        finally:
            business.stack.stop()
            business.sink.server_close()


def test_the_recipes_do_in_the_engine_what_they_say(
    business: tuple[Business, HisabClient, HesabeClient, Crm],
) -> None:
    here, hisab, hesabe, crm = business

    customer = hisab.customers.create(name="MERIT Sarl", type="b2c", email="finance@example.ma")
    item = {"description": "Service", "quantity": 1, "unit_price": 20, "tax_rate": 0}
    draft = hisab.invoices.create(
        customer_id=customer["id"], issue_date=LONG_AGO, due_date=LONG_AGO, currency="KWD", items=[item]
    )
    hisab.invoices.finalize(draft["id"])
    invoice = hisab.invoices.send(draft["id"])

    # It was due so long ago that the day of each reminder has come.
    messages = here.gets(invoice_reminder=3)
    assert sorted(message["data"]["reminder"] for message in messages) == ["first", "last", "second"]

    asked = hesabe.invoices.create(
        SingleInvoice(
            mobile_number="66666666",
            customer_name="TEST",
            reference_number=invoice["invoice_number"],
            amount="20.000",
            invoice_type=InvoiceType.SMS,
            invoice_sub_type=InvoiceSubType.URL,
            payment_types=[PaymentType.KNET],
            expires_at=(datetime.now(UTC) + timedelta(days=9)).date().isoformat(),
            webhook=f"{here.stack.url}/webhooks/pay/{WORD}",
        )
    )
    httpx.post(asked["url"], data={"outcome": "pay"}, follow_redirects=True, trust_env=False).raise_for_status()

    # The payment settles the invoice, of which Hisab tells in turn.
    here.gets(invoice_reminder=3, payment_matched=1, receipt_issued=1)
    await_(lambda: here.stack.events("processed") == here.stack.events(), "everything is handled")
    assert hisab.invoices.get(invoice["id"])["status"] == "paid"
    assert Counter(message["type"] for message in here.sent()) == {
        "invoice.reminder": 3,
        "payment.matched": 1,
        "receipt.issued": 1,
    }
    assert [customer["name"] for customer in crm.customers.values()] == ["MERIT Sarl"]
    with closing(sqlite3.connect(here.ledger)) as ledger:
        assert ledger.execute("SELECT invoice, amount FROM entries").fetchall() == [(invoice["id"], "20.00")]
    queued = [json.loads(file.read_bytes())["type"] for file in here.queue.glob("*.json")]
    assert sorted(queued) == ["invoice.created", "invoice.finalized", "invoice.paid", "invoice.sent"]
    assert here.stack.balance().holds
