"""Where deliveries may go: our own deny list of addresses, the ports, the rules of an endpoint's URL, and a resolver
and a socket that obey them.

An address is checked after it was resolved and again when the socket for it is made, because between a name (or an
odd spelling of an address) and a connection stand three URL parsers and a DNS server that may answer differently
each time.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx
from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult

from handlers.errors import BillhookError
from workers.addresses import embedded
from workers.settings import Settings

MAX_URL = 2048
PORTS = frozenset({80, 443, 8443})
"""Where endpoints listen unless the operator says otherwise; a webhook is no way to speak to a database."""
LOOKUPS = 50
"""Names looked up at once; a slow name holds one of these threads, also after its exchange has given up."""

Lookup = Callable[[str, int, socket.AddressFamily], Awaitable[Sequence[str]]]
"""From host, port and family to addresses; raises OSError when the name does not resolve."""

_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    # The first match names the kind, so what lies inside a wider block stands before it.
    (
        "metadata",
        (
            "169.254.169.254/32",  # most clouds
            "169.254.170.0/24",  # AWS, credentials of containers and pods
            "168.63.129.16/32",  # Azure, the host
            "100.100.100.200/32",  # Alibaba
            "192.0.0.192/32",  # Oracle, older machines
            "fd00:ec2::/32",  # AWS
            "fd20:ce::254/128",  # Google
            "fd00:42::42/128",  # Scaleway
        ),
    ),
    ("unspecified", ("0.0.0.0/8", "::/128")),
    ("loopback", ("127.0.0.0/8", "::1/128")),
    ("private", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")),
    ("link_local", ("169.254.0.0/16", "fe80::/10", "fec0::/10")),
    ("multicast", ("224.0.0.0/4", "ff00::/8")),
    ("documentation", ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")),
    ("reserved", ("192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4")),
    ("reserved", ("2001::/23",)),  # protocol assignments; Teredo, which hides an IPv4 address, is one of them
)
_DENIED = tuple((kind, ip_network(block)) for kind, blocks in _KINDS for block in blocks)
_LISTABLE = frozenset({"private", "loopback"})

_UNICAST = IPv6Network("2000::/3")  # all that is ever given out; NAT64's local prefix, 100::/64, 5f00::/16 lie outside

_USUAL_PORT = {"http": 80, "https": 443}
_URL = re.compile(r"([^:/?#]*)://([^/?#]*)([/?].*)?")
_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?")
_NUMBER = re.compile(
    r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?"
)  # what getaddrinfo reads as IPv4 (WHATWG URL, "ends in a number")


class Refused(BillhookError):
    """A delivery may not go there; `reason` is one stable lower-case word, the message a sentence for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Egress:
    """What the operator allows: private networks by name, ports, and the proxy that all goes through."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Private and loopback addresses within these are allowed; metadata, link-local and reserved ones never are."""
    ports: frozenset[int] | None = PORTS
    """None is any."""
    proxy: str | None = field(default=None, repr=False)
    """URL, with user and password where it wants them. Names are then resolved, and must be checked, by the proxy."""

    @classmethod
    def of(cls, settings: Settings) -> Egress:
        """As the settings say."""
        return cls(
            networks=tuple(ip_network(network, strict=False) for network in settings.egress_networks),
            ports=None if "*" in settings.egress_ports else frozenset(int(port) for port in settings.egress_ports),
            proxy=settings.egress_proxy.get_secret_value() if settings.egress_proxy else None,
        )


def check_address(address: str | IPv4Address | IPv6Address, egress: Egress) -> None:
    """Raise Refused unless a delivery may connect to `address`.

    The message does not repeat the address: a name's owner need not learn what it resolves to in here.
    """
    parsed = _parse(address)
    kind = _kind(parsed)
    if kind is None:
        return
    message = f"deliveries to {kind.replace('_', '-')} addresses are refused"
    if kind in _LISTABLE:
        reached = embedded(parsed) or parsed
        if any(_within(reached, network) for network in egress.networks):
            return
        message += " unless BILLHOOK_EGRESS_NETWORKS names their network"
    raise Refused(kind, message)


