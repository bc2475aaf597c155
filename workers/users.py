"""Users of the console: people who sign in with a name and a password, and what they may see and do there.

Every change is in the audit log, in the same transaction. A user is never deleted: the audit log names who did what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, select, update

from handlers.errors import BillhookError
from workers import api_keys, audit_log, database, ids, passwords
from workers.api_keys import Caller
from workers.models import AnyRow, User

LONGEST_NAME = 100
_SHOWN = [column for column in User.__table__.columns if column.name != "password"]


class UserError(BillhookError):
    """A user cannot be what was asked; the message says what they can be."""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A user who may come in, and what changes when their password does."""

    caller: Caller
    mark: str


def add(engine: Engine, name: str, password: str, scopes: Collection[str], *, actor: str, now: datetime) -> str:
    """Add a user with these scopes or bundles; the id. Whoever was disabled can be added again. Raises UserError."""
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise UserError(f"a name must be printable, and 1 to {LONGEST_NAME} characters")
    meant, hashed = list(api_keys.expanded(scopes)), _hashed(password)
    fields = {"password": hashed, "scopes": meant, "created_at": now, "created_by": actor, "disabled_at": None}
    with database.write(engine) as connection:
        row = {"id": ids.new("usr"), "name": name, **fields}
        insert = database.insert(connection, User).values(row).on_conflict_do_nothing().returning(User.id)
        user_id = connection.execute(insert).scalar()
        if user_id is None:
            again = update(User).where(User.name == name, User.disabled_at.is_not(None)).values(fields)
            user_id = connection.execute(again.returning(User.id)).scalar()
        if user_id is None:
            raise UserError(f"there is a user {name!r}; `billhook users password` gives them a new password")
        audit_log.note(connection, actor, "users.add", {"user": user_id, "name": name, "scopes": meant}, now)
    return str(user_id)


def change_password(engine: Engine, name: str, password: str, *, actor: str, now: datetime) -> None:
    """Give a user a new password; whoever is signed in with the old one no longer is. Raises UserError."""
    hashed = _hashed(password)
    with database.write(engine) as connection:
        changed = update(User).where(User.name == name, User.disabled_at.is_(None)).values(password=hashed)
        user_id = connection.execute(changed.returning(User.id)).scalar()
        if user_id is None:
            raise _nobody(name)
        audit_log.note(connection, actor, "users.password", {"user": user_id, "name": name}, now)


def disable(engine: Engine, name: str, *, actor: str, now: datetime) -> None:
    """Let a user in no more, from their next request on. Raises UserError."""
    with database.write(engine) as connection:
        disabled = update(User).where(User.name == name, User.disabled_at.is_(None)).values(disabled_at=now)
        user_id = connection.execute(disabled.returning(User.id)).scalar()
        if user_id is None:
            raise _nobody(name)
        audit_log.note(connection, actor, "users.disable", {"user": user_id, "name": name}, now)


def everyone(engine: Engine) -> Sequence[AnyRow]:
    """All users by name, without their passwords."""
    with database.read(engine) as connection:
        return connection.execute(select(*_SHOWN).order_by(User.name)).all()


def there_are_none(engine: Engine) -> bool:
    """Whether nobody was ever added."""
    with database.read(engine) as connection:
        return connection.execute(select(User.id).limit(1)).first() is None


def authenticate(engine: Engine, name: str, password: str, now: datetime) -> SignedIn | None:
    """Whose name and password these are; None takes as long, whatever was wrong. Notes when they signed in."""
    row = None
    if name.isprintable() and len(name) <= LONGEST_NAME:
        with database.read(engine) as connection:
            mine = (User.name == name, User.disabled_at.is_(None))
            row = connection.execute(select(*User.__table__.columns).where(*mine)).first()
    if not passwords.fits(password, None if row is None else row.password):
        return None
    assert row is not None  # noqa: S101 - nobody's password fits
    with database.write(engine) as connection:
        connection.execute(update(User).where(User.id == row.id).values(last_signed_in_at=now))
    return _signed_in(row)


def live(engine: Engine, user_id: str, mark: str) -> Caller | None:
    """Who signed in earlier, while they are not disabled and their password is the same."""
    with database.read(engine) as connection:
        mine = (User.id == user_id, User.disabled_at.is_(None))
        row = connection.execute(select(*User.__table__.columns).where(*mine)).first()
    found = None if row is None else _signed_in(row)
    return found.caller if found is not None and found.mark == mark else None


def _signed_in(row: AnyRow) -> SignedIn:
    mark = hashlib.sha256(row.password.encode()).hexdigest()[:16]
    return SignedIn(Caller(row.id, row.name, frozenset(row.scopes)), mark)


def _hashed(password: str) -> str:
    if not passwords.SHORTEST <= len(password) <= passwords.LONGEST:
        raise UserError(f"a password has {passwords.SHORTEST} to {passwords.LONGEST} characters")
    return passwords.stored(password)


def _nobody(name: str) -> UserError:
    return UserError(f"there is no user {name!r} who is not disabled; `billhook users list` shows them")
