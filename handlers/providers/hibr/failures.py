"""HIBR's error codes, and its errors as exceptions (HIBR API reference, Errors)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import orjson

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers.answers import MAX_MESSAGE, failure_of_envelope, may_pass

ERROR_CODES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found": 404,
    "conflict_error": 409,
    "validation_error": 422,
    "rate_limit_error": 429,
    "api_error": 500,
    "service_unavailable": 503,
}
"""Each documented code and its HTTP status. The reference calls them samples: any other code is passed on as it is."""


def failure(response: httpx.Response) -> ProviderError:
    """The exception for `{"error": {"code", "message", "field", "docs_url", "request_id"}}`.

    What stands beside code and message is in `details` (one entry: `field`, `message`, `docs_url`) and in
    `request_id`; the text names field and request too, since it is all that a log keeps. ProviderUnavailable where the
    same call may succeed later.
    """
    error = _error(response)
    status = response.status_code
    if error is None or status < httpx.codes.BAD_REQUEST:
        return failure_of_envelope(response)
    request_id = error.get("request_id", response.headers.get("x-request-id"))
    where = ", ".join(place for place in (error.get("field"), request_id) if place)
    detail: dict[str, str] = {name: error[name] for name in ("field", "message", "docs_url") if name in error}
    kind = ProviderUnavailable if may_pass(status) else ProviderError
    return kind(
        error["code"],
        error.get("message", "") + (f" ({where})" if where else ""),
        status=status,
        details=[detail] if detail else [],
        request_id=request_id,
    )


def read(response: httpx.Response) -> Any:
    """The JSON of an answer that may be none; None then."""
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return None


def _error(response: httpx.Response) -> dict[str, str] | None:
    """The texts of a documented error; None if it is something else."""
    document = read(response)
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("code"), str) or not error["code"]:
        return None
    return {name: text[:MAX_MESSAGE] for name, text in error.items() if isinstance(text, str) and text}
