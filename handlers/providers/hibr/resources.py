"""The verbs that every HIBR resource has (HIBR API reference, Resource catalog)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from handlers.providers.answers import bad_answer, parsed
from handlers.providers.hibr import encoding
from handlers.providers.http import RestClient

DEFAULT_LIMIT, MAX_LIMIT = 50, 200
"""Records of one page (HIBR API reference, Pagination)."""

Record = dict[str, Any]
"""One resource as the API sends it: `id`, `object` (the name of its type) and its fields, amounts as integers."""


@dataclass(frozen=True, slots=True)
class Page:
    records: Sequence[Record]
    next_cursor: str | None
    """Where the next page begins; None: this was the last."""


class Resource:
    """One kind of record at `/v1/{name}`.

    Whatever changes something takes the fields of the record by name, and carries an Idempotency-Key: HIBR keeps the
    answer under it for 24 hours and gives it again instead of acting twice. A key is made for each call (UUID v4) and
    is the same over the call's own repetitions. To repeat a call yourself, after NO_ANSWER or a crash, give it the
    `idempotency_key` that you gave it first: with another key it is another invoice.

    Raises ProviderError with HIBR's code where a call was refused, and ProviderUnavailable where the same call may
    succeed later; TypeError or ValueError, before anything is sent, on what HIBR could not read.
    """

    def __init__(self, rest: RestClient, name: str) -> None:
        self._rest = rest
        self._path = f"/v1/{encoding.name(name)}"

    def __repr__(self) -> str:
        return f"<Resource {self._path}>"

    def list(
        self, filters: Mapping[str, Any] | None = None, *, sort: str | None = None, limit: int = MAX_LIMIT
    ) -> Iterator[Record]:
        """Every record that the filters select, fetched page by page (`limit` records each) as they are read.

        invoices.list({"status.in": ["open", "paid"], "invoice_date.gte": date(2026, 1, 1)}, sort="invoice_date:desc")

        A filter is a field, or a field with `.eq .gte .lte .gt .lt .in .contains`.
        """
        return self._pages(self._parameters(filters, sort, limit))

    def page(
        self,
        filters: Mapping[str, Any] | None = None,
        *,
        sort: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page:
        """One page of a list, at most 200 records; `cursor` is the `next_cursor` of the page before."""
        return self._page(self._parameters(filters, sort, limit), cursor)

    def get(self, record_id: str) -> Record:
        return _record(self._rest.request("GET", self._of(record_id)))

    def create(self, /, *, idempotency_key: str | None = None, **fields: Any) -> Record:
        return _record(parsed(self._change("POST", self._path, idempotency_key, fields)))

    def update(self, record_id: str, /, *, idempotency_key: str | None = None, **fields: Any) -> Record:
        """Change the given fields, and no other. None is written as null."""
        return _record(parsed(self._change("PATCH", self._of(record_id), idempotency_key, fields)))

    def delete(self, record_id: str, /, *, idempotency_key: str | None = None) -> None:
        """Delete a record. Refused with conflict_error where the rules of business forbid it (a posted invoice)."""
        self._change("DELETE", self._of(record_id), idempotency_key, None)

    def action(self, record_id: str, action: str, /, *, idempotency_key: str | None = None, **fields: Any) -> Record:
        """Move a record to another state: `action(invoice_id, "post")`, "void", "send".

        Returns what the API answers, which is the record; an empty dict if it answers without a body.
        """
        path = f"{self._of(record_id)}/{encoding.name(action)}"
        response = self._change("POST", path, idempotency_key, fields)
        return _object(parsed(response)) if response.content else {}

    def _change(self, method: str, path: str, key: str | None, fields: Mapping[str, Any] | None) -> httpx.Response:
        content = None if fields is None else encoding.body(fields)
        # The reference asks for the type of the content at DELETE too, which has none.
        headers = {
            "Idempotency-Key": str(uuid.uuid4()) if key is None else key,
            "Content-Type": "application/json",
        }
        return self._rest.exchange(method, path, json=content, headers=headers, safe=True)

    def _pages(self, parameters: Mapping[str, str]) -> Iterator[Record]:
        seen = set()
        cursor: str | None = None
        while True:
            page = self._page(parameters, cursor)
            yield from page.records
            cursor = page.next_cursor
            if cursor is None:
                return
            if cursor in seen:
                raise bad_answer("its pages go round in a circle")
            seen.add(cursor)

    def _page(self, parameters: Mapping[str, str], cursor: str | None) -> Page:
        return _read_page(self._rest.request("GET", self._path, params={**parameters, "cursor": cursor}))

    def _parameters(self, filters: Mapping[str, Any] | None, sort: str | None, limit: int) -> dict[str, str]:
        if not 1 <= limit <= MAX_LIMIT:
            raise ValueError(f"limit is 1 to {MAX_LIMIT} records of one page")
        return {**encoding.query(filters or {}, sort), "limit": str(limit)}

    def _of(self, record_id: str) -> str:
        return f"{self._path}/{encoding.segment(record_id)}"


def _object(answer: Any) -> Record:
    if not isinstance(answer, dict):
        raise bad_answer("it is not an object")
    return answer


def _record(answer: Any) -> Record:
    if not isinstance(_object(answer).get("id"), str):
        raise bad_answer("it is not a record with an id")
    return _object(answer)


def _read_page(answer: Any) -> Page:
    document = _object(answer)
    records, pagination = document.get("data"), document.get("pagination")
    if not isinstance(records, list) or not isinstance(pagination, dict):
        raise bad_answer("it is not a page of a list")
    more, cursor = pagination.get("has_more"), pagination.get("next_cursor")
    if not all(isinstance(record, dict) for record in records) or not isinstance(more, bool):
        raise bad_answer("it is not a page of a list")
    if more and (not isinstance(cursor, str) or not cursor):
        # Taken for the last page, it would hide the rest.
        raise bad_answer("it says that there is more, and not where")
    return Page(records, cursor if more else None)
