"""API keys, and the users of the console: who may come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette_admin.actions import row_action

from receiver.console.rows import Asked, Cell, Doing, Rows, say
from workers import api_keys
from workers.leases import utcnow
from workers.listing import Page
from workers.models import AnyRow


@dataclass(frozen=True, slots=True)
class Key:
    """A key as its page has it."""

    id: str
    row: AnyRow
    state: str


class ApiKeyView(Rows):
    """The keys; there are few, so there is one page."""

    key = "keys"
    menu_label = "API keys"
    display_name = "key"
    icon = "fa-solid fa-key"
    sees = "keys:read"
    changes = "keys:write"
    empty = "No API keys yet. Make one here, or with `billhook keys create --scopes full`."
    new = ("new-key", "New key")
    detail_template = "key.html"
    row_actions = ("revoke",)
    fields = (
        Cell("id", "Key", shown="code"),
        Cell("name", "Name"),
        Cell("hint", "Ends in", shown="code"),
        Cell("state", "State", shown="state", getter=lambda _request, row: state_of(row)),
        Cell("created_at", "Made", shown="moment"),
        Cell("last_used_at", "Last used", shown="moment"),
    )

    def page(self, asked: Asked) -> Page:
        return Page(api_keys.everyone(self._engine), None)

    def one(self, row_id: str) -> Any:
        try:
            row = api_keys.get(self._engine, row_id)
        except api_keys.NoApiKey:
            return None
        return Key(row_id, row, state_of(row))

    def offered(self, name: str, row: Any) -> bool:
        return row.revoked_at is None

    @row_action(
        name="revoke",
        text="Revoke",
        header="Revoke this key?",
        confirmation="Whoever uses it is refused from now on, and whoever signed in with it is signed out. "
        "This is for good.",
        submit_btn_text="Revoke",
        submit_btn_class="btn btn-danger",
        icon_class="fa-solid fa-ban",
        action_btn_class="btn btn-danger",
    )
    async def revoke(self, request: Request, pk: str) -> None:
        await self.carry_out(request, lambda doing: _revoke(self, pk, doing))
        say(request, "The key is revoked.")


def _revoke(view: ApiKeyView, key_id: str, doing: Doing) -> AnyRow:
    return api_keys.revoke(view._engine, key_id, actor=doing.actor, now=doing.now)


def state_of(row: AnyRow) -> str:
    """Whether a key is live, expired or revoked."""
    if row.revoked_at is not None:
        return "revoked"
    return "expired" if row.expires_at is not None and row.expires_at <= utcnow() else "live"
