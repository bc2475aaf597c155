"""The commands that say who may call the API and sign in to the console: keys and users."""

from __future__ import annotations

import io
import sys
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from tests.receiver.cli.conftest import Billhook
from tests.workers.given import only, rows
from workers import api_keys, passwords, users
from workers.leases import utcnow
from workers.models import ApiKey, AuditEntry, User

pytestmark = [pytest.mark.usefixtures("configured"), pytest.mark.parametrize("backend", ["embedded"], indirect=True)]


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_COST", 16)


def test_a_key_is_printed_alone_on_stdout_once_and_works(billhook: Billhook, engine: Engine) -> None:
    ended = billhook("keys", "create", "--scopes", "full", "--name", "first")

    assert ended.status == 0, ended
    key = ended.out.removesuffix("\n")
    caller = api_keys.authenticate(engine, key, utcnow())
    assert caller is not None
    assert caller.scopes == set(api_keys.SCOPES)
    assert f"this is {caller.id}; the key is shown only now" in ended.err
    assert key not in ended.err
    for listed in (billhook("keys", "list"), billhook("keys", "list", "--json")):
        assert caller.id in listed.out
        assert key not in listed.out
    assert "@" in only(engine, AuditEntry).actor


def test_a_key_has_the_scopes_and_the_end_that_were_asked_for(billhook: Billhook, engine: Engine) -> None:
    (made,) = billhook(
        "keys", "create", "--scope", "events:read,stats:read", "--scope", "keys:read", "--expires", "90d", "--json"
    ).objects

    row = only(engine, ApiKey)
    assert row.scopes == made["scopes"] == ["events:read", "stats:read", "keys:read"]
    assert abs(row.expires_at - utcnow() - timedelta(days=90)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "--scopes: say what it is for"),
        (["--scopes", "events:reed"], "'events:reed' is no scope"),
        (["--scopes", "full", "--expires", "soon"], "--expires: 'soon' is neither a date nor how long"),
        (["--scopes", "full", "--expires", "2020-01-01"], "--expires: 2020-01-01 is past"),
        (["--scopes", "full", "--name", "a\nb"], "name: must be printable"),
    ],
)
def test_a_key_that_cannot_be_is_refused(
    billhook: Billhook, engine: Engine, options: list[str], complaint: str
) -> None:
    assert complaint in billhook("keys", "create", *options).complaint(2)
    assert rows(engine, ApiKey) == []


def test_a_key_is_revoked_where_somebody_agrees(billhook: Billhook, engine: Engine) -> None:
    (made,) = billhook("keys", "create", "--scopes", "read", "--json").objects
    assert "there is no terminal to ask at" in billhook("keys", "revoke", made["id"]).complaint(2)

    ended = billhook("keys", "revoke", made["id"], "--yes")

    assert ended.out == f"{made['id']} is revoked\n"
    assert api_keys.authenticate(engine, made["key"], utcnow()) is None
    assert "there is no key key_none" in billhook("keys", "revoke", "key_none", "--yes").complaint()


def test_a_user_is_added_with_a_password_from_stdin(
    billhook: Billhook, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse battery\n"))
    added = billhook("users", "add", "Ada", "--password-stdin", "--scopes", "read")

    assert added.out == "Ada may sign in at /console\n"
    assert users.authenticate(engine, "Ada", "correct horse battery", utcnow()) is not None
    (listed,) = billhook("users", "list", "--json").objects
    assert listed["name"] == "Ada"
    assert "password" not in listed

    monkeypatch.setattr(sys, "stdin", io.StringIO("another password\n"))
    assert billhook("users", "password", "Ada", "--password-stdin").status == 0
    assert users.authenticate(engine, "Ada", "another password", utcnow()) is not None

    assert billhook("users", "disable", "Ada").out == "Ada is disabled\n"
    assert only(engine, User).disabled_at is not None


def test_a_password_is_not_taken_from_what_is_no_terminal_unless_that_is_said(
    billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse battery\n"))

    assert "use --password-stdin" in billhook("users", "add", "Ada").complaint(2)


def test_a_short_password_is_refused(billhook: Billhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("short\n"))

    assert "a password has 10 to" in billhook("users", "add", "Ada", "--password-stdin").complaint(2)
