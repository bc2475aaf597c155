"""HTTP exchanges with endpoints, many at once: what is sent, every way an exchange can end, and the connections.

`Sender.send` is synchronous and never raises for what an endpoint does: whatever happens becomes an `Answer`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Literal

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from workers.delivery.egress import CheckedResolver, Lookup, Refused, check_url, checked_socket
from workers.retry import MAX_RETRY_AFTER

MAX_READ = 64 * 1024
"""Bytes of a response body after which the connection is closed; the status counts as if it had ended."""
MAX_KEPT = 16 * 1024
"""Bytes of a response body kept for people to read."""
IN_FLIGHT = 50
KEEP_ALIVE = 4.0
"""Seconds an idle connection is kept: less than the 5 s after which common servers close theirs."""

OWN_HEADERS = frozenset(
    (
        *("accept-encoding", "connection", "content-length", "expect", "host", "keep-alive"),
        *("te", "trailer", "transfer-encoding", "upgrade", "user-agent"),
    )
)
"""Headers (lower case) that only the sender sets; a request that brings one is not sent."""

Error = Literal["refused", "unsendable", "dns", "connect", "tls", "timeout", "disconnected", "protocol", "unexpected"]

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t -~]*")
_SECONDS = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")

_dialled: ContextVar[list[str]] = ContextVar("dialled")  # the addresses that this exchange opened a socket to


@dataclass(frozen=True, slots=True)
class Request:
    """One POST. All of it can be secret (a token in the URL, a signature, a header), so none of it is in the repr."""

    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """How one exchange ended.

    Either the endpoint answered, and `status` is its verdict; or there is no whole answer, `status` is None and `error`
    the stable word for why. An answer that breaks off counts as none, whatever its first line said: better twice than
    never. `detail` is a sentence for people, free of URL, headers and bodies; empty after a 2xx.
    """

    status: int | None
    duration_ms: int
    body: bytes = field(default=b"", repr=False)
    retry_after: float | None = None
    """Seconds from the end of the exchange, 0 to a day."""
    error: Error | None = None
    detail: str = ""
    started: float = 0.0
    """When the exchange began, in Unix seconds."""

    @property
    def ok(self) -> bool:
        """Whether the endpoint took the delivery: it answered 2xx (Standard Webhooks)."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """Whether it was our own rules that forbade the exchange: nothing was sent, and trying again is no use."""
        return self.error in ("refused", "unsendable")


class Sender:
    """The connections of one process to all endpoints, opened at the first `send` and kept between sends.

    Used by one thread at a time. In a forked child it starts with connections of its own.
    """

    def __init__(
        self,
        *,
        user_agent: str,
        private: bool,
        deadline: float = 20.0,
        connect: float = 5.0,
        in_flight: int = IN_FLIGHT,
        tls: ssl.SSLContext | None = None,
        lookup: Lookup | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`deadline`: seconds for one exchange, all included; `connect`: those of it for name, TCP and TLS.

        `tls` replaces the default trust (the bundled authorities, or what SSL_CERT_FILE names).
        """
        self._user_agent = user_agent
        self._private = private
        self._deadline = deadline
        self._connect = connect
        self._in_flight = in_flight
        self._tls = tls
        self._lookup = lookup
        self._now = now
        self._wires: _Wires | None = None
        self._inherited: list[_Wires] = []

    def send(self, requests: Sequence[Request]) -> list[Answer]:
        """Send all, at most `in_flight` at a time; the answers are in the order of the requests."""
        if not requests:
            return []
        wires = self._opened()
        try:
            return wires.runner.run(self._send_all(wires, requests))
        except BaseException:
            # Interrupted (a time limit, a signal): half-done exchanges must not go on inside the next batch.
            self.close()
            raise

    def close(self) -> None:
        """Close every connection; a later `send` opens new ones."""
        wires, self._wires = self._wires, None
        if wires is not None and wires.pid == os.getpid():
            wires.close()

    def _opened(self) -> _Wires:
        if self._wires is not None and self._wires.pid != os.getpid():
            # The parent's event loop: closing it, or letting it be collected, would take away the parent's sockets.
            self._inherited.append(self._wires)
            self._wires = None
        if self._wires is None:
            self._wires = _Wires(
                private=self._private,
                deadline=self._deadline,
                connect=self._connect,
                in_flight=self._in_flight,
                tls=self._tls,
                lookup=self._lookup,
            )
        return self._wires

    async def _send_all(self, wires: _Wires, requests: Sequence[Request]) -> list[Answer]:
        # The loop stood still since the last batch. Let it notice which kept connections were closed meanwhile.
        for _ in range(3):
            await asyncio.sleep(0)
        return await asyncio.gather(*[self._exchange(wires, request) for request in requests])

    async def _exchange(self, wires: _Wires, request: Request) -> Answer:
        async with wires.slots:
            began, started = self._now(), time.perf_counter()
            heard = _Heard()
            error: Error | None = None
            try:
                async with asyncio.timeout(self._deadline):
                    await self._converse(wires, request, heard)
                detail = "" if 200 <= heard.status < 300 else f"the endpoint answered {heard.status}"
            except Exception as exception:
                error, detail = _explain(exception, connect=self._connect, deadline=self._deadline)
            return Answer(
                status=None if error else heard.status,
                duration_ms=round((time.perf_counter() - started) * 1000),
                body=bytes(heard.body),
                retry_after=heard.retry_after,
                error=error,
                detail=detail,
                started=began,
            )

    async def _converse(self, wires: _Wires, request: Request, heard: _Heard) -> None:
        check_url(request.url, private=self._private)
        response = await _post(wires, self._outgoing(request))
        try:
            heard.status = response.status_code
            heard.retry_after = retry_after(response.headers.get("retry-after", ""), self._now())
            received = 0
            async for chunk in response.aiter_raw():
                heard.body += chunk[: MAX_KEPT - len(heard.body)]
                received += len(chunk)
                if received >= MAX_READ:
                    break
        finally:
            await response.aclose()

    def _outgoing(self, request: Request) -> httpx.Request:
        for name, value in request.headers:
            if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
                raise _Unsendable("a header's name or value contains characters that HTTP does not allow")
            if name.lower() in OWN_HEADERS or name.lower().startswith("proxy-"):
                raise _Unsendable(f"the header {name} cannot be set")
        headers = [*request.headers, ("User-Agent", self._user_agent), ("Accept-Encoding", "identity")]
        return httpx.Request("POST", request.url, headers=headers, content=request.body)


