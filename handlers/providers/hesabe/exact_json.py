"""JSON as Hesabe's API writes it: the same amounts come as text and as numbers, so that no float may come between."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, NoReturn


def read(body: bytes) -> Any:
    """Any JSON in UTF-8, its fractions as Decimal. Raises ValueError, and nothing else, on any bytes."""
    try:
        return json.loads(body.decode(), parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, ArithmeticError, RecursionError):
        raise ValueError("it is not JSON in UTF-8") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
