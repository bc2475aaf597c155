"""Whether endpoints can be reached from here: name, address, port, connection and TLS, as for a delivery; no request.

Behind a proxy only the way to the proxy can be looked at.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from cryptography.fernet import MultiFernet
from sqlalchemy import Connection, select

from workers.delivery import trust
from workers.delivery.egress import CheckedResolver, Egress, Refused, Resolver, check_url, checked_socket
from workers.models import Endpoint
from workers.vault import VaultError, decrypt

AT_ONCE = 50
_USUAL_PORT = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Place:
    """Where an endpoint is, and what TLS with it takes."""

    id: str
    url: str
    ca: str | None = None
    certificate: str | None = None


@dataclass(frozen=True, slots=True)
class Reached:
    """How it went: `error` is empty where the endpoint was reached, `refused` where our own rules forbid it."""

    place: Place
    error: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Places:
    """The newest enabled endpoints, how many more there are, and those that are disabled."""

    enabled: Sequence[Place]
    more: int
    disabled: Sequence[tuple[str, str]]
    """Their ids, and why."""


def places(connection: Connection, vault: MultiFernet | None, limit: int) -> Places:
    """The endpoints; a certificate that cannot be decrypted is left out, as are all of them without a vault."""
    columns = (Endpoint.id, Endpoint.url, Endpoint.ca, Endpoint.client_certificate)
    rows = connection.execute(select(*columns, Endpoint.status, Endpoint.disabled_reason).order_by(Endpoint.id.desc()))
    enabled, disabled, more = list[Place](), list[tuple[str, str]](), 0
    for row in rows:
        if row.status == "disabled":
            disabled.append((row.id, row.disabled_reason or ""))
        elif len(enabled) < limit:
            enabled.append(Place(row.id, row.url, row.ca, _opened(vault, row.client_certificate)))
        else:
            more += 1
    return Places(enabled, more, disabled)


def _opened(vault: MultiFernet | None, certificate: bytes | None) -> str | None:
    try:
        return None if vault is None or certificate is None else decrypt(vault, certificate)
    except VaultError:
        return None


def reach(found: Sequence[Place], egress: Egress, within: float) -> list[Reached]:
    """Connect to each, at most `AT_ONCE` at a time, for `within` seconds each."""
    return asyncio.run(_all(found, egress, within))


async def _all(found: Sequence[Place], egress: Egress, within: float) -> list[Reached]:
    resolver: Resolver = Resolver() if egress.proxy else CheckedResolver(egress)
    gate = asyncio.Semaphore(AT_ONCE)
    usual = await asyncio.to_thread(trust.usual)

    async def one(place: Place) -> Reached:
        async with gate:
            try:
                async with asyncio.timeout(within):
                    await _connect(place, egress, resolver, usual)
            except Exception as error:
                return Reached(place, *_told(error, within))
            return Reached(place)

    try:
        return await asyncio.gather(*(one(place) for place in found))
    finally:
        await resolver.close()


async def _connect(place: Place, egress: Egress, resolver: Resolver, usual: ssl.SSLContext) -> None:
    check_url(place.url, egress)
    url = httpx.URL(egress.proxy or place.url)
    port = url.port or _USUAL_PORT[url.scheme]
    opened = await _opened_socket(url.host, port, egress, resolver)
    try:
        context = None
        if url.scheme == "https":
            own = egress.proxy is None and (place.ca is not None or place.certificate is not None)
            context = await asyncio.to_thread(trust.special, place.ca, place.certificate) if own else usual
        name = url.raw_host.decode("ascii").strip("[]") if context else None
        _, writer = await asyncio.open_connection(sock=opened, ssl=context, server_hostname=name)
        writer.transport.abort()
    finally:
        opened.close()


async def _opened_socket(host: str, port: int, egress: Egress, resolver: Resolver) -> socket.socket:
    """A connection to the first address that takes one. Raises Refused, OSError."""
    loop = asyncio.get_running_loop()
    failure: OSError = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    for address in await _addresses(host, port, resolver):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        target: Any = (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
        opened = socket.socket(*target[:3]) if egress.proxy else checked_socket(target, egress)
        opened.setblocking(False)
        try:
            await loop.sock_connect(opened, (address, port))
        except OSError as error:
            failure = error
            opened.close()
        except BaseException:
            opened.close()
            raise
        else:
            return opened
    raise failure


async def _addresses(host: str, port: int, resolver: Resolver) -> list[str]:
    """The address that the host is, else those that its name has."""
    if ":" in host or host.replace(".", "").isdigit():
        return [host]
    return [one["host"] for one in await resolver.resolve(host, port, socket.AF_UNSPEC)]


_ENDINGS: tuple[tuple[type[Exception], str, str], ...] = (
    # The first match counts: several of these are subclasses of OSError.
    (Refused, "refused", "{error}"),
    (trust.Unusable, "refused", "{error}"),
    (TimeoutError, "timeout", "no connection within {within:g} s"),
    (socket.gaierror, "dns", "its name does not resolve"),
    (ssl.SSLCertVerificationError, "tls", "no secure connection: {error.verify_message}"),
    (ssl.SSLError, "tls", "no secure connection"),
    (OSError, "connect", "no connection: {reason}"),
)


def _told(error: Exception, within: float) -> tuple[str, str]:
    """The word and the sentence for what went wrong."""
    reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else "the attempt failed"
    for kind, word, sentence in _ENDINGS:
        if isinstance(error, kind):
            return word, sentence.format(error=error, within=within, reason=reason)
    return "unexpected", f"an unexpected {type(error).__name__}"
