"""How the API refuses: one shape, and codes that stay (as in the Hisab document, Errors)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from handlers.errors import BillhookError, ProviderError, ProviderUnavailable
from receiver.api.edge import REQUEST_ID
from workers import database
from workers.api_keys import BeyondOwn, NoApiKey
from workers.delivery.errors import HasSucceeded, NoDelivery, NoEndpoint, WrongState
from workers.idempotency import OtherRequest
from workers.logs import log
from workers.models import prose
from workers.schedule.errors import ScheduleError
from workers.vault import VaultError


class Detail(BaseModel):
    """What is wrong with one field."""

    field: str
    message: str


class Error(BaseModel):
    """Why a request was refused."""

    code: str
    message: str
    details: list[Detail] | dict[str, Any] | None = None


class Refused(BaseModel):
    """The body of every refusal."""

    success: bool = False
    error: Error


CODES = {
    400: "VALIDATION_ERROR",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    412: "PRECONDITION_FAILED",
    413: "PAYLOAD_TOO_LARGE",
    429: "RATE_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "UNAVAILABLE",
}
"""The code of a status, where a refusal has no other."""
_OF_SCHEDULES = {"NOT_FOUND": 404, "VALIDATION_ERROR": 400}
"""The statuses of a ScheduleError's codes; any other is a conflict with what the schedule is."""


class ApiError(HTTPException):
    """A refusal, with its code and what it tells beside."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        details: Sequence[Mapping[str, str]] | Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.code = code or CODES[status]
        self.details = details


def missing(what: str, named: str) -> ApiError:
    """There is none of that id."""
    return ApiError(404, f"there is no {what} {named}")


def register(api: FastAPI) -> None:
    """Have every failure answered in this shape."""

    @api.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        if any(one["type"] == "json_invalid" for one in found):
            return _answer(400, "INVALID_JSON", "the body is no JSON")
        details = [{"field": _field(one["loc"]), "message": _plain(one["msg"])} for one in found]
        return _answer(400, "VALIDATION_ERROR", "the request is not valid", details)

    @api.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {}) | ({"Allow": _allowed(request)} if error.status_code == 405 else {})
        return refusal(error, headers)

    @api.exception_handler(BillhookError)
    def ours(_request: Request, error: BillhookError) -> JSONResponse:
        status, code, details = _status_of(error)
        return _answer(status, code, prose(str(error)), details)

    @api.exception_handler(ProviderError)
    def of_provider(_request: Request, error: ProviderError) -> JSONResponse:
        details = {"code": error.code}
        if isinstance(error, ProviderUnavailable):
            wait = math.ceil(min(error.retry_after or 5.0, 3600.0))
            return _answer(503, "PROVIDER_UNAVAILABLE", str(error), details, {"Retry-After": str(wait)})
        return _answer(409, "PROVIDER_REFUSED", str(error), details)

    api.exception_handler(SQLAlchemyError)(of_database)
    api.exception_handler(Exception)(unexpected)


def refusal(error: HTTPException, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """What is answered to who is refused."""
    code = error.code if isinstance(error, ApiError) else CODES.get(error.status_code, "BAD_REQUEST")
    details = error.details if isinstance(error, ApiError) else None
    return _answer(error.status_code, code, error.detail, details, error.headers if headers is None else headers)


def of_database(request: Request, error: Exception) -> JSONResponse:
    """What is answered where the database failed."""
    if database.unavailable(error) or database.collided(error):
        return _answer(503, "UNAVAILABLE", "the database does not answer; ask again", headers={"Retry-After": "5"})
    if isinstance(error, DataError):
        return _answer(400, "VALIDATION_ERROR", "there is a value that no database can hold, such as a NUL character")
    return unexpected(request, error)


def unexpected(request: Request, error: Exception) -> JSONResponse:
    """What is answered where nobody thought of it."""
    request_id = request.scope[REQUEST_ID]
    log.error("a request to the API failed", action="api_failed", request_id=request_id, exc_info=error)
    return _answer(500, "INTERNAL_ERROR", f"something went wrong here; the log tells more of {request_id}")


def _allowed(request: Request) -> str:
    """What this path can be asked; its methods are routes of their own, of which the framework names the first."""
    meant = [route for route in request.app.router.routes if route.matches(request.scope)[0] != Match.NONE]
    return ", ".join(sorted({method for route in meant for method in getattr(route, "methods", ())}))


def _status_of(error: BillhookError) -> tuple[int, str, Any]:
    if isinstance(error, BeyondOwn):
        return 403, "FORBIDDEN", {"required_scopes": list(error.scopes)}
    if isinstance(error, ScheduleError):
        details = [{"field": problem.field, "message": problem.message} for problem in error.details]
        return _OF_SCHEDULES.get(error.code, 409), error.code, details or None
    status, code = next((answer for kinds, answer in _KINDS if isinstance(error, kinds)), (400, "VALIDATION_ERROR"))
    return status, code, None


_KINDS = (
    ((NoEndpoint, NoDelivery, NoApiKey), (404, "NOT_FOUND")),
    ((WrongState, HasSucceeded), (409, "INVALID_STATE")),
    ((OtherRequest,), (409, "IDEMPOTENCY_CONFLICT")),
    ((VaultError,), (503, "UNAVAILABLE")),
)


def _field(location: Sequence[int | str]) -> str:
    """As in `items[0].quantity`; where it came from (query, body, …) goes without saying."""
    named = ""
    for part in location[1:] or location:
        named += f"[{part}]" if isinstance(part, int) else f".{part}" if named else str(part)
    return prose(named)


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ")


def _answer(
    status: int, code: str, message: str, details: Any = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    error = {"code": code, "message": message} | ({} if details is None else {"details": details})
    return JSONResponse({"success": False, "error": error}, status, headers)
