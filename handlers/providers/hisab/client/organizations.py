"""Hisab's organizations: the one that a key acts for, and all those that an account key may act for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

from handlers.providers.hisab.client.checks import body, field
from handlers.providers.hisab.client.envelope import Resource, pages, resource
from handlers.providers.hisab.models import NewOrganization, OrganizationChanges
from handlers.providers.http import RestClient, segment


class Organization:
    """`/organization`: the profile, subscription and quotas of the organization that the calls act for.

    (Hisab API reference, Organization)
    """

    def __init__(self, rest: RestClient) -> None:
        self._rest = rest

    def get(self) -> Resource:
        """Legal identifiers, contact, subscription and quotas. Scope organization:read."""
        return resource(self._rest.request("GET", "/organization"))

    def update(self, **changes: Unpack[OrganizationChanges]) -> Resource:
        """Change only the fields given; None clears one. Scope organization:write."""
        given = body(OrganizationChanges, changes, nulls=True)
        return resource(self._rest.request("PATCH", "/organization", json=given))


class Organizations:
    """`/organizations`: every entity of an account. Another key than one of an account (`hisab_acct_…`) is refused
    with ACCOUNT_KEY_REQUIRED. (Hisab API reference, Organizations)
    """

    def __init__(self, rest: RestClient) -> None:
        self._rest = rest

    def list(self, *, include_archived: bool = False) -> Iterator[Resource]:
        """Every organization that the key's owner owns. Scope organizations:read."""
        filters = {"include_archived": True} if field("include_archived", include_archived) else {}
        listed = pages(self._rest, "/organizations", filters, numbered=False)
        return (organization for page in listed for organization in page.items)

    def create(self, **organization: Unpack[NewOrganization]) -> Resource:
        """Provision a legal entity; its ICE may be known nowhere on the platform yet.

        Scope organizations:write. Refused with ENTITY_CAP_REACHED.
        """
        return resource(self._rest.request("POST", "/organizations", json=body(NewOrganization, organization)))

    def get(self, organization_id: str) -> Resource:
        """One owned organization; any other is NOT_FOUND. Scope organizations:read."""
        return resource(self._rest.request("GET", _path(organization_id)))

    def archive(self, organization_id: str) -> Resource:
        """Freeze the entity everywhere; nothing is deleted. Refused with ALREADY_ARCHIVED.

        Scope organizations:archive.
        """
        return resource(self._rest.request("POST", _path(organization_id, "archive")))

    def restore(self, organization_id: str) -> Resource:
        """Let an archived entity go on at once. Scope organizations:archive. Refused with NOT_ARCHIVED."""
        return resource(self._rest.request("POST", _path(organization_id, "restore")))


def _path(organization_id: str, *verb: str) -> str:
    return "/".join(("/organizations", segment(organization_id), *verb))
