"""How the schema of PostgreSQL is changed while other processes read and write.

Two things would stop them. A change of a table waits for whoever reads it, a backup for an hour, and all who come later
wait behind it; so it gives up after `LOCK_WAIT`, lets them through and tries again. An index that is made within a
transaction keeps writers out until it is finished; `add_index` makes it beside them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from alembic import op
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError, PendingRollbackError

from workers.logs import log

LOCK_WAIT = 1.0
"""Seconds for which a change keeps others waiting while it waits itself."""
PAUSE = 4.0
"""Seconds in which they are let through."""
_LOCK_NOT_AVAILABLE = "55P03"


@contextmanager
def alone(engine: Engine) -> Iterator[Connection]:
    """A connection to migrate over, for one process at a time; others wait.

    The lock is of the connection and not of a transaction: who waited within one would himself be waited for by an
    index that is made beside others. It is held by the server for as long as the server works for us, even if this
    process died meanwhile.
    """
    connection = engine.connect()
    try:
        # A limit that the platform has set for requests would end the making of a large index.
        _each_alone(connection, "SET statement_timeout = 0")
        told = False
        while not _each_alone(connection, "SELECT pg_try_advisory_lock(hashtext('billhook.migrate'))"):
            if not told:
                log.warning("another migration is at work; waiting for its end", action="migration_waits")
                told = True
            time.sleep(0.2)
        yield connection
    finally:
        connection.invalidate()  # it ends here, with all that was set in it, and the lock
        connection.close()


def patiently(connection: Connection, change: Callable[[], None]) -> None:
    """Carry a change out, as often as it takes until nobody has a table that it needs; it goes on where it was."""
    while True:
        _each_alone(connection, _limit(LOCK_WAIT))
        try:
            return change()
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            connection.rollback()
        except PendingRollbackError as error:
            # What Alembic meets when it tidies up after a connection that broke hides that it broke.
            raise error.__context__ or error from None
        log.warning(
            "the schema is not changed yet: a table is in use by a long transaction, such as a backup; trying again",
            action="migration_waits",
            seconds=PAUSE,
        )
        time.sleep(PAUSE)


def add_index(name: str, table: str, columns: list[str], *, where: str | None = None) -> None:
    """Within a migration: make an index on a table that may be large, without keeping writers out.

    That is no part of the migration's transaction, which is committed before. So a migration that calls this does
    nothing else, and may begin anew: what is finished is left, what was broken off is made again.
    """
    condition = None if where is None else text(where)
    if op.get_bind().dialect.name != "postgresql":
        op.create_index(name, table, columns, sqlite_where=condition)
        return
    with _beside_others() as connection:
        broken = text("SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid")
        if connection.execute(broken, {"name": name}).scalar():
            op.drop_index(name, table, postgresql_concurrently=True)
        op.create_index(
            name, table, columns, postgresql_where=condition, postgresql_concurrently=True, if_not_exists=True
        )


def drop_index(name: str, table: str) -> None:
    """Within a migration: as `add_index`, the other way."""
    if op.get_bind().dialect.name != "postgresql":
        op.drop_index(name, table)
        return
    with _beside_others():
        op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)


@contextmanager
def _beside_others() -> Iterator[Connection]:
    """Statements that are no part of a transaction. They wait for others, and let others through meanwhile."""
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        connection.execute(text("SET lock_timeout = 0"))
        yield connection
        connection.execute(text(_limit(LOCK_WAIT)))


def _limit(seconds: float) -> str:
    return f"SET lock_timeout = {seconds * 1000:.0f}"


def _each_alone(connection: Connection, statement: str) -> object:
    """Execute this as a transaction of its own; what it gave, if it gave something."""
    with connection.begin():
        result = connection.execute(text(statement))
        return result.scalar() if result.returns_rows else None
