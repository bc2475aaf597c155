"""Passwords, as they are stored: hashed with scrypt, which takes a quarter of a second and 32 MiB for each guess.

One at a time in a process, so that a flood of sign-ins takes neither its memory nor more than one of its cores.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
import unicodedata

SHORTEST, LONGEST = 10, 1_000
"""Characters."""
_COST, _BLOCK, _LANES = 2**15, 8, 3
_MEMORY = 64 * 1024 * 1024
_one_at_a_time = threading.Lock()


def stored(password: str) -> str:
    """The password as its row has it: the parameters, the salt and the hash."""
    salt = os.urandom(16)
    digest = _scrypt(password, salt, _COST, _BLOCK, _LANES)
    return f"scrypt${_COST}${_BLOCK}${_LANES}${salt.hex()}${digest.hex()}"


def fits(password: str, kept: str | None) -> bool:
    """Whether this is the password that was stored; None stands for nobody's, and takes as long."""
    _, cost, block, lanes, salt, digest = (kept or _NOBODYS).split("$")
    found = _scrypt(password[:LONGEST], bytes.fromhex(salt), int(cost), int(block), int(lanes))
    return hmac.compare_digest(found, bytes.fromhex(digest)) and kept is not None


def _scrypt(password: str, salt: bytes, cost: int, block: int, lanes: int) -> bytes:
    # The same letter can be typed in several ways, which one cannot see.
    secret = unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
    with _one_at_a_time:
        return hashlib.scrypt(secret, salt=salt, n=cost, r=block, p=lanes, maxmem=_MEMORY, dklen=32)


_NOBODYS = f"scrypt${_COST}${_BLOCK}${_LANES}${bytes(16).hex()}${bytes(32).hex()}"
