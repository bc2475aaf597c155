"""The audit log: what people had done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from receiver.console.rows import LIMIT, Asked, Cell, Filter, Rows
from workers import browsing
from workers.listing import Page


class AuditView(Rows):
    """The entries; a list says all there is of each."""

    key = "audit"
    menu_label = "Audit log"
    display_name = "entry"
    icon = "fa-solid fa-clipboard-list"
    sees = "audit:read"
    empty = "Nothing yet. Whatever somebody changes, here, with the API or at the command line, is written down here."
    row_actions = ()
    row_click_navigate = False
    fields = (
        Cell("at", "When", shown="moment"),
        Cell("actor", "Who"),
        Cell("action", "What", shown="code"),
        Cell("detail", "To what", shown="json"),
    )

    def filters(self) -> Sequence[Filter]:
        return (Filter("action", "What", example="schedules.pause"), Filter("actor", "Who"))

    def page(self, asked: Asked) -> Page:
        return browsing.audit_entries(
            self._engine, actor=asked["actor"], action=asked["action"], after=asked.after, limit=LIMIT
        )

    def one(self, row_id: str) -> Any:
        return None
