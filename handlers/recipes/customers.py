"""Customers are kept the same in another system, over its HTTP API: here a CRM, at `CRM_URL`."""

from __future__ import annotations

import os
from urllib.parse import quote

import httpx

from handlers import Context, Discard, Event, Retry, on

CRM_URL = os.environ.get("CRM_URL", "http://127.0.0.1:9000")


@on("customer.*", ordered=True)
def sync_customer(event: Event, ctx: Context) -> None:
    """`ordered`: of one customer never two at a time, and what waits goes in the order in which it happened.

    An event may still arrive when a newer one was handled already; `is_stale` says so. A call that is repeated
    leaves the CRM as it is: PUT and DELETE name the customer by its id.
    """
    if ctx.is_stale:
        raise Discard("the CRM has a newer state of this customer")
    customer = event.customer
    url = f"{CRM_URL}/customers/{quote(customer.id, safe='')}"
    if event.type == "customer.deleted":
        answer = httpx.delete(url, timeout=10)
    else:
        state = {"name": customer.name, "email": customer.email, "tax_id": customer.tax_id}
        answer = httpx.put(url, json=state, timeout=10)
    if answer.status_code == 429:
        raise Retry("the CRM is over its limit", after=wait_asked(answer))
    if not (event.type == "customer.deleted" and answer.status_code == 404):
        answer.raise_for_status()  # any other failure is tried again after the handler's own backoff
    ctx.logger.info("the CRM was told", status=answer.status_code)


def wait_asked(answer: httpx.Response) -> float | None:
    """The seconds that an answer asks to wait; None, which is the handler's own backoff, where it does not say."""
    asked = answer.headers.get("retry-after", "")
    return float(asked) if asked.isascii() and asked.isdigit() else None
