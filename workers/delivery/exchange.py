"""One HTTP exchange with an endpoint: what is sent, what is kept of the answer, and every way it can end.

An exchange never raises for what an endpoint does: whatever happens becomes an `Answer`.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Literal

import aiohttp
import httpx

from workers.delivery.egress import Egress, Refused, check_url
from workers.delivery.headers import NAME, VALUE
from workers.delivery.trust import Unusable
from workers.delivery.wires import ProxyError, Wires
from workers.retry import MAX_RETRY_AFTER

MAX_READ = 64 * 1024
"""Bytes of a response body after which the connection is closed; the status counts as if it had ended."""
MAX_KEPT = 16 * 1024
"""Bytes of a response body kept for people to read."""

OWN_HEADERS = frozenset(
    (
        *("accept-encoding", "connection", "content-length", "expect", "host", "keep-alive"),
        *("te", "trailer", "transfer-encoding", "upgrade", "user-agent"),
    )
)
"""Headers (lower case) that only the sender sets; a request that brings one is not sent."""

Error = Literal[
    "refused",
    "unsendable",
    "dns",
    "connect",
    "tls",
    "proxy",
    "timeout",
    "disconnected",
    "protocol",
    "interrupted",
    "unexpected",
]

_SECONDS = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Request:
    """One POST. All of it can be secret (a token in the URL, a signature, a header), so none of it is in the repr."""

    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    ca: str | None = field(default=None, repr=False)
    """PEM of the authorities that are believed instead of the usual ones."""
    certificate: str | None = field(default=None, repr=False)
    """PEM of a certificate and its key, shown to an endpoint that asks who we are."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for every exchange."""

    user_agent: str
    egress: Egress
    deadline: float
    """Seconds for one exchange, all included."""
    connect: float
    """Seconds of it for name, TCP and TLS."""
    now: Callable[[], float]


@dataclass(slots=True)
class _Heard:
    """What an endpoint has said so far; it outlives an exchange that breaks off."""

    status: int = 0
    retry_after: float | None = None
    body: bytearray = field(default_factory=bytearray)


class _Unsendable(Exception):
    """The request cannot be put on the wire; the message says why."""


async def exchange(wires: Wires, request: Request, terms: Terms) -> Answer:
    """Send one request. Cancelled, it gives an answer too: `interrupted`."""
    began, started = terms.now(), time.perf_counter()
    heard = _Heard()
    error: Error | None = None
    try:
        async with asyncio.timeout(terms.deadline):
            await _converse(wires, request, heard, terms)
        detail = "" if 200 <= heard.status < 300 else f"the endpoint answered {heard.status}"
    except asyncio.CancelledError:
        error, detail = "interrupted", INTERRUPTED
    except Exception as exception:
        error, detail = _explain(exception, terms)
    return Answer(
        status=None if error else heard.status,
        duration_ms=round((time.perf_counter() - started) * 1000),
        body=bytes(heard.body),
        retry_after=heard.retry_after,
        error=error,
        detail=detail,
        started=began,
    )


async def _converse(wires: Wires, request: Request, heard: _Heard, terms: Terms) -> None:
    response = await wires.send(_outgoing(request, terms), request.ca, request.certificate)
    try:
        heard.status = response.status_code
        heard.retry_after = retry_after(response.headers.get("retry-after", ""), terms.now())
        received = 0
        async for chunk in response.aiter_raw():
            heard.body += chunk[: MAX_KEPT - len(heard.body)]
            received += len(chunk)
            if received >= MAX_READ:
                break
    finally:
        await response.aclose()


def _outgoing(request: Request, terms: Terms) -> httpx.Request:
    url = _checked(request.url, terms.egress)
    for name, value in request.headers:
        if NAME.fullmatch(name) is None or VALUE.fullmatch(value) is None:
            raise _Unsendable("a header's name or value contains characters that HTTP does not allow")
        if name.lower() in OWN_HEADERS or name.lower().startswith("proxy-"):
            raise _Unsendable(f"the header {name} cannot be set")
    headers = [*request.headers, ("User-Agent", terms.user_agent), ("Accept-Encoding", "identity")]
    return httpx.Request("POST", url, headers=headers, content=request.body)


@lru_cache(maxsize=1024)
def _checked(url: str, egress: Egress) -> httpx.URL:
    """The same endpoints are sent to again and again, and parsing their URLs is a fifth of an exchange's work."""
    check_url(url, egress)
    return httpx.URL(url)


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


INTERRUPTED = "the sender stopped before the endpoint had answered"

# The first match counts: several of these are subclasses of others.
_ENDINGS: tuple[tuple[type[BaseException], Error, str], ...] = (
    (Refused, "refused", "{detail}"),
    (_Unsendable, "unsendable", "{detail}"),
    (Unusable, "unsendable", "{detail}"),
    (ProxyError, "proxy", "{detail}"),
    (aiohttp.ClientHttpProxyError, "proxy", "the proxy answered {detail}"),
    (aiohttp.ClientProxyConnectionError, "proxy", "no connection to the proxy: {detail}"),
    (aiohttp.ClientConnectorDNSError, "dns", "the endpoint's name does not resolve"),
    (aiohttp.ClientSSLError, "tls", "no secure connection: {detail}"),
    (aiohttp.ClientConnectorError, "connect", "no connection: {detail}"),
    (aiohttp.ConnectionTimeoutError, "timeout", "no connection within {connect:g} seconds"),
    (TimeoutError, "timeout", "no complete answer within {deadline:g} seconds"),
    (aiohttp.ClientPayloadError, "disconnected", "the answer broke off"),
    (aiohttp.ClientConnectionError, "disconnected", "the endpoint closed the connection without an answer"),
    (aiohttp.ClientResponseError, "protocol", "the answer is not valid HTTP"),
)


def _explain(exception: Exception, terms: Terms) -> tuple[Error, str]:
    """The stable word and the sentence for what broke an exchange.

    The transport's own mapping calls nearly everything a connect timeout, so its cause is what is looked at.
    """
    cause = exception
    if isinstance(exception, httpx.TransportError) and isinstance(exception.__cause__, Exception):
        cause = exception.__cause__
    if isinstance(cause, aiohttp.ClientHttpProxyError) and cause.status != 407:
        # It does let us in: what it could not reach, or does not want to, is the endpoint.
        return "connect", f"no connection: the proxy answered {cause.status}"
    for kind, error, sentence in _ENDINGS:
        if isinstance(cause, kind):
            return error, sentence.format(detail=_detail(cause), connect=terms.connect, deadline=terms.deadline)
    return "unexpected", f"an unexpected {type(cause).__name__}"


def _detail(cause: Exception) -> str:
    """What may be shown of an exception: our own words and the system's, not the library's, which quote the URL."""
    if isinstance(cause, (Refused, _Unsendable, Unusable, ProxyError)):
        return str(cause)
    if isinstance(cause, aiohttp.ClientHttpProxyError):
        return str(cause.status)
    origin = cause.__cause__ or cause
    if isinstance(origin, ssl.SSLCertVerificationError):
        return str(origin.verify_message)
    if isinstance(origin, ssl.SSLError):
        return (origin.reason or "the handshake failed").lower().replace("_", " ")
    errno = origin.errno if isinstance(origin, OSError) else None
    return os.strerror(errno).lower() if errno else "the attempt failed"
