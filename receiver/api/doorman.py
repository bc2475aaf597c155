"""The doorman: knows the keys, throttles who fails, and counts who asks.

Failures are throttled by address (of IPv6: by network), so that keys cannot be tried; who has a live key is never held
up by that.
"""

from __future__ import annotations

import time
from typing import NoReturn

from fastapi import Request
from fastapi.security.utils import get_authorization_scheme_param

from receiver.api.edge import HEADERS
from receiver.api.errors import ApiError
from receiver.throttle import Throttle, origin
from workers import api_keys, call_limit
from workers.api_keys import Caller
from workers.app import Runtime
from workers.leases import utcnow


class Doorman:
    """Knows the keys, who fails, and who asks too often."""

    def __init__(self, runtime: Runtime, failures: Throttle) -> None:
        self._runtime = runtime
        self._failures = failures

    def admit(self, request: Request) -> Caller:
        """Who calls, by the key that came with the request. Raises ApiError 401 or 429."""
        scheme, key = get_authorization_scheme_param(request.headers.get("authorization"))
        known = scheme.lower() == "bearer"
        caller = api_keys.authenticate(self._runtime.engine, key, utcnow()) if known else None
        if caller is None:
            self._refuse(request)
        self._count(request, caller)
        return caller

    def _refuse(self, request: Request) -> NoReturn:
        if wait := self._failures.wait(origin(request.client), time.time()):
            raise ApiError(
                429, "too many requests without a valid key from this address", headers={"Retry-After": str(wait)}
            )
        raise ApiError(401, "Invalid or missing API key", headers={"WWW-Authenticate": "Bearer"})

    def _count(self, request: Request, caller: Caller) -> None:
        settings = self._runtime.settings
        now = time.time()
        left = call_limit.count(self._runtime.redis, settings.redis_prefix, caller.id, settings.api_rate, now)
        request.scope[HEADERS] |= {
            b"x-ratelimit-limit": b"%d" % left.limit,
            b"x-ratelimit-remaining": b"%d" % left.remaining,
            b"x-ratelimit-reset": b"%d" % left.reset,
        }
        if not left.allowed:
            wait = max(1, left.reset - int(now))
            message = f"the key {caller.name!r} has made its {left.limit} calls of this minute"
            raise ApiError(429, message, headers={"Retry-After": str(wait)})
