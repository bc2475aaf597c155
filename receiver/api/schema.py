"""The description of the API, OpenAPI 3.1, made of the same types that validate it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Request, Security
from fastapi.responses import JSONResponse

from receiver.api.access import caller
from workers.api_keys import Caller


def described(api: FastAPI) -> None:
    """Serve the description to whoever has a key."""

    @api.get("/openapi.json", include_in_schema=False)
    def openapi(request: Request, _caller: Annotated[Caller, Security(caller, scopes=[])]) -> JSONResponse:
        return JSONResponse(description(api, request.scope.get("root_path", "")))


def description(api: FastAPI, prefix: str) -> dict[str, Any]:
    """The description, for an API that is reached under `prefix`."""
    document = dict(api.openapi())
    return document | {"servers": [{"url": prefix or "/"}]}
