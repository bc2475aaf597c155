"""API keys: who may call the management API, and for what.

A key is `bh_live_` and 48 hexadecimal digits of the system's randomness. It is shown once and stored as its SHA-256: it
has 192 random bits, so nothing slower is needed. Every change is in the audit log, in the same transaction.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, func, or_, select, update

from handlers.errors import BillhookError
from workers import audit_log, database, ids
from workers.models import AnyRow, ApiKey

PREFIX = "bh_live_"
_KEY = re.compile(rf"{PREFIX}[0-9a-f]{{48}}")

SCOPES = {
    "events:read": "events with their bodies, runs and messages",
    "events:write": "replay events, acknowledge dead ones",
    "handlers:read": "handlers and their runs",
    "sources:read": "the configured senders, and how they do",
    "endpoints:read": "endpoints, without their secrets",
    "endpoints:write": "add, change, rotate, test, enable and disable endpoints",
    "deliveries:read": "messages, deliveries and their attempts",
    "deliveries:write": "send deliveries again",
    "recurring:read": "recurring invoices and their history",
    "recurring:write": "add, change, pause, resume and generate recurring invoices",
    "recurring:delete": "delete recurring invoices",
    "stats:read": "counts, rates and latencies",
    "keys:read": "API keys, without the keys themselves",
    "keys:write": "create and revoke API keys",
    "audit:read": "the audit log",
}
"""What a key may be for, as the Hisab document writes scopes."""
READ_ONLY = tuple(scope for scope in SCOPES if scope.endswith(":read"))
FULL_ACCESS = tuple(SCOPES)
BUNDLES = {"read": READ_ONLY, "full": FULL_ACCESS}
"""Scopes by a name for several of them."""

LONGEST_NAME = 100
_USED_EVERY = timedelta(minutes=1)


class ApiKeyError(BillhookError):
    """A key cannot be what was asked; the message says what it can be."""


class BeyondOwn(ApiKeyError):
    """Somebody wants to give scopes that they do not have."""

    def __init__(self, scopes: Sequence[str]) -> None:
        super().__init__(f"you may not give what you do not have: {', '.join(scopes)}")
        self.scopes = scopes


class NoApiKey(ApiKeyError):
    """There is no such key."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key as it is shown, once."""

    id: str
    key: str
    scopes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"NewKey(id={self.id!r})"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a key that is live."""

    id: str
    name: str
    scopes: frozenset[str]
    expires_at: datetime | None = None
    """When the key ends by itself."""

    @property
    def actor(self) -> str:
        """As the audit log names it."""
        return f"{self.name} ({self.id})"


def expanded(wanted: Collection[str]) -> tuple[str, ...]:
    """The scopes that are meant by these scopes and bundles, in the order of `SCOPES`. Raises ApiKeyError."""
    meant = {scope for name in wanted for scope in BUNDLES.get(name, (name,))}
    if unknown := sorted(meant - set(SCOPES)):
        raise ApiKeyError(f"{unknown[0]!r} is no scope; there are {', '.join((*BUNDLES, *SCOPES))}")
    if not meant:
        raise ApiKeyError(f"a key needs a scope; there are {', '.join((*BUNDLES, *SCOPES))}")
    return tuple(scope for scope in SCOPES if scope in meant)


def create(
    engine: Engine,
    name: str,
    scopes: Collection[str],
    *,
    actor: str,
    now: datetime,
    expires_at: datetime | None = None,
    maker: Caller | None = None,
) -> NewKey:
    """Make a key for these scopes or bundles. Raises ApiKeyError.

    `maker`: who makes it with a key or as a user, and can give no scope that they lack, and no longer life than theirs.
    Raises BeyondOwn.
    """
    meant = expanded(scopes)
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise ApiKeyError(f"name: must be printable, and 1 to {LONGEST_NAME} characters")
    if expires_at is not None and expires_at <= now:
        raise ApiKeyError("expires_at: must be in the future")
    if maker is not None:
        _bound(maker, meant, expires_at)
    made = NewKey(ids.new("key"), PREFIX + secrets.token_hex(24), meant)
    row = {
        "id": made.id,
        "name": name,
        "hint": made.key[-4:],
        "digest": _digest(made.key),
        "scopes": list(made.scopes),
        "created_at": now,
        "created_by": actor,
        "expires_at": expires_at,
    }
    with database.write(engine) as connection:
        connection.execute(database.insert(connection, ApiKey), [row])
        detail = {"key": made.id, "name": name, "scopes": list(made.scopes)}
        audit_log.note(connection, actor, "keys.create", detail, now)
    return made


def _bound(maker: Caller, scopes: Sequence[str], expires_at: datetime | None) -> None:
    if beyond := [scope for scope in scopes if scope not in maker.scopes]:
        raise BeyondOwn(beyond)
    last = maker.expires_at
    if last is not None and (expires_at is None or expires_at > last):
        raise ApiKeyError(f"expires_at: the key that makes it ends {last:%Y-%m-%d %H:%M:%S}Z, and it must by then")


def revoke(engine: Engine, key_id: str, *, actor: str, now: datetime) -> AnyRow:
    """End a key at once, and for good; one that was revoked stays as it is. Raises NoApiKey."""
    with database.write(engine) as connection:
        live = (ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        if connection.execute(update(ApiKey).where(*live).values(revoked_at=now)).rowcount:
            audit_log.note(connection, actor, "keys.revoke", {"key": key_id}, now)
    return get(engine, key_id)


def get(engine: Engine, key_id: str) -> AnyRow:
    """One key, without its digest. Raises NoApiKey."""
    with database.read(engine) as connection:
        row = connection.execute(select(*SHOWN).where(ApiKey.id == key_id)).first()
    if row is None:
        raise NoApiKey(f"there is no key {key_id}")
    return row


SHOWN = [column for column in ApiKey.__table__.columns if column.name != "digest"]
"""The columns that may be shown."""


def everyone(engine: Engine) -> Sequence[AnyRow]:
    """All keys, newest first, without their digests."""
    with database.read(engine) as connection:
        return connection.execute(select(*SHOWN).order_by(ApiKey.id.desc())).all()


def there_are_none(engine: Engine) -> bool:
    """Whether no key was ever made."""
    with database.read(engine) as connection:
        return connection.execute(select(func.count()).select_from(select(ApiKey.id).limit(1).subquery())).scalar() == 0


def authenticate(engine: Engine, key: str, now: datetime) -> Caller | None:
    """Whose key this is, while it is live; None for any other text. Notes that it was used, once a minute."""
    if _KEY.fullmatch(key) is None:
        return None
    digest = _digest(key)
    with database.read(engine) as connection:
        # Found by its digest, of which nobody can choose a prefix: how long the search takes says nothing of a key.
        row = connection.execute(select(ApiKey).where(ApiKey.digest == digest)).first()
    if row is None or not hmac.compare_digest(row.digest, digest) or not _is_live(row, now):
        return None
    if row.last_used_at is None or row.last_used_at <= now - _USED_EVERY:
        _note_use(engine, row.id, now)
    return Caller(row.id, row.name, frozenset(row.scopes), row.expires_at)


def live(engine: Engine, key_id: str, now: datetime) -> Caller | None:
    """Whose key has this id, while it is live: for who has shown it before."""
    with database.read(engine) as connection:
        row = connection.execute(select(*SHOWN).where(ApiKey.id == key_id)).first()
    return (
        Caller(row.id, row.name, frozenset(row.scopes), row.expires_at)
        if row is not None and _is_live(row, now)
        else None
    )


def _is_live(row: AnyRow, now: datetime) -> bool:
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > now)


def _note_use(engine: Engine, key_id: str, now: datetime) -> None:
    unused = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at <= now - _USED_EVERY)
    with database.write(engine) as connection:
        connection.execute(update(ApiKey).where(ApiKey.id == key_id, unused).values(last_used_at=now))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
