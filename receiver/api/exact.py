"""Bodies whose numbers stay what was written: 10400.10 is read as just that, and never as binary floating point.

FastAPI reads a body by `Request.json`, so that is what is replaced, for the routers that have `route_class=Exact`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class ExactRequest(Request):
    """A request whose `json` has Decimals for numbers with a point or an exponent."""

    async def json(self) -> Any:
        """Raises json.JSONDecodeError."""
        return read(await self.body())


class Exact(APIRoute):
    """A route that reads bodies so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def exactly(request: Request) -> Response:
            return await handle(ExactRequest(request.scope, request.receive))

        return exactly


def read(body: bytes) -> Any:
    """The document in a body: UTF-8, no NaN, and no half of a character. Raises json.JSONDecodeError."""
    try:
        text = body.decode()
        found = json.loads(text, parse_float=Decimal, parse_constant=_no_number)
        if _ESCAPED_SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False, default=str).encode()
    except json.JSONDecodeError:
        raise
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise json.JSONDecodeError(type(error).__name__, "", 0) from None
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)
