"""The REST base that the providers' clients share: one synchronous HTTP client, and failures as exceptions.

Nothing is retried here: whoever calls waits in the database, not in a worker.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from handlers.errors import ProviderError, ProviderUnavailable

TIMEOUT = httpx.Timeout(10.0, connect=5.0)
MAX_MESSAGE = 500
"""Characters kept of a provider's error message: it ends in logs and in the database."""

_SECONDS = re.compile(r"[0-9]{1,9}")
_VISIBLE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


class RestClient:
    """JSON over HTTP to one base address. Safe to share between threads, not across a fork.

    Proxies and netrc of the environment are ignored and redirects not followed, so that a key goes to the
    configured address only. `transport` stands in for the network in tests.
    """

    def __init__(
        self, base_url: str, headers: Mapping[str, str], *, transport: httpx.BaseTransport | None = None
    ) -> None:
        if not base_url.startswith(("https://", "http://")):
            raise ValueError("the address of an API begins with https:// or http://")
        for name, value in headers.items():
            # httpx would complain later, and quote the whole value, key included.
            if _VISIBLE.fullmatch(value) is None:
                raise ValueError(f"the header {name} has characters that are not printable ASCII (a line break?)")
        self._http = httpx.Client(
            base_url=base_url, headers=headers, timeout=TIMEOUT, trust_env=False, transport=transport
        )

    def request(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the API and return its answer, parsed. Parameters that are None are left out.

        Decimals in `json` are written as exact JSON numbers. Raises ProviderUnavailable where the same call may
        succeed later, and ProviderError where it was refused. NO_ANSWER to a call that changes something does
        not mean that nothing was changed.
        """
        return parsed(self._send(method, path, params, json))

    def download(self, path: str, *, params: Mapping[str, Any] | None = None) -> bytes:
        """Fetch a file. Raises as `request` does."""
        return self._send("GET", path, params, None).content

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(
        self, method: str, path: str, params: Mapping[str, Any] | None, json: Mapping[str, Any] | None
    ) -> httpx.Response:
        given = {name: str(value) for name, value in (params or {}).items() if value is not None}
        content = None if json is None else orjson.dumps(json, default=_exact)
        headers = {"Accept": "application/json"} | ({} if content is None else {"Content-Type": "application/json"})
        try:
            response = self._http.request(method, path, params=given, content=content, headers=headers)
        except httpx.DecodingError as error:
            raise ProviderUnavailable("BAD_ANSWER", f"{method} {path}: the answer cannot be decompressed") from error
        except httpx.RequestError as error:
            raise ProviderUnavailable("NO_ANSWER", f"{method} {path}: {type(error).__name__}") from error
        if response.is_success:
            return response
        raise _failure(response)


def parsed(response: httpx.Response) -> Any:
    """The JSON of an answer. Raises ProviderUnavailable (BAD_ANSWER) if it is none."""
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError:
        raise bad_answer("it is not JSON", status=response.status_code) from None


def bad_answer(what: str, *, status: int = 200) -> ProviderUnavailable:
    """An answer out of shape, from a proxy or a half-deployed server: unavailable rather than refused."""
    return ProviderUnavailable("BAD_ANSWER", f"the answer (HTTP {status}) is out of shape: {what}", status=status)


def error_of(document: object) -> tuple[str, str] | None:
    """The code and message of `{"error": {"code", "message", "details"?}}`, or None if it is something else."""
    error = document.get("error") if isinstance(document, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    if not isinstance(error, dict) or not isinstance(code, str) or not code:
        return None
    given = error.get("details")
    details = [detail for detail in given if isinstance(detail, dict)] if isinstance(given, list) else []
    parts = [str(error.get("message", "")), *(_detail(detail) for detail in details)]
    return code, "; ".join(part for part in parts if part)[:MAX_MESSAGE]


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a Retry-After header: delta-seconds or an HTTP date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    if _SECONDS.fullmatch(value) is not None:
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:  # "-0000": UTC, of unknown place
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _failure(response: httpx.Response) -> ProviderError:
    status = response.status_code
    try:
        refusal = error_of(orjson.loads(response.content))
    except orjson.JSONDecodeError:
        refusal = None
    if status == 429 or status >= 500:
        code, message = refusal or (f"HTTP_{status}", "the API is over its limit or failed")
        wait = retry_after(response.headers.get("retry-after"), datetime.now(UTC))
        return ProviderUnavailable(code, message, status=status, retry_after=wait)
    if status < 400 or refusal is None:
        return bad_answer("it carries no error code", status=status)
    code, message = refusal
    return ProviderError(code, message, status=status)


def _detail(detail: Mapping[str, Any]) -> str:
    return ": ".join(str(detail[name]) for name in ("field", "message") if name in detail)


def _exact(value: object) -> orjson.Fragment:
    if isinstance(value, Decimal) and value.is_finite():
        return orjson.Fragment(format(value, "f"))
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
