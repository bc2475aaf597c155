"""Lists: pages by cursor, filters and order (HIBR API reference, Pagination and Filtering).

The sandbox's own choices: newest first unless a `sort` is given; `contains` minds upper and lower case; records
without the field are matched by no filter and come last in any order; a cursor holds only with the filters and the
order that it was given for; a value of another type than the field's, a parameter that stands twice, and a limit
above 200 are answered 400.
"""

from __future__ import annotations

import base64
import hashlib
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from starlette.datastructures import QueryParams

from handlers.providers.hibr.encoding import OPERATORS
from handlers.providers.hibr.resources import DEFAULT_LIMIT, MAX_LIMIT
from handlers.providers.hibr.sandbox import bodies
from handlers.providers.hibr.sandbox.answers import malformed, moment
from handlers.providers.hibr.sandbox.tables import Resource

Row = tuple[int, Resource]
"""What orders records that are equal otherwise, and the record as it is shown."""

_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "gte": operator.ge,
    "lte": operator.le,
    "gt": operator.gt,
    "lt": operator.lt,
    "contains": operator.contains,
    "in": operator.eq,
}
_PAGING = frozenset({"limit", "cursor", "sort"})
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SORT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::(asc|desc))?")
_DIGITS = re.compile(r"[0-9]{1,4}")
_INTEGER = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Filter:
    parameter: str
    field: str
    operator: str
    texts: tuple[str, ...]
    """One value, or the values of `in`."""
    zone: ZoneInfo

    def matches(self, record: Resource) -> bool:
        value = record.get(self.field)
        if value is None:
            return False
        if isinstance(value, dict | list):
            raise malformed(f"The '{self.field}' field cannot be filtered by.", self.parameter)
        if self.operator == "contains" and not isinstance(value, str):
            raise malformed(f"The operator .contains is for strings, which '{self.field}' is not.", self.parameter)
        if isinstance(value, bool) and self.operator not in {"eq", "in"}:
            raise malformed(f"The '{self.field}' field is true or false, and not compared.", self.parameter)
        compare = _COMPARE[self.operator]
        return any(compare(value, self._like(value, text)) for text in self.texts)

    def _like(self, value: object, text: str) -> object:
        """The text of the query as a value of the field's type."""
        if isinstance(value, bool):
            if text not in {"true", "false"}:
                raise malformed(f"The '{self.field}' field is true or false.", self.parameter)
            return text == "true"
        if isinstance(value, int):
            if _INTEGER.fullmatch(text) is None:
                raise malformed(f"The '{self.field}' field is an integer.", self.parameter)
            return int(text)
        if self.operator == "contains":
            return text
        return self._dated(text)

    def _dated(self, text: str) -> str:
        if self.field.endswith("_date"):
            return bodies.day(text, self.parameter)
        if not self.field.endswith("_at"):
            return text
        if len(text) == len("2026-10-15"):
            # a date alone: the moment at which it begins where the account is
            start = datetime.fromisoformat(bodies.day(text, self.parameter))
            return moment(start.replace(tzinfo=self.zone))
        return bodies.instant(text, self.parameter, self.zone)


def page(rows: Iterable[Row], query: QueryParams, zone: ZoneInfo) -> Resource:
    """One page of the rows as a list resource. Raises invalid_request_error."""
    given = dict(query)
    if len(given) < len(query.multi_items()):
        raise malformed("A query parameter stands twice; for several values there is the operator .in.")
    filters = [_filter(name, text, zone) for name, text in given.items() if name not in _PAGING]
    field, descending = _sort(given.get("sort", "created_at:desc"))
    limit = _limit(given.get("limit", str(DEFAULT_LIMIT)))
    of = _digest(given)
    found = [row for row in rows if all(test.matches(row[1]) for test in filters)]
    known = [row for row in found if row[1].get(field) is not None]
    missing = [row for row in found if row[1].get(field) is None]
    key = partial(_place, field)
    ordered = sorted(known, key=key, reverse=descending) + sorted(missing, key=lambda row: row[0], reverse=descending)
    if "cursor" in given:
        ordered = _after(ordered, _opened(given["cursor"], of), field, descending)
    shown, rest = ordered[:limit], ordered[limit:]
    cursor = _cursor(shown[-1], field, of) if rest else None
    data = [record for _, record in shown]
    return {"object": "list", "data": data, "pagination": {"next_cursor": cursor, "has_more": cursor is not None}}


def _filter(name: str, text: str, zone: ZoneInfo) -> Filter:
    field, dot, word = name.partition(".")
    if _FIELD.fullmatch(field) is None:
        raise malformed("A query parameter must be limit, cursor, sort, or a field to filter by.", name)
    if dot and word not in OPERATORS:
        raise malformed(f"The operator must be one of {', '.join(f'.{known}' for known in OPERATORS)}.", name)
    word = word or "eq"
    texts = tuple(text.split(",")) if word == "in" else (text,)
    if not all(texts):
        raise malformed("A filter must have a value.", name)
    made = Filter(name, field, word, texts, zone)
    if word != "contains":
        for part in texts:
            made._dated(part)  # a date that is none is told also where there is no record
    return made


def _sort(text: str) -> tuple[str, bool]:
    found = _SORT.fullmatch(text)
    if found is None:
        raise malformed("The 'sort' parameter must be a field and its direction, such as invoice_date:desc.", "sort")
    return found[1], found[2] == "desc"


def _limit(text: str) -> int:
    if _DIGITS.fullmatch(text) is None or not 1 <= int(text) <= MAX_LIMIT:
        raise malformed(f"The 'limit' parameter must be an integer from 1 to {MAX_LIMIT}.", "limit")
    return int(text)


def _place(field: str, row: Row) -> tuple[Any, ...]:
    """Where a record stands: by type first, because a field of a free record may be of any."""
    value = row[1][field]
    if isinstance(value, dict | list):
        raise malformed(f"The '{field}' field cannot be sorted by.", "sort")
    return (isinstance(value, str), value, row[0])


def _after(ordered: list[Row], last: tuple[Any, Any], field: str, descending: bool) -> list[Row]:
    """The rows behind the place of a cursor, be the record that stood there deleted or not."""
    value, order = last
    compare = operator.lt if descending else operator.gt
    try:
        if value is None:
            return [row for row in ordered if row[1].get(field) is None and compare(row[0], order)]
        place = (isinstance(value, str), value, order)
        return [row for row in ordered if row[1].get(field) is None or compare(_place(field, row), place)]
    except TypeError:
        raise _bad_cursor() from None


def _cursor(row: Row, field: str, of: str) -> str:
    place = {"t": row[1].get(field), "n": row[0], "q": of}
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


def _opened(cursor: str, of: str) -> tuple[Any, Any]:
    try:
        place = orjson.loads(base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)))
        if place["q"] == of:
            return place["t"], place["n"]
    except (ValueError, TypeError, KeyError):
        pass
    raise _bad_cursor()


def _bad_cursor() -> Exception:
    return malformed(
        "The 'cursor' parameter must be the next_cursor of the page before, with the same filters and order.", "cursor"
    )


def _digest(given: Mapping[str, str]) -> str:
    """What a cursor belongs to; the limit may change from page to page."""
    kept = sorted((name, text) for name, text in given.items() if name not in {"limit", "cursor"})
    return hashlib.sha256(orjson.dumps(kept)).hexdigest()[:12]
