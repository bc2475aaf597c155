"""The sandbox on a real socket, called through the client."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers.hisab import PROVIDER
from handlers.providers.hisab.client import HisabClient
from handlers.providers.hisab.sandbox import create_app
from tests.handlers.providers.sandbox.served import receiving, serving

SECRET = "whsec_test_secret_key_123456"
KEY = "hisab_test_sandbox"
NOW = 1_780_668_000.0  # a full minute


def test_an_invoice_lives_through_the_client_and_its_webhooks_arrive_signed() -> None:
    item = {"description": "Integration services", "quantity": 8, "unit_price": Decimal("1300.00")}
    with (
        receiving() as sink,
        serving(create_app(webhook_url=sink.url, secret=SECRET), lifespan="off") as address,
        HisabClient(api_key=KEY, api_url=f"{address}/api/v1") as hisab,
    ):
        sink.answering.clear()  # the calls are not held up by that
        draft = hisab.invoices.create(
            customer_id="cus_2b81fe", issue_date="2026-06-05", items=[item], internal_notes="billhook occ_1"
        )
        hisab.invoices.finalize(draft["id"])
        hisab.invoices.send(draft["id"])
        paid = hisab.invoices.pay(draft["id"], payment_method="bank_transfer", payment_reference="VIR-20260605")
        found = [i for i in hisab.invoices.list(customer_id="cus_2b81fe") if "occ_1" in i["internal_notes"]]
        with pytest.raises(ProviderError) as refused:
            hisab.invoices.void(draft["id"], reason="Duplicate billing")
        pdf = hisab.invoices.pdf(draft["id"])
        customer = hisab.customers.get("cus_2b81fe")
        sink.answering.set()
        deliveries = sink.take(4)

    inbound = PROVIDER.inbound({})
    for one in deliveries:
        inbound.verify(one.wire, one.body, [inbound.key(SECRET)], time.time())
    events = [inbound.parse(one.wire, one.body) for one in deliveries]
    assert [event.type for event in events] == ["invoice.created", "invoice.finalized", "invoice.sent", "invoice.paid"]
    assert (paid["total"], paid["status"]) == ("12480.00", "paid")
    assert found == [paid]
    assert refused.value.code == "CANNOT_VOID_PAID"
    assert pdf.startswith(b"%PDF")
    assert (customer["name"], customer["ice"], customer["status"]) == (
        "Atlas Distribution SARL",
        "001987654000032",
        "active",
    )


def test_the_client_reads_all_pages_and_the_limit() -> None:
    app = create_app(
        webhook_url="http://127.0.0.1:1/", secret=SECRET, rate_limit=103, retry_delays=(), now=lambda: NOW + 40
    )
    item = {"description": "Hour", "quantity": 1, "unit_price": 100}
    invoice: dict[str, Any] = {"customer_id": "cus_2b81fe", "issue_date": "2026-06-05", "items": [item]}
    with (
        serving(app, lifespan="off") as address,
        HisabClient(api_key=KEY, api_url=f"{address}/api/v1", max_wait=0) as hisab,
    ):
        ids = [hisab.invoices.create(**invoice)["id"] for _ in range(101)]
        listed = [invoice["id"] for invoice in hisab.invoices.list(order="asc")]
        with pytest.raises(ProviderUnavailable) as refused:
            hisab.customers.get("cus_2b81fe")

    assert listed == ids
    assert (refused.value.code, refused.value.retry_after) == ("RATE_LIMIT_EXCEEDED", 20.0)
