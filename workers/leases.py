"""Leases: how work is taken, kept and given back, for every table of `Work`.

A Celery message is only a hint that rows may be due. What a process works on it has taken with `claim`: the
row is `running`, leased until `next_attempt_at`, and carries a new `fence`. What it found out it writes with
`finish`, which changes nothing when the lease has meanwhile gone to another. A row whose process died becomes
due again by the clock alone, and `due` finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, select, update
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.elements import ColumnElement

from workers import database
from workers.models import RUNNING, WAITING, AnyRow, EventRow, Work

Clock = Callable[[], datetime]


def utcnow() -> datetime:
    """The clock of a running system; tests pass another."""
    return datetime.now(UTC)


RING_AGAIN = timedelta(seconds=30)
"""How long a rung row may stay untaken before it is rung again."""


def claim(
    connection: Connection,
    table: type[Work],
    ids: Sequence[str],
    *,
    now: datetime,
    lease: timedelta,
    only: ColumnElement[bool] | None = None,
    **values: object,
) -> Sequence[AnyRow]:
    """Take those of `ids` that are due and free; the rows come back as they are after taking.

    Counts the start before the work begins, so that work which kills its process is seen to. `only` is a further
    condition on a row, `values` what else is written into it.
    """
    mine = database.among(connection.dialect.name, table.id, list(ids))
    free = (
        select(table.id)
        .where(mine, table.status.in_((WAITING, RUNNING)), table.next_attempt_at <= now)
        .with_for_update(skip_locked=True)
    )
    if only is not None:
        free = free.where(only)
    taken = (
        update(table)
        .where(table.id.in_(free))
        .values(
            status=RUNNING,
            starts=table.starts + 1,
            fence=table.fence + 1,
            next_attempt_at=now + lease,
            ring_at=now + lease,
            **values,
        )
        .returning(*table.__mapper__.columns)  # type: ignore[attr-defined]
    )
    rows = connection.execute(taken).all()
    return sorted(rows, key=lambda row: str(row.id))


def wait(connection: Connection, table: type[Work], row: AnyRow, *, until: datetime, **values: object) -> bool:
    """Give a leased row back to wait until then. False: the lease was lost, nothing was written."""
    return finish(connection, table, row, status=WAITING, next_attempt_at=until, ring_at=until, **values)


def finish(connection: Connection, table: type[Work], row: AnyRow, *, status: str, **values: object) -> bool:
    """Write the result of leased work under its fence. False: the lease was lost, nothing was written."""
    values = {"ring_at": None, **values}
    statement = (
        update(table)
        .where(table.id == row.id, table.fence == row.fence, table.status == RUNNING)
        .values(status=status, **values)
    )
    return connection.execute(statement).rowcount == 1


def due(
    connection: Connection,
    table: type[Work] | type[EventRow],
    name: InstrumentedAttribute[str],
    *,
    now: datetime,
    limit: int = 1_000,
) -> list[str]:
    """Mark up to `limit` rows as announced, longest due first, and return their distinct `name` column.

    A row is announced again only after `RING_AGAIN`, so that a backlog is not rung each second.
    """
    oldest = (
        select(table.id)
        .where(table.ring_at <= now)
        .order_by(table.ring_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("oldest")
    )
    rung = update(table).where(table.id.in_(select(oldest.c.id))).values(ring_at=now + RING_AGAIN).returning(name)
    return sorted(set(connection.execute(rung).scalars()))
