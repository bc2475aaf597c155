"""Connections to the database, PostgreSQL or SQLite, and its schema.

Both run the same statements. What differs is here: how a transaction begins on SQLite, and which `INSERT`
knows `ON CONFLICT`.
"""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import (
    Connection,
    Engine,
    LargeBinary,
    Text,
    any_,
    bindparam,
    create_engine,
    event,
    inspect,
    literal,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.elements import BindParameter, ColumnElement

from handlers.errors import BillhookError
from workers.metrics import DATABASE_ERRORS
from workers.models import RUNNING, Model, Work
from workers.settings import Settings, SettingsError

if TYPE_CHECKING:
    from alembic.config import Config

SCHEMA = "0008"
"""The revision this code was written for: the newest file in `migrations/versions`."""

MIGRATIONS = Path(__file__).with_name("migrations")
_RETRY_CODES = {"40001", "40P01"}  # serialization failure, deadlock
_joined: ContextVar[Connection | None] = ContextVar("joined", default=None)
"""The transaction that this context's reads and writes are part of."""


class SchemaError(BillhookError):
    """The database's schema is older than this code; the message says which command to run."""


def connect(settings: Settings) -> Engine:
    """An engine for this process; nothing is connected yet. Never carry one over a fork."""
    if settings.sqlalchemy_url.startswith("sqlite"):
        return _sqlite(settings)
    return _counting(
        create_engine(
            settings.sqlalchemy_url,
            pool_size=5,
            max_overflow=10,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={
                "connect_timeout": 5,
                "tcp_user_timeout": 10_000,
                "application_name": "billhook",
                "options": "-c timezone=UTC",  # in another zone some moments would be beyond what Python can hold
            },
        )
    )


def _counting(engine: Engine) -> Engine:
    """The engine, whose failures are counted."""

    @event.listens_for(engine, "handle_error")
    def count(context: Any) -> None:
        failure = context.sqlalchemy_exception or context.original_exception
        kind = "unavailable" if unavailable(failure) else "collided" if collided(failure) else "other"
        DATABASE_ERRORS.labels(kind).inc()

    return engine


def _sqlite(settings: Settings) -> Engine:
    if settings.embedded_database:
        try:
            settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"BILLHOOK_STATE_DIR: cannot use {settings.state_dir}: {error.strerror}") from None
    # The driver's own BEGIN is deferred: two writers that both read first would fail rather than wait.
    engine = create_engine(
        settings.sqlalchemy_url, hide_parameters=True, connect_args={"isolation_level": None, "timeout": 15.0}
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        _switch_to_wal(connection)
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("billhook_reads", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return _counting(engine)


def _switch_to_wal(connection: Any) -> None:
    # Of two processes that open a new file at once one is refused here, and at once: SQLite's timeout does not count.
    deadline = time.monotonic() + 15.0
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextmanager
def write(engine: Engine) -> Iterator[Connection]:
    """One transaction that commits at the end of the block, or rolls back; within `together`, a part of that one."""
    if (joined := _joined.get()) is not None:
        with joined.begin_nested():
            yield joined
        return
    with engine.begin() as connection:
        yield connection


@contextmanager
def together(engine: Engine) -> Iterator[Connection]:
    """One transaction for all that is read and written within the block, whoever does it: all of it or nothing."""
    with engine.begin() as connection:
        token = _joined.set(connection)
        try:
            yield connection
        finally:
            _joined.reset(token)


@contextmanager
def read(engine: Engine, *, snapshot: bool = False) -> Iterator[Connection]:
    """A connection for reading; on SQLite it waits for no writer.

    With `snapshot` all that is read is of one moment, as it is on SQLite in any case; within `together` it is of that
    transaction, which has begun already.
    """
    if (joined := _joined.get()) is not None:
        yield joined
        return
    with engine.connect().execution_options(billhook_reads=True) as connection:
        if snapshot and connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield connection


class Held:
    """A connection that one thread keeps, for transactions that follow each other closely.

    To take one from the pool, to ask whether it lives and to give it back takes as long as a statement. After a failure
    of any kind the connection is given up, and the next transaction connects anew.
    """

    def __init__(self, engine: Engine, *, autocommit: bool = False) -> None:
        """With `autocommit` each statement on PostgreSQL is a transaction of its own, which saves two more."""
        self._engine = engine
        self._autocommit = autocommit and engine.dialect.name == "postgresql"
        self._connection: Connection | None = None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """As `write`."""
        if self._connection is None:
            self._connection = self._engine.connect()
            if self._autocommit:
                self._connection = self._connection.execution_options(isolation_level="AUTOCOMMIT")
            self._connection.detach()  # it is closed with us, whatever became of its pool
        try:
            with self._connection.begin():
                yield self._connection
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; nobody may be using it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def among(
    dialect: str, column: InstrumentedAttribute[Any], values: Sequence[str] | BindParameter[Any]
) -> ColumnElement[bool]:
    """Whether a text column has one of these values, or of those that a parameter will have.

    One parameter on PostgreSQL: a statement with a parameter for each is another one for each number of them, and
    takes longer to be written and parsed than to run.
    """
    if dialect == "postgresql":
        array = postgresql.ARRAY(Text)
        if isinstance(values, BindParameter):
            return column == any_(bindparam(values.key, type_=array))
        return column == any_(literal(list(values), array))
    return column.in_(bindparam(values.key, expanding=True) if isinstance(values, BindParameter) else values)


def insert(connection: Connection, model: type[Model]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT with `on_conflict_do_nothing` for this connection's database."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(model)
    return sqlite.insert(model)


def insert_new(connection: Connection, model: type[Model], rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """INSERT these rows, all of the same columns, except those that collide; returns the ids of what was new."""
    if connection.dialect.name == "postgresql":
        # One short statement for any number of rows, so it is parsed and planned once. As VALUES, its thousands of
        # parameters would cost more than all the rest of a batch; as an array for each column, half of it.
        parameters = _document_and_arrays(model, rows)
        return set(connection.exec_driver_sql(_from_document(model, tuple(rows[0])), parameters).scalars())
    statement = sqlite.insert(model).on_conflict_do_nothing().returning(model.__table__.c.id)
    return set(connection.execute(statement, [dict(row) for row in rows]).scalars())


def update_held(connection: Connection, model: type[Work], rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Write each row, by its `id`, where it is still running under its `fence`; the ids of those that were.

    All rows have the same columns, none of them of bytes.
    """
    table: Any = model
    if connection.dialect.name == "postgresql":
        held = f" AND old.fence = new.fence AND old.status = '{RUNNING}'"
        statement = _update_from_document(table, tuple(rows[0]), held)
        return set(connection.exec_driver_sql(statement, (orjson.dumps(rows).decode(),)).scalars())
    return {
        row["id"]
        for row in rows
        if connection.execute(
            update(table)
            .where(table.id == row["id"], table.fence == row["fence"], table.status == RUNNING)
            .values({name: row[name] for name in row if name not in _HOLD})
        ).rowcount
    }


def update_each(connection: Connection, model: type[Model], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write each row, by its `id`. All rows have the same columns, none of them of bytes."""
    table: Any = model
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_update_from_document(table, tuple(rows[0])), (orjson.dumps(rows).decode(),))
        return
    written: dict[str, Any] = {name: bindparam(f"new_{name}") for name in rows[0] if name != "id"}
    statement = update(table.__table__).where(table.__table__.c.id == bindparam("new_id")).values(written)
    connection.execute(statement, [{f"new_{name}": value for name, value in row.items()} for row in rows])


_HOLD = ("id", "fence")


@cache
def _update_from_document(table: Any, names: tuple[str, ...], condition: str = "") -> str:
    columns, dialect = table.__table__.c, postgresql.dialect()  # type: ignore[no-untyped-call]
    types = ", ".join(f"{name} {columns[name].type.compile(dialect)}" for name in names)
    written = ", ".join(f"{name} = new.{name}" for name in names if name not in _HOLD)
    return (
        f"UPDATE {table.__tablename__} AS old SET {written} "  # noqa: S608 - our names
        f"FROM json_to_recordset(%s::json) AS new ({types}) "
        f"WHERE old.id = new.id{condition} RETURNING old.id"
    )


@cache
def _binary(model: type[Model]) -> frozenset[str]:
    """The columns of bytes, which JSON cannot carry."""
    return frozenset(column.name for column in model.__table__.c if isinstance(column.type, LargeBinary))


def _document_and_arrays(model: type[Model], rows: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    arrays = [[row[name] for row in rows] for name in rows[0] if name in _binary(model)]
    return orjson.dumps(rows, default=_elsewhere).decode(), *arrays


def _elsewhere(_bytes: bytes) -> None:
    """What stands in the document for bytes; the statement does not read it there."""


@cache
def _from_document(model: type[Model], names: tuple[str, ...]) -> str:
    columns, dialect, binary = model.__table__.c, postgresql.dialect(), _binary(model)  # type: ignore[no-untyped-call]
    plain, bytea = [name for name in names if name not in binary], [name for name in names if name in binary]
    types = ", ".join(f"{name} {columns[name].type.compile(dialect)}" for name in plain)
    arrays = "".join(", unnest(%b::bytea[])" for _ in bytea)
    listed = ", ".join(plain + bytea)
    return (
        f"INSERT INTO {model.__tablename__} ({listed}) "  # noqa: S608 - our names
        f"SELECT {listed} FROM ROWS FROM (json_to_recordset(%s::json) AS ({types}){arrays}) AS new ({listed}) "
        "ON CONFLICT DO NOTHING RETURNING id"
    )


def unavailable(error: Exception) -> bool:
    """Whether the database did not answer, so that the very same work may succeed later."""
    return isinstance(error, (OperationalError, InterfaceError)) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )


def collided(error: Exception) -> bool:
    """Whether two transactions got in each other's way, so that trying again at once is right."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _RETRY_CODES


def revision(engine: Engine) -> str | None:
    """The schema's revision; None in an empty database."""
    with read(engine) as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def fits(found: str | None) -> bool:
    """Whether this code works with a schema of this revision: its own, or that of a newer version.

    A newer version only adds to what an older one reads and writes, so that both run while one takes over from the
    other. This code knows every revision up to its own; one that it does not know is of a newer version.
    """
    return found == SCHEMA or (found is not None and found not in known())


@cache
def known() -> frozenset[str]:
    """The revisions up to `SCHEMA`, by the names of their files."""
    return frozenset(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def migrate(engine: Engine) -> tuple[str | None, str | None]:
    """Bring the schema to `SCHEMA`; two at once are harmless, the second waits. Returns (before, after).

    That of a newer version is left as it is.
    """
    from alembic import command
    from alembic.util import CommandError

    before = revision(engine)
    try:
        alter(engine, lambda config: command.upgrade(config, "head"))
    except CommandError:  # the revision cannot be found, so it is not one of ours
        found = revision(engine)
        if not fits(found):
            raise
        return found, found
    return before, SCHEMA


def alter(engine: Engine, change: Callable[[Config], None]) -> None:
    """Let Alembic change the schema: on SQLite in one transaction, on PostgreSQL in one for each revision."""
    from alembic.config import Config

    from workers import migrating

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    if engine.dialect.name != "postgresql":
        with write(engine) as config.attributes["connection"]:
            change(config)
        return
    with migrating.alone(engine) as connection:
        config.attributes["connection"] = connection
        migrating.patiently(connection, lambda: change(config))


def ensure_schema(settings: Settings, engine: Engine) -> None:
    """Refuse a schema older than this code; make the embedded database where there is none yet.

    Raises SchemaError with the command to run.
    """
    found = revision(engine)
    if found is None and settings.embedded_database:
        with (settings.state_dir / "migrate.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            migrate(engine)
        return
    if not fits(found):
        state = "has no schema yet" if found is None else f"is at revision {found}, this version needs {SCHEMA}"
        raise SchemaError(f"the database {state}: run `billhook migrate`")
