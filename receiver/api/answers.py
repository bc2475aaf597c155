"""What every answer looks like: `{"success": true, "data": …}`, and beside it `meta` where there are pages."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar

from fastapi import Query, Request, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from receiver.api.errors import ApiError, Refused
from workers.listing import Page
from workers.models import AnyRow, prose

_ID = re.compile(r"[a-z]{2,4}_[0-9A-Z]{26}")


class Model(BaseModel):
    """A typed value of the API. What a request has beside its fields is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def of(cls, row: AnyRow, **beside: Any) -> Self:
        """From a row that has columns of these names, and what is given beside."""
        columns = row._asdict()
        return cls(**{name: columns[name] for name in cls.model_fields if name in columns} | beside)


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999") from None


def _written(moment: object) -> object:
    """As it is, unless it is a number, which might be of seconds or of milliseconds."""
    if isinstance(moment, int | float) or (isinstance(moment, str) and "-" not in moment[1:]):
        raise ValueError("must be a date with a time and its zone, such as 2026-11-30T06:25:35Z")
    return moment


Moment = Annotated[
    AwareDatetime,
    BeforeValidator(_written),
    AfterValidator(_in_utc),
    PlainSerializer(lambda moment: moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"), str),
]
"""A moment, in UTC: `2026-11-30T06:25:35.123Z`."""


def _storable(text: str) -> str:
    if prose(text) != text:
        raise ValueError("may have neither NUL characters nor halves of a surrogate pair")
    return text


Text = Annotated[str, AfterValidator(_storable)]
"""Text that a database can hold."""

T = TypeVar("T")


class One(BaseModel, Generic[T]):
    """One thing."""

    success: Literal[True] = True
    data: T


class Pagination(BaseModel):
    """Where a list goes on."""

    next_cursor: str | None
    has_more: bool


class Meta(BaseModel):
    """What is told beside a list."""

    pagination: Pagination


class Many(BaseModel, Generic[T]):
    """A page of a list, newest first."""

    success: Literal[True] = True
    data: list[T]
    meta: Meta


def many(found: Page, shown: Callable[[AnyRow], T]) -> Many[T]:
    """A page as it is answered."""
    return Many(data=[shown(row) for row in found.rows], meta=Meta(pagination=pagination_of(found)))


def pagination_of(found: Page) -> Pagination:
    """Where a page's list goes on."""
    return Pagination(next_cursor=cursor_of(found.after), has_more=found.after is not None)


def all_of(shown: Sequence[T]) -> Many[T]:
    """A list of which there is one page."""
    return Many(data=list(shown), meta=Meta(pagination=Pagination(next_cursor=None, has_more=False)))


class Pages(BaseModel):
    """How a list is asked for, page by page."""

    model_config = ConfigDict(extra="forbid")

    listed: ClassVar[str]
    """What ids of this list begin with."""

    limit: Annotated[int, Query(ge=1, le=200, description="How many on a page.")] = 50
    cursor: Annotated[
        str | None, Query(description="`meta.pagination.next_cursor` of the page before.", max_length=200)
    ] = None

    @property
    def after(self) -> str | None:
        """The id behind which the page begins. Raises ApiError 400."""
        return None if self.cursor is None else id_of(self.cursor, self.listed)


def cursor_of(last: str | None) -> str | None:
    """What a caller gives back to go on behind this id."""
    return None if last is None else base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def id_of(cursor: str, listed: str) -> str:
    """The id in a cursor of a list of such ids as begin with `listed`. Raises ApiError 400."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except ValueError:
        text = ""
    if _ID.fullmatch(text) is None or not text.startswith(f"{listed}_"):
        problem = {"field": "cursor", "message": "is none that this list gave"}
        raise ApiError(400, "the request is not valid", details=[problem])
    return text


def text_of(content: bytes) -> tuple[str | None, str | None]:
    """Bytes as a text, or as base64 where they are no UTF-8; the other of the two is None."""
    try:
        return content.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(content).decode()


def tag_of(shown: BaseModel) -> str:
    """The ETag of a thing as it is shown."""
    return f'"{hashlib.sha256(shown.model_dump_json().encode()).hexdigest()[:32]}"'


def tagged(request: Request, shown: T) -> Response | One[T]:
    """One thing with its ETag; 304 where the caller has it already."""
    assert isinstance(shown, BaseModel)  # noqa: S101
    tag = tag_of(shown)
    if tag in [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers={"ETag": tag})
    body = One(data=shown).model_dump_json()
    return Response(body, media_type="application/json", headers={"ETag": tag})


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These statuses, and those of every operation, for the description."""
    always: Sequence[int] = (400, 401, 403, 413, 429, 500, 503)
    return {status: {"model": Refused, "description": _MEANINGS[status]} for status in sorted({*always, *statuses})}


_MEANINGS = {
    400: "The request is not valid; `details` names the fields.",
    401: "The key is missing, wrong, expired or revoked.",
    403: "The key lacks a scope; `details` names those that are needed.",
    404: "There is none with that id.",
    409: "It is not in a state for that, or the `Idempotency-Key` was used for another request.",
    412: "It was changed since: its ETag is not that of `If-Match`.",
    413: "The body is too large.",
    429: "Too many requests; ask again after `Retry-After` seconds.",
    500: "Something went wrong here.",
    503: "The database, or a provider, does not answer; ask again after `Retry-After` seconds.",
}
