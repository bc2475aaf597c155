"""The gate: who has no key is refused before anything else of the request is read, its body least of all."""

from __future__ import annotations

from fastapi import Request
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from receiver.answers import Receive, Scope, Send
from receiver.api.errors import ApiError, of_database, refusal
from receiver.api.services import SERVICES, Services

CALLER = "billhook.caller"
"""Where, in the scope, it is who calls."""


class Gate:
    """Lets requests with a live key through, with who calls and with what the operations work with."""

    def __init__(self, api: ASGIApp, services: Services) -> None:
        self._api = api
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            try:
                scope[CALLER] = await run_in_threadpool(self._services.doorman.admit, request)
            except ApiError as error:
                await refusal(error)(scope, receive, send)
                return
            except SQLAlchemyError as error:
                await of_database(request, error)(scope, receive, send)
                return
            scope[SERVICES] = self._services
        await self._api(scope, receive, send)
