"""The sandbox on a real socket, called through the client."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers.hisab import PROVIDER
from handlers.providers.hisab.client import HisabClient
from handlers.providers.hisab.sandbox import create_app

SECRET = "whsec_test_secret_key_123456"
KEY = "hisab_test_sandbox"
NOW = 1_780_668_000.0  # a full minute


@contextlib.contextmanager
def serving(app: Starlette) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


Arrived = tuple[list[tuple[bytes, bytes]], bytes]


@contextlib.contextmanager
def receiving() -> Iterator[tuple[str, queue.Queue[Arrived], threading.Event]]:
    """An endpoint that keeps what arrives, and answers while the event is set."""
    arrived: queue.Queue[Arrived] = queue.Queue()
    answering = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            arrived.put(([(name.lower().encode(), value.encode()) for name, value in self.headers.items()], body))
            answering.wait(10)
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/webhooks/hisab", arrived, answering
        finally:
            answering.set()
            server.shutdown()
            thread.join(10)


def test_an_invoice_lives_through_the_client_and_its_webhooks_arrive_signed() -> None:
    item = {"description": "Integration services", "quantity": 8, "unit_price": Decimal("1300.00")}
    with (
        receiving() as (url, arrived, answering),
        serving(create_app(webhook_url=url, secret=SECRET)) as api_url,
        HisabClient(api_key=KEY, api_url=api_url) as hisab,
    ):
        # the endpoint does not answer yet; the calls are not held up by that
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
        answering.set()
        deliveries = [arrived.get(timeout=10) for _ in range(4)]

    for headers, body in deliveries:
        PROVIDER.verify(headers, body, [SECRET.encode()], time.time())
    events = [PROVIDER.parse(headers, body) for headers, body in deliveries]
    assert [event.type for event in events] == ["invoice.created", "invoice.finalized", "invoice.sent", "invoice.paid"]
    assert (paid["total"], paid["status"]) == ("12480.00", "paid")
    assert found == [paid]
    assert refused.value.code == "CANNOT_VOID_PAID"
    assert pdf.startswith(b"%PDF")
    assert (customer["name"], customer["ice"], customer["status"]) == ("MERIT Sarl", "001234567000089", "active")


def test_the_client_reads_all_pages_and_the_limit() -> None:
    app = create_app(
        webhook_url="http://127.0.0.1:1/", secret=SECRET, rate_limit=103, retry_delays=(), now=lambda: NOW + 40
    )
    item = {"description": "Hour", "quantity": 1, "unit_price": 100}
    invoice: dict[str, Any] = {"customer_id": "cus_2b81fe", "issue_date": "2026-06-05", "items": [item]}
    with serving(app) as api_url, HisabClient(api_key=KEY, api_url=api_url) as hisab:
        ids = [hisab.invoices.create(**invoice)["id"] for _ in range(101)]
        listed = [invoice["id"] for invoice in hisab.invoices.list(order="asc")]
        with pytest.raises(ProviderUnavailable) as refused:
            hisab.customers.get("cus_2b81fe")

    assert listed == ids
    assert (refused.value.code, refused.value.retry_after) == ("RATE_LIMIT_EXCEEDED", 20.0)
