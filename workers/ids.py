"""Ids: a prefix that says what it is, and a ULID, so that rows arrive in the order of their index."""

from __future__ import annotations

import hashlib
from datetime import datetime

from ulid import ULID


def new(prefix: str) -> str:
    """A fresh id such as `evt_01JD…` (prefix and 26 characters)."""
    return f"{prefix}_{ULID()}"


def derived(prefix: str, at: datetime, *parts: str) -> str:
    """The id that these parts always have: time from `at`, the rest from their digest.

    Parts are length-prefixed, so that ("a", "bc") and ("ab", "c") differ.
    """
    digest = hashlib.sha256(b"".join(b"%d:%s" % (len(raw), raw) for raw in map(str.encode, parts))).digest()
    milliseconds = int(at.timestamp() * 1000)
    return f"{prefix}_{ULID.from_bytes(milliseconds.to_bytes(6, 'big') + digest[:10])}"
