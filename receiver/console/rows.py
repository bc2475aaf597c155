"""What all lists and the pages of their rows have in common: who may see them, how they are asked for, what one may do.

A list goes on behind the id of its last row, so that a page costs the same wherever it is; nothing is counted. What is
done to a row asks for the scope of its view, is carried out by the engine, which audits it, and answers in a sentence.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from asyncio import to_thread
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette_admin.exceptions import ActionFailed
from starlette_admin.fields import BaseField
from starlette_admin.flash import flash
from starlette_admin.types import RequestAction, RowActionsDisplayType, RowActionsPosition
from starlette_admin.views import BaseModelView

from handlers.errors import BillhookError
from receiver.console.session import caller_of, may
from workers.app import Runtime
from workers.leases import utcnow
from workers.listing import Page

T = TypeVar("T")
LIMIT = 50
"""Rows on a page."""
_ID = re.compile(r"[a-z]{2,4}_[0-9A-Z]{26}")
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Filter:
    """Something by which a list can be narrowed: one of the choices, or any text."""

    name: str
    label: str
    choices: Sequence[str] = ()
    example: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which page of a list is asked for: what is given for each filter, the text searched for, where it begins."""

    given: Mapping[str, str]
    q: str | None
    after: str | None

    def __getitem__(self, name: str) -> str | None:
        return self.given.get(name)


@dataclass(frozen=True, slots=True)
class Doing:
    """Something that is being done: as whom, when, and with what was filled in."""

    actor: str
    now: datetime
    form: Mapping[str, str]


@dataclass
class Cell(BaseField):
    """A column: how its values are shown."""

    shown: str = "text"
    """text, code, short (of an id), json, error, moment, took (of milliseconds) or state."""
    list_template: str = field(default="cell.html")
    null_template: str = field(default="nothing.html")
    empty_template: str = field(default="nothing.html")


