"""What a new sandbox has from its start: the account `sandbox`, and the books of a small business in the UAE.

INVOICE is the one of HIBR's own examples by its number and its AED 5,250.00 (525000 fils). Names, and all fields
that HIBR has not published, are the sandbox's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session
from starlette.requests import Request

from handlers.providers.hibr.client import VERSION
from handlers.providers.hibr.sandbox.access import Visit
from handlers.providers.hibr.sandbox.catalog import ACCOUNTS, CUSTOMERS, EMPLOYEES, INVOICES, ITEMS, SUPPLIERS
from handlers.providers.hibr.sandbox.records import Kind, make, update
from handlers.providers.hibr.sandbox.tables import Account
from handlers.providers.sandbox import keys
from handlers.providers.sandbox.machine import Call, Machine

MAIN = "sandbox"
ZONE = "Asia/Dubai"
API_KEY = "hibr_test_sandbox"

CUSTOMER = "cust_01HFQA9XTRP3K2Q5HW7Z3V8YJN"
INVOICE = "inv_01HFQB9XTRP3K2Q5HW7Z3V8YJN"
DRAFT_INVOICE = "inv_01HFQB9XTRP3K2Q5HW7Z3V8YJP"
PAID_INVOICE = "inv_01HFQB9XTRP3K2Q5HW7Z3V8YJM"

_FIRST_NUMBER = 1233
_TAIL = "01HFQ{}9XTRP3K2Q5HW7Z3V8YJN"

_RECORDS: tuple[tuple[Kind, str, dict[str, Any]], ...] = (
    (CUSTOMERS, "A", {"name": "Al Noor Trading LLC", "email": "accounts@alnoor.example", "emirate": "Dubai"}),
    (CUSTOMERS, "C", {"name": "Marina Bay Cafe", "email": "owner@marinabay.example", "emirate": "Dubai"}),
    (
        CUSTOMERS,
        "D",
        {"name": "Desert Rose Interiors FZE", "email": "finance@desertrose.example", "emirate": "Sharjah"},
    ),
    (SUPPLIERS, "E", {"name": "Gulf Office Supplies LLC", "email": "sales@gulfoffice.example"}),
    (ITEMS, "F", {"name": "Design, per day", "unit_price": 250_000}),
    (ITEMS, "G", {"name": "Hosting, per month", "unit_price": 45_000}),
    (ACCOUNTS, "H", {"name": "Trade receivables", "code": "1200", "type": "asset"}),
    (ACCOUNTS, "J", {"name": "Sales", "code": "4000", "type": "income"}),
    (EMPLOYEES, "K", {"name": "Sara Haddad", "position": "Designer", "salary": 1_200_000, "salary_currency": "AED"}),
)
_INVOICES: tuple[tuple[str, int, int, Sequence[str]], ...] = (
    (PAID_INVOICE, 1, 250_000, ("post", "send", "pay")),
    (INVOICE, 2, 250_000, ("post", "send")),
    (DRAFT_INVOICE, 3, 45_000, ()),
)


def plant(machine: Machine, session: Session, *, api_key: str | None, tier: str, time_zone: str) -> None:
    """Fill a new sandbox; one that has the account already only learns the key."""
    now = machine.clock.now()
    if session.get(Account, MAIN) is None:
        account = add_account(session, MAIN, tier=tier, time_zone=time_zone)
        request = Request({"type": "http", "method": "POST", "path": "/", "headers": []})
        call = Call(machine=machine, session=session, request=request, raw=b"", now=now)
        _books(Visit(call=call, account=account, scopes=["*"]))
    if api_key is not None:
        keys.add(session, api_key, kind="test", owner=MAIN, scopes=["*"], now=now)


def add_account(session: Session, account_id: str, *, tier: str, time_zone: str = ZONE) -> Account:
    """An account with empty books."""
    account = Account(id=account_id, time_zone=time_zone, tier=tier, version=VERSION, next_invoice=1)
    session.add(account)
    session.flush()
    return account


def _books(visit: Visit) -> None:
    visit.account.next_invoice = _FIRST_NUMBER
    for kind, letter, fields in _RECORDS:
        money = {"unit_price_currency": "AED"} if "unit_price" in fields else {}
        make(visit, kind, fields | money, f"{kind.prefix}_{_TAIL.format(letter)}")
    for invoice_id, days, price, actions in _INVOICES:
        line = {"description": "Design", "quantity": days, "unit_price": price, "unit_price_currency": "AED"}
        record = make(visit, INVOICES, {"customer_id": CUSTOMER, "lines": [line]}, invoice_id)
        for name in actions:
            action = INVOICES.actions[name]
            before = dict(record.fields)
            update(visit, record, action.change(visit, record.fields, {}))
            action.follow(visit, record, before)
