"""Runs: what each handler made of each event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from receiver.console.rows import LIMIT, Asked, Cell, Filter, Rows
from workers import browsing
from workers.browsing import Runs
from workers.listing import Page


class RunView(Rows):
    """The runs; the page of one is that of its event."""

    key = "runs"
    menu_label = "Runs"
    display_name = "run"
    icon = "fa-solid fa-gears"
    sees = "handlers:read"
    searched = "Event id"
    empty = "No runs yet. A run is one handler on one event: name your handlers in BILLHOOK_HANDLERS."
    follows = "event_id"
    row_actions = ()
    fields = (
        Cell("event_id", "Event", shown="code"),
        Cell("handler", "Handler"),
        Cell("status", "Status", shown="state"),
        Cell("attempts", "Attempts"),
        Cell("created_at", "Planned", shown="moment"),
        Cell("duration_ms", "Took", shown="took"),
        Cell("error", "Error", shown="error"),
    )

    def filters(self) -> Sequence[Filter]:
        return (
            Filter("status", "Status", ("waiting", "running", "succeeded", "discarded", "dead")),
            Filter("handler", "Handler", example="receipts.send_receipt"),
        )

    def page(self, asked: Asked) -> Page:
        meant = Runs(handler=asked["handler"], status=asked["status"], event_id=asked.q)
        return browsing.runs(self._engine, meant, after=asked.after, limit=LIMIT)

    def one(self, row_id: str) -> Any:
        return None
