"""What every request to the API goes through before it is looked at: its id, its size, the headers of its answer."""

from __future__ import annotations

import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from receiver.answers import Message, Receive, Scope, Send
from workers import ids
from workers.logs import log

HEADERS = "billhook.headers"
"""Where, in the scope, the headers are that an answer gets in any case: a dict of bytes."""
REQUEST_ID = "billhook.request_id"


class Edge:
    """An ASGI application around the API."""

    def __init__(self, api: ASGIApp, max_body_bytes: int) -> None:
        self._api = api
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._api(scope, receive, send)
            return
        began, request_id = time.perf_counter(), ids.new("req")
        headers = {b"x-request-id": request_id.encode(), b"cache-control": b"no-store"}
        scope[HEADERS], scope[REQUEST_ID] = headers, request_id
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                mine = {name for name, _ in message.get("headers", ())}
                message["headers"] = [
                    *message.get("headers", ()),
                    *((name, value) for name, value in headers.items() if name not in mine),
                ]
            await send(message)

        try:
            await self._api(scope, self._bounded(scope, receive), answer)
        finally:
            log.info(
                "a request to the API",
                action="api",
                request_id=request_id,
                method=scope["method"],
                path=scope["path"],
                status=status,
                ms=round((time.perf_counter() - began) * 1000, 1),
            )

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        left = self._max_body_bytes

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, f"the body is larger than {self._max_body_bytes} bytes")
            return message

        return bounded
