"""A sandbox without a network, for the clients: what it tells has been told when a call returns."""

from __future__ import annotations

import asyncio

import httpx
from starlette.applications import Starlette


class Bridge(httpx.BaseTransport):
    """Carries the calls of a client to an app in this process; what was called is in `calls`."""

    def __init__(self, app: Starlette) -> None:
        self._app = app
        self.calls: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(f"{request.method} {request.url.raw_path.decode()}")

        async def exchange() -> httpx.Response:
            async with httpx.ASGITransport(self._app) as transport:
                response = await transport.handle_async_request(request)
                content = await response.aread()
                return httpx.Response(response.status_code, headers=response.headers, content=content)

        return asyncio.run(exchange())
