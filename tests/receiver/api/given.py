"""What tests of the API are given beside a caller: deliveries, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from workers import database, ids
from workers.delivery.messages import Outgoing, publish
from workers.models import Attempt, Delivery

once = pytest.mark.parametrize("backend", ["embedded"], indirect=True)
"""For what does not hang on the servers."""


def published(
    engine: Engine, count: int = 1, *, kind: str = "receipt.issued", ago: float = 0, data: bytes = b'{"total":"12.50"}'
) -> list[str]:
    """Messages of so many seconds ago for every endpoint there is; the ids of the deliveries, oldest first."""
    outgoing = [Outgoing(ids.new("msg"), None, kind, data) for _ in range(count)]
    with database.write(engine) as connection:
        publish(connection, outgoing, now=datetime.now(UTC) - timedelta(seconds=ago))
        mine = Delivery.message_id.in_([one.id for one in outgoing])
        return list(connection.execute(select(Delivery.id).where(mine).order_by(Delivery.id)).scalars())


def ended(engine: Engine, delivery_ids: Sequence[str], status: str = "exhausted") -> None:
    """Have deliveries be as if they had ended so after an attempt."""
    went = {"attempts": 1, "again": True, "ring_at": None, "ended_at": datetime.now(UTC) - timedelta(seconds=1)}
    with database.write(engine) as connection:
        connection.execute(update(Delivery).where(Delivery.id.in_(delivery_ids)).values(status=status, **went))


def attempted(engine: Engine, delivery_id: str, number: int = 1, *, ago: float = 0, **answer: Any) -> None:
    """An attempt that began so many seconds ago."""
    made = {"id": ids.new("att"), "delivery_id": delivery_id, "number": number, "duration_ms": 12}
    when = {"started_at": datetime.now(UTC) - timedelta(seconds=ago)}
    with database.write(engine) as connection:
        answered = {"status": None, "error": None, "response": b"", **answer}
        connection.execute(database.insert(connection, Attempt), [made | when | answered])
