"""How values are written for HIBR: bodies, filters, ids, dates (HIBR API reference, Money, Dates, Filtering).

Dates are ISO 8601 (`2026-10-15`), moments RFC 3339 in UTC (`2026-10-15T09:32:14Z`). A number with a fraction is never
written: as an amount it is answered 400, and as 5250.0 it reads as AED 5,250.00 and means AED 52.50.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

OPERATORS = ("eq", "gte", "lte", "gt", "lt", "in", "contains")
"""What may stand behind a filter's field and a dot; `eq` is meant where nothing does."""

_SEGMENT = re.compile(r"[A-Za-z0-9_.~-]{1,200}")
_NAME = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SORT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?::(?:asc|desc))?")
_LONGEST = 18
_OF_PAGING = frozenset({"limit", "cursor", "sort"})


def segment(value: object) -> str:
    """An id as one segment of a path, as it is. Raises ValueError where it would address something else."""
    if not isinstance(value, str) or _SEGMENT.fullmatch(value) is None or not value.strip("."):
        raise ValueError("an id is letters, digits and _ . ~ - only, such as inv_01HFQB9XTRP3K2Q5HW7Z3V8YJN")
    return value


def name(value: object) -> str:
    """The name of a resource or an action in a path. Raises ValueError."""
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise ValueError(f"{value!r} is not a name in a path: lower-case words joined by _ or -, such as credit_notes")
    return value


def body(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request as JSON values: dates as text, a whole Decimal as an integer.

    Raises TypeError, with the path of what is wrong (`lines[0].unit_price`), on floats, on Decimals that are written
    with decimals, and on what JSON does not have; ValueError on a moment without a time zone.
    """
    return {key: _value(key, value) for key, value in fields.items()}


def query(filters: Mapping[str, Any], sort: str | None) -> dict[str, str]:
    """Filters (`{"status": "paid", "invoice_date.gte": date(2026, 1, 1)}`) and order as parameters of a list.

    Raises ValueError or TypeError on what the reference does not provide for.
    """
    parameters = {key: _filter(key, value) for key, value in filters.items()}
    if sort is not None:
        if _SORT.fullmatch(sort) is None:
            raise ValueError(f"sort is a field and its direction, such as invoice_date:desc, not {sort!r}")
        parameters["sort"] = sort
    return parameters


def _filter(key: str, value: object) -> str:
    field, dot, operator = key.partition(".")
    if _FIELD.fullmatch(field) is None or field in _OF_PAGING:
        raise ValueError(f"{key!r} does not begin with a field to filter by")
    if dot and operator not in OPERATORS:
        raise ValueError(f"{key}: the operator is none of {', '.join(OPERATORS)}")
    if operator == "contains" and not isinstance(value, str):
        raise TypeError(f"{key} takes a string")
    if operator != "in":
        return _text(key, value)
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{key} takes a list of values")
    texts = [_text(f"{key}[{index}]", item) for index, item in enumerate(value)]
    if not texts or not all(texts) or any("," in text for text in texts):
        raise ValueError(f"{key} takes one value or more, none of them empty or with a comma in it")
    return ",".join(texts)


def _text(path: str, value: object) -> str:
    if value is None or isinstance(value, Mapping | list | tuple):
        raise TypeError(f"{path} takes one value: a string, a whole number, a date or a bool")
    if isinstance(value, bool):
        return str(value).lower()
    return str(_scalar(path, value))


def _value(path: str, value: object) -> Any:
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{path} has a name that is not a string")
        return {key: _value(f"{path}.{key}", item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_value(f"{path}[{index}]", item) for index, item in enumerate(value)]
    return _scalar(path, value)


def _scalar(path: str, value: object) -> str | int | None:
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float | Decimal):
        return _whole(path, value)
    if isinstance(value, datetime):
        return _moment(path, value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{path} is a {type(value).__name__}, which JSON does not have")


def _whole(path: str, value: float | Decimal) -> int:
    # Decimal("5250.00") equals an integer, yet whoever writes it means AED 5,250.00 and not 5,250 fils.
    if isinstance(value, Decimal):
        exponent = value.as_tuple().exponent  # a letter where it is no number
        if isinstance(exponent, int) and exponent >= 0 and value.adjusted() <= _LONGEST:
            return int(value)
    kind = type(value).__name__
    raise TypeError(f'{path} is the {kind} {value}: amounts are integers of minor units, to_minor("5250.00", "AED")')


def _moment(path: str, value: datetime) -> str:
    if value.utcoffset() is None:
        raise ValueError(f"{path} has no time zone: a datetime needs one, such as datetime.now(UTC)")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
