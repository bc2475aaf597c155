"""Hesabe's cipher: AES-256-CBC with one initialisation vector for all messages, written in hexadecimal.

It has no authentication code: a changed ciphertext often decrypts, and who knows one plaintext can write another.
That something decrypts proves nothing about who wrote it; trust comes from TLS and from asking the API again.

Two paddings are in use, both with bytes that say how many they are: blocks of 16 bytes (the documented requests) and
blocks of 32 (the server, and the kit for PHP). Reading takes both.
"""

from __future__ import annotations

import binascii
from typing import Any, Literal

from cryptography.hazmat.primitives import ciphers
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from handlers.errors import BillhookError
from handlers.providers.hesabe import exact_json

KEY_BYTES, IV_BYTES = 32, 16
LONGEST_PADDING = 32

_BLOCK = 16


class CipherError(BillhookError, ValueError):
    """What was given is no ciphertext under this key, or hides no JSON object."""


class Cipher:
    """Encrypts and decrypts under one secret key and one IV key. Safe to share between threads."""

    __slots__ = ("_cipher",)

    def __init__(self, key: str, iv: str) -> None:
        """`key` and `iv` as the merchant panel shows them: 32 and 16 characters. Raises ValueError otherwise."""
        if not (len(key) == KEY_BYTES and key.isascii()):
            raise ValueError(f"the secret key has {KEY_BYTES} ASCII characters")
        if not (len(iv) == IV_BYTES and iv.isascii()):
            raise ValueError(f"the IV key has {IV_BYTES} ASCII characters")
        self._cipher = ciphers.Cipher(AES(key.encode()), CBC(iv.encode()))

    def __repr__(self) -> str:
        return "<Cipher>"

    def encrypt(self, text: bytes | str, *, block: Literal[16, 32] = 16) -> str:
        """The ciphertext in lower-case hexadecimal; `block` is the size in bytes that padding fills up to."""
        if block not in {16, 32}:
            raise ValueError("the padding fills blocks of 16 or 32 bytes")
        plain = text if isinstance(text, bytes) else _encoded(text)
        padding = block - len(plain) % block
        encryptor = self._cipher.encryptor()
        return (encryptor.update(plain + bytes([padding]) * padding) + encryptor.finalize()).hex()

    def decrypt(self, text: str | bytes) -> bytes:
        """The plaintext of a ciphertext in hexadecimal. Raises CipherError, and nothing else, on anything."""
        try:
            data = binascii.unhexlify(text)
        except (ValueError, TypeError):
            raise CipherError("a ciphertext is an even number of hexadecimal digits") from None
        if not data or len(data) % _BLOCK:
            raise CipherError(f"a ciphertext has whole blocks of {_BLOCK} bytes")
        decryptor = self._cipher.decryptor()
        padded = decryptor.update(data) + decryptor.finalize()
        padding = padded[-1]
        if not 1 <= padding <= min(LONGEST_PADDING, len(padded)) or padded[-padding:].strip(padded[-1:]):
            raise CipherError("the padding is wrong: another key, or not a ciphertext")
        return padded[:-padding]

    def read(self, text: str | bytes) -> dict[str, Any]:
        """The JSON object that a ciphertext hides, its fractions as Decimal. Raises CipherError, and nothing else."""
        try:
            document = exact_json.read(self.decrypt(text))
        except CipherError:
            raise
        except ValueError as error:
            raise CipherError(str(error)) from None
        if not isinstance(document, dict):
            raise CipherError("it is JSON, but no object")
        return document


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise CipherError("the text has lone surrogates, which UTF-8 cannot write") from None
