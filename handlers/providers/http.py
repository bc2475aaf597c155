"""The REST base that the providers' clients share: one synchronous HTTP client, and failures as exceptions.

What is safe to repeat is repeated here, within a deadline. A caller that waits in a database, and not in its
process, passes `max_wait=0`: then nothing sleeps, and the exception's `retry_after` says what the API asked for.
"""

from __future__ import annotations

import copy
import random
import re
import ssl
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import httpx
import orjson

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers.answers import (
    MAX_MESSAGE,
    RateLimit,
    bad_answer,
    failure_of_envelope,
    parsed,
    rate_limit,
    wait_asked,
)

__all__ = ["RateLimit", "RestClient", "bad_answer", "segment", "watch"]

TIMEOUT, CONNECT_TIMEOUT = 10.0, 5.0
"""Seconds: between two pieces of an answer, and until a connection stands."""
MAX_ANSWER = 32 * 1024 * 1024
"""Bytes read of one answer, decompressed: a PDF of many pages fits."""
FIRST_WAIT = 0.5
"""Seconds before the first repetition; they double."""

_SAFE = frozenset({"GET", "HEAD"})
_AGAIN = frozenset({502, 503, 504})
_OF_THE_WIRE = frozenset({"content-encoding", "content-length", "transfer-encoding"})
_VISIBLE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_SHORTEST_KEY = 12


Watch = Callable[[httpx.Request], AbstractContextManager[Callable[[int], object]]]
"""A block around each exchange; what it gives is called with the status of the answer."""
_watches: list[Watch] = []


def watch(calls: Watch | None) -> None:
    """Have every exchange of this process's clients with their APIs watched, or (None) no longer."""
    _watches[:] = [] if calls is None else [calls]


def _watched(request: httpx.Request) -> AbstractContextManager[Callable[[int], object]]:
    return _watches[0](request) if _watches else nullcontext(lambda _status: None)


@dataclass(slots=True)
class _Told:
    """What the API told about itself; shared by the clients that share connections."""

    rate_limit: RateLimit | None = None


