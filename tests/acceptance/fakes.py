"""Providers' sandboxes as processes of their own, and what schedules need to make invoices there.

Run as `python -m tests.acceptance.fakes PROVIDER PORT BEGINNING` it is such a process.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import httpx
import uvicorn

from handlers.providers import PROVIDERS
from handlers.providers.hesabe.client import HesabeClient
from handlers.providers.hesabe.models import InvoiceKind
from handlers.providers.hesabe.sandbox import seeds as hesabe_seeds
from handlers.providers.hibr.client import HibrClient
from handlers.providers.hibr.sandbox import seeds as hibr_seeds
from handlers.providers.hisab.client import HisabClient

UNLIMITED = 10**6
"""Calls a minute: what a limit does, the 429s that are switched on show."""


@dataclass(frozen=True)
class Made:
    """An invoice that the sandbox has: for which occurrence, its number, and whether it was issued and sent."""

    occurrence_id: str
    number: str
    issue_date: date | None
    sent: bool


class Fake(ABC):
    """A provider's sandbox at a port."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    @property
    @abstractmethod
    def source(self) -> dict[str, Any]:
        """The settings of the source."""

    @abstractmethod
    def customers(self, count: int) -> Sequence[dict[str, Any]]:
        """Fields of schedules for so many customers."""

    @abstractmethod
    def made(self) -> list[Made]:
        """All invoices that schedules made there."""

    def post(self, path: str, **body: Any) -> Any:
        """To the sandbox's own surface."""
        answer = httpx.post(f"{self.url}/sandbox{path}", json=body, trust_env=False, timeout=30)
        assert answer.is_success, answer.text
        return answer.json()


class Hisab(Fake):
    @property
    def source(self) -> dict[str, Any]:
        url = f"{self.url}/api/v1"
        return {"provider": "hisab", "api_key": "hisab_test_sandbox", "api_url": url, "timezone": "Africa/Casablanca"}

    def client(self) -> HisabClient:
        return HisabClient(api_key=self.source["api_key"], api_url=self.source["api_url"])

    def customers(self, count: int) -> Sequence[dict[str, Any]]:
        with self.client() as client:
            made = [client.customers.create(name=f"Customer {number}", type="b2c") for number in range(count)]
        return [{"customer_id": customer["id"]} for customer in made]

    def made(self) -> list[Made]:
        with self.client() as client:
            listed = list(client.invoices.list())
        return [
            Made(
                one["internal_notes"].removeprefix("billhook:"),
                one["invoice_number"].rpartition("-")[2],
                date.fromisoformat(one["issue_date"]),
                one["status"] == "sent",
            )
            for one in listed
        ]


class Hibr(Fake):
    @property
    def source(self) -> dict[str, Any]:
        return {"provider": "hibr", "api_key": hibr_seeds.API_KEY, "api_url": self.url, "timezone": "Asia/Dubai"}

    def customers(self, count: int) -> Sequence[dict[str, Any]]:
        return [{"customer_id": hibr_seeds.CUSTOMER, "currency": "AED"}] * count

    def made(self) -> list[Made]:
        with HibrClient(api_key=hibr_seeds.API_KEY, api_url=self.url) as client:
            listed = [one for one in client.invoices.list() if "reference" in one]
        return [
            Made(
                one["reference"].removeprefix("billhook:"),
                one["invoice_no"].rpartition("-")[2],
                date.fromisoformat(one["invoice_date"]),
                one["sent_at"] is not None,
            )
            for one in listed
        ]


class Hesabe(Fake):
    @property
    def source(self) -> dict[str, Any]:
        secret = "a-word-of-thirty-two-characters!".replace("!", "x")
        return {
            "provider": "hesabe",
            "secrets": [secret],
            "api_key": hesabe_seeds.API_KEY,
            "api_url": self.url,
            "timezone": "Asia/Kuwait",
        }

    def customers(self, count: int) -> Sequence[dict[str, Any]]:
        return [
            {
                "customer_id": f"customer-{number}",
                "currency": "KWD",
                "options": {
                    "mobile_number": f"6666{number:04d}",
                    "customer_name": f"Customer {number}",
                    "payment_types": ["1"],
                },
            }
            for number in range(count)
        ]

    def made(self) -> list[Made]:
        with HesabeClient(api_key=hesabe_seeds.API_KEY, api_url=self.url) as client:
            listed = list(
                client.invoices.list(
                    from_date=date(2020, 1, 1), to_date=date(2040, 1, 1), invoice_type=InvoiceKind.SINGLE
                )
            )
        # It has no date of issue, and no numbers but those that we give.
        return [
            Made(one["reference_number"].removeprefix("billhook:"), str(number), None, one["invoice_sub_type"] == 0)
            for number, one in enumerate(listed)
        ]


FAKES: dict[str, type[Fake]] = {"hisab": Hisab, "hibr": Hibr, "hesabe": Hesabe}


def main(name: str, port: str, beginning: str) -> None:
    """Serve a sandbox whose time begins at a date."""
    sandbox = PROVIDERS[name].sandbox
    assert sandbox is not None
    limits: dict[str, dict[str, Any]] = {
        "hisab": {"rate_limit": UNLIMITED},
        "hibr": {"rate_limit": UNLIMITED, "tier": "enterprise"},
        "hesabe": {},
    }
    app = sandbox(clock=datetime.fromisoformat(f"{beginning}T00:00:00+00:00"), **limits[name])
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", loop="uvloop", http="httptools")


if __name__ == "__main__":
    main(*sys.argv[1:])
