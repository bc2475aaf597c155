"""The connections to endpoints: pooled, kept alive, checked when made, through the proxy where there is one."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from collections import OrderedDict
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import aiohttp
import httpx
from aiohttp.abc import ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from httpx_aiohttp import AiohttpTransport

from workers.delivery import trust
from workers.delivery.egress import CheckedResolver, Egress, Lookup, Resolver, checked_socket

KEEP_ALIVE = 4.0
"""Seconds an idle connection is kept: less than the 5 s after which common servers close theirs."""
MAX_CONTEXTS = 64
"""TLS contexts of endpoints with certificates of their own that are kept, the last used."""
MAX_INTERIM = 20
"""Interim answers (1xx) before the real one; each costs the sender time, and a server could send them without end."""


class ProxyError(Exception):
    """The proxy cannot be found."""


@dataclass(slots=True)
class _Path:
    """How one exchange gets to its endpoint."""

    tls: ssl.SSLContext | None
    """Instead of the usual one."""
    sockets: list[socket.socket] = field(default_factory=list)
    """Opened on the way."""


_path: ContextVar[_Path] = ContextVar("path")


class Wires:
    """All connections of one event loop."""

    def __init__(
        self,
        *,
        egress: Egress,
        deadline: float,
        connect: float,
        tls: ssl.SSLContext | None,
        lookup: Lookup | None,
    ) -> None:
        self._egress = egress
        self._patience = round(deadline * 1000)
        self._connect = connect
        self._tls = tls or trust.usual()
        self._resolver = _ProxyResolver(lookup) if egress.proxy else CheckedResolver(egress, lookup)
        self._contexts: OrderedDict[bytes, ssl.SSLContext] = OrderedDict()
        self._making = asyncio.Lock()
        self._kept = self._transport(keep=True)
        self._fresh = self._transport(keep=False)

    async def send(self, request: httpx.Request, ca: str | None, certificate: str | None) -> httpx.Response:
        """The response's head."""
        # The transport takes "pool" as the limit for all of connecting: name, TCP and TLS.
        request.extensions["timeout"] = {"connect": self._connect, "pool": self._connect}
        path = _Path(await self._context(ca, certificate))
        _path.set(path)
        try:
            return await self._sent(request, path)
        except BaseException:
            # asyncio loses sight of a connection that is cut off in the moment between TCP and TLS.
            for opened in path.sockets:
                with suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)
            raise

    async def _sent(self, request: httpx.Request, path: _Path) -> httpx.Response:
        """Sends once more, on a connection of its own, when a kept connection turns out closed.

        aiohttp does that only for idempotent methods. A delivery is one in all but name: its id makes a second copy
        recognisable, so the "means to know" of RFC 9112 section 9.3.1 are there.
        """
        try:
            return await self._kept.handle_async_request(request)
        except httpx.TransportError as error:
            closed = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError)
            if path.sockets or not isinstance(error.__cause__, closed):
                raise
        return await self._fresh.handle_async_request(request)

    async def close(self) -> None:
        """Close every connection."""
        await self._kept.aclose()
        await self._fresh.aclose()
        await self._resolver.close()
        await asyncio.sleep(0.01)  # some turns of the loop, in which what was cut off closes

    async def _context(self, ca: str | None, certificate: str | None) -> ssl.SSLContext | None:
        """The TLS context for these, None for the usual one. Raises trust.Unusable.

        aiohttp keeps the connections of each context apart, so those of one that is dropped here are used no more, and
        close when they have been idle for long.
        """
        if ca is None and certificate is None:
            return None
        key = hashlib.sha256(repr((ca, certificate)).encode()).digest()  # what it digests is secret
        async with self._making:
            if key not in self._contexts:
                self._contexts[key] = await asyncio.to_thread(trust.special, ca, certificate)
                if len(self._contexts) > MAX_CONTEXTS:
                    self._contexts.popitem(last=False)
            self._contexts.move_to_end(key)
            return self._contexts[key]

    def _transport(self, *, keep: bool) -> AiohttpTransport:
        """httpx without its client, which would add redirects, cookies, netrc and the proxies of the environment."""
        return AiohttpTransport(verify=self._tls, trust_env=False, client=lambda: self._session(keep=keep))

    def _session(self, *, keep: bool) -> aiohttp.ClientSession:
        connector = _Connector(
            ssl=self._tls,
            resolver=self._resolver,
            use_dns_cache=False,  # each new connection asks again, and is checked again
            limit=0,  # whoever sends limits what is under way
            force_close=not keep,
            keepalive_timeout=KEEP_ALIVE if keep else None,
            socket_factory=self._socket,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            proxy=self._egress.proxy,
            trust_env=False,
            request_class=_Request,
            response_class=_Response,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )

    def _socket(self, target: aiohttp.AddrInfoType) -> socket.socket:
        # The proxy is the operator's: wherever it is, it may be connected to.
        opened = socket.socket(*target[:3]) if self._egress.proxy else checked_socket(target, self._egress)
        _path.get().sockets.append(opened)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # A peer that never reads would else hold a socket that has bytes left to send, also after it was closed.
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._patience)
        return opened


class _ProxyResolver(Resolver):
    """Resolves the name of the proxy, to wherever it is."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            return await super().resolve(host, port, family)
        except OSError:
            raise ProxyError("the proxy's name does not resolve") from None


class _Connector(aiohttp.TCPConnector):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        factory: Any = partial(_Handler, loop=self._loop)
        self._factory = factory

    def _get_ssl_context(self, req: aiohttp.ClientRequest) -> ssl.SSLContext | None:
        """An endpoint's own authorities do not vouch for an https proxy, and our certificate is not for it to see."""
        of_proxy = req.is_ssl() and not isinstance(req, _Request)
        return self._ssl if of_proxy and isinstance(self._ssl, ssl.SSLContext) else super()._get_ssl_context(req)


class _Handler(ResponseHandler):
    """A connection on which only so many interim answers come before the real one."""

    _interim = 0

    async def read(self) -> Any:
        message, payload = await super().read()
        self._interim = self._interim + 1 if message.code < 200 else 0
        if self._interim > MAX_INTERIM or message.code == 101:
            raise HttpProcessingError(code=message.code, message="interim answers that nobody asked for")
        return message, payload


class _Request(aiohttp.ClientRequest):
    """A request with the TLS context of its exchange; the transport knows none but the connector's."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "ssl": _path.get().tls or True})


class _Response(aiohttp.ClientResponse):
    """A response without its reason phrase: HTTP allows one that is not UTF-8, and the transport fails on that."""

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        await super().start(connection)
        self.reason = None
        return self
