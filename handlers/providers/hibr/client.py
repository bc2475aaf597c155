"""The client of HIBR's REST API (https://api.hibr.ai, version 2026-10-01).

    with HibrClient(api_key="hibr_test_…") as hibr:
        invoice = hibr.invoices.create(
            customer_id="cust_01HFQA9XTRP3K2Q5HW7Z3V8YJN",
            invoice_date=date(2026, 10, 15),
            lines=[{"description": "Design", "quantity": 1, "unit_price": to_minor("5250.00", "AED"),
                    "unit_price_currency": "AED"}],
        )
        hibr.invoices.action(invoice["id"], "post")
        for paid in hibr.invoices.list({"status": "paid", "invoice_date.gte": date(2026, 1, 1)}):
            print(paid["invoice_no"], to_amount(paid["total"], paid["total_currency"]))

Records are returned as the API sends them. The fields of most resources are not published; those above beside
`customer_id`, `invoice_date`, `invoice_no`, `status` and `lines[].unit_price` are assumed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import httpx

from handlers.providers.hibr.failures import failure
from handlers.providers.hibr.network import API_URL, api_address, tls_transport
from handlers.providers.hibr.resources import Resource
from handlers.providers.http import RateLimit, RestClient

VERSION = "2026-10-01"
"""The API version that is asked for in each request: the first one."""

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class HibrClient:
    """The resources of one HIBR account: `client.invoices`, `client.customers`, … Close it, or use it in `with`.

    The reference counts 16 resources without a list: 14 follow from the prefixes of ids and are attributes here
    (`handlers.providers.hibr.models.RESOURCES`), and `client.resource("…")` reaches any other.
    """

    def __init__(
        self,
        *,
        api_key: str,
        api_url: str | None = None,
        version: str = VERSION,
        max_wait: float = 60.0,
        deadline: float = 90.0,
        retries: int = 2,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`api_key` is a key (`hibr_live_…`, `hibr_test_…`) or an OAuth access token; it never appears in any text.

        Without `api_url` a test key goes to the sandbox and anything else to production. A call is repeated up to
        `retries` times, where that is safe, after waits of `max_wait` seconds at most and within `deadline` seconds.
        Raises ValueError on a key that cannot be sent, an address without TLS that is not this machine's, a key for
        the other environment, or a version that is no date.
        """
        if not api_key:
            raise ValueError("api_key is empty")
        if _DATE.fullmatch(version) is None:
            raise ValueError(f"a version is a date, such as {VERSION}, not {version!r}")
        url = api_address(api_key, api_url)
        self._version = version
        self._rest = RestClient(
            url,
            {"Authorization": f"Bearer {api_key}", "Hibr-Version": version},
            failure=failure,
            max_wait=max_wait,
            deadline=deadline,
            retries=retries,
            transport=tls_transport() if transport is None else transport,
            sleep=sleep,
            clock=clock,
        )
        self._url = url
        self.customers = self.resource("customers")
        self.suppliers = self.resource("suppliers")
        self.invoices = self.resource("invoices")
        self.bills = self.resource("bills")
        self.credit_notes = self.resource("credit_notes")
        self.payments = self.resource("payments")
        self.journal_entries = self.resource("journal_entries")
        self.items = self.resource("items")
        self.accounts = self.resource("accounts")
        self.employees = self.resource("employees")
        self.vat_returns = self.resource("vat_returns")
        self.corporate_tax_returns = self.resource("corporate_tax_returns")
        self.payroll_runs = self.resource("payroll_runs")
        self.webhook_endpoints = self.resource("webhook_endpoints")

    @property
    def livemode(self) -> bool:
        """Whether it calls production."""
        return self._url == API_URL

    def resource(self, name: str) -> Resource:
        """The resource at `/v1/{name}`. Raises ValueError on what is no name in a path."""
        return Resource(self._rest, name)

    @property
    def rate_limit(self) -> RateLimit | None:
        """What the last answer said of the key's limit (calls a minute, by tier: 60, 300, 1,500; sandbox 30).

        The number of calls under way at once is limited too (5, 20, 50; sandbox 3), and not reported.
        """
        return self._rest.rate_limit

    def close(self) -> None:
        self._rest.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<HibrClient of {self._url}, version {self._version}>"
