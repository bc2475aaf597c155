"""Where a sandbox keeps its state: a SQLite file, or memory."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Connection, DateTime, Dialect, Engine, MetaData, TypeDecorator, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.pool import StaticPool

from handlers.errors import BillhookError

SCHEMA = 1
"""Counted up with each change to any sandbox's tables; a file of another number is refused."""


class StoreError(BillhookError):
    """The file cannot be used; the message says what to do."""


class Utc(TypeDecorator[datetime]):
    """A moment in UTC; SQLite knows no zones, so the zone is taken off and put back."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


TYPES = {datetime: Utc, dict[str, Any]: JSON, list[Any]: JSON, list[str]: JSON}
"""The `type_annotation_map` of a sandbox's tables."""


class Model(DeclarativeBase):
    """Root of the tables that every sandbox has."""

    type_annotation_map = TYPES


class Store:
    """One SQLite database. Transactions follow each other, from whichever thread they come."""

    def __init__(self, path: Path | None, *schemas: MetaData) -> None:
        """Open the file, or make it; None keeps everything in memory. Raises StoreError."""
        self._lock = threading.RLock()
        self._engine = _engine(path)
        # Some user of a sandbox in memory never closes it.
        self._finalizer = weakref.finalize(self, self._engine.dispose)
        try:
            with self._engine.begin() as connection:
                version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
                if version not in {0, SCHEMA}:
                    raise StoreError(f"{path} was made by another version of Billhook: give another file, or delete it")
                for schema in (Model.metadata, *schemas):
                    schema.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA}")
        except DBAPIError as error:
            raise StoreError(f"cannot use {path} as the sandbox's file: {error.orig}") from None

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that is committed at the end of the block; an exception rolls it back."""
        with self._lock, Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        self._finalizer()


def _engine(path: Path | None) -> Engine:
    # The driver's own BEGIN is deferred: a writer that read first would fail rather than wait for another process.
    options: dict[str, Any] = {"isolation_level": None, "check_same_thread": False, "timeout": 15.0}
    if path is None:
        engine = create_engine("sqlite://", poolclass=StaticPool, hide_parameters=True, connect_args=options)
    else:
        engine = create_engine(f"sqlite:///{path}", hide_parameters=True, connect_args=options)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        for pragma in ("journal_mode=WAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
