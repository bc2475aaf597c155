"""What a new sandbox has from its start: the keys, the customers and the organization that Hisab's documents name.

So their curl lines run as they are, with another host. The first invoice that is finalized is the one of the webhook
page's sample, FAC-2026-0142: the organization has issued 141 before. The customers have other names and ICEs than the
reference's example of a creation, so that this runs too. `acc_other` is somebody else, whose ICE is taken on the whole
platform.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from handlers.providers.hisab.sandbox.access import ACCOUNT, SCOPES, Desk
from handlers.providers.hisab.sandbox.customers import Address, CreateCustomer, add_customer
from handlers.providers.hisab.sandbox.models import Account, Organization
from handlers.providers.hisab.sandbox.organizations import PREFIX
from handlers.providers.sandbox import keys
from handlers.providers.sandbox.machine import Machine

MAIN = "acc_sandbox"
OTHER = "acc_other"
ENTITY_CAP = 5
FIRST_NUMBER = 142

LIVE_KEYS = ("hisab_live_***", "hisab_your_api_key_here")
TEST_KEYS = ("hisab_test_***",)
ACCOUNT_KEYS = ("hisab_acct_***",)


def plant(
    machine: Machine, session: Session, *, organization_id: str, api_keys: Sequence[str], plan: str, entity_cap: int
) -> None:
    """Fill a new sandbox; one that has accounts already only learns the keys."""
    now = machine.clock.now()
    if session.get(Account, MAIN) is None:
        session.add(Account(id=MAIN, plan=plan, entity_cap=entity_cap))
        session.add(Account(id=OTHER, plan="fiduciaire", entity_cap=ENTITY_CAP))
        main = _organization(organization_id, MAIN, "Atelier Numérique SARL", "001122334000055", FIRST_NUMBER, now)
        main.rc, main.if_number, main.vat_number = "245871", "40219876", "MA40219876"
        main.phone, main.email, main.website = "+212 5 22 00 00 00", "contact@example.ma", "https://example.ma"
        main.billing_address = {"street": "12, rue Ibn Batouta", "city": "Casablanca", "postal_code": "20000"}
        session.add_all((main, _organization("org_7e20c5", OTHER, "Comptoir du Nord SARL", "009988776000033", 1, now)))
        session.flush()
        _customers(Desk(machine=machine, session=session, organization=main, now=now))
    owner = session.scalars(select(Organization).where(Organization.account_id == MAIN).limit(1)).one().id
    for secret in (*LIVE_KEYS, *TEST_KEYS, *api_keys):
        keys.add(session, secret, kind="test" if "_test_" in secret else "live", owner=owner, scopes=SCOPES, now=now)
    for secret in ACCOUNT_KEYS:
        keys.add(session, secret, kind=ACCOUNT, owner=MAIN, scopes=SCOPES, now=now)


def _organization(
    organization_id: str, account_id: str, name: str, ice: str, first_number: int, now: datetime
) -> Organization:
    texts = dict.fromkeys(("rc", "if_number", "vat_number", "phone", "email", "website"))
    return Organization(
        id=organization_id,
        account_id=account_id,
        legal_name=name,
        ice=ice,
        **texts,
        billing_address={},
        invoice_prefix=PREFIX,
        next_invoice_number=first_number,
        api_disabled=False,
        subscription_expired=False,
        recurring_quota=None,
        archived_at=None,
        created_at=now,
        updated_at=now,
    )


def _customers(desk: Desk) -> None:
    # "cus_..." is what the getting-started page writes.
    for customer_id, name, ice, street, city in (
        ("cus_...", "Rif Conseil SARL", "001876543000021", "8, avenue Hassan II", "Tétouan"),
        ("cus_2b81fe", "Atlas Distribution SARL", "001987654000032", "45, boulevard Zerktouni", "Casablanca"),
    ):
        address = Address(street=street, city=city, postal_code=None, country="MA")
        body = CreateCustomer(name=name, type="b2b", ice=ice, email="compta@example.ma", address=address)
        add_customer(desk, customer_id, body)
