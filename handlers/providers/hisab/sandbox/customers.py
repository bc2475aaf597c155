"""Customers: businesses and consumers, archived rather than deleted (API reference, Customers).

Where the reference is silent, this is chosen: a doubled ICE is a VALIDATION_ERROR, archived customers count; an address
is changed field by field; a `status` in an update moves freely between the three.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import or_, select
from starlette.responses import Response

from handlers.providers.hisab.sandbox.access import Desk, Visit
from handlers.providers.hisab.sandbox.answers import Page, invalid, moment, new_id, not_found, paged, refusal, success
from handlers.providers.hisab.sandbox.models import ACTIVE, ARCHIVED, Customer, Resource
from handlers.providers.sandbox import fields
from handlers.providers.sandbox.fields import Fields

TYPES = ("b2b", "b2c")
STATUSES = (ACTIVE, "inactive", ARCHIVED)
COUNTRY = "MA"

Ice = Annotated[str, fields.matching(r"[0-9]{15}", "must have 15 digits")]
CustomerType = Annotated[str, fields.one_of(*TYPES)]
Status = Annotated[str, fields.one_of(*STATUSES)]
Tags = Annotated[list[fields.Text], Field(max_length=100)]


class Address(Fields):
    street: fields.Text | None = None
    city: fields.Text | None = None
    postal_code: fields.Text | None = None
    country: Annotated[str, fields.matching(r"[A-Z]{2}", "must be a country code of two letters")] | None = None


class CustomerQuery(Page):
    search: str | None = None
    type: CustomerType | None = None
    status: Status | None = None


class CreateCustomer(Fields):
    name: fields.Words
    type: CustomerType
    ice: Ice | None = None
    legal_name: fields.Text | None = None
    rc: fields.Text | None = None
    email: fields.Email | None = None
    phone: fields.Text | None = None
    address: Address | None = None
    notes: fields.Text | None = None
    tags: Tags | None = None


class ChangeCustomer(Fields):
    """A default stands for "not given": none of them is ever read."""

    name: fields.Words = ""
    type: CustomerType = ""
    ice: Ice | None = None
    email: fields.Email | None = None
    phone: fields.Text | None = None
    address: Address | None = None
    notes: fields.Text | None = None
    tags: Tags | None = None
    status: Status = ""


def list_customers(visit: Visit) -> Response:
    query = visit.query(CustomerQuery)
    rows = select(Customer).where(Customer.organization_id == visit.desk.organization.id)
    if query.search is not None:
        columns = (Customer.name, Customer.email, Customer.ice)
        rows = rows.where(or_(*(column.icontains(query.search, autoescape=True) for column in columns)))
    if query.type is not None:
        rows = rows.where(Customer.type == query.type)
    if query.status is not None:
        rows = rows.where(Customer.status == query.status)
    found, meta = paged(visit.session, rows, Customer.number, query)
    return success([shown(customer) for customer in found], meta=meta)


def get_customer(visit: Visit) -> Response:
    return success(shown(_customer(visit)))


def create_customer(visit: Visit) -> Response:
    body = visit.body(CreateCustomer)
    _unique(visit.desk, body.ice, None)
    customer = add_customer(visit.desk, new_id("cus"), body)
    visit.desk.tell("customer.created", shown(customer))
    return success(shown(customer), status=201)


def change_customer(visit: Visit) -> Response:
    customer = _customer(visit)
    body = visit.body(ChangeCustomer)
    _unique(visit.desk, body.ice, customer)
    before, given = shown(customer), body.given()
    if "address" in given:
        given["address"] = changed_address(customer.address, body.address)
    if "tags" in given:
        given["tags"] = body.tags or []
    for name, value in given.items():
        setattr(customer, name, value)
    customer.updated_at = visit.desk.now
    visit.session.flush()
    after = shown(customer)
    changes = [name for name in after if after[name] != before[name] and name != "updated_at"]
    visit.desk.tell("customer.updated", after | {"changes": changes})
    return success(after)


def archive_customer(visit: Visit) -> Response:
    customer = _customer(visit)
    if customer.status == ARCHIVED:
        raise refusal("ALREADY_ARCHIVED", "The customer is already archived")
    customer.status, customer.updated_at = ARCHIVED, visit.desk.now
    visit.session.flush()
    visit.desk.tell("customer.deleted", {"id": customer.id, "name": customer.name})
    return success(shown(customer))


def customer_of(desk: Desk, customer_id: str) -> Customer | None:
    rows = select(Customer).where(Customer.id == customer_id, Customer.organization_id == desk.organization.id)
    return desk.session.scalars(rows).one_or_none()


def add_customer(desk: Desk, customer_id: str, body: CreateCustomer) -> Customer:
    """Store a customer."""
    customer = Customer(
        id=customer_id,
        organization_id=desk.organization.id,
        status=ACTIVE,
        address=changed_address({}, body.address),
        tags=body.tags or [],
        created_at=desk.now,
        updated_at=desk.now,
        **body.model_dump(exclude={"address", "tags"}),
    )
    desk.session.add(customer)
    desk.session.flush()
    return customer


def changed_address(before: Mapping[str, Any], change: Address | None) -> Resource:
    """An address after a change of some of its fields; null empties it."""
    given = {} if change is None else change.given()
    return {**(before if change is not None else {}), **given}


def address_of(customer: Customer) -> Resource:
    return shown_address(customer.address)


def shown_address(address: Mapping[str, Any]) -> Resource:
    """All four fields; the country is Morocco unless it was given."""
    found = {name: address.get(name) for name in ("street", "city", "postal_code")}
    return {**found, "country": address.get("country") or COUNTRY}


def shown(customer: Customer) -> Resource:
    names = ("id", "name", "type", "status", "ice", "legal_name", "rc", "email", "phone")
    return {
        **{name: getattr(customer, name) for name in names},
        "address": address_of(customer),
        "notes": customer.notes,
        "tags": customer.tags,
        "created_at": moment(customer.created_at),
        "updated_at": moment(customer.updated_at),
    }


def _customer(visit: Visit) -> Customer:
    customer = customer_of(visit.desk, visit.id)
    if customer is None:
        raise not_found()
    return customer


def _unique(desk: Desk, ice: str | None, but: Customer | None) -> None:
    """Raise VALIDATION_ERROR where another customer of the organization has this ICE."""
    if ice is None:
        return
    rows = select(Customer).where(Customer.ice == ice, Customer.organization_id == desk.organization.id)
    for other in desk.session.scalars(rows):
        if other is not but:
            raise invalid({"field": "ice", "message": f"belongs to the customer {other.id} of this organization"})
