"""What a new sandbox has from its start: the merchant of Hesabe's own public sandbox, with its documented credentials.

So the requests of Hesabe's pages run as they are, ciphertext and all, with another host.
"""

from __future__ import annotations

import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from handlers.providers.hesabe.sandbox.models import Merchant, Settings, next_id
from handlers.providers.sandbox import keys
from handlers.providers.sandbox.keys import Key
from handlers.providers.sandbox.machine import Machine

MERCHANT_CODE = "842217"
ACCESS_CODE = "c333729b-d060-4b74-a49d-7686a8353481"
SECRET_KEY = "PkW64zMe5NVdrlPVNnjo2Jy9nOb7v1Xg"  # noqa: S105 - public: printed on Hesabe's pages
IV_KEY = "5NVdrlPVNnjo2Jy9"
USERNAME, PASSWORD = "Test", "Test@1234"
API_KEY = f"{MERCHANT_CODE}:{ACCESS_CODE}:{SECRET_KEY}:{IV_KEY}:{USERNAME}:{PASSWORD}"
"""All of it, in the form that HesabeClient takes."""

KIND = "merchant"
FIRST_ID = 84


def plant(machine: Machine, session: Session) -> None:
    """Fill a new sandbox; leave another as it is."""
    if session.get(Settings, 1) is not None:
        return
    session.add(Settings(id=1, on_demand="1", login_required=True, tells_captures=True, tells_refunds=True))
    merchant = Merchant(
        code=MERCHANT_CODE,
        id=FIRST_ID,
        name="test",
        secret_key=SECRET_KEY,
        iv_key=IV_KEY,
        username=USERNAME,
        password=PASSWORD,
        # The pages say that "en" is the default; their recorded answer to an invoice without a language says "ar".
        language="ar",
    )
    _open(machine, session, merchant, ACCESS_CODE)


def new_merchant(machine: Machine, session: Session, name: str) -> tuple[Key, str]:
    """Somebody else, with credentials of its own; the second value is all of them, as HesabeClient takes them."""
    merchant = Merchant(
        code=_free_code(session),
        id=next_id(session, Merchant.id, FIRST_ID),
        name=name,
        secret_key=secrets.token_hex(16),
        iv_key=secrets.token_hex(8),
        username=f"user-{secrets.token_hex(4)}",
        password=secrets.token_urlsafe(12),
        language="en",
    )
    access_code = secrets.token_hex(16)
    key = _open(machine, session, merchant, access_code)
    parts = (merchant.code, access_code, merchant.secret_key, merchant.iv_key, merchant.username, merchant.password)
    return key, ":".join(parts)


def _open(machine: Machine, session: Session, merchant: Merchant, access_code: str) -> Key:
    session.add(merchant)
    session.flush()
    return keys.add(session, access_code, kind=KIND, owner=merchant.code, scopes=(), now=machine.clock.now())


def _free_code(session: Session) -> str:
    taken = set(session.scalars(select(Merchant.code)))
    return next(code for code in iter(lambda: str(secrets.randbelow(900_000) + 100_000), None) if code not in taken)