def retry_after(value: str, now: float) -> float | None:
    """Seconds to wait that a Retry-After header asks for at `now`, 0 to a day; None when it says nothing (RFC 9110)."""
    text = value.strip()
    if _SECONDS.fullmatch(text):
        seconds = float(text)
    else:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


class _Unsendable(Exception):
    """The request cannot be put on the wire; the message says why."""


@dataclass(slots=True)
class _Heard:
    """What an endpoint has said so far; it outlives an exchange that breaks off."""

    status: int = 0
    retry_after: float | None = None
    body: bytearray = field(default_factory=bytearray)


class _Wires:
    """What belongs to one process: the event loop, and the connections that live on it."""

    def __init__(
        self,
        *,
        private: bool,
        deadline: float,
        connect: float,
        in_flight: int,
        tls: ssl.SSLContext | None,
        lookup: Lookup | None,
    ) -> None:
        self.pid = os.getpid()
        self.runner = asyncio.Runner()
        self.slots = asyncio.Semaphore(in_flight)
        self._private = private
        self._patience = round(deadline * 1000)
        self._connect = connect
        self._in_flight = in_flight
        self._tls = tls or _default_tls()
        self._resolver = CheckedResolver(private=private, lookup=lookup)
        self.kept = self._client(keep=True)
        self.fresh = self._client(keep=False)
        logging.getLogger("httpx").setLevel(logging.WARNING)  # its INFO line of each request repeats the URL

    def close(self) -> None:
        self.runner.run(self._close())
        self.runner.close()

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.kept.aclose()
        await self.fresh.aclose()
        await self._resolver.close()

    def _client(self, *, keep: bool) -> httpx.AsyncClient:
        transport = AiohttpTransport(verify=self._tls, trust_env=False, client=lambda: self._session(keep=keep))
        return httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            # The transport takes "pool" as the limit for all of connecting: name, TCP and TLS.
            timeout=httpx.Timeout(None, connect=self._connect, pool=self._connect),
            # Cookies are never sent; a jar that accepted them would grow for as long as the process lives.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    def _session(self, *, keep: bool) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            ssl=self._tls,
            resolver=self._resolver,
            use_dns_cache=False,  # each new connection asks again, and is checked again
            limit=self._in_flight,
            force_close=not keep,
            keepalive_timeout=KEEP_ALIVE if keep else None,
            socket_factory=self._socket,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            response_class=_Response,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )

    def _socket(self, target: aiohttp.AddrInfoType) -> socket.socket:
        opened = checked_socket(target, private=self._private)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # A peer that never reads would else hold a socket that has bytes left to send, also after it was closed.
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._patience)
        _dialled.get().append(str(target[4][0]))
        return opened


