"""How HIBR answers: resources without an envelope, and its errors (HIBR API reference, Responses and Errors)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from starlette.responses import JSONResponse
from ulid_transform import ulid_at_time, ulid_now

from handlers.providers.hibr.failures import ERROR_CODES
from handlers.providers.sandbox.machine import Refusal

DOCS_URL = "https://hibr.ai/developers/api/"
MONEY = "#money"
"""The one anchor of the documentation that is known."""


def refusal(
    code: str, message: str, field: str | None = None, *, docs: str = "", headers: Mapping[str, str] | None = None
) -> Refusal:
    """A documented error; `field` is the path of what is wrong (`lines[0].unit_price`)."""
    detail = {"docs_url": DOCS_URL + docs} | ({} if field is None else {"field": field})
    return Refusal(ERROR_CODES[code], code, message, [detail], headers=headers)


def malformed(message: str, field: str | None = None, *, docs: str = "") -> Refusal:
    return refusal("invalid_request_error", message, field, docs=docs)


def against_rules(message: str, field: str | None = None) -> Refusal:
    return refusal("validation_error", message, field)


def conflict(message: str, field: str | None = None) -> Refusal:
    return refusal("conflict_error", message, field)


def not_found(what: str = "resource") -> Refusal:
    return refusal("not_found", f"There is no such {what}, or you have no access to it.")


def refused(error: Refusal) -> JSONResponse:
    """The body of a refusal: all five names are always there."""
    detail = error.details[0] if error.details else {}
    shown = {
        "code": error.code,
        "message": error.message,
        "field": detail.get("field"),
        "docs_url": detail.get("docs_url", DOCS_URL),
        "request_id": f"req_{ulid_now()}",
    }
    return JSONResponse({"error": shown}, error.status, error.headers)


def moment(value: datetime) -> str:
    """`2026-10-15T09:32:14Z`."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_id(prefix: str, now: datetime) -> str:
    """`inv_01HFQB9XTRP3K2Q5HW7Z3V8YJN`: a prefix and a ULID of this moment (HIBR API reference, Resource IDs)."""
    return f"{prefix}_{ulid_at_time(now.timestamp())}"
