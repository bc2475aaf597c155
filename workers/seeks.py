"""Seeks: the newest rows that have some of a few values in each of several columns, however rare they are together.

An index of such columns and the id, `ix_events_seek` for one, finds the newest of one combination at once. There are
few combinations (statuses, sources, types), and a skip from each to the next finds them all; of each that is meant the
newest are looked up, and the newest of these are what was asked for. So one index answers for every column alone and
for all of them together, where a plan that goes by the shares of single values would read everything that is stored in
search of what never goes together. SQLite skips by itself where it is asked for what is distinct.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, Connection, Text, func, literal, select, true, tuple_
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import InstrumentedAttribute

MOST = 500
"""Combinations that are sought at most."""

Columns = Sequence[InstrumentedAttribute[str]]
Combination = tuple[str, ...]


def combinations(connection: Connection, columns: Columns) -> list[Combination] | None:
    """What there is in these columns, which an index begins with; None where it is more than `MOST`."""
    found = _found(connection, columns, MOST + 1)
    return found if len(found) <= MOST else None


def every(connection: Connection, columns: Columns) -> list[Combination]:
    """The same, however much it is, in order."""
    return sorted(_found(connection, columns, None))


def _found(connection: Connection, columns: Columns, limit: int | None) -> list[Combination]:
    if connection.dialect.name != "postgresql":
        rows = connection.execute(select(*columns).distinct().limit(limit))
        return [tuple(row) for row in rows]
    least = select(*columns).order_by(*columns).limit(1).subquery()
    found = select(*least.c).cte("found", recursive=True)
    behind = tuple_(*columns) > tuple_(*found.c)
    following = select(*columns).where(behind).order_by(*columns).limit(1).lateral()
    found = found.union_all(select(*following.c).select_from(found.join(following, true())))
    return [tuple(row) for row in connection.execute(select(*found.c).limit(limit))]


def newest(
    connection: Connection,
    columns: Columns,
    key: InstrumentedAttribute[str],
    meant: Collection[Combination],
    limit: int,
    *conditions: ColumnElement[bool],
) -> list[str]:
    """The `limit` highest keys of each of these combinations, of the rows that fulfil the conditions. On PostgreSQL."""
    if not meant:
        return []
    lists = [literal(list(values), postgresql.ARRAY(Text)) for values in zip(*meant, strict=True)]
    names = [column.key for column in columns]
    wanted = func.unnest(*lists).table_valued(*names).render_derived("wanted")
    mine = [column == wanted.c[column.key] for column in columns]
    of_one = select(key).where(*mine, *conditions).order_by(key.desc()).limit(limit).lateral()
    return list(connection.execute(select(*of_one.c).select_from(wanted.join(of_one, true()))).scalars())
