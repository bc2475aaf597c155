"""Hisab's recurring invoices: schedules that Hisab itself generates invoices by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Unpack

from handlers.providers.hisab.client.checks import body, field, items_of, one_of
from handlers.providers.hisab.client.envelope import Page, Resource, pages, resource, resource_if_any, resources
from handlers.providers.hisab.models import (
    MAX_PER_PAGE,
    Day,
    InvoiceItemChanges,
    NewRecurringInvoice,
    RecurringInvoiceChanges,
    RecurringInvoiceFilter,
    RecurringStatus,
)
from handlers.providers.http import RestClient, segment

_COLLECTION = "/recurring-invoices"


class RecurringInvoices:
    """`/recurring-invoices`: active ⇄ paused, then completed or cancelled, which change no more.

    Every method raises ProviderError, and before anything is sent InvalidRequest, which is one too. The reference
    asks for the scopes invoices:read and invoices:write. (Hisab API reference, Recurring invoices)
    """

    def __init__(self, rest: RestClient) -> None:
        self._rest = rest

    def create(self, **schedule: Unpack[NewRecurringInvoice]) -> Resource:
        """Create a schedule. Refused with QUOTA_EXCEEDED."""
        return resource(self._rest.request("POST", _COLLECTION, json=body(NewRecurringInvoice, schedule)))

    def get(self, schedule_id: str) -> Resource:
        """The schedule with its latest runs."""
        return resource(self._rest.request("GET", _path(schedule_id)))

    def list(self, **filters: Unpack[RecurringInvoiceFilter]) -> Iterator[Resource]:
        """Every schedule that the filters select, newest first, fetched page by page."""
        return (schedule for page in self.pages(**filters) for schedule in page.items)

    def pages(self, **filters: Unpack[RecurringInvoiceFilter]) -> Iterator[Page]:
        """The same by pages, from `page` on, `per_page` (at most, and by default, 100) on each."""
        given = body(RecurringInvoiceFilter, filters, status=one_of(RecurringStatus))
        return pages(self._rest, _COLLECTION, {"per_page": MAX_PER_PAGE, **given})

    def update(self, schedule_id: str, **changes: Unpack[RecurringInvoiceChanges]) -> Resource:
        """Change an active or paused schedule, only the fields given; None clears one, `items` replaces all items.

        Refused with INVALID_STATE once it is completed or cancelled.
        """
        given = body(RecurringInvoiceChanges, changes, nulls=True, items=items_of(InvoiceItemChanges))
        return resource(self._rest.request("PUT", _path(schedule_id), json=given, safe=True))

    def delete(self, schedule_id: str) -> None:
        """Remove a schedule and its history; what it generated stays."""
        resource_if_any(self._rest.request("DELETE", _path(schedule_id)))

    def generate(self, schedule_id: str, *, issue_date: Day | None = None) -> Resource:
        """Make the next invoice now, dated today or `issue_date`. Refused with INVALID_STATE or CUSTOMER_INACTIVE.

        As with a draft, look for the invoice after NO_ANSWER before making it again.
        """
        given = {} if issue_date is None else {"issue_date": field("issue_date", issue_date)}
        return resource(self._rest.request("POST", _path(schedule_id, "generate"), json=given or None))

    def history(self, schedule_id: str, *, limit: int | None = None) -> Sequence[Resource]:
        """The latest runs with the numbers of their invoices: `limit` (1 to 100) of them, 20 by default."""
        params = {} if limit is None else {"limit": field("limit", limit)}
        return resources(self._rest.request("GET", _path(schedule_id, "history"), params=params))

    def pause(self, schedule_id: str) -> Resource:
        """Generate nothing until the schedule is resumed. Refused with INVALID_STATE."""
        return resource(self._rest.request("POST", _path(schedule_id, "pause")))

    def resume(self, schedule_id: str, *, next_run_date: Day | None = None) -> Resource:
        """Generate again, from `next_run_date` on where it is given. Refused with INVALID_STATE."""
        given = {} if next_run_date is None else {"next_run_date": field("next_run_date", next_run_date)}
        return resource(self._rest.request("POST", _path(schedule_id, "resume"), json=given or None))


def _path(schedule_id: str, *verb: str) -> str:
    return "/".join((_COLLECTION, segment(schedule_id), *verb))
