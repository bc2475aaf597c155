"""Who may ask: a bearer key with the scopes that a request needs, so many times a minute."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

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
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)],
) -> Caller:
    """The caller, who has the scopes that the operation needs; for `Security(caller, scopes=[…])`."""
    return Services.of(request).doorman.admit(request, credentials.credentials if credentials else None, needed.scopes)


def runtime(request: Request) -> Runtime:
    """What this process works with."""
    return Services.of(request).runtime


Running = Annotated[Runtime, Depends(runtime)]
