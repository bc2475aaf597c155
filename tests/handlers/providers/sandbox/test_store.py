"""State on disk: transactions, keys and the clock."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from handlers.providers.sandbox import keys
from handlers.providers.sandbox.clock import Clock
from handlers.providers.sandbox.keys import Key
from handlers.providers.sandbox.limits import Limits
from handlers.providers.sandbox.store import SCHEMA, Store, StoreError

NOW = datetime(2026, 6, 5, 14, tzinfo=UTC)


def test_a_transaction_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.db")
    with store.transaction() as session:
        keys.add(session, "one", kind="live", owner="o", scopes=["read"], now=NOW)

    def broken() -> None:
        with store.transaction() as session:
            keys.add(session, "two", kind="live", owner="o", scopes=["read"], now=NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    store.close()
    with Store(tmp_path / "a.db").transaction() as session:
        assert [key.scopes for key in session.scalars(select(Key))] == [["read"]]


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={SCHEMA + 1}")
    connection.close()

    with pytest.raises(StoreError, match="another version"):
        Store(path)


def test_a_folder_that_is_not_there_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        Store(tmp_path / "nowhere" / "a.db")


def test_a_key_is_found_until_it_is_revoked_and_is_not_kept_itself(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.db")
    with store.transaction() as session:
        key = keys.add(session, "hisab_live_secret", kind="live", owner="o", scopes=[], now=NOW)
        assert keys.find(session, "hisab_live_secret") is key
        assert keys.find(session, "hisab_live_other") is None
        assert keys.revoke(session, key.id, NOW) is key
        assert keys.find(session, "hisab_live_secret") is None
        assert keys.revoke(session, "key_none", NOW) is None
    store.close()

    assert b"hisab_live_secret" not in (tmp_path / "a.db").read_bytes()


@given(st.text())
def test_any_header_at_all_is_a_key_or_none(header: str) -> None:
    with Store(None).transaction() as session:
        assert keys.find(session, keys.bearer(header)) is None


@pytest.mark.parametrize(
    ("header", "key"), [("Bearer k", "k"), ("bearer  k ", "k"), ("Basic k", ""), ("k", ""), (None, "")]
)
def test_the_key_is_what_follows_bearer(header: str | None, key: str) -> None:
    assert keys.bearer(header) == key


def test_the_clock_runs_from_its_start_and_jumps_forward_only() -> None:
    wall = [1000.0]
    store = Store(None)
    clock = Clock(store, lambda: wall[0], NOW)
    wall[0] += 60

    with store.transaction() as session:
        assert clock.now() == NOW + timedelta(minutes=1)
        clock.move(session, NOW + timedelta(days=1))
        with pytest.raises(ValueError, match="forward"):
            clock.move(session, NOW)

    wall[0] += 1.9
    assert clock.now() == NOW + timedelta(days=1, seconds=1)
    with clock.at(NOW):
        assert clock.now() == NOW
    assert Clock(store, lambda: wall[0], start=NOW).now() == clock.now()


def test_a_limit_is_for_a_key_and_a_minute() -> None:
    wall = [1_780_668_012.5]
    limits = Limits(lambda: wall[0])

    first, second, other = limits.count("a", 1), limits.count("a", 1), limits.count("b", 1)
    wall[0] += 47.5
    later = limits.count("a", 1)

    assert [usage.exceeded for usage in (first, second, other, later)] == [False, True, False, False]
    assert (second.retry_after, second.reset) == (48, 1_780_668_060)
    assert second.headers == {
        "X-RateLimit-Limit": "1",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "1780668060",
    }
