"""Answers: the JSON envelope of every response, and the errors with their codes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import orjson

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


CLOSE = (b"connection", b"close")
"""For answers that are given before the request was read to its end."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def send(self, send: Send) -> None:
        """Write it out; the two messages of ASGI."""
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(self.body)),
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def success(status: int, data: dict[str, Any]) -> Answer:
    """`{"success": true, "data": …}`."""
    return Answer(status, orjson.dumps({"success": True, "data": data}))


def failure(status: int, code: str, message: str, *headers: tuple[bytes, bytes]) -> Answer:
    """`{"success": false, "error": {"code", "message"}}`."""
    return Answer(status, orjson.dumps({"success": False, "error": {"code": code, "message": message}}), headers)