class Rows(BaseModelView):
    """A list, and a page for each of its rows."""

    sees: ClassVar[str]
    """The scope of whoever may look."""
    changes: ClassVar[str] = ""
    """The scope of whoever may do what is offered."""
    searched: ClassVar[str] = ""
    """What the search looks into; without it there is none."""
    empty: ClassVar[str]
    """What to say where there is no row at all."""
    new: ClassVar[tuple[str, str] | None] = None
    """The route that adds one, and what it is called."""
    follows: ClassVar[str | None] = None
    """The column in whose view the page of a row is, where it has none of its own."""

    pk_attr = "id"
    list_template = "list.html"
    detail_template = "detail.html"
    exporters = ()
    importers = ()
    actions = ()
    sortable_fields = ()
    searchable_fields = ()
    page_size = LIMIT
    page_size_options = (LIMIT,)
    row_actions_display_type = RowActionsDisplayType.KEBAB
    row_actions_position = RowActionsPosition.AFTER_COLUMNS

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._engine = runtime.engine
        super().__init__()

    @abstractmethod
    def page(self, asked: Asked) -> Page:
        """The rows that are asked for."""

    @abstractmethod
    def one(self, row_id: str) -> Any:
        """All that its page shows of a row, with its `id` and its `row`; None where there is none."""

    def filters(self) -> Sequence[Filter]:
        """By what it can be narrowed."""
        return ()

    def offered(self, name: str, row: Any) -> bool:
        """Whether something can be done to this row as it is."""
        return True

    # --- what starlette-admin asks ----------------------------------------------------------------

    def is_accessible(self, request: Request) -> bool:
        return may(request, self.sees)

    def can_create(self, request: Request) -> bool:
        return False

    can_edit = can_delete = can_export = can_import = can_create

    def get_fields_list(
        self, request: Request, *, include_nested: bool = False, action: RequestAction | None = None
    ) -> Sequence[BaseField]:
        # The page of a row is made of all there is about it, which has other parts.
        return () if request.state.action == RequestAction.DETAIL else self.fields

    def title(self, request: Request) -> str:
        return f"{self.menu_label} · Billhook"

    async def find_all(self, request: Request, *_: Any, **__: Any) -> Sequence[Any]:
        request.state.asked = asked = self.asked(request)
        page = await to_thread(self.page, asked)
        request.state.page = page
        return page.rows

    async def count(self, request: Request, *_: Any, **__: Any) -> int:
        return len(request.state.page.rows)

    async def find_by_pk(self, request: Request, pk: Any) -> Any:
        return await to_thread(self.one, _id_of(pk))

    async def find_by_pks(self, request: Request, pks: list[Any]) -> Sequence[Any]:
        return ()

    async def create(self, request: Request, data: dict[Any, Any]) -> Any:
        raise HTTPException(403)

    async def edit(self, request: Request, pk: Any, data: dict[str, Any]) -> Any:
        raise HTTPException(403)

    async def delete(self, request: Request, pks: list[Any]) -> int | None:
        raise HTTPException(403)

    async def repr(self, obj: Any, request: Request) -> str:
        return str(obj.id)

    async def is_action_allowed(self, request: Request, name: str) -> bool:
        return False

    async def is_row_action_allowed(self, request: Request, name: str) -> bool:
        return may(request, self.changes)

    async def is_row_action_allowed_for_obj(self, request: Request, name: str, obj: Any) -> bool:
        return self.offered(name, getattr(obj, "row", obj))

    async def handle_row_action(self, request: Request, pk: Any, name: str) -> Response | None:
        if name not in (self.row_actions or ()) or not may(request, self.changes):
            raise HTTPException(403, f"You may not do that: it needs the scope {self.changes}.")
        row_id = _id_of(pk)
        try:
            answer: Response | None = await self._row_actions_handlers[name](request, row_id)
        except BillhookError as error:
            if not self._row_actions[name]["custom_response"]:
                raise ActionFailed(str(error)) from None
            flash(request, str(error), "error")
            back = request.url_for("admin:detail", key=self.key).include_query_params(pk=row_id)
            return RedirectResponse(str(back), 303)
        return answer

    # --- what its templates ask -------------------------------------------------------------------

    def may_change(self, request: Request) -> bool:
        """Whether whoever asks may do what is offered."""
        return may(request, self.changes)

    def href(self, request: Request, row: Mapping[str, Any]) -> str | None:
        """Where a row leads to."""
        if not self.row_click_navigate:
            return None
        key, pk = (self.key, row["id"]) if self.follows is None else ("events", row[self.follows])
        if self.follows is not None and not may(request, "events:read"):
            return None
        return str(request.url_for("admin:detail", key=key).include_query_params(pk=pk))

    def beginning_at(self, request: Request, after: str | None) -> str:
        """The same list, behind this id."""
        given = [(name, value) for name, value in request.query_params.multi_items() if name != "after" and value]
        return "?" + urlencode([*given, *([("after", after)] if after else [])])

    # --- what its views ask -----------------------------------------------------------------------

    def asked(self, request: Request) -> Asked:
        """Which page is asked for. Raises HTTPException 400."""
        params = request.query_params
        given = {one.name: _plain(params.get(one.name, "")) for one in self.filters()}
        for one in self.filters():
            if one.choices and given[one.name] and given[one.name] not in one.choices:
                raise HTTPException(400, f"{one.label}: there is no {given[one.name]!r} to choose.")
        after = params.get("after")
        if after is not None and _ID.fullmatch(after) is None:
            raise HTTPException(400, "There is no page that begins there.")
        q = _plain(params.get("q", "")) if self.searched else ""
        return Asked({name: value for name, value in given.items() if value}, q or None, after)

    async def carry_out(self, request: Request, do: Callable[[Doing], T]) -> T:
        """Do something as whoever asks, in a thread. Raises what it raises."""
        form = {name: _plain(str(value), 10_000) for name, value in (await request.form()).items()}
        return await to_thread(do, Doing(caller_of(request).actor, utcnow(), form))


def say(request: Request, sentence: str) -> None:
    """Have the next page begin with it."""
    flash(request, sentence, "success")


def _id_of(text: Any) -> str:
    if not isinstance(text, str) or _ID.fullmatch(text) is None:
        raise HTTPException(404, "There is none with that id.")
    return text


def _plain(text: str, longest: int = _LONGEST) -> str:
    """Text that any database can be asked for. Raises HTTPException 400."""
    text = text.strip()
    if len(text) > longest or not text.replace("\n", "").replace("\r", "").isprintable():
        raise HTTPException(400, "That text cannot be searched for or stored.")
    return text
