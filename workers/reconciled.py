"""What a reconciled event is known by, and late deliveries of what it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, literal, select, text
from sqlalchemy.orm import aliased

from handlers.reconciling import Change
from workers import database
from workers.models import AnyRow, EventRow

_MARK = "reconciled"


def key_of(change: Change) -> str:
    """The delivery id and event key of its event: the same whoever takes it in, and however often.

    It ends in the moment where the change repeats, and in the object's id where it does not.
    """
    once = f"{_MARK}:{change.type}:{change.object_id}"
    return f"{once}:{change.occurred_at.isoformat()}" if change.repeats else once


def known_by_reconciliation(connection: Connection, events: Sequence[AnyRow]) -> set[str]:
    """The ids of those events that a reconciled event stands for already.

    That is one of the same object and type, of a type that does not repeat. What happened after it was taken in is
    news all the same. The rows have `id`, `object_id` and `reconciled`.
    """
    delivered = [event.id for event in events if not event.reconciled and event.object_id is not None]
    if not delivered:
        return set()
    statement = _stood_for(connection.dialect.name)
    return set(connection.execute(statement, {"ids": delivered}).scalars())


@cache
def _stood_for(dialect: str) -> Select[Any]:
    ours = aliased(EventRow, name="ours")
    once = literal(f"{_MARK}:").concat(ours.type).concat(":").concat(ours.object_id)
    same = (ours.source == EventRow.source) & (ours.object_id == EventRow.object_id) & (ours.type == EventRow.type)
    return (
        select(EventRow.id)
        .join(ours, same)
        # In the words of the partial index: SQLite takes it only then.
        .where(database.among(dialect, EventRow.id, bindparam("ids")), text("ours.reconciled"))
        .where(ours.delivery_id == once, EventRow.occurred_at <= ours.received_at)
    )
