"""The organizations of an account (API reference, Organizations); these endpoints need an account key.

Where the reference is silent, this is chosen: archived entities count towards the cap, and keep their ICE; a list is
newest first and has no pages.
"""

from __future__ import annotations

from typing import Annotated

from sqlalchemy import func, select
from starlette.responses import Response

from handlers.providers.hisab.sandbox import generation
from handlers.providers.hisab.sandbox.access import AccountVisit, Desk
from handlers.providers.hisab.sandbox.answers import new_id, not_found, refusal, success
from handlers.providers.hisab.sandbox.customers import Ice
from handlers.providers.hisab.sandbox.models import Organization
from handlers.providers.hisab.sandbox.organization import expect_free_ice, shown
from handlers.providers.sandbox import fields
from handlers.providers.sandbox.fields import Fields

PREFIX = "FAC"


class OrganizationsQuery(Fields):
    include_archived: Annotated[str, fields.one_of("true", "false")] = "false"


class CreateOrganization(Fields):
    legal_name: fields.Words
    ice: Ice | None = None
    rc: fields.Text | None = None
    if_number: fields.Text | None = None
    phone: fields.Text | None = None
    email: fields.Email | None = None
    address_street: fields.Text | None = None
    address_city: fields.Text | None = None
    address_postal_code: fields.Text | None = None


def list_organizations(visit: AccountVisit) -> Response:
    query = fields.read(OrganizationsQuery, visit.call.request.query_params)
    rows = select(Organization).where(Organization.account_id == visit.account.id)
    if query.include_archived == "false":
        rows = rows.where(Organization.archived_at.is_(None))
    found = visit.session.scalars(rows.order_by(Organization.number.desc()))
    return success([shown(organization) for organization in found])


def create_organization(visit: AccountVisit) -> Response:
    body = fields.read(CreateOrganization, fields.document(visit.call.raw))
    expect_free_ice(visit.session, body.ice)
    owned = select(func.count()).select_from(Organization).where(Organization.account_id == visit.account.id)
    if (visit.session.scalar(owned) or 0) >= visit.account.entity_cap:
        cap = visit.account.entity_cap
        raise refusal("ENTITY_CAP_REACHED", f"Your plan allows {cap} organizations; contact support to raise it")
    names = ("street", "city", "postal_code")
    given = {name: getattr(body, f"address_{name}") for name in names}
    organization = Organization(
        id=new_id("org"),
        account=visit.account,
        vat_number=None,
        website=None,
        billing_address={name: value for name, value in given.items() if value is not None},
        invoice_prefix=PREFIX,
        next_invoice_number=1,
        api_disabled=False,
        subscription_expired=False,
        recurring_quota=None,
        archived_at=None,
        created_at=visit.call.now,
        updated_at=visit.call.now,
        **body.model_dump(include={"legal_name", "ice", "rc", "if_number", "phone", "email"}),
    )
    visit.session.add(organization)
    visit.session.flush()
    return success(shown(organization), status=201)


def get_organization(visit: AccountVisit) -> Response:
    return success(shown(_owned(visit)))


def archive(visit: AccountVisit) -> Response:
    organization = _owned(visit)
    if organization.archived_at is not None:
        raise refusal("ALREADY_ARCHIVED", "The organization is already archived")
    organization.archived_at = organization.updated_at = visit.call.now
    return success(shown(organization))


def restore(visit: AccountVisit) -> Response:
    organization = _owned(visit)
    if organization.archived_at is None:
        raise refusal("NOT_ARCHIVED", "The organization is not archived")
    organization.archived_at, organization.updated_at = None, visit.call.now
    call = visit.call
    generation.skip_missed(Desk(machine=call.machine, session=call.session, organization=organization, now=call.now))
    return success(shown(organization))


def _owned(visit: AccountVisit) -> Organization:
    """Unknown and foreign ids are the same (API reference)."""
    rows = select(Organization).where(Organization.id == visit.call.id, Organization.account_id == visit.account.id)
    organization = visit.session.scalars(rows).one_or_none()
    if organization is None:
        raise not_found()
    return organization