@cache
def trust(at_least: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> ssl.SSLContext:
    """The bundled authorities, read once in a process: that takes a fiftieth of a second, for each client.

    For HTTP/1.1, by any number of clients and threads.
    """
    context = httpx.create_ssl_context(trust_env=False)
    context.minimum_version = at_least
    context.set_alpn_protocols(["http/1.1"])
    # At each connection the client would set them again, and free those that another thread is about to send.
    context.set_alpn_protocols = lambda alpn_protocols: None  # type: ignore[method-assign]
    return context


class RestClient:
    """JSON over HTTP to one base address. Safe to share between threads, not across a fork.

    Proxies and netrc of the environment are ignored and redirects not followed, so that a key goes to the
    configured address only. `failure` makes the exception of an answer that is no success. `transport`, `sleep`
    (seconds) and `clock` (monotonic seconds) stand in for the network and for time in tests.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        failure: Callable[[httpx.Response], ProviderError] = failure_of_envelope,
        max_wait: float = 60.0,
        deadline: float = 90.0,
        retries: int = 2,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`max_wait`: seconds slept at most before one repetition; `deadline`: seconds for a call with all of them."""
        if not base_url.startswith(("https://", "http://")):
            raise ValueError("the address of an API begins with https:// or http://")
        _check(headers)
        self._failure, self._sleep, self._clock = failure, sleep, clock
        self._max_wait, self._deadline, self._retries = max_wait, deadline, retries
        self._told = _Told()
        self._headers: Mapping[str, str] = {}
        self._owner = True
        self._http = httpx.Client(
            base_url=base_url,
            headers={"User-Agent": "Billhook", "Accept-Encoding": "gzip", **headers},
            trust_env=False,
            verify=trust(),
            transport=transport,
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        safe: bool | None = None,
    ) -> Any:
        """Call the API and return its answer, parsed; None for an answer without a body (204).

        Parameters that are None are left out; Decimals in `json` are written as exact JSON numbers. `safe` says
        that the call may be repeated when nobody knows whether it was carried out; by default GET and HEAD are.
        What the API turned away for its limit (429) was not carried out, and is repeated whatever it is.

        Raises ProviderUnavailable where the same call may succeed later, and ProviderError where it was refused.
        NO_ANSWER to a call that changes something does not mean that nothing was changed.
        """
        return parsed(
            self.exchange(
                method, path, params=params, json=json, content=content, headers=headers, form=form, safe=safe
            )
        )

    def exchange(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        safe: bool | None = None,
    ) -> httpx.Response:
        """The successful answer itself, read whole: for files, text and headers. Otherwise as `request`."""
        if not path.startswith("/"):
            raise ValueError("the path of a call begins with /")
        body, kind = _body(json, content, form)
        request = self._http.build_request(
            method,
            path,
            params={name: _parameter(value) for name, value in (params or {}).items() if value is not None},
            content=body,
            headers={"Accept": "application/json", **kind, **self._headers, **_check(headers or {})},
        )
        return self._repeat(request, f"{method} {path}", safe=method in _SAFE if safe is None else safe)

    def download(self, path: str, *, params: Mapping[str, Any] | None = None) -> bytes:
        """Fetch a file. Raises as `request` does."""
        return self.exchange("GET", path, params=params, headers={"Accept": "*/*"}).content

    @property
    def rate_limit(self) -> RateLimit | None:
        """What the last answer that spoke of it said of the limit; None before the first."""
        return self._told.rate_limit

    def with_headers(self, headers: Mapping[str, str]) -> RestClient:
        """The same client with more headers, over the same connections, which stay this one's to close."""
        derived = copy.copy(self)
        derived._headers = {**self._headers, **_check(headers)}
        derived._owner = False
        return derived

    def close(self) -> None:
        if self._owner:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<RestClient of {self._http.base_url}>"

    def _repeat(self, request: httpx.Request, call: str, *, safe: bool) -> httpx.Response:
        ends = self._clock() + self._deadline
        attempt = 0
        while True:
            attempt += 1
            error: ProviderError
            try:
                response = self._attempt(request, call, ends)
            except ProviderUnavailable as unavailable:
                error = unavailable
                wait = _backoff(attempt) if safe and unavailable.code == "NO_ANSWER" else None
            else:
                if response.is_success:
                    return response
                error = self._failed(response)
                wait = _wait(response.status_code, error.retry_after, attempt, safe=safe)
            if wait is None or attempt > self._retries or wait > self._max_wait or self._clock() + wait >= ends:
                raise error
            if wait > 0:
                self._sleep(wait)

    def _attempt(self, request: httpx.Request, call: str, ends: float) -> httpx.Response:
        with _watched(request) as answered:
            response = self._send(request, call, ends)
            answered(response.status_code)
            return response

    def _send(self, request: httpx.Request, call: str, ends: float) -> httpx.Response:
        left = max(ends - self._clock(), 0.001)
        timeout = httpx.Timeout(min(TIMEOUT, left), connect=min(CONNECT_TIMEOUT, left))
        request.extensions = {**request.extensions, "timeout": timeout.as_dict()}
        try:
            response = self._http.send(request, stream=True)
            try:
                self._told.rate_limit = rate_limit(response.headers) or self._told.rate_limit
                return self._read(response, call, ends)
            finally:
                response.close()
        except zlib.error:
            raise ProviderUnavailable("BAD_ANSWER", f"{call}: the answer cannot be decompressed") from None
        except httpx.RequestError as error:
            # Not chained: the frames of the network's libraries hold the headers, key included.
            cause = _masked(f"{type(error).__name__}: {error}".removesuffix(": "), request)[:MAX_MESSAGE]
            raise ProviderUnavailable("NO_ANSWER", f"{call}: {cause}") from None

    def _read(self, response: httpx.Response, call: str, ends: float) -> httpx.Response:
        # A transport that looks into what it carries has read it already.
        content = response.content if response.is_stream_consumed else self._unpacked(response, call, ends)
        headers = [(name, value) for name, value in response.headers.multi_items() if name not in _OF_THE_WIRE]
        return httpx.Response(response.status_code, headers=headers, content=content, request=response.request)

    def _unpacked(self, response: httpx.Response, call: str, ends: float) -> bytes:
        status, encoding = response.status_code, response.headers.get("content-encoding", "").lower()
        if encoding not in {"", "identity", "gzip"}:
            raise bad_answer("its encoding was not asked for", status=status)
        gzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16) if encoding == "gzip" else None
        pieces, received, size = [], 0, 0
        # Not iter_bytes: it unpacks a bomb in one piece, and reads for ever what follows the end of a gzip.
        for raw in response.iter_raw():
            piece = raw if gzip is None else gzip.decompress(raw, MAX_ANSWER + 1 - size)
            pieces.append(piece)
            received, size = received + len(raw), size + len(piece)
            if max(received, size) > MAX_ANSWER:
                raise bad_answer(f"it is longer than {MAX_ANSWER} bytes", status=status)
            if self._clock() >= ends:
                raise ProviderUnavailable("NO_ANSWER", f"{call}: no whole answer within {self._deadline:g} s")
        if gzip is not None and received and not gzip.eof:
            raise bad_answer("it is cut off", status=status)
        return b"".join(pieces)

    def _failed(self, response: httpx.Response) -> ProviderError:
        error = self._failure(response)
        if error.retry_after is None:
            error.retry_after = wait_asked(response)
        # An API that repeats what it was sent must not bring the key into logs.
        error.args = tuple(_masked(str(argument), response.request) for argument in error.args)
        error.details = tuple(
            {name: _masked(text, response.request) for name, text in detail.items()} for detail in error.details
        )
        return error


