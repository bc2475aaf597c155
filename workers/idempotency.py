"""Changes that are asked for under a key are made once: the answer stands in the transaction of the change.

So there is no moment at which one is there without the other. Who dies before the commit has changed nothing, and the
same request does it anew; who asks again after it, or at the same time, gets the answer of the first. What was refused
is not kept: nothing was changed, and the next try may be right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.fernet import MultiFernet
from sqlalchemy import Connection, Engine, and_, delete, func, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import ColumnElement

from handlers.errors import BillhookError
from workers import database
from workers.models import IdempotencyKey
from workers.vault import decrypt

KEPT = timedelta(hours=24)
LONGEST = 255
_TRIES = 5


class OtherRequest(BillhookError):
    """The key was used for another request; the message says so."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request under a key: whose, which, and the SHA-256 of all that is asked."""

    caller: str
    key: str
    request: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """The status and body of an answer, and whether it was given before."""

    status: int
    body: bytes
    before: bool = False


Do = Callable[[Connection], Answered]
"""Changes something, and says what is to be answered."""


def carry_out(
    engine: Engine, do: Do, now: datetime, *, asked: Asked | None = None, vault: MultiFernet | None
) -> Answered:
    """Make a change in one transaction, once for `asked`; the answer, or that of the first time. Raises OtherRequest.

    The answer is encrypted with `vault`, because it may show a secret; without one it is kept as it is.
    """
    for _ in range(_TRIES - 1):
        try:
            return _carry_out(engine, do, now, asked, vault)
        except DBAPIError as error:
            if not database.collided(error):
                raise
    return _carry_out(engine, do, now, asked, vault)


def before(engine: Engine, asked: Asked, now: datetime, *, vault: MultiFernet | None) -> Answered | None:
    """What was answered to this request before; None where it is new. Raises OtherRequest.

    For who has to ask somebody else first whether the change can be made, which must not be asked twice.
    """
    with database.read(engine) as connection:
        known = select(IdempotencyKey.key).where(_of(asked), IdempotencyKey.created_at >= now - KEPT)
        return None if connection.execute(known).first() is None else _before(connection, asked, vault)


def forget(connection: Connection, now: datetime, limit: int) -> int:
    """Delete the oldest keys that are older than `KEPT`, so many or a few more where times are equal; how many.

    By time alone: a key that somebody uses anew at this moment is younger, and stays.
    """
    old = select(IdempotencyKey.created_at).where(IdempotencyKey.created_at < now - KEPT)
    oldest = old.order_by(IdempotencyKey.created_at).limit(limit).subquery()
    last = select(func.max(oldest.c.created_at)).scalar_subquery()
    return connection.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at <= last)).rowcount


def _carry_out(engine: Engine, do: Do, now: datetime, asked: Asked | None, vault: MultiFernet | None) -> Answered:
    with database.together(engine) as connection:
        if asked is None:
            return do(connection)
        # Whoever asks at the same moment waits here for our commit.
        connection.execute(delete(IdempotencyKey).where(_of(asked), IdempotencyKey.created_at < now - KEPT))
        empty = {"status": 0, "answer": b"", "created_at": now}
        row = {"caller": asked.caller, "key": asked.key, "request": asked.request, **empty}
        insert = database.insert(connection, IdempotencyKey).values(row).on_conflict_do_nothing()
        if connection.execute(insert.returning(IdempotencyKey.key)).first() is None:
            return _before(connection, asked, vault)
        answered = do(connection)
        kept = answered.body if vault is None else vault.encrypt(answered.body)
        connection.execute(update(IdempotencyKey).where(_of(asked)).values(status=answered.status, answer=kept))
        return answered


def _before(connection: Connection, asked: Asked, vault: MultiFernet | None) -> Answered:
    row = connection.execute(select(*IdempotencyKey.__table__.columns).where(_of(asked))).one()
    if row.request != asked.request:
        raise OtherRequest("this Idempotency-Key was used for another request: take a new key for a new request")
    body = row.answer if vault is None else decrypt(vault, row.answer).encode()
    return Answered(row.status, body, before=True)


def _of(asked: Asked) -> ColumnElement[bool]:
    return _mine(asked.caller, asked.key)


def _mine(caller: str, key: str) -> ColumnElement[bool]:
    return and_(IdempotencyKey.caller == caller, IdempotencyKey.key == key)
