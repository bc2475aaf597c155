"""A throttle for those who fail: so many a minute for each key, in this process.

Only requests that failed verification are counted and refused, so nobody can shut out a genuine sender by
failing in its name.
"""

from __future__ import annotations

from collections.abc import Hashable
from ipaddress import IPv4Address, IPv6Network, ip_address

from workers.addresses import embedded

LARGEST = 10_000
_OF_ONE_HOST = 64
"""Bits of an address of IPv6 that are given to a network; the others each host in it chooses, as often as it likes."""


def origin(client: tuple[str, int] | None) -> str:
    """Whom a connection is counted for: its address, of IPv6 only its network; nobody where it has none."""
    if client is None:
        return ""
    try:
        address = ip_address(client[0])
    except ValueError:
        return client[0]
    address = embedded(address) or address
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((int(address), _OF_ONE_HOST), strict=False))


class Throttle:
    """Counts by key in windows of a minute."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._window = 0
        self._counts: dict[Hashable, int] = {}

    def wait(self, key: Hashable, now: float) -> int:
        """Count one at `now` (seconds); 0 when it is allowed, else seconds until the next window."""
        self._open(now)
        count = self._counts[key] = self._counts.get(key, 0) + 1
        return 0 if count <= self._per_minute else 60 - int(now % 60)

    def forgive(self, key: Hashable, now: float) -> None:
        """Take back one that was counted: it did not fail after all."""
        self._open(now)
        if self._counts.get(key, 0) > 0:
            self._counts[key] -= 1

    def _open(self, now: float) -> None:
        window = int(now // 60)
        # A flood under many keys must not fill the memory; forgetting them early is the lesser evil.
        if window != self._window or len(self._counts) > LARGEST:
            self._window = window
            self._counts.clear()
