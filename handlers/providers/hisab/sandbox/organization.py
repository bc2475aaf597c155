"""The organization that a key belongs to (API reference, Organization).

Where the reference is silent, this is chosen: an ICE has 15 digits here too; a doubled one is a VALIDATION_ERROR; the
billing address is changed field by field; the shape of subscription and quotas.
"""

from __future__ import annotations

from typing import Annotated, Any

import httpx
from pydantic import AfterValidator
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import Response

from handlers.providers.hisab.sandbox.access import MAX_KEYS, PLANS, Visit
from handlers.providers.hisab.sandbox.answers import invalid, moment, success
from handlers.providers.hisab.sandbox.customers import Address, Ice, changed_address, shown_address
from handlers.providers.hisab.sandbox.models import Organization, Resource
from handlers.providers.sandbox import fields
from handlers.providers.sandbox.fields import Fields


def _web(value: str) -> str:
    try:
        if value.startswith(("http://", "https://")) and httpx.URL(value).host:
            return value
    except httpx.InvalidURL:
        pass
    raise ValueError("must be a URL that begins with http:// or https://")


class ChangeOrganization(Fields):
    """A default stands for "not given": none of them is ever read."""

    legal_name: fields.Words = ""
    ice: Ice | None = None
    rc: fields.Text | None = None
    if_number: fields.Text | None = None
    vat_number: fields.Text | None = None
    phone: fields.Text | None = None
    email: fields.Email | None = None
    website: Annotated[fields.Text, AfterValidator(_web)] | None = None
    billing_address: Address | None = None


def get_organization(visit: Visit) -> Response:
    return success(shown(visit.desk.organization))


def change_organization(visit: Visit) -> Response:
    organization = visit.desk.organization
    body = visit.body(ChangeOrganization)
    expect_free_ice(visit.session, body.ice, organization)
    given: dict[str, Any] = body.given()
    if "billing_address" in given:
        given["billing_address"] = changed_address(organization.billing_address, body.billing_address)
    for name, value in given.items():
        setattr(organization, name, value)
    organization.updated_at = visit.desk.now
    return success(shown(organization))


def expect_free_ice(session: Session, ice: str | None, but: Organization | None = None) -> None:
    """Raise VALIDATION_ERROR where another organization of the whole platform has this ICE."""
    if ice is None:
        return
    others = session.scalars(select(Organization).where(Organization.ice == ice).limit(2))
    if any(other is not but for other in others):
        raise invalid({"field": "ice", "message": "is already registered on the platform"})


def shown(organization: Organization) -> Resource:
    names = ("id", "legal_name", "ice", "rc", "if_number", "vat_number", "phone", "email", "website")
    plan = organization.account.plan
    return {
        **{name: getattr(organization, name) for name in names},
        "name": organization.legal_name,
        "billing_address": shown_address(organization.billing_address),
        "default_currency": "MAD",
        "invoice_prefix": organization.invoice_prefix,
        "next_invoice_number": organization.next_invoice_number,
        "status": "active" if organization.archived_at is None else "archived",
        "archived_at": moment(organization.archived_at),
        "subscription": {"plan": plan, "status": "expired" if organization.subscription_expired else "active"},
        "api": {
            "enabled": not organization.api_disabled,
            "requests_per_minute": PLANS.get(plan, 0),
            "max_api_keys": MAX_KEYS.get(plan),
            "max_recurring_invoices": organization.recurring_quota,
        },
        "created_at": moment(organization.created_at),
        "updated_at": moment(organization.updated_at),
    }
