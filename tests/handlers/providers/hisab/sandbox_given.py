"""The Hisab sandbox for a test: without a network, its webhooks have arrived when a call returns."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from handlers.event import Event
from handlers.providers.hisab import PROVIDER
from handlers.providers.hisab.sandbox import create_app

SECRET = "whsec_test_secret_key_123456"
URL = "http://billhook.test/webhooks/hisab"
KEY = "hisab_live_***"
ACCOUNT_KEY = "hisab_acct_***"
ORGANIZATION = "org_4d11a7"
NOW = 1_780_668_000.0  # 2026-06-05T14:00:00Z
ITEM = {"description": "Integration services", "quantity": 8, "unit_price": 1300, "tax_rate": 20}
INVOICE = {"customer_id": "cus_2b81fe", "issue_date": "2026-06-05", "items": [ITEM]}
SCHEDULE = {
    "customer_id": "cus_2b81fe",
    "frequency": "monthly",
    "start_date": "2026-07-01",
    "items": [{"description": "Monthly retainer", "quantity": 1, "unit_price": 10400, "tax_rate": 20}],
}
VERBS = {"draft": (), "finalized": ("finalize",), "sent": ("finalize", "send"), "paid": ("finalize", "pay")}


class Sandbox:
    """`posted` are the webhooks; each is answered with the next of `statuses`, the last one for good, 0 is a break."""

    def __init__(self, *statuses: int, **options: Any) -> None:
        self.posted: list[httpx.Request] = []
        self.now = NOW
        self._statuses = list(statuses) or [202]
        settings = {"webhook_url": URL, "secret": SECRET, "retry_delays": ()}
        self.app = create_app(
            **(settings | options), now=lambda: self.now, transport=httpx.MockTransport(self._receive)
        )

    def _receive(self, request: httpx.Request) -> httpx.Response:
        self.posted.append(request)
        status = self._statuses[min(len(self.posted), len(self._statuses)) - 1]
        if status == 0:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(status)

    def call(
        self, method: str, path: str, *, key: str = KEY, organization: str | None = None, **content: Any
    ) -> httpx.Response:
        """A call to the API; `path` is under /api/v1, unless it begins with /sandbox."""

        async def exchange() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://sandbox.test") as c:
                headers = {"Authorization": f"Bearer {key}"}
                if organization is not None:
                    headers["X-Organization-Id"] = organization
                return await c.request(method, where, headers=headers, **content)

        where = path if path.startswith("/sandbox") else f"/api/v1{path}"
        return asyncio.run(exchange())

    def done(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        """What a call that succeeds is answered."""
        response = self.call(method, path, **content)
        assert response.is_success, response.text
        answer: dict[str, Any] = response.json()
        return answer if path.startswith("/sandbox") else answer["data"]

    def listed(self, path: str, **content: Any) -> list[dict[str, Any]]:
        """What a list answers."""
        response = self.call("GET", path, **content)
        assert response.is_success, response.text
        found: list[dict[str, Any]] = response.json()["data"]
        return found

    def create(self, **changes: Any) -> str:
        return str(self.done("POST", "/invoices", json=INVOICE | changes)["id"])

    def in_status(self, status: str) -> str:
        invoice_id = self.create()
        for verb in VERBS.get(status, ("finalize", "void")):
            self.call("POST", f"/invoices/{invoice_id}/{verb}", json={"reason": "Duplicate billing"})
        assert self.done("GET", f"/invoices/{invoice_id}")["status"] == status
        return invoice_id

    def schedule(self, **changes: Any) -> str:
        return str(self.done("POST", "/recurring-invoices", json=SCHEDULE | changes)["id"])

    def switch(self, organization: str = ORGANIZATION, **switches: Any) -> None:
        self.done("POST", f"/sandbox/organizations/{organization}", json=switches)

    def key(self, **options: Any) -> str:
        return str(self.done("POST", "/sandbox/keys", json=options)["key"])

    def go_to(self, moment: str) -> None:
        self.done("POST", "/sandbox/clock", json={"to": moment})

    def events(self) -> list[Event]:
        """What was posted, as the receiver would read it."""
        return [received(request) for request in self.posted]


def received(request: httpx.Request, now: float = NOW) -> Event:
    """A webhook, after its signature was checked at `now`."""
    headers = [(name.lower(), value) for name, value in request.headers.raw]
    inbound = PROVIDER.inbound({})
    inbound.verify(headers, request.content, [inbound.key(SECRET)], now)
    return inbound.parse(headers, request.content)


def refusal(response: httpx.Response) -> tuple[int, str]:
    document = response.json()
    assert document["success"] is False
    assert document["error"]["message"]
    return response.status_code, document["error"]["code"]


def fields(response: httpx.Response) -> list[str]:
    """The fields that a VALIDATION_ERROR names."""
    assert refusal(response) == (400, "VALIDATION_ERROR"), response.text
    assert all(detail["message"] for detail in response.json()["error"]["details"])
    return [detail["field"] for detail in response.json()["error"]["details"]]
