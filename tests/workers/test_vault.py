from __future__ import annotations

import base64
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.fernet import Fernet, MultiFernet

from workers import vault
from workers.settings import Settings
from workers.vault import VaultError, decrypt, derived, open_vault

OPENER = """
import sys
from pathlib import Path
from workers.settings import Settings
from workers.vault import open_vault
settings = Settings(state_dir=Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(open_vault(settings).encrypt(b"whsec_shared").decode(), flush=True)
"""


def opened(*keys: bytes) -> MultiFernet:
    return open_vault(Settings(encryption_keys=b",".join(keys).decode()))


def test_a_secret_is_unreadable_at_rest_and_comes_back_whole() -> None:
    opener = opened(Fernet.generate_key())

    stored = opener.encrypt("whsec_é".encode())

    assert b"whsec" not in stored
    assert b"whsec" not in base64.urlsafe_b64decode(stored)
    assert decrypt(opener, stored) == "whsec_é"


def test_another_key_does_not_open_a_secret_and_the_error_names_the_variable() -> None:
    stored = opened(Fernet.generate_key()).encrypt(b"whsec_hidden")

    with pytest.raises(VaultError, match="BILLHOOK_ENCRYPTION_KEYS") as failed:
        decrypt(opened(Fernet.generate_key()), stored)

    assert stored.decode() not in str(failed.value)


@pytest.mark.parametrize("stored", [b"", b"whsec_never_encrypted", b"\xff\x00"])
def test_what_was_never_encrypted_does_not_open(stored: bytes) -> None:
    with pytest.raises(VaultError):
        decrypt(opened(Fernet.generate_key()), stored)


def test_after_a_rotation_old_secrets_open_and_new_ones_use_the_first_key() -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    before = opened(old).encrypt(b"before")

    rotating = opened(new, old)

    assert decrypt(rotating, before) == "before"
    assert decrypt(opened(new), rotating.encrypt(b"after")) == "after"
    assert decrypt(opened(new), rotating.rotate(before)) == "before"


@pytest.mark.parametrize("key", ["too-short", "é" * 43 + "=", "A" * 43])
def test_what_is_no_key_is_named_but_not_repeated(key: str) -> None:
    with pytest.raises(VaultError, match="BILLHOOK_ENCRYPTION_KEYS") as failed:
        opened(key.encode())

    assert key not in str(failed.value)


def test_on_a_server_database_a_missing_key_is_an_error_that_says_how_to_make_one() -> None:
    settings = Settings(database_url="postgresql://localhost/billhook")

    with pytest.raises(VaultError, match=r"(?s)BILLHOOK_ENCRYPTION_KEYS.*generate_key"):
        open_vault(settings)


def test_beside_the_embedded_database_a_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state")

    stored = open_vault(settings).encrypt(b"whsec_kept")

    key = tmp_path / "state" / "encryption.key"
    assert decrypt(open_vault(settings), stored) == "whsec_kept"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert [path.name for path in key.parent.iterdir()] == ["encryption.key"]


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, tmp_path / "state"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(vault.__file__).parents[1],
        )
        for _ in range(3)
    ]
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"

    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("go\n")
        opener.stdin.flush()

    secrets = [opener.communicate(timeout=20)[0].strip() for opener in openers]
    reader = open_vault(Settings(state_dir=tmp_path / "state"))
    assert [decrypt(reader, secret.encode()) for secret in secrets] == ["whsec_shared"] * 3


def test_processes_with_the_same_number_agree_on_one_key(tmp_path: Path) -> None:
    # In containers that share a volume every process has the number 1; threads have one number too.
    for turn in range(20):
        settings = Settings(state_dir=tmp_path / str(turn))
        with ThreadPoolExecutor(8) as threads:
            secrets = [vault.encrypt(b"x") for vault in threads.map(lambda _, s=settings: open_vault(s), range(8))]

        reader = open_vault(settings)
        assert {decrypt(reader, secret) for secret in secrets} == {"x"}


def test_keys_are_derived_one_of_each_encryption_key_and_by_their_purpose(tmp_path: Path) -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    rotated = Settings(state_dir=tmp_path, encryption_keys=f"{new},{old}")

    first, second = derived(rotated, "cookies")

    assert (second,) == derived(Settings(state_dir=tmp_path, encryption_keys=old), "cookies")
    assert first != derived(rotated, "letters")[0]
    assert len(first) == len(second) == 32
    assert first not in (new.encode(), old.encode())
