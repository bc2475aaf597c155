"""Pages of what is stored, newest first: each goes on behind the last id of the one before.

Ids begin with their time, so the order of ids is that of arrival, and a page costs the same wherever it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select
from sqlalchemy.orm import InstrumentedAttribute

from workers.models import AnyRow


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and the id behind which the next page begins; None where there is none."""

    rows: Sequence[AnyRow]
    after: str | None


def page(
    connection: Connection,
    rows: Select[*tuple[Any, ...]],
    key: InstrumentedAttribute[str],
    *,
    after: str | None,
    limit: int,
    oldest_first: bool = False,
) -> Page:
    """The `limit` newest, or oldest, of these rows behind the id `after`. The rows have a column `id`."""
    statement = rows.order_by(key if oldest_first else key.desc()).limit(limit + 1)
    if after is not None:
        statement = statement.where(key > after if oldest_first else key < after)
    found = connection.execute(statement).all()
    return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)
