"""`billhook reencrypt`, as somebody who takes an encryption key away gives it."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from tests.receiver.cli.conftest import Billhook
from workers.settings import Settings

URL = "https://example.com/hook"
OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


@pytest.mark.usefixtures("configured")
def test_a_key_is_replaced_by_another_without_a_gap(billhook: Billhook, monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(*written: str) -> None:
        monkeypatch.setenv("BILLHOOK_ENCRYPTION_KEYS", ",".join(written))

    keys(OLD)
    (added,) = billhook("endpoints", "add", URL, "--header", "X-Token: t0ken", "--json").objects
    keys(OLD, NEW)
    assert billhook("reencrypt").out == "everything is encrypted under the first key\n"

    keys(NEW, OLD)
    assert billhook("reencrypt", "--dry-run").out == "would encrypt 2 values of 1 endpoint under the first key\n"
    assert billhook("reencrypt").out == "encrypted 2 values of 1 endpoint under the first key\n"
    assert billhook("reencrypt", "--json").objects == [
        {"endpoints": 0, "values": 0, "unreadable": [], "dry_run": False}
    ]

    keys(NEW)
    assert "X-Token" in billhook("endpoints", "show", added["id"]).out


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_what_no_key_opens_is_an_error_that_says_what_to_do(
    billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    (added,) = billhook("endpoints", "add", URL, "--json").objects
    monkeypatch.setenv("BILLHOOK_ENCRYPTION_KEYS", NEW)

    said = billhook("reencrypt").complaint()

    assert f"encrypted what {added['id']} has: add that key" in said
    assert billhook("endpoints", "rotate", added["id"], "--overlap", "0").status == 0
    assert billhook("reencrypt", "--dry-run").out == "everything is encrypted under the first key\n"


@pytest.mark.parametrize("backend", ["servers"], indirect=True)
def test_without_a_key_it_says_how_to_make_one(
    billhook: Billhook, configured: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert configured.database_url is not None
    monkeypatch.delenv("BILLHOOK_ENCRYPTION_KEYS")

    assert "BILLHOOK_ENCRYPTION_KEYS is not set; make a key with" in billhook("reencrypt").complaint()
