"""Ids: a prefix that says what it is, and a ULID, so that rows arrive in the order of their index."""

from __future__ import annotations

import hashlib
import os
import time
from datetime import UTC, datetime, timedelta

from ulid_transform import bytes_to_ulid, ulid_to_timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = 2**48 - 1


def new(prefix: str) -> str:
    """A fresh id such as `evt_01JD…` (prefix and 26 characters)."""
    # The system's randomness: a generator of our own would repeat itself in the processes that are forked from us.
    return f"{prefix}_{bytes_to_ulid((time.time_ns() // 1_000_000).to_bytes(6) + os.urandom(10))}"


def derived(prefix: str, at: datetime, *parts: str) -> str:
    """The id that these parts always have: time from `at`, the rest from their digest.

    Parts are length-prefixed, so that ("a", "bc") and ("ab", "c") differ.
    """
    digest = hashlib.sha256(b"".join(b"%d:%s" % (len(raw), raw) for raw in map(str.encode, parts))).digest()
    milliseconds = int(at.timestamp() * 1000)
    return f"{prefix}_{bytes_to_ulid(milliseconds.to_bytes(6) + digest[:10])}"


APART = timedelta(hours=1)
"""What may lie between the moment of a row and that in its id, which are taken one after the other."""


def since(prefix: str, moment: datetime) -> str:
    """An id that no row made at this moment or later lies below; for a search that need not read all."""
    return first(prefix, moment, -APART)


def until(prefix: str, moment: datetime) -> str:
    """An id that every row made before this moment lies below."""
    return first(prefix, moment, APART)


def first(prefix: str, at: datetime, leeway: timedelta = timedelta(0)) -> str:
    """The least id of a moment and a leeway, or of the end of what ids can tell: what has a lesser one is older."""
    milliseconds = int((at.timestamp() + leeway.total_seconds()) * 1000)
    return f"{prefix}_{bytes_to_ulid(min(max(milliseconds, 0), _LAST).to_bytes(6) + bytes(10))}"


def moment(an_id: str) -> datetime:
    """When an id was made, to the millisecond."""
    return _EPOCH + timedelta(milliseconds=ulid_to_timestamp(an_id.rpartition("_")[2]))
