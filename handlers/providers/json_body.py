"""The body of a delivery as a JSON object: strict, because what one parser drops another one keeps.

A name that stands twice, NaN, a byte order mark, or nesting without end are refused; so nobody downstream reads the
same bytes in another way than we did.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import orjson

from handlers.errors import ParseError

MAX_DEPTH = 64
"""Levels of nesting; far more than an invoice has, far fewer than break whoever writes the event out again."""
MAX_ID = 200
LARGEST = 2**64 - 1
"""Of integers: what 64 bits hold, and JSON writers with them."""

_NAME = re.compile(rb'"\s*:')
_TYPE = re.compile(r"[!-~]{1,128}")


def read_object(body: bytes) -> dict[str, Any]:
    """The object that a body is. Numbers with a fraction are floats; `handlers.views.money` has their exact text.

    An integer beyond 64 bits is its own text.

    Raises ParseError, and nothing else, on any bytes; its message quotes none of them.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ParseError(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ParseError("the body must be an object")
    names, rounded = _survey(document)
    # What looks like a name may stand in a string; what is one always looks like it. So only a surplus is looked into.
    return _read_closely(body) if rounded or len(_NAME.findall(body)) > names else document


def text(name: str, value: object) -> str:
    """A short printable text, such as an id. Raises ParseError."""
    if isinstance(value, str) and 0 < len(value) <= MAX_ID and value.isprintable():
        return value
    raise ParseError(f"{name} must be 1 to {MAX_ID} printable characters")


def optional_text(name: str, value: object) -> str | None:
    """As `text`, or None. Raises ParseError."""
    return None if value is None else text(name, value)


def event_type(name: str, value: object) -> str:
    """An event type of any sender: 1 to 128 printable ASCII characters. Raises ParseError."""
    if isinstance(value, str) and _TYPE.fullmatch(value) is not None:
        return value
    raise ParseError(f"{name} must be 1 to 128 printable ASCII characters without a space")


def identifier(value: object) -> str | None:
    """An id where there is one that can be kept, a number too; else None: it is not what a delivery hangs on."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and 0 < len(value) <= MAX_ID and value.isprintable() else None


def moment(name: str, value: object) -> datetime:
    """An ISO 8601 date and time with a zone, in UTC. Raises ParseError."""
    if isinstance(value, str) and value.isprintable():  # fromisoformat reads past a NUL at the end
        try:
            found = datetime.fromisoformat(value)
            if found.tzinfo is not None:
                return found if found.tzinfo is UTC else found.astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # OverflowError: the year 1 or 9999, moved over the edge by its zone
    raise ParseError(f"{name} must be an ISO 8601 date and time with a zone")


def _survey(document: dict[str, Any]) -> tuple[int, bool]:
    """How many names its objects have, and whether a number in it may be an integer that was rounded to a float.

    Raises ParseError where it nests too deeply.
    """
    count, rounded = 0, False
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for container in level:
            values: Iterable[Any] = container
            if isinstance(container, dict):
                count += len(container)
                values = container.values()
            for value in values:
                if isinstance(value, (dict, list)):
                    below.append(value)
                elif isinstance(value, float) and abs(value) >= 2**63:
                    rounded = True
        if not below:
            return count, rounded
        level = below
    raise ParseError(f"the body nests deeper than {MAX_DEPTH} levels")


def _read_closely(body: bytes) -> dict[str, Any]:
    """Read it all again, in Python. Raises ParseError where a name stands twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ParseError("a name stands twice in one object of the body")
        return found

    try:
        document: dict[str, Any] = json.loads(body, object_pairs_hook=unique, parse_int=_integer)
    except RecursionError:  # only what a second name dropped can be so deep
        raise ParseError("a name stands twice in one object of the body") from None
    return document


def _integer(digits: str) -> int | str:
    # A larger one would be rounded on the way to a handler, or could not be written out again.
    found = int(digits)
    return found if -(2**63) <= found <= LARGEST else digits
