"""What the tables are made of: the types of their columns, their root, and what all that waits has in common."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    DateTime,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Text,
    TextClause,
    TypeDecorator,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

AnyRow = Row[*tuple[Any, ...]]
"""A row of a SELECT or RETURNING, whatever its columns."""

WAITING = "waiting"
RUNNING = "running"
HELD = "held"
JSON_TYPE = "application/json"


class Utc(TypeDecorator[datetime]):
    """A moment in UTC: with its zone on PostgreSQL; SQLite knows none, so it is taken off and put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Prose(TypeDecorator[str]):
    """Text of others' making (an error, a reason): what a database cannot store in it is written out."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: object, dialect: Dialect) -> str | None:
        return None if value is None else prose(str(value))


def prose(text: str) -> str:
    """Text that any database can store: what it cannot is written out."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


class Model(DeclarativeBase):
    """Root of the tables; `Model.metadata` is what Alembic compares with."""

    # Named, because SQLite's migrations address constraints by name.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: Text, bytes: LargeBinary, datetime: Utc, dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012


class Work:
    """Work that processes lease: waiting until `next_attempt_at`; while running, leased until then.

    `fence` grows with each lease: a result is written only under the fence it was leased with. `ring_at` is
    when the sweep announces the row if nobody took it (deliveries it finds by their endpoints); NULL when there is
    nothing left to do.
    """

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    status: Mapped[str] = mapped_column(String(12), default=WAITING)
    starts: Mapped[int] = mapped_column(Integer, default=0)
    fence: Mapped[int] = mapped_column(Integer, default=0)
    next_attempt_at: Mapped[datetime]
    ring_at: Mapped[datetime | None]


def partial(name: str, *columns: str, where: TextClause, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, postgresql_where=where, sqlite_where=where)


def due(table: str) -> Index:
    """Only what has work left is in it, so that its size follows the work and not the history."""
    return partial(f"ix_{table}_ring_at", "ring_at", where=text("ring_at IS NOT NULL"))
