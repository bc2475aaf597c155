"""Addresses of IPv6 in which one of IPv4 stands: who sends to such a one, or comes from it, means the other."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

_LAST_32_BITS = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))  # IPv4-mapped (RFC 4291), NAT64 (RFC 6052)
_6TO4 = IPv6Network("2002::/16")


def embedded(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address to which packets for this IPv6 address really go; None where there is none."""
    if isinstance(address, IPv4Address):
        return None
    if any(address in network for network in _LAST_32_BITS):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _6TO4:
        return IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    return None
