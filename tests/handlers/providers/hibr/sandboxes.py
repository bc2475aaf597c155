"""The HIBR sandbox for tests: without a network, or on a real port."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx

from handlers.event import Event
from handlers.providers import PROVIDERS
from handlers.providers.hibr.sandbox import create_app
from handlers.providers.hibr.sandbox.seeds import API_KEY, CUSTOMER

SECRET = "the secret of the endpoint"
NOW = datetime(2026, 10, 15, 9, 32, 0, tzinfo=UTC).timestamp()  # a full minute
LINE = {"description": "Design", "quantity": 2, "unit_price": 250_000, "unit_price_currency": "AED"}
INVOICE = {"customer_id": CUSTOMER, "invoice_date": "2026-10-15", "lines": [LINE]}


class Sandbox:
    """The sandbox without a network: its webhooks have arrived when a call returns."""

    def __init__(self, *statuses: int, **options: Any) -> None:
        self.posted: list[httpx.Request] = []
        self.now = NOW
        self._statuses = list(statuses) or [200]
        settings: dict[str, Any] = {
            "webhooks": [("http://billhook.test/webhooks/hibr", SECRET)],
            "retry_delays": (),
            "rate_limit": 10_000,
        }
        self.app = create_app(
            **(settings | options), now=lambda: self.now, transport=httpx.MockTransport(self._receive)
        )

    def _receive(self, request: httpx.Request) -> httpx.Response:
        self.posted.append(request)
        return httpx.Response(self._statuses[min(len(self.posted), len(self._statuses)) - 1])

    def call(
        self,
        method: str,
        path: str,
        *,
        key: str | None = API_KEY,
        headers: dict[str, str] | None = None,
        **content: Any,
    ) -> httpx.Response:
        async def exchange() -> httpx.Response:
            async with self.client() as client:
                given = {} if key is None else {"Authorization": f"Bearer {key}"}
                wire = {name.encode(): value.encode("latin-1") for name, value in (given | (headers or {})).items()}
                return await client.request(method, path, headers=wire, **content)

        return asyncio.run(exchange())

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://sandbox.test")

    def made(self, resource: str, **fields: Any) -> Any:
        response = self.call("POST", f"/v1/{resource}", json=fields)
        assert response.status_code == 200, response.text
        return response.json()

    def invoice(self, status: str = "draft", **changes: Any) -> Any:
        """An invoice in this state, as it is then."""
        invoice = self.made("invoices", **(INVOICE | changes))
        steps = {"draft": [], "open": ["post"], "paid": ["post", "pay"], "void": ["post", "void"]}
        for action in steps[status]:
            assert self.act(invoice, action).status_code == 200
        found = self.call("GET", f"/v1/invoices/{invoice['id']}").json()
        assert found["status"] == status
        return found

    def act(self, record: Any, action: str, resource: str = "invoices") -> httpx.Response:
        return self.call("POST", f"/v1/{resource}/{record['id']}/{action}")

    def key(self, *scopes: str, **more: Any) -> str:
        return str(self.call("POST", "/sandbox/keys", json={"scopes": list(scopes), **more}).json()["key"])

    def events(self) -> list[Event]:
        """What was posted, as the receiver reads it."""
        return [read(request) for request in self.posted]


def read(request: httpx.Request, now: float = NOW) -> Event:
    """A delivery as the receiver reads it."""
    hibr = PROVIDERS["hibr"].inbound({"livemode": False})
    headers = [(name.lower(), value) for name, value in request.headers.raw]
    hibr.verify(headers, request.content, [SECRET.encode()], now)
    return hibr.parse(headers, request.content)


def refusal(response: httpx.Response) -> tuple[int, str, str | None]:
    """Status, code and field of a documented error."""
    error = response.json()["error"]
    assert list(error) == ["code", "message", "field", "docs_url", "request_id"]
    assert error["message"]
    assert error["docs_url"].startswith("https://hibr.ai/developers/api/")
    assert error["request_id"].startswith("req_")
    return response.status_code, error["code"], error["field"]


@contextlib.contextmanager
def receiving() -> Iterator[tuple[str, queue.Queue[httpx.Request]]]:
    """An endpoint for webhooks on a port of this machine: its address, and what arrives."""
    arrived: queue.Queue[httpx.Request] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            arrived.put(httpx.Request("POST", url, headers=list(self.headers.items()), content=body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_port}/webhooks/hibr"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield url, arrived
        finally:
            server.shutdown()
            thread.join(10)
