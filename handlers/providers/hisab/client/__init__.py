"""The client of Hisab's REST API (https://hisab.ma/api/v1): every endpoint of its reference.

    with HisabClient(api_key="hisab_live_…") as hisab:
        draft = hisab.invoices.create(customer_id="cus_2b81fe", issue_date="2026-06-05", items=[
            {"description": "Integration services", "quantity": 8, "unit_price": Decimal("1300.00")},
        ])
        hisab.invoices.finalize(draft["id"])

Resources are returned as the API sends them: dicts in which money is a decimal string. Errors are ProviderError
with Hisab's code (`models.ERROR_CODES`), ProviderUnavailable where the same call may succeed later, and
InvalidRequest where the reference forbids the call: then nothing was sent.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import httpx

from handlers.providers.hisab.client.checks import InvalidRequest
from handlers.providers.hisab.client.customers import Customers
from handlers.providers.hisab.client.envelope import Page, Resource
from handlers.providers.hisab.client.invoices import Invoices
from handlers.providers.hisab.client.organizations import Organization, Organizations
from handlers.providers.hisab.client.recurring_invoices import RecurringInvoices
from handlers.providers.http import RateLimit, RestClient

__all__ = ["DEFAULT_API_URL", "HisabClient", "InvalidRequest", "Page", "RateLimit", "Resource"]

DEFAULT_API_URL = "https://hisab.ma/api/v1"
ORGANIZATION_HEADER = "X-Organization-Id"


class HisabClient:
    """Calls are grouped by resource: `client.invoices`, `client.customers`. Close it, or use it in `with`.

    What is safe to repeat is repeated, with waits of at most `max_wait` seconds, `retries` times, within `deadline`
    seconds in all: calls that only read and the update of a schedule after a failure, and every call after a 429.
    With `max_wait=0` nothing sleeps. Safe to share between threads.
    """

    def __init__(
        self,
        *,
        api_key: str,
        api_url: str = DEFAULT_API_URL,
        organization_id: str | None = None,
        max_wait: float = 60.0,
        deadline: float = 90.0,
        retries: int = 2,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`organization_id`: the entity to act for, with the key of an account (`hisab_acct_…`)."""
        entity = {} if organization_id is None else {ORGANIZATION_HEADER: organization_id}
        rest = RestClient(
            api_url,
            {"Authorization": f"Bearer {api_key}", **entity},
            max_wait=max_wait,
            deadline=deadline,
            retries=retries,
            transport=transport,
            sleep=sleep,
            clock=clock,
        )
        self._use(rest)

    def for_organization(self, organization_id: str) -> HisabClient:
        """A client that acts for an entity of the account, over the connections of this one, which closes them."""
        client = copy.copy(self)
        client._use(self._rest.with_headers({ORGANIZATION_HEADER: organization_id}))
        return client

    @property
    def rate_limit(self) -> RateLimit | None:
        """Calls allowed and left to this key, as the last answer told; None before the first."""
        return self._rest.rate_limit

    def close(self) -> None:
        self._rest.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _use(self, rest: RestClient) -> None:
        self._rest = rest
        self.invoices = Invoices(rest)
        self.customers = Customers(rest)
        self.recurring_invoices = RecurringInvoices(rest)
        self.organization = Organization(rest)
        self.organizations = Organizations(rest)
