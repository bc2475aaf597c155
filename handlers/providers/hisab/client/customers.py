"""Hisab's customers, businesses (b2b) and persons (b2c), with their Moroccan identifiers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

from handlers.providers.hisab.client.checks import body, one_of
from handlers.providers.hisab.client.envelope import Page, Resource, pages, resource, resource_if_any
from handlers.providers.hisab.models import (
    MAX_PER_PAGE,
    CustomerChanges,
    CustomerFilter,
    CustomerStatus,
    NewCustomer,
)
from handlers.providers.http import RestClient, segment


class Customers:
    """`/customers`. Every method raises ProviderError, and before anything is sent InvalidRequest, which is one too.

    (Hisab API reference, Customers)
    """

    def __init__(self, rest: RestClient) -> None:
        self._rest = rest

    def create(self, **customer: Unpack[NewCustomer]) -> Resource:
        """Create a customer; an ICE that another one of the organization has is refused.

        Scope customers:write, event customer.created.
        """
        return resource(self._rest.request("POST", "/customers", json=body(NewCustomer, customer)))

    def get(self, customer_id: str) -> Resource:
        """The customer with contact and address. Scope customers:read."""
        return resource(self._rest.request("GET", _path(customer_id)))

    def list(self, **filters: Unpack[CustomerFilter]) -> Iterator[Resource]:
        """Every customer that the filters select, newest first, fetched page by page. Scope customers:read."""
        return (customer for page in self.pages(**filters) for customer in page.items)

    def pages(self, **filters: Unpack[CustomerFilter]) -> Iterator[Page]:
        """The same by pages, from `page` on, `per_page` (at most, and by default, 100) on each."""
        given = body(CustomerFilter, filters, status=one_of(CustomerStatus))
        return pages(self._rest, "/customers", {"per_page": MAX_PER_PAGE, **given})

    def update(self, customer_id: str, **changes: Unpack[CustomerChanges]) -> Resource:
        """Change a customer, only the fields given; None clears one. Scope customers:write, event customer.updated."""
        given = body(CustomerChanges, changes, nulls=True, status=one_of(CustomerStatus))
        return resource(self._rest.request("PATCH", _path(customer_id), json=given))

    def archive(self, customer_id: str) -> Resource:
        """Archive a customer, whose invoices stay; empty where the API answers without the customer.

        Scope customers:delete, event customer.deleted. Refused with ALREADY_ARCHIVED.
        """
        return resource_if_any(self._rest.request("DELETE", _path(customer_id)))


def _path(customer_id: str) -> str:
    return f"/customers/{segment(customer_id)}"