def check_url(url: str, egress: Egress) -> None:
    """Raise Refused unless `url` can be an endpoint's: http or https, a host, an allowed port, and nothing that two
    parsers read apart.

    A host that is an address is checked at once; a name is checked each time it is resolved.
    """
    if len(url) > MAX_URL:
        raise Refused("length", f"the URL is longer than {MAX_URL} characters")
    if not url.isprintable() or " " in url or "\\" in url:
        raise Refused("characters", "the URL contains a space, a backslash or a control character")
    if "#" in url:
        raise Refused("fragment", "the URL has a fragment (#), which is never sent")
    match = _URL.fullmatch(url)
    if match is None or match[1].lower() not in _USUAL_PORT:
        raise Refused("scheme", "the URL must begin with http:// or https://")
    if "@" in match[2]:
        raise Refused("userinfo", "the URL must not contain a user name or password")
    if "%" in match[2]:
        raise Refused("host", "the URL's host must not contain a percent sign")
    parsed = _parsed(url, match[2])
    _check_host(parsed, egress)
    _check_port(parsed.port or _USUAL_PORT[parsed.scheme], egress)


def checked_socket(target: AddrInfoType, egress: Egress) -> socket.socket:
    """A socket for exactly this address and port, or Refused: the gate of every connection, however it was spelt."""
    family, kind, protocol, _, address = target
    check_address(str(address[0]), egress)
    _check_port(int(address[1]), egress)
    return socket.socket(family, kind, protocol)


class Resolver(AbstractResolver):
    """Asks the system, or `lookup`. aiohttp does not ask a resolver about hosts that are addresses already."""

    def __init__(self, lookup: Lookup | None = None) -> None:
        self._lookup = lookup or self._getaddrinfo
        # Threads of our own: the loop's few would let some slow names delay all others, and end only when they answer.
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="billhook-dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`. Raises OSError when there are none."""
        addresses = await self._lookup(host, port, family)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [_result(host, address, port) for address in addresses]

    async def close(self) -> None:
        """Let the threads end, without waiting for those in a slow lookup."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _getaddrinfo(self, host: str, port: int, family: socket.AddressFamily) -> Sequence[str]:
        ask = partial(
            socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))


class CheckedResolver(Resolver):
    """Resolves a name to addresses that may all be connected to; one bad address refuses the name."""

    def __init__(self, egress: Egress, lookup: Lookup | None = None) -> None:
        super().__init__(lookup)
        self._egress = egress

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`. Raises Refused, or OSError when there are none."""
        results = await super().resolve(host, port, family)
        for result in results:
            check_address(result["host"], self._egress)
        return results


def _parse(address: str | IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    try:
        parsed = ip_address(address)
    except ValueError:
        raise Refused("malformed", "the endpoint's address is not an IP address") from None
    if isinstance(parsed, IPv6Address) and parsed.scope_id is not None:
        raise Refused("link_local", "deliveries to addresses with a zone are refused")
    return parsed


def _kind(address: IPv4Address | IPv6Address) -> str | None:
    """The kind of a denied address, None for a public one."""
    inner = embedded(address)
    if inner is not None:
        return _kind(inner)
    for kind, network in _DENIED:
        if _within(address, network):
            return kind
    return "reserved" if isinstance(address, IPv6Address) and address not in _UNICAST else None


def _within(address: IPv4Address | IPv6Address, network: IPv4Network | IPv6Network) -> bool:
    return address.version == network.version and address in network


def _parsed(url: str, authority: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise Refused("host", "the URL's host or port is malformed") from None
    if authority.endswith(":") or not (parsed.port is None or 0 < parsed.port < 65536):
        raise Refused("port", "the URL's port must be a number from 1 to 65535")
    return parsed


def _check_host(url: httpx.URL, egress: Egress) -> None:
    host = url.raw_host.decode("ascii")
    try:
        literal = ip_address(host)
    except ValueError:
        if len(host) > 253 or _HOST.fullmatch(host) is None:
            raise Refused("host", "the URL's host is missing or not a host name") from None
        if _NUMBER.fullmatch(host):
            raise Refused("host", "the URL's host is a number: write an address as four decimal numbers") from None
    else:
        check_address(literal, egress)


def _check_port(port: int, egress: Egress) -> None:
    if egress.ports is not None and port not in egress.ports:
        allowed = ", ".join(map(str, sorted(egress.ports))) or "none"
        raise Refused("port", f"deliveries to port {port} are refused: BILLHOOK_EGRESS_PORTS allows {allowed}")


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST)
