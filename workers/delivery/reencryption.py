"""Re-encrypting: what is encrypted in the database is written anew under the first key, so that older keys may go.

What an endpoint has is rewritten in one transaction, under the lock that a rotation or an update of it takes too, so
that neither undoes the other. A batch is rewritten or untouched, and readable either way while both keys are set:
whoever died in between is followed by the next call, which finds the rest. The answers of `workers.idempotency`, which
are encrypted too, are gone within a day by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy import Connection, Engine, select, update

from workers import database
from workers.errands import Amount, Done, Errand, carry_out, nobody, pages
from workers.models import Endpoint, EndpointKey
from workers.settings import Settings
from workers.vault import first_key, open_vault


@dataclass(frozen=True, slots=True)
class Rewritten(Amount):
    """How much was encrypted anew, or would be."""

    endpoints: int = 0
    """Endpoints that have any of these."""
    values: int = 0
    """Signing secrets, sets of own headers, and client certificates."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is not encrypted under the first key."""

    amount: Rewritten
    unreadable: tuple[str, ...]
    """Endpoints with a value that none of the keys opens; such a value stays as it is."""


@dataclass(frozen=True, slots=True)
class _Value:
    """One encrypted value, and where it stands."""

    endpoint_id: str
    column: Any
    row_id: str
    stored: bytes


def outdated(engine: Engine, settings: Settings) -> Found:
    """What `reencrypt` would rewrite, and what it could not; changes nothing. Raises VaultError."""
    vault, first = open_vault(settings), first_key(settings)
    total, unreadable = Rewritten(), list[str]()
    for endpoint_ids in pages(engine, (), Endpoint.id):
        with database.read(engine) as connection:
            values = _outdated(connection, first, endpoint_ids)
        fresh = {value: _fresh(vault, value) for value in values}
        total += _amount([value for value, written in fresh.items() if written is not None])
        unreadable += sorted({value.endpoint_id for value, written in fresh.items() if written is None})
    return Found(total, tuple(unreadable))


def reencrypt(
    engine: Engine, settings: Settings, *, actor: str, now: datetime, done: Done[Rewritten] = nobody
) -> Rewritten:
    """Encrypt under the first key what is not; how much that was. Raises VaultError."""
    vault, first = open_vault(settings), first_key(settings)

    def change(connection: Connection, endpoint_ids: Sequence[str], _before: Rewritten) -> Rewritten:
        mine = select(Endpoint.id).where(Endpoint.id.in_(endpoint_ids)).order_by(Endpoint.id)
        # Whoever publishes a message meanwhile refers to the endpoint, and need not wait.
        connection.execute(mine.with_for_update(key_share=True)).all()
        rewritten = []
        for value in _outdated(connection, first, endpoint_ids):
            if (written := _fresh(vault, value)) is not None:
                table = value.column.class_
                here = update(table).where(table.id == value.row_id)
                connection.execute(here.values({value.column.key: written}))
                rewritten.append(value)
        return _amount(rewritten)

    errand = Errand(actor=actor, action="reencrypt", asked={}, now=now)
    return carry_out(engine, errand, pages(engine, (), Endpoint.id), change, done, Rewritten())


def _outdated(connection: Connection, first: Fernet, endpoint_ids: Sequence[str]) -> list[_Value]:
    return [value for value in _values(connection, endpoint_ids) if not _opens(first, value.stored)]


def _values(connection: Connection, endpoint_ids: Sequence[str]) -> Iterator[_Value]:
    own = select(Endpoint.id, Endpoint.headers, Endpoint.client_certificate).where(Endpoint.id.in_(endpoint_ids))
    for endpoint in connection.execute(own):
        for column in (Endpoint.headers, Endpoint.client_certificate):
            if (stored := getattr(endpoint, column.key)) is not None:
                yield _Value(endpoint.id, column, endpoint.id, stored)
    keys = select(EndpointKey.id, EndpointKey.endpoint_id, EndpointKey.secret)
    for key in connection.execute(keys.where(EndpointKey.endpoint_id.in_(endpoint_ids))):
        yield _Value(key.endpoint_id, EndpointKey.secret, key.id, key.secret)


def _opens(first: Fernet, stored: bytes) -> bool:
    try:
        first.decrypt(stored)
    except InvalidToken:
        return False
    return True


def _fresh(vault: MultiFernet, value: _Value) -> bytes | None:
    """The same value under the first key; None where no key opens it."""
    try:
        return vault.rotate(value.stored)
    except InvalidToken:
        return None


def _amount(values: Sequence[_Value]) -> Rewritten:
    return Rewritten(endpoints=len({value.endpoint_id for value in values}), values=len(values))