class _Response(aiohttp.ClientResponse):
    """A response without its reason phrase: HTTP allows one that is not UTF-8, and the transport fails on that."""

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        await super().start(connection)
        self.reason = None
        return self


async def _post(wires: _Wires, request: httpx.Request) -> httpx.Response:
    """The response's head. Sends once more, on a connection of its own, when a kept connection turns out closed.

    aiohttp does that only for idempotent methods. A delivery is one in all but name: its id makes a second copy
    recognisable, so the "means to know" of RFC 9112 section 9.3.1 are there.
    """
    dialled: list[str] = []
    _dialled.set(dialled)
    try:
        return await wires.kept.send(request, stream=True)
    except httpx.TransportError as error:
        closed = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError)
        if dialled or not isinstance(error.__cause__, closed):
            raise
    return await wires.fresh.send(request, stream=True)


def _default_tls() -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


# The first match counts: several of these are subclasses of others.
_ENDINGS: tuple[tuple[type[BaseException], Error, str], ...] = (
    (Refused, "refused", "{detail}"),
    (_Unsendable, "unsendable", "{detail}"),
    (aiohttp.ClientConnectorDNSError, "dns", "the endpoint's name does not resolve"),
    (aiohttp.ClientSSLError, "tls", "no secure connection: {detail}"),
    (aiohttp.ClientConnectorError, "connect", "no connection: {detail}"),
    (aiohttp.ConnectionTimeoutError, "timeout", "no connection within {connect:g} seconds"),
    (TimeoutError, "timeout", "no complete answer within {deadline:g} seconds"),
    (aiohttp.ClientPayloadError, "disconnected", "the answer broke off"),
    (aiohttp.ClientConnectionError, "disconnected", "the endpoint closed the connection without an answer"),
    (aiohttp.ClientResponseError, "protocol", "the answer is not valid HTTP"),
    (httpx.RemoteProtocolError, "protocol", "the answer is not valid HTTP"),
)


def _explain(exception: Exception, *, connect: float, deadline: float) -> tuple[Error, str]:
    """The stable word and the sentence for what broke an exchange.

    The transport's own mapping calls nearly everything a connect timeout, so its cause is what is looked at.
    """
    cause = exception
    if isinstance(exception, httpx.TransportError) and isinstance(exception.__cause__, Exception):
        cause = exception.__cause__
    for kind, error, sentence in _ENDINGS:
        if isinstance(cause, kind):
            return error, sentence.format(detail=_detail(cause), connect=connect, deadline=deadline)
    return "unexpected", f"an unexpected {type(cause).__name__}"


def _detail(cause: Exception) -> str:
    """What may be shown of an exception: our own words and the system's, not the library's, which quote the URL."""
    if isinstance(cause, (Refused, _Unsendable)):
        return str(cause)
    origin = cause.__cause__ or cause
    if isinstance(origin, ssl.SSLCertVerificationError):
        return str(origin.verify_message)
    if isinstance(origin, ssl.SSLError):
        return (origin.reason or "the handshake failed").lower().replace("_", " ")
    errno = origin.errno if isinstance(origin, OSError) else None
    return os.strerror(errno).lower() if errno else "the attempt failed"
