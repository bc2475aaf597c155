"""The client of Hisab's REST API (https://hisab.ma/api/v1).

    with HisabClient(api_key="hisab_live_…") as hisab:
        draft = hisab.invoices.create(customer_id="cus_2b81fe", issue_date="2026-06-05", items=[
            {"description": "Integration services", "quantity": 8, "unit_price": Decimal("1300.00")},
        ])
        hisab.invoices.finalize(draft["id"])

Resources are returned as the API sends them: dicts in which money is a decimal string. Errors are ProviderError
with Hisab's code, and ProviderUnavailable where the same call may succeed later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from handlers.errors import ProviderError
from handlers.providers.http import RestClient, bad_answer, error_of

DEFAULT_API_URL = "https://hisab.ma/api/v1"
PAGE_SIZE = 100
"""The most that a list endpoint gives at once."""

Resource = dict[str, Any]


class HisabClient:
    """Calls are grouped by resource: `client.invoices`, `client.customers`. Close it, or use it in `with`."""

    def __init__(
        self, *, api_key: str, api_url: str = DEFAULT_API_URL, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._rest = RestClient(api_url, {"Authorization": f"Bearer {api_key}"}, transport=transport)
        self.invoices = Invoices(self._rest)
        self.customers = Customers(self._rest)

    def close(self) -> None:
        self._rest.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Invoices:
    """draft → finalized → sent → paid, or void from finalized and sent."""

    def __init__(self, rest: RestClient) -> None:
        self._rest = rest

    def create(
        self,
        *,
        customer_id: str,
        issue_date: date | str,
        items: Sequence[Mapping[str, Any]],
        due_date: date | str | None = None,
        currency: str | None = None,
        payment_terms: str | None = None,
        notes: str | None = None,
        internal_notes: str | None = None,
    ) -> Resource:
        """Create a draft. An item is `{description, quantity, unit_price, tax_rate?}` with numbers as int or Decimal.

        Hisab has no idempotency key: after NO_ANSWER, look for the draft with `list` before creating it again.
        Raises TypeError, before anything is sent, on a float: it is not the number that was meant.
        """
        body = {
            "customer_id": customer_id,
            "issue_date": issue_date,
            "due_date": due_date,
            "currency": currency,
            "payment_terms": payment_terms,
            "notes": notes,
            "internal_notes": internal_notes,
            "items": [_without_floats(item) for item in items],
        }
        return self._post("/invoices", body)

    def get(self, invoice_id: str) -> Resource:
        return _resource(self._rest.request("GET", _path(invoice_id)))

    def list(
        self,
        *,
        customer_id: str | None = None,
        status: str | None = None,
        date_from: date | str | None = None,
        date_to: date | str | None = None,
        order: str | None = None,
    ) -> Iterator[Resource]:
        """Every invoice that the filters select (dates are issue dates), newest first, fetched page by page.

        An invoice created meanwhile shifts the pages: one may come twice, none is left out. To find one again:
        `next((i for i in invoices.list(customer_id=…) if marker in (i.get("internal_notes") or "")), None)`.
        """
        filters = {
            "customer_id": customer_id,
            "status": status,
            "date_from": date_from,
            "date_to": date_to,
            "order": order,
            "per_page": PAGE_SIZE,
        }
        page = 0
        while True:
            page += 1
            items, pages = _page(self._rest.request("GET", "/invoices", params={**filters, "page": page}))
            yield from items
            if page >= pages:
                return

    def finalize(self, invoice_id: str) -> Resource:
        """Give a draft its official number and lock it. Refused with INVOICE_NOT_DRAFT."""
        return self._post(_path(invoice_id, "finalize"))

    def send(self, invoice_id: str) -> Resource:
        """Record that a finalized invoice was delivered. Refused with INVALID_STATUS_TRANSITION."""
        return self._post(_path(invoice_id, "send"))

    def pay(
        self,
        invoice_id: str,
        *,
        paid_at: str | None = None,
        payment_method: str | None = None,
        payment_reference: str | None = None,
    ) -> Resource:
        """Record a payment; `paid_at` is ISO 8601. Refused with INVALID_STATUS_TRANSITION."""
        body = {"paid_at": paid_at, "payment_method": payment_method, "payment_reference": payment_reference}
        return self._post(_path(invoice_id, "pay"), body)

    def void(self, invoice_id: str, *, reason: str) -> Resource:
        """Cancel a finalized invoice. Refused with CANNOT_VOID_PAID or ALREADY_VOIDED."""
        return self._post(_path(invoice_id, "void"), {"reason": reason})

    def pdf(self, invoice_id: str, *, locale: str = "fr") -> bytes:
        """The PDF in `fr`, `en` or `ar`. Refused with PDF_NOT_AVAILABLE while the invoice is a draft."""
        return self._rest.download(_path(invoice_id, "pdf"), params={"locale": locale})

    def _post(self, path: str, body: Mapping[str, Any] | None = None) -> Resource:
        given = None if body is None else {name: value for name, value in body.items() if value is not None}
        return _resource(self._rest.request("POST", path, json=given))


class Customers:
    def __init__(self, rest: RestClient) -> None:
        self._rest = rest

    def get(self, customer_id: str) -> Resource:
        return _resource(self._rest.request("GET", f"/customers/{_segment(customer_id)}"))


def _path(invoice_id: str, *verb: str) -> str:
    return "/".join(("/invoices", _segment(invoice_id), *verb))


def _segment(value: str) -> str:
    """An id as one segment of a path. Raises ValueError where it would address something else."""
    if value in {"", ".", ".."}:
        raise ValueError("the id is empty or not an id")
    return quote(value, safe="")


def _without_floats(item: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in item.items():
        if isinstance(value, float):
            raise TypeError(f"{name} is a float; write Decimal({str(value)!r})")
    return item


def _envelope(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise bad_answer("it is not an envelope")
    if answer.get("success") is not True:
        refusal = error_of(answer)
        raise ProviderError(*refusal, status=200) if refusal else bad_answer("it is not an envelope")
    return answer


def _resource(answer: Any) -> Resource:
    data = _envelope(answer).get("data")
    if not isinstance(data, dict):
        raise bad_answer("data is not an object")
    return data


def _page(answer: Any) -> tuple[Sequence[Resource], int]:
    """The items of a page, and how many pages there are."""
    envelope = _envelope(answer)
    items, meta = envelope.get("data"), envelope.get("meta")
    pagination = meta.get("pagination") if isinstance(meta, dict) else None
    if not isinstance(items, list) or not isinstance(pagination, dict):
        raise bad_answer("it is not a page of a list")
    pages = pagination.get("totalPages", pagination.get("total_pages"))  # the reference; the SDK
    if not isinstance(pages, int) or not all(isinstance(item, dict) for item in items):
        # Without the number of pages an invoice could be missed, and then be created twice.
        raise bad_answer("it is not a page of a list")
    return items, pages
