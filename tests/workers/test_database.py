from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from cryptography.fernet import Fernet, MultiFernet
from sqlalchemy import JSON, Column, Engine, TextClause, inspect, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from handlers.signing import STANDARD, hmac_key
from tests.conftest import new_database
from tests.workers.given import NOW
from workers import database
from workers.database import SCHEMA, SchemaError, ensure_schema, migrate, revision
from workers.delivery import keys
from workers.models import Delivery, Endpoint, EventRow, Model, Occurrence, Schedule
from workers.settings import Settings
from workers.vault import decrypt


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings for a database without a schema."""
    if request.param == "sqlite":
        yield Settings(state_dir=tmp_path / "empty")
        return
    with new_database(request.getfixturevalue("postgres_url")) as url:
        yield Settings(state_dir=tmp_path / "empty", database_url=url)


@pytest.fixture
def fresh(empty: Settings) -> Iterator[Engine]:
    """An engine on a database without a schema."""
    connected = database.connect(empty)
    yield connected
    connected.dispose()


def set_revision(engine: Engine, value: str) -> None:
    with database.write(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :value"), {"value": value})


def add_endpoint(engine: Engine, endpoint_id: str, headers: bytes = b"s") -> None:
    row = {"id": endpoint_id, "url": "http://x/", "description": "", "event_types": ["*"], "headers": headers}
    with database.write(engine) as connection:
        moment = text("CURRENT_TIMESTAMP")
        connection.execute(database.insert(connection, Endpoint).values(**row, status="enabled", created_at=moment))


def test_the_migrations_make_the_schema_of_the_models(fresh: Engine) -> None:
    migrate(fresh)

    with fresh.connect() as connection:
        opts = {"compare_type": True, "compare_server_default": other_default}
        context = MigrationContext.configure(connection, opts=opts)
        assert compare_metadata(context, Model.metadata) == []


def other_default(
    _context: object, _found: object, column: Column[Any], default: str | None, *wanted: str
) -> bool | None:
    """Whether a column's default is another one than the model's; None: let Alembic ask the database.

    Of JSON it cannot, as PostgreSQL knows no equality of that type.
    """
    if not isinstance(column.type, JSON):
        return None
    return (default or "").removesuffix("::json").strip("'") != (wanted[-1] or "").strip("'")


def step(engine: Engine, to: str) -> None:
    """Move the schema up or down to this revision."""
    before = revision(engine) or ""
    database.alter(engine, lambda config: (command.downgrade if to < before else command.upgrade)(config, to))


def delivery(endpoint_id: str, *, attempts: int = 0) -> TextClause:
    """A delivery of the message `msg_1`, written with the columns that each revision has."""
    return text(
        "INSERT INTO deliveries (id, message_id, endpoint_id, attempts, status, starts, fence, next_attempt_at, "
        "created_at) VALUES ('dlv_1', 'msg_1', :endpoint, :attempts, 'waiting', 0, 0, CURRENT_TIMESTAMP, "
        "CURRENT_TIMESTAMP)"
    ).bindparams(endpoint=endpoint_id, attempts=attempts)


@pytest.fixture
def outbound(fresh: Engine) -> Engine:
    """A database at 0002 with an endpoint, its secret, and a delivery to it that has failed."""
    migrate(fresh)
    step(fresh, "0002")
    sealed = VAULT.encrypt(OLD_SECRET.encode())
    with database.write(fresh) as connection:
        connection.execute(
            text(
                "INSERT INTO endpoints (id, url, description, event_types, secret, status, created_at) "
                "VALUES ('ep_01OLD', 'https://x/', '', '[\"*\"]', :sealed, 'enabled', CURRENT_TIMESTAMP)"
            ),
            {"sealed": sealed},
        )
        connection.execute(
            text("INSERT INTO messages (id, type, body, created_at) VALUES ('msg_1', 'a.b', :body, CURRENT_TIMESTAMP)"),
            {"body": b"{}"},
        )
        connection.execute(delivery("ep_01OLD", attempts=3))
    return fresh


OLD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VAULT = MultiFernet([Fernet(Fernet.generate_key())])


def test_an_endpoint_from_before_signs_with_its_old_secret(outbound: Engine) -> None:
    step(outbound, "0003")

    with database.read(outbound) as connection:
        (row,) = keys.load(connection, ["ep_01OLD"], NOW)["ep_01OLD"]
        endpoint = connection.execute(select(*Endpoint.__table__.columns)).one()
        waiting = connection.execute(select(*Delivery.__table__.columns)).one()
    assert (row.id, row.kind, row.expires_at) == ("key_01OLD", "v1", None)
    assert keys.opened(VAULT, [row]) == (hmac_key(STANDARD, OLD_SECRET),)
    assert (endpoint.sources, endpoint.forward, endpoint.signing, endpoint.failures) == ([], False, "v1", 0)
    assert (endpoint.headers, endpoint.schedule, endpoint.rate, endpoint.client_certificate) == (None,) * 4
    assert (waiting.again, waiting.prior) == (True, 0)


def test_going_back_finds_the_newest_secret_and_disables_what_has_none(outbound: Engine) -> None:
    step(outbound, "0003")
    with database.write(outbound) as connection:
        made = keys.rotate(
            connection, VAULT, "ep_01OLD", ["v1"], overlap=keys.OVERLAP, now=datetime.now(UTC) + keys.OVERLAP
        )
    add_endpoint(outbound, "ep_02KEYLESS")

    step(outbound, "0002")

    with database.read(outbound) as connection:
        found = connection.execute(text("SELECT id, secret, status FROM endpoints ORDER BY id")).all()
        assert connection.execute(text("SELECT count(*) FROM deliveries")).scalar() == 1
    assert [(row.id, row.status) for row in found] == [("ep_01OLD", "enabled"), ("ep_02KEYLESS", "disabled")]
    assert decrypt(VAULT, bytes(found[0].secret)) == made.secret
    step(outbound, "0003")
    with database.read(outbound) as connection:
        assert keys.load(connection, ["ep_01OLD", "ep_02KEYLESS"], NOW).keys() == {"ep_01OLD"}


def scheduled(engine: Engine) -> None:
    """A schedule of 0003 with an invoice that was made, and one that waits."""
    migrate(engine)
    step(engine, "0003")
    with database.write(engine) as connection:
        for statement in (_SCHEDULE, _REPORT, _OCCURRENCES):
            connection.exec_driver_sql(statement)


_SCHEDULE = (
    "INSERT INTO schedules (id, source, name, customer_id, frequency, interval_count, start_date, timezone, "
    "auto_finalize, auto_send, days_until_due, currency, items, status, next_index, created_at) VALUES ('sch_1', "
    "'shop', '', 'cus_1', 'monthly', 1, '2026-05-05', 'UTC', true, false, 30, 'MAD', '[]', 'active', 2, "
    "CURRENT_TIMESTAMP)"
)
_REPORT = (
    "INSERT INTO events (id, source, provider, delivery_id, event_key, type, occurred_at, received_at, headers, body, "
    "body_hash, status) VALUES ('evt_1', 'shop', 'billhook', 'occ_1', 'occ_1', 'recurring.generated', "
    "CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, '{}', '', '', 'ignored')"
)
_OCCURRENCES = (
    "INSERT INTO occurrences (id, schedule_id, due_on, status, step, attempts, starts, fence, next_attempt_at, "
    "created_at) VALUES ('occ_1', 'sch_1', '2026-05-05', 'generated', 'created', 1, 1, 1, CURRENT_TIMESTAMP, "
    "CURRENT_TIMESTAMP), ('occ_2', 'sch_1', '2026-06-05', 'waiting', 'planned', 0, 0, 0, CURRENT_TIMESTAMP, "
    "CURRENT_TIMESTAMP)"
)


def test_a_schedule_from_before_goes_on_and_its_occurrences_are_found(fresh: Engine) -> None:
    scheduled(fresh)

    step(fresh, "0004")

    with database.read(fresh) as connection:
        schedule = connection.execute(select(*Schedule.__table__.columns)).one()
        made, waiting = connection.execute(select(*Occurrence.__table__.columns).order_by(Occurrence.id)).all()
    assert (schedule.catch_up, schedule.options, schedule.planned, schedule.prior) == ("all", {}, 2, 0)
    assert (schedule.failures, schedule.anchor_date, schedule.agreement) == (0, None, None)
    assert (made.source, made.event_id, waiting.source, waiting.event_id) == ("shop", "evt_1", "shop", None)
    assert (waiting.retries, waiting.draft, waiting.issue_on) == (0, None, None)


def test_going_back_leaves_alone_what_was_held_or_skipped(fresh: Engine) -> None:
    scheduled(fresh)
    step(fresh, "0004")
    with database.write(fresh) as connection:
        connection.exec_driver_sql("UPDATE occurrences SET status = 'held' WHERE id = 'occ_2'")
        connection.exec_driver_sql("UPDATE occurrences SET status = 'skipped' WHERE id = 'occ_1'")

    step(fresh, "0003")

    with database.read(fresh) as connection:
        found = connection.exec_driver_sql("SELECT id, status, ring_at FROM occurrences ORDER BY id").all()
    assert [tuple(row) for row in found] == [("occ_1", "failed", None), ("occ_2", "failed", None)]


def test_processes_from_before_and_of_now_write_events_side_by_side(fresh: Engine) -> None:
    scheduled(fresh)
    step(fresh, "0005")
    with database.write(fresh) as connection:
        connection.exec_driver_sql(_REPORT.replace("evt_1", "evt_2").replace("occ_1", "occ_2"))  # as 0004 writes it
        connection.execute(update(EventRow).where(EventRow.id == "evt_2").values(traceparent=TRACE))

    with database.read(fresh) as connection:
        found = connection.execute(select(EventRow.id, EventRow.traceparent).order_by(EventRow.id)).all()
    assert [tuple(row) for row in found] == [("evt_1", None), ("evt_2", TRACE)]

    step(fresh, "0004")
    with database.read(fresh) as connection:
        left = connection.exec_driver_sql("SELECT id FROM events ORDER BY id").scalars().all()
    assert left == ["evt_1", "evt_2"]


TRACE = f"00-{1:032x}-{1:016x}-01"


def test_the_code_wants_the_newest_revision_there_is() -> None:
    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS))

    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA]


def test_migrating_tells_from_where_to_where_and_again_changes_nothing(fresh: Engine) -> None:
    assert revision(fresh) is None

    assert migrate(fresh) == (None, SCHEMA)
    add_endpoint(fresh, "ep_1")
    assert migrate(fresh) == (SCHEMA, SCHEMA)

    assert revision(fresh) == SCHEMA
    with database.read(fresh) as connection:
        assert connection.execute(text("SELECT id FROM endpoints")).scalars().all() == ["ep_1"]


def test_two_migrations_at_once_are_harmless(empty: Settings) -> None:
    def run(_: int) -> tuple[str | None, str | None]:
        own = database.connect(empty)
        try:
            return migrate(own)
        finally:
            own.dispose()

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(run, range(4)))

    assert {after for _, after in results} == {SCHEMA}
    assert (None, SCHEMA) in results


def test_the_schema_of_a_newer_version_is_worked_with_and_left_alone(empty: Settings, fresh: Engine) -> None:
    migrate(fresh)
    set_revision(fresh, "9999")

    ensure_schema(empty, fresh)

    assert migrate(fresh) == ("9999", "9999")
    assert revision(fresh) == "9999"


def test_an_older_schema_is_refused_with_the_command_to_run(empty: Settings, fresh: Engine) -> None:
    migrate(fresh)
    set_revision(fresh, "0003")

    with pytest.raises(SchemaError, match=rf"is at revision 0003, this version needs {SCHEMA}: run `billhook"):
        ensure_schema(empty, fresh)


def test_the_code_knows_every_revision_up_to_its_own() -> None:
    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS))

    assert database.known() == {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}


EXPANDING = sorted(revision for revision in database.known() if revision > "0003")
"""The first three were made before there was a version to take over from."""


@pytest.mark.parametrize("found", EXPANDING)
def test_a_migration_leaves_what_the_version_before_it_reads_and_writes(fresh: Engine, found: str) -> None:
    migrate(fresh)
    step(fresh, max(revision for revision in database.known() if revision < found))
    was = columns(fresh)
    step(fresh, found)

    assert in_the_way(was, columns(fresh)) == []


def test_a_migration_that_takes_away_or_asks_for_more_would_be_seen(fresh: Engine) -> None:
    migrate(fresh)
    now = columns(fresh)

    assert in_the_way(now | {("events", "gone"): True}, now) == ["events.gone"]
    assert in_the_way(now, now | {("events", "asked_for"): False}) == ["events.asked_for"]
    assert in_the_way(now, now | {("events", "more"): True, ("more", "id"): False}) == []


Columns = dict[tuple[str, str], bool]
"""Whether a row may leave them out, by table and name."""


def columns(engine: Engine) -> Columns:
    looked = inspect(engine)
    return {
        (table, column["name"]): column["nullable"] or column["default"] is not None
        for table in looked.get_table_names()
        for column in looked.get_columns(table)
    }


def in_the_way(before: Columns, after: Columns) -> list[str]:
    """The columns that code from before such a migration would miss, or not fill."""
    tables = {table for table, _ in before}
    gone = before.keys() - after.keys()
    asked = {key for key in after.keys() - before.keys() if key[0] in tables and not after[key]}
    stricter = {key for key in before.keys() & after.keys() if before[key] and not after[key]}
    return sorted(".".join(key) for key in gone | asked | stricter)


def test_the_right_schema_is_taken_as_it_is(empty: Settings, fresh: Engine) -> None:
    migrate(fresh)

    ensure_schema(empty, fresh)


def test_an_empty_database_server_is_refused_with_the_command_to_run(postgres_url: str) -> None:
    with new_database(postgres_url) as url:
        settings = Settings(database_url=url)
        engine = database.connect(settings)
        try:
            with pytest.raises(SchemaError, match="has no schema yet: run `billhook migrate`"):
                ensure_schema(settings, engine)
            assert inspect(engine).get_table_names() == []
        finally:
            engine.dispose()


def test_processes_that_start_at_once_make_the_embedded_database_once(tmp_path: Path) -> None:
    for turn in range(5):
        settings = Settings(state_dir=tmp_path / str(turn))

        def start(_: int, settings: Settings = settings) -> str | None:
            own = database.connect(settings)
            try:
                ensure_schema(settings, own)
                return revision(own)
            finally:
                own.dispose()

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(start, range(4))) == [SCHEMA] * 4


def test_a_process_that_comes_while_another_makes_the_database_waits_for_it(tmp_path: Path) -> None:
    engine = database.connect(Settings(state_dir=tmp_path / "state"))
    other = sqlite3.connect(tmp_path / "state" / "billhook.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # in a file that is not yet in the mode for many processes

    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(revision, engine)
        with pytest.raises(TimeoutError):
            found.result(timeout=0.2)
        other.execute("COMMIT")
        assert found.result(timeout=10) is None

    other.close()
    engine.dispose()


def test_a_block_that_fails_writes_nothing(engine: Engine) -> None:
    add_endpoint(engine, "ep_1")

    def fail() -> None:
        with database.write(engine) as connection:
            connection.execute(text("DELETE FROM endpoints"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    with database.read(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM endpoints")).scalar() == 1


def test_references_are_kept_on_both_databases(engine: Engine) -> None:
    with pytest.raises(IntegrityError) as failed, database.write(engine) as connection:
        connection.execute(delivery("ep_1"))

    assert not database.unavailable(failed.value)
    assert not database.collided(failed.value)


def test_an_error_of_the_database_does_not_repeat_what_was_written(engine: Engine) -> None:
    # Such errors end in logs, and what was written are bodies and secrets.
    add_endpoint(engine, "ep_1", headers=b"sealed-secret")

    with pytest.raises(IntegrityError) as failed:
        add_endpoint(engine, "ep_1", headers=b"sealed-secret")

    assert "sealed-secret" not in str(failed.value)


def test_a_reader_waits_for_no_writer(engine: Engine) -> None:
    add_endpoint(engine, "ep_1")

    with database.write(engine) as writing:
        writing.execute(text("UPDATE endpoints SET url = 'http://y/'"))
        with database.read(engine) as connection:
            assert connection.execute(text("SELECT url FROM endpoints")).scalar() == "http://x/"


def test_what_sqlite_commits_survives_a_power_cut(tmp_path: Path) -> None:
    engine = database.connect(Settings(state_dir=tmp_path / "state"))
    with engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    engine.dispose()

    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_the_embedded_database_is_in_a_folder_of_its_owner(tmp_path: Path) -> None:
    database.connect(Settings(state_dir=tmp_path / "deep" / "state")).dispose()

    assert (tmp_path / "deep" / "state").stat().st_mode & 0o777 == 0o700


def test_a_database_that_is_down_is_told_from_one_that_refuses(tmp_path: Path, postgres_url: str) -> None:
    (tmp_path / "file").write_text("in the way")
    missing = [
        Settings(database_url="postgresql://postgres@127.0.0.1:1/x"),
        Settings(database_url=f"{postgres_url}/billhook_there_is_no_such"),
        Settings(database_url=f"sqlite:///{tmp_path}/file/x.db"),
    ]

    for settings in missing:
        engine = database.connect(settings)
        with pytest.raises(DBAPIError) as failed:
            revision(engine)
        assert database.unavailable(failed.value)
        engine.dispose()


def test_two_transactions_in_each_others_way_have_collided(postgres_url: str) -> None:
    with new_database(postgres_url) as url:
        engine = database.connect(Settings(database_url=url))
        migrate(engine)
        add_endpoint(engine, "ep_1")
        rename = text("UPDATE endpoints SET url = 'http://y/'")

        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as late:
            late.execute(text("SELECT * FROM endpoints"))
            with database.write(engine) as connection:
                connection.execute(rename)
            with pytest.raises(DBAPIError) as failed:
                late.execute(rename)
        engine.dispose()

    assert database.collided(failed.value)
