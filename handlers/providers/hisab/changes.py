"""What must have been reported of Hisab's invoices and customers, read off their moments (API reference, Lists).

Every change of an invoice but an update has a moment of its own in it. Nothing else changes it once it is finalized, so
that `updated_at` is the last of its changes: of a draft an update, of a paid invoice the payment, because `paid_at` is
what whoever recorded the payment wrote there. An archived customer's `updated_at` is taken for its archiving, which has
no moment of its own.

The lists are ordered by creation, and a change can befall an old invoice: they are read to their end. Customers come
first, whom invoices name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson

from handlers.errors import ProviderError
from handlers.providers import json_body
from handlers.providers.hisab.client import HisabClient, Resource
from handlers.reconciling import Change

_OF_AN_INVOICE = ("created_at", "finalized_at", "sent_at", "voided_at", "paid_at", "updated_at")
_OF_A_CUSTOMER = ("created_at", "updated_at")
_ONE_CHANGE = timedelta(seconds=1)
"""Moments that are no further apart were written by one call."""


def changes(client: HisabClient, since: datetime) -> Iterator[Change]:
    """See `Provider.changes`."""
    organization = _organization(client)
    for customer in _customers(client):
        at = _moments("customer", customer, _OF_A_CUSTOMER)
        if max(at.values()) >= since:
            yield from _since(since, _of_customer(_Object("customer", customer, at, organization)))
    for listed in client.invoices.list():
        if max(_moments("invoice", listed, _OF_AN_INVOICE).values()) >= since:
            invoice = _whole(client, listed)
            at = _moments("invoice", invoice, _OF_AN_INVOICE)
            yield from _since(since, _of_invoice(_Object("invoice", invoice, at, organization)))


def _since(since: datetime, found: Iterator[Change]) -> list[Change]:
    # Sorting is stable: what one second saw stays in the order in which it can only have happened.
    return sorted((change for change in found if change.occurred_at >= since), key=lambda change: change.occurred_at)


@dataclass(frozen=True, slots=True)
class _Object:
    kind: str
    resource: Resource
    at: Mapping[str, datetime]
    organization: str | None

    def change(
        self,
        word: str,
        occurred_at: datetime,
        *,
        earliest: datetime | None = None,
        data: Mapping[str, Any] | None = None,
        repeats: bool = False,
    ) -> Change:
        event_type = f"{self.kind}.{word}"
        body = {
            "event": event_type,
            "data": self.resource if data is None else data,
            "organization_id": self.organization,
            "created_at": occurred_at.isoformat().replace("+00:00", "Z"),
        }
        return Change(
            type=event_type,
            occurred_at=occurred_at,
            earliest=earliest or occurred_at,
            object_kind=self.kind,
            object_id=json_body.text(f"the id of a listed {self.kind}", self.resource.get("id")),
            body=orjson.dumps(body),
            repeats=repeats,
        )

    @property
    def updated_at(self) -> datetime | None:
        """When it was last changed; None where it has not been since its creation."""
        updated = self.at.get("updated_at")
        return None if updated is None or updated - self.at["created_at"] <= _ONE_CHANGE else updated


def _of_invoice(invoice: _Object) -> Iterator[Change]:
    for word in ("created", "finalized", "sent", "voided"):
        if (moment := invoice.at.get(f"{word}_at")) is not None:
            yield invoice.change(word, moment)
    if "paid_at" in invoice.at:
        yield _paid(invoice)
    if invoice.resource.get("status") == "draft" and (updated := invoice.updated_at) is not None:
        yield invoice.change("updated", updated, repeats=True)


def _paid(invoice: _Object) -> Change:
    at, told = invoice.at, invoice.at["paid_at"]
    last = at.get("updated_at", told)
    # It may have been dated back, even before the invoice was issued, and dated ahead.
    earliest = max(min(told, last), *(at[name] for name in ("created_at", "finalized_at", "sent_at") if name in at))
    names = {"payment_method": "method", "payment_reference": "reference"}
    payment = {short: invoice.resource[name] for name, short in names.items() if name in invoice.resource}
    data = {**invoice.resource, "payment": payment} if payment else None
    return invoice.change("paid", max(earliest, last), earliest=earliest, data=data)


def _of_customer(customer: _Object) -> Iterator[Change]:
    yield customer.change("created", customer.at["created_at"])
    if customer.resource.get("status") == "archived":
        # It may have been restored, and been archived once more.
        data = {name: customer.resource.get(name) for name in ("id", "name")}
        yield customer.change("deleted", max(customer.at.values()), data=data, repeats=True)
    elif (updated := customer.updated_at) is not None:
        yield customer.change("updated", updated, repeats=True)


def _customers(client: HisabClient) -> Iterator[Resource]:
    # Whether the list has archived ones is not documented: they are asked for by themselves.
    yield from (customer for customer in client.customers.list() if customer.get("status") != "archived")
    yield from client.customers.list(status="archived")


def _whole(client: HisabClient, listed: Resource) -> Resource:
    # Whether a list has all that an invoice has is not documented either.
    if "items" in listed:
        return listed
    return client.invoices.get(json_body.text("the id of a listed invoice", listed.get("id")))


def _moments(kind: str, resource: Resource, names: tuple[str, ...]) -> dict[str, datetime]:
    """The moments that a resource has. Raises ParseError where one is none, or that of its creation is missing."""
    return {
        name: json_body.moment(f"{name} of a listed {kind}", resource.get(name))
        for name in names
        if resource.get(name) is not None or name == "created_at"
    }


def _organization(client: HisabClient) -> str | None:
    """The organization's id, which deliveries name and the lists do not; None where the key may not read it."""
    try:
        found = client.organization.get().get("id")
    except ProviderError as error:
        if error.code != "FORBIDDEN":
            raise
        return None
    return found if isinstance(found, str) else None
