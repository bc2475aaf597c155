"""How Hisab answers: the envelope, its error codes, pages of lists (API reference, Errors and Pagination)."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse

from handlers.providers.sandbox import fields
from handlers.providers.sandbox.fields import Fields, Problem
from handlers.providers.sandbox.machine import Refusal

STATUSES = {
    "VALIDATION_ERROR": 400,
    "INVALID_JSON": 400,
    "ORG_HEADER_REQUIRED": 400,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "API_DISABLED": 403,
    "SUBSCRIPTION_EXPIRED": 403,
    "API_TIER_NOT_SUPPORTED": 403,
    "ACCOUNT_KEY_REQUIRED": 403,
    "ENTITY_CAP_REACHED": 403,
    "NOT_FOUND": 404,
    "RATE_LIMIT_EXCEEDED": 429,
    "INTERNAL_ERROR": 500,
    # The reference gives no status for the codes of single endpoints: this is chosen.
    "INVOICE_NOT_EDITABLE": 409,
    "INVOICE_NOT_DRAFT": 409,
    "INVALID_STATUS_TRANSITION": 409,
    "CANNOT_VOID_PAID": 409,
    "ALREADY_VOIDED": 409,
    "PDF_NOT_AVAILABLE": 409,
    "XML_NOT_AVAILABLE": 409,
    "ALREADY_ARCHIVED": 409,
    "NOT_ARCHIVED": 409,
    "QUOTA_EXCEEDED": 409,
    "INVALID_STATE": 409,
    "CUSTOMER_INACTIVE": 409,
}


class Page(Fields):
    """The parameters that every list has."""

    page: Annotated[int, fields.digits(1)] = 1
    per_page: Annotated[int, fields.digits(1, 100)] = 20
    order: Annotated[str, fields.one_of("asc", "desc")] = "desc"


def refusal(
    code: str, message: str, details: list[Problem] | None = None, *, headers: Mapping[str, str] | None = None
) -> Refusal:
    """An error of the reference, with the status that belongs to its code."""
    return Refusal(STATUSES[code], code, message, details, headers=headers)


def invalid(*problems: Problem) -> Refusal:
    return refusal("VALIDATION_ERROR", "The request is not valid", list(problems))


def not_found() -> Refusal:
    return refusal("NOT_FOUND", "Resource not found")


def success(data: Any, *, status: int = 200, meta: Mapping[str, Any] | None = None) -> JSONResponse:
    return JSONResponse({"success": True, "data": data} | ({} if meta is None else {"meta": meta}), status)


def refused(error: Refusal) -> JSONResponse:
    """The body of a refusal."""
    shown: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.details:
        shown["details"] = error.details
    return JSONResponse({"success": False, "error": shown}, error.status, error.headers)


def paged(session: Session, rows: Select[Any], number: Any, page: Page) -> tuple[list[Any], dict[str, Any]]:
    """One page of the rows, newest first unless it is asked otherwise, and the `meta` of it; `number` orders them."""
    total = session.scalar(select(func.count()).select_from(rows.subquery())) or 0
    order = number.asc() if page.order == "asc" else number.desc()
    found = session.scalars(rows.order_by(order).offset((page.page - 1) * page.per_page).limit(page.per_page))
    pagination = {
        "total": total,
        "page": page.page,
        "perPage": page.per_page,
        "totalPages": math.ceil(total / page.per_page),
    }
    return list(found), {"pagination": pagination}


def moment(value: datetime | None) -> str | None:
    """`2026-06-05T14:00:00Z`."""
    return None if value is None else value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def day(value: date | None) -> str | None:
    return None if value is None else value.isoformat()


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(8)}"
