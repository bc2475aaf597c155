"""Who may ask what: a bearer key with the scopes that a request needs."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from receiver.api.errors import ApiError
from receiver.api.gate import CALLER
from receiver.api.services import Services
from workers.api_keys import Caller
from workers.app import Runtime

BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="key",
    description="An API key, as `billhook keys create` makes it: `Authorization: Bearer bh_live_…`. "
    "Each operation names the scope that the key has to have.",
)


def caller(
    request: Request,
    needed: SecurityScopes,
    _described: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)],
) -> Caller:
    """The caller, who has the scopes that the operation needs; for `Security(caller, scopes=[…])`.

    Raises ApiError 403. That there is one was seen to at the gate.
    """
    found: Caller = request.scope[CALLER]
    if lacking := [scope for scope in needed.scopes if scope not in found.scopes]:
        message = f"the key {found.name!r} lacks {', '.join(lacking)}"
        raise ApiError(403, message, details={"required_scopes": needed.scopes})
    return found


def runtime(request: Request) -> Runtime:
    """What this process works with."""
    return Services.of(request).runtime


Running = Annotated[Runtime, Depends(runtime)]
