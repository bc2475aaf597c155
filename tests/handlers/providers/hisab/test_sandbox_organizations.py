"""The own organization, and those of an account: provisioning, numbers of their own, archive and restore."""

from __future__ import annotations

from typing import Any

import pytest

from tests.handlers.providers.hisab.sandbox_given import (
    ACCOUNT_KEY,
    INVOICE,
    KEY,
    ORGANIZATION,
    Sandbox,
    fields,
    refusal,
)

FILIALE = {"legal_name": "Filiale Casablanca SARL", "ice": "002345678000071"}


def provision(sandbox: Sandbox, **given: Any) -> str:
    return str(sandbox.done("POST", "/organizations", key=ACCOUNT_KEY, json=FILIALE | given)["id"])


def test_the_own_organization_has_identifiers_subscription_and_quotas() -> None:
    found = Sandbox().done("GET", "/organization")

    assert (found["id"], found["invoice_prefix"], found["next_invoice_number"]) == (ORGANIZATION, "FAC", 142)
    assert found["subscription"] == {"plan": "professional", "status": "active"}
    assert (found["api"]["requests_per_minute"], found["api"]["max_api_keys"]) == (120, 10)


def test_the_own_organization_is_updated() -> None:
    sandbox = Sandbox()
    body = {"phone": "+212 5 22 00 00 01", "website": "https://example.ma/fr", "billing_address": {"city": "Fès"}}

    changed = sandbox.done("PATCH", "/organization", json=body)

    assert (changed["phone"], changed["website"]) == (body["phone"], body["website"])
    assert changed["billing_address"] == {
        "street": "12, rue Ibn Batouta",
        "city": "Fès",
        "postal_code": "20000",
        "country": "MA",
    }
    assert sandbox.posted == []


def test_an_entity_is_provisioned_and_operated_with_the_account_key() -> None:
    sandbox = Sandbox()
    response = sandbox.call("POST", "/organizations", key=ACCOUNT_KEY, json=FILIALE | {"address_city": "Casablanca"})
    entity = response.json()["data"]
    there = {"key": ACCOUNT_KEY, "organization": entity["id"]}

    customer = sandbox.done("POST", "/customers", json={"name": "Client", "type": "b2c"}, **there)
    invoice = sandbox.done("POST", "/invoices", json=INVOICE | {"customer_id": customer["id"]}, **there)
    number = sandbox.done("POST", f"/invoices/{invoice['id']}/finalize", **there)["invoice_number"]

    assert (response.status_code, entity["billing_address"]["city"]) == (201, "Casablanca")
    assert number == "FAC-2026-0001"  # each organization counts for itself
    assert sandbox.events()[-1].organization == entity["id"]
    assert refusal(sandbox.call("GET", f"/invoices/{invoice['id']}", key=KEY)) == (404, "NOT_FOUND")


def test_a_customer_of_another_entity_cannot_be_billed() -> None:
    sandbox = Sandbox()
    entity = provision(sandbox)

    response = sandbox.call("POST", "/invoices", json=INVOICE, key=ACCOUNT_KEY, organization=entity)

    assert fields(response) == ["customer_id"]


def test_an_entity_without_an_ice_cannot_issue() -> None:
    sandbox = Sandbox()
    there = {"key": ACCOUNT_KEY, "organization": provision(sandbox, ice=None)}
    customer = sandbox.done("POST", "/customers", json={"name": "Client", "type": "b2c"}, **there)
    invoice = sandbox.done("POST", "/invoices", json=INVOICE | {"customer_id": customer["id"]}, **there)

    assert fields(sandbox.call("POST", f"/invoices/{invoice['id']}/finalize", **there)) == ["organization.ice"]
    sandbox.done("PATCH", "/organization", json={"ice": "002345678000072"}, **there)
    sandbox.done("POST", f"/invoices/{invoice['id']}/finalize", **there)


@pytest.mark.parametrize("ice", ["009988776000033", "001122334000055"])
def test_an_ice_is_registered_once_on_the_whole_platform(ice: str) -> None:
    sandbox = Sandbox()

    assert fields(sandbox.call("POST", "/organizations", key=ACCOUNT_KEY, json=FILIALE | {"ice": ice})) == ["ice"]


def test_the_cap_of_the_plan_is_kept_and_can_be_raised() -> None:
    sandbox = Sandbox(entity_cap=2)
    provision(sandbox)
    refused = sandbox.call("POST", "/organizations", key=ACCOUNT_KEY, json={"legal_name": "Une de trop"})

    sandbox.switch(entity_cap=3)

    assert refusal(refused) == (403, "ENTITY_CAP_REACHED")
    provision(sandbox, ice=None)


def test_an_archived_entity_is_frozen_until_it_is_restored() -> None:
    sandbox = Sandbox()
    entity = provision(sandbox)
    archived = sandbox.done("POST", f"/organizations/{entity}/archive", key=ACCOUNT_KEY)

    frozen = sandbox.call("GET", "/invoices", key=ACCOUNT_KEY, organization=entity)
    again = sandbox.call("POST", f"/organizations/{entity}/archive", key=ACCOUNT_KEY)
    sandbox.done("POST", f"/organizations/{entity}/restore", key=ACCOUNT_KEY)
    twice = sandbox.call("POST", f"/organizations/{entity}/restore", key=ACCOUNT_KEY)

    assert (archived["status"], refusal(frozen)) == ("archived", (403, "API_DISABLED"))
    assert (refusal(again), refusal(twice)) == ((409, "ALREADY_ARCHIVED"), (409, "NOT_ARCHIVED"))
    assert sandbox.call("GET", "/invoices", key=ACCOUNT_KEY, organization=entity).status_code == 200


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["Atelier Numérique SARL"]),
        ("?include_archived=false", ["Atelier Numérique SARL"]),
        ("?include_archived=true", ["Filiale Casablanca SARL", "Atelier Numérique SARL"]),
    ],
)
def test_archived_entities_are_listed_when_asked_for(query: str, names: list[str]) -> None:
    sandbox = Sandbox()
    sandbox.done("POST", f"/organizations/{provision(sandbox)}/archive", key=ACCOUNT_KEY)

    listed = sandbox.listed(f"/organizations{query}", key=ACCOUNT_KEY)

    assert [organization["legal_name"] for organization in listed] == names


@pytest.mark.parametrize(("method", "verb"), [("GET", ""), ("POST", "/archive"), ("POST", "/restore")])
def test_a_foreign_entity_is_not_found(method: str, verb: str) -> None:
    assert refusal(Sandbox().call(method, f"/organizations/org_7e20c5{verb}", key=ACCOUNT_KEY)) == (404, "NOT_FOUND")


def test_another_account_has_its_own_entities() -> None:
    sandbox = Sandbox()
    other = sandbox.key(kind="account", owner="acc_other")

    listed = sandbox.listed("/organizations", key=other)

    assert [organization["id"] for organization in listed] == ["org_7e20c5"]
    assert refusal(sandbox.call("GET", f"/organizations/{ORGANIZATION}", key=other)) == (404, "NOT_FOUND")


def test_a_webhook_may_be_for_one_organization_only() -> None:
    sandbox = Sandbox(webhook_url=None, secret=None)
    body = {"url": "http://billhook.test/webhooks/hisab", "secret": "whsec_one", "owner": "org_7e20c5"}
    sandbox.done("POST", "/sandbox/webhooks", json=body)

    sandbox.create()
    sandbox.done("POST", "/customers", key=sandbox.key(owner="org_7e20c5"), json={"name": "A", "type": "b2c"})

    assert len(sandbox.posted) == 1
