"""Hisab's answers: what is in `{"success": true, "data": …, "meta": …}`, and lists fetched page by page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from handlers.providers.answers import bad_answer, refusal
from handlers.providers.http import RestClient

Resource = dict[str, Any]
"""A resource as the API sends it: money is decimal strings, dates and moments are ISO 8601."""

_HTML = re.compile(rb"<(?:!doctype\s+)?html", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a list. `total` and `per_page` are None where the API does not tell them."""

    items: Sequence[Resource]
    page: int
    per_page: int | None
    total: int | None
    total_pages: int


def resource(answer: Any) -> Resource:
    """The one resource of an answer. Raises ProviderError where it is a refusal, and BAD_ANSWER otherwise."""
    data = _opened(answer).get("data")
    if not isinstance(data, dict):
        raise bad_answer("data is not an object")
    return data


def resource_if_any(answer: Any) -> Resource:
    """As `resource`; empty where the call succeeded and nothing is told. `answer` is None for one without a body."""
    data = None if answer is None else _opened(answer).get("data")
    return data if isinstance(data, dict) else {}


def resources(answer: Any) -> Sequence[Resource]:
    """The list of an answer, whole. Raises as `resource` does."""
    return _listed(_opened(answer))


def pages(rest: RestClient, path: str, filters: Mapping[str, Any], *, numbered: bool = True) -> Iterator[Page]:
    """The pages of a list from `filters["page"]` on, each fetched when it is reached.

    A list that is not `numbered` may come without pages, and is asked for its first without a number.
    """
    number = filters.get("page", 1)
    while True:
        params = {**filters, "page": number} if numbered or number > 1 else filters
        page = _page(rest.request("GET", path, params=params), number, numbered=numbered)
        yield page
        if number >= page.total_pages:
            return
        number += 1


def file(content: bytes, *, begin: bytes) -> bytes:
    """A file, if it begins as one. Raises as `resource` does: a page of a proxy must not go out as an invoice."""
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(begin) and _HTML.match(start) is None:
        return content
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        answer = None
    raise refusal(answer, status=200) or bad_answer(f"it does not begin as a file of {begin.decode()!r}")


def _opened(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise bad_answer("it is not an envelope")
    if answer.get("success") is not True:
        raise refusal(answer, status=200) or bad_answer("it is not an envelope")
    return answer


def _listed(envelope: dict[str, Any]) -> Sequence[Resource]:
    data = envelope.get("data")
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise bad_answer("data is not a list of objects")
    return data


def _page(answer: Any, number: int, *, numbered: bool) -> Page:
    envelope = _opened(answer)
    items = _listed(envelope)
    meta = envelope.get("meta")
    told = meta.get("pagination") if isinstance(meta, dict) else None
    if told is None and not numbered:
        return Page(items=items, page=1, per_page=None, total=len(items), total_pages=1)
    told = told if isinstance(told, dict) else {}
    # camelCase by the reference, snake_case by Hisab's own SDK
    total_pages = _count(told, "totalPages", "total_pages")
    # Without the number of pages an invoice could be missed, and then be created twice. So it could by the wrong page.
    if total_pages is None or _count(told, "page") not in {number, None} or (not items and number < total_pages):
        raise bad_answer("it is not the page of the list that was asked for")
    return Page(
        items=items,
        page=number,
        per_page=_count(told, "perPage", "per_page"),
        total=_count(told, "total"),
        total_pages=total_pages,
    )


def _count(told: Mapping[str, Any], *names: str) -> int | None:
    value = next((told[name] for name in names if name in told), None)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
