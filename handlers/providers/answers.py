"""What the answer of a provider's API says: its JSON, its refusal, its limits. Pure functions of an httpx.Response."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson

from handlers.errors import ProviderError, ProviderUnavailable

MAX_MESSAGE = 500
"""Characters kept of a provider's error message: it ends in logs and in the database."""
MAX_DETAILS = 50
"""Details kept of one error."""

_NUMBER = re.compile(r"[0-9]{1,11}")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What the X-RateLimit-* headers of an answer say: calls allowed, calls left, and when they are all there again."""

    limit: int
    remaining: int
    resets_at: datetime
    """UTC."""


def parsed(response: httpx.Response) -> Any:
    """The JSON of an answer; None where it has no body to have any (204). Raises ProviderUnavailable (BAD_ANSWER)."""
    if response.status_code == httpx.codes.NO_CONTENT:
        return None
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError:
        raise bad_answer("it is not JSON", status=response.status_code) from None


def bad_answer(what: str, *, status: int = 200) -> ProviderUnavailable:
    """An answer out of shape, from a proxy or a half-deployed server: unavailable rather than refused."""
    return ProviderUnavailable("BAD_ANSWER", f"the answer (HTTP {status}) is out of shape: {what}", status=status)


def may_pass(status: int) -> bool:
    """Whether the same call may succeed later: it was over a limit, or the API failed."""
    return status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR


def failure_of_envelope(response: httpx.Response) -> ProviderError:
    """The exception for an answer that is no success, by `{"error": {"code", "message", "details"?}}` in its body."""
    status = response.status_code
    try:
        document = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        document = None
    error = refusal(document, status=status, request_id=response.headers.get("x-request-id"))
    if error is not None and status >= httpx.codes.BAD_REQUEST:
        return error
    if may_pass(status):
        return ProviderUnavailable(f"HTTP_{status}", "the API is over its limit or failed", status=status)
    return bad_answer("it carries no error code", status=status)


def refusal(document: object, *, status: int, request_id: str | None = None) -> ProviderError | None:
    """The exception that `{"error": {"code", "message", "details"?}}` asks for; None if it is something else.

    Details have `field` and `message`; both are made strings, and repeated in the exception's text.
    """
    error = document.get("error") if isinstance(document, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    if not isinstance(error, dict) or not isinstance(code, str) or not code:
        return None
    details = _details(error.get("details"))
    texts = [_text(error.get("message")), *(": ".join(detail.values()) for detail in details)]
    message = "; ".join(text for text in texts if text)[:MAX_MESSAGE]
    kind = ProviderUnavailable if may_pass(status) else ProviderError
    return kind(code[:MAX_MESSAGE], message, status=status, details=details, request_id=request_id)


def _details(given: object) -> tuple[Mapping[str, str], ...]:
    """Details as they should be, `[{field, message}]`; also a list of texts, and an object of names and values."""
    if isinstance(given, dict):
        given = [{"field": name, "message": value} for name, value in given.items()]
    listed = given[:MAX_DETAILS] if isinstance(given, list) else []
    whole = (detail if isinstance(detail, dict) else {"message": detail} for detail in listed)
    found = ({name: _text(detail[name]) for name in ("field", "message") if name in detail} for detail in whole)
    return tuple(detail for detail in found if detail)


def _text(value: object) -> str:
    values = value[:MAX_DETAILS] if isinstance(value, list) else [value]
    return ", ".join(str(part) for part in values if isinstance(part, str | int | float))[:MAX_MESSAGE]


def wait_asked(response: httpx.Response) -> float | None:
    """Seconds that an answer asks to wait: Retry-After, or at 429 until X-RateLimit-Reset. None: it says nothing.

    Moments are measured against the answer's own Date, so that a clock that is off (theirs or ours) does no harm.
    """
    now = moment(response.headers.get("date")) or datetime.now(UTC)
    wait = retry_after(response.headers.get("retry-after"), now)
    limit = rate_limit(response.headers)
    if wait is None and limit is not None and response.status_code == httpx.codes.TOO_MANY_REQUESTS:
        wait = max(0.0, (limit.resets_at - now).total_seconds())
    return wait


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a Retry-After header: delta-seconds or an HTTP date (RFC 9110, section 10.2.3)."""
    if value is not None and _NUMBER.fullmatch(value) is not None:
        return float(value)
    then = moment(value)
    return None if then is None else max(0.0, (then - now).total_seconds())


def moment(value: str | None) -> datetime | None:
    """An HTTP date, UTC; None if it is none."""
    if value is None:
        return None
    try:
        found = parsedate_to_datetime(value)
        # "-0000" is UTC at an unknown place
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def rate_limit(headers: httpx.Headers) -> RateLimit | None:
    """What X-RateLimit-Limit, -Remaining and -Reset (Unix seconds) say; None unless all three are there."""
    values = [headers.get(f"x-ratelimit-{name}", "") for name in ("limit", "remaining", "reset")]
    if not all(_NUMBER.fullmatch(value) for value in values):
        return None
    limit, remaining, reset = map(int, values)
    return RateLimit(limit, remaining, datetime.fromtimestamp(reset, UTC))
