"""The lines: what is due at each endpoint."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Text, bindparam, cast, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from workers import database
from workers.models import RUNNING, WAITING, Delivery, Endpoint


@dataclass(frozen=True, slots=True)
class Line:
    """Ids of deliveries that are due at one endpoint, longest due first."""

    first: list[str] = field(default_factory=list)
    """Those that were never attempted."""
    again: list[str] = field(default_factory=list)
    """Those that failed before."""

    def __len__(self) -> int:
        return len(self.first) + len(self.again)

    def without(self, ids: Container[str]) -> Line:
        """This line without those."""
        return Line([one for one in self.first if one not in ids], [one for one in self.again if one not in ids])


def endpoints_of(connection: Connection, delivery_ids: Sequence[str], now: datetime) -> set[str]:
    """The endpoints at which any of these deliveries is due."""
    mine = database.among(connection.dialect.name, Delivery.id, list(delivery_ids))
    due = (Delivery.status.in_((WAITING, RUNNING)), Delivery.next_attempt_at <= now)
    return set(connection.execute(select(Delivery.endpoint_id).where(mine, *due).distinct()).scalars())


def lines(connection: Connection, endpoint_ids: Sequence[str], *, now: datetime, most: int) -> dict[str, Line]:
    """What is due at these endpoints, up to `most` of either kind for each."""
    found: dict[str, Line] = {}
    for row in _due(connection, endpoint_ids, now, most):
        line = found.setdefault(row.endpoint_id, Line())
        (line.again if row.again else line.first).append(row.id)
    return found


def one_each(connection: Connection, now: datetime) -> list[str]:
    """One due delivery of each endpoint that is not held off, to be rung for; disabled endpoints too, to cancel it.

    A look into the index for each endpoint, however much is due: a backlog at one hides nothing of another.
    """
    due = [
        select(Delivery.id)
        .where(Delivery.endpoint_id == Endpoint.id, Delivery.again.is_(again), _open(), Delivery.next_attempt_at <= now)
        .limit(1)
        .correlate(Endpoint)
        .scalar_subquery()
        for again in (False, True)
    ]
    reachable = or_(Endpoint.held_until.is_(None), Endpoint.held_until <= now)
    found = connection.execute(select(func.coalesce(*due)).where(reachable)).scalars()
    return sorted(one for one in found if one is not None)


def cancel(connection: Connection, endpoint_ids: Sequence[str], *, now: datetime, most: int = 1_000) -> int:
    """End up to `most` of what is due at endpoints that are disabled; how many."""
    if not endpoint_ids:
        return 0
    mine = database.among(connection.dialect.name, Delivery.endpoint_id, list(endpoint_ids))
    due = select(Delivery.id).where(mine, _open(), Delivery.next_attempt_at <= now).limit(most)
    ended = update(Delivery).where(Delivery.id.in_(due.with_for_update(skip_locked=True)))
    return connection.execute(ended.values(status="cancelled", ring_at=None, ended_at=now)).rowcount


def _due(connection: Connection, endpoint_ids: Sequence[str], now: datetime, most: int) -> Sequence[Any]:
    if connection.dialect.name == "postgresql":
        given: Mapping[str, Any] = {"endpoints": list(endpoint_ids), "now": now, "most": most}
        return connection.execute(_of_all(), given).all()
    return [
        row
        for endpoint_id in endpoint_ids
        for again in (False, True)
        for row in connection.execute(_of_one(again), {"endpoint": endpoint_id, "now": now, "most": most})
    ]


@cache
def _of_one(again: bool) -> Any:
    return _longest_due(bindparam("endpoint"), again)


@cache
def _of_all() -> Any:
    """For each endpoint one look into the index, however long its line is."""
    given = func.unnest(cast(bindparam("endpoints"), ARRAY(Text())))
    endpoints = given.table_valued("id", name="wanted").render_derived()
    parts = [_longest_due(endpoints.c.id, again).lateral(f"again_{again}".lower()) for again in (False, True)]
    both = [select(part).select_from(endpoints.join(part, literal(True))) for part in parts]
    return both[0].union_all(both[1])


def _longest_due(endpoint_id: Any, again: bool) -> Any:
    return (
        select(Delivery.id, Delivery.endpoint_id, Delivery.again, Delivery.next_attempt_at)
        .where(
            Delivery.endpoint_id == endpoint_id,
            Delivery.again.is_(again),
            _open(),
            Delivery.next_attempt_at <= bindparam("now"),
        )
        .order_by(Delivery.next_attempt_at)
        .limit(bindparam("most"))
    )


def _open() -> Any:
    """In the words of the partial index."""
    return Delivery.status.in_(bindparam("open", (WAITING, RUNNING), expanding=True, literal_execute=True))
