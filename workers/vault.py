"""Secrets at rest: encrypted with Fernet, under keys that can be rotated.

The keys are `BILLHOOK_ENCRYPTION_KEYS`. Beside the embedded database, whoever can read the one can read the
other, so there a key of our own making in the state folder serves.
"""

from __future__ import annotations

import base64
import contextlib
import os
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from handlers.errors import BillhookError
from workers.settings import Settings

_VARIABLE = "BILLHOOK_ENCRYPTION_KEYS"


class VaultError(BillhookError):
    """Secrets cannot be read or written; the message says what to set."""


def open_vault(settings: Settings) -> MultiFernet:
    """What encrypts and decrypts secrets. Raises VaultError where there is no key, or it is none."""
    return MultiFernet([Fernet(key) for key in _keys(settings)])


def first_key(settings: Settings) -> Fernet:
    """The key that encrypts. Raises VaultError as `open_vault` does."""
    return Fernet(_keys(settings)[0])


def derived(settings: Settings, purpose: str) -> tuple[bytes, ...]:
    """Keys of 32 bytes for a purpose other than encryption, one of each, the newest first. Raises VaultError.

    HKDF (RFC 5869): whoever knows one of them knows neither the encryption key nor that of another purpose.
    """
    return tuple(
        HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(base64.urlsafe_b64decode(key))
        for key in _keys(settings)
    )


def _keys(settings: Settings) -> list[str]:
    keys = [secret.get_secret_value() for secret in settings.encryption_keys]
    if not keys and settings.embedded_database:
        keys = [_own_key(settings.state_dir / "encryption.key")]
    if not keys:
        raise VaultError(
            f"{_VARIABLE} is not set; make a key with: "
            'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
        )
    try:
        for key in keys:
            Fernet(key)
    except ValueError:
        raise VaultError(f"{_VARIABLE}: a key is 32 bytes in URL-safe base64") from None
    return keys


def decrypt(vault: MultiFernet, secret: bytes) -> str:
    """The secret that was encrypted. Raises VaultError when none of the keys fits."""
    try:
        return vault.decrypt(secret).decode()
    except InvalidToken:
        raise VaultError(f"a stored secret was encrypted with a key that is not in {_VARIABLE}") from None


def _own_key(path: Path) -> str:
    if path.exists():
        return path.read_text("ascii")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Written whole under another name first: two processes that start at once must agree on one key.
    # Under a name of its own too: in containers that share a volume every process has the number 1.
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(descriptor, "wb") as file:
        file.write(Fernet.generate_key())
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    os.unlink(draft)
    return path.read_text("ascii")
