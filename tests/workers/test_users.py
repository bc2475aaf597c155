"""Users of the console: what is stored of a password, and who is let in."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from tests.workers.given import NOW, only, rows
from workers import passwords, users
from workers.models import AuditEntry, User
from workers.users import UserError

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each guess costs is no matter of these tests."""
    monkeypatch.setattr(passwords, "_COST", 16)


@pytest.fixture
def ada(engine: Engine) -> str:
    """The id of a user who may read."""
    return users.add(engine, "Ada", PASSWORD, ["read"], actor="root", now=NOW)


def test_a_user_comes_in_with_their_password_and_no_other(engine: Engine, ada: str) -> None:
    signed_in = users.authenticate(engine, "Ada", PASSWORD, NOW)

    assert signed_in is not None
    assert signed_in.caller.actor == f"Ada ({ada})"
    assert "events:read" in signed_in.caller.scopes
    assert "events:write" not in signed_in.caller.scopes
    assert only(engine, User).last_signed_in_at == NOW
    for name, password in (
        ("Ada", PASSWORD + "x"),
        ("Ada", ""),
        ("ada", PASSWORD),
        ("nobody", PASSWORD),
        ("Ada\x00", PASSWORD),
        ("\ud800", PASSWORD),
        ("Ada", "\ud800\x00" * 5000),
    ):
        assert users.authenticate(engine, name, password, NOW) is None


def test_a_letter_typed_in_another_way_is_the_same_letter(engine: Engine) -> None:
    users.add(engine, "Zoé", "caf\u00e9 du matin", ["read"], actor="root", now=NOW)

    assert users.authenticate(engine, "Zoé", "cafe\u0301 du matin", NOW) is not None


def test_neither_the_password_nor_what_could_be_searched_for_is_stored(engine: Engine, ada: str) -> None:
    users.add(engine, "Bob", PASSWORD, ["read"], actor="root", now=NOW)

    first, second = (row.password for row in rows(engine, User))

    assert PASSWORD not in first
    assert first.startswith("scrypt$16$8$3$")
    assert first != second
    assert not any(hasattr(row, "password") for row in users.everyone(engine))


def test_a_session_ends_when_its_user_is_disabled_or_gets_a_new_password(engine: Engine, ada: str) -> None:
    before = users.authenticate(engine, "Ada", PASSWORD, NOW)
    assert before is not None
    assert users.live(engine, ada, before.mark) == before.caller

    users.change_password(engine, "Ada", "another password", actor="root", now=NOW)

    assert users.live(engine, ada, before.mark) is None
    assert users.authenticate(engine, "Ada", PASSWORD, NOW) is None
    after = users.authenticate(engine, "Ada", "another password", NOW)
    assert after is not None

    users.disable(engine, "Ada", actor="root", now=NOW)

    assert users.live(engine, ada, after.mark) is None
    assert users.authenticate(engine, "Ada", "another password", NOW) is None


def test_who_was_disabled_can_be_added_again_and_is_the_same(engine: Engine, ada: str) -> None:
    with pytest.raises(UserError, match="there is a user 'Ada'"):
        users.add(engine, "Ada", PASSWORD, ["full"], actor="root", now=NOW)
    users.disable(engine, "Ada", actor="root", now=NOW)

    again = users.add(engine, "Ada", "another password", ["full"], actor="root", now=NOW + timedelta(days=1))

    assert again == ada
    signed_in = users.authenticate(engine, "Ada", "another password", NOW)
    assert signed_in is not None
    assert "events:write" in signed_in.caller.scopes
    assert [entry.action for entry in rows(engine, AuditEntry)] == ["users.add", "users.disable", "users.add"]


@pytest.mark.parametrize(
    ("name", "password", "complaint"),
    [
        ("", PASSWORD, "a name must be printable"),
        ("a\x00b", PASSWORD, "a name must be printable"),
        ("a" * 101, PASSWORD, "1 to 100 characters"),
        ("Ada", "short", "a password has 10 to 1000 characters"),
        ("Ada", "x" * 1001, "a password has 10 to 1000 characters"),
    ],
)
def test_a_name_or_password_that_cannot_be_is_refused(engine: Engine, name: str, password: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        users.add(engine, name, password, ["read"], actor="root", now=NOW)
    assert rows(engine, User) == []


def test_what_concerns_a_user_who_is_not_there_says_so(engine: Engine) -> None:
    with pytest.raises(UserError, match="there is no user 'Eve'"):
        users.disable(engine, "Eve", actor="root", now=NOW)
    with pytest.raises(UserError, match="there is no user 'Eve'"):
        users.change_password(engine, "Eve", PASSWORD, actor="root", now=NOW)