def segment(value: str) -> str:
    """An id as one segment of a path. Raises TypeError or ValueError where it would address something else."""
    if not isinstance(value, str):
        raise TypeError(f"an id is a string, not {type(value).__name__}")
    if value in {"", ".", ".."}:
        raise ValueError("the id is empty or not an id")
    return quote(value, safe="")


def _wait(status: int, asked: float | None, attempt: int, *, safe: bool) -> float | None:
    """Seconds before the next attempt; None: there is none."""
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return _backoff(attempt) if asked is None else asked
    if status in _AGAIN and safe:
        return max(_backoff(attempt), asked or 0.0)
    return None


def _backoff(attempt: int) -> float:
    # Half of the wait is left to chance, so that many clients do not come back in the same moment.
    return FIRST_WAIT * 2.0 ** min(attempt - 1, 10) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret is made of it


def _check(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        # httpx would complain later, and quote the whole value, key included.
        if _VISIBLE.fullmatch(value) is None:
            raise ValueError(f"the header {name} has characters that are not printable ASCII (a line break?)")
    return headers


def _masked(text: str, request: httpx.Request) -> str:
    key = request.headers.get("authorization", "").rpartition(" ")[2]
    return text.replace(key, "***") if len(key) >= _SHORTEST_KEY else text


def _body(
    json: Mapping[str, Any] | None, content: bytes | None, form: Mapping[str, str] | None
) -> tuple[bytes | None, Mapping[str, str]]:
    """The bytes of a body and the header that says what they are."""
    if sum(given is not None for given in (json, content, form)) > 1:
        raise TypeError("a call has one body: json, content or form")
    if json is not None:
        return orjson.dumps(json, default=_exact), {"Content-Type": "application/json"}
    if form is not None:
        return urlencode(form).encode(), {"Content-Type": "application/x-www-form-urlencoded"}
    return content, {}


def _parameter(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _exact(value: object) -> orjson.Fragment:
    if isinstance(value, Decimal) and value.is_finite():
        return orjson.Fragment(format(value, "f"))
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
