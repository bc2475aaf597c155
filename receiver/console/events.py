"""Events: what came, what became of it, and to have it handled again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette_admin.actions import row_action

from receiver.console.rows import LIMIT, Asked, Cell, Doing, Filter, Rows, say
from receiver.console.timeline import Happening, timeline
from workers import acknowledgement, browsing, replay
from workers.audit import STATUSES
from workers.dossier import Dossier, dossier
from workers.listing import Page
from workers.models import AnyRow
from workers.replay import Wish
from workers.selection import Selection


@dataclass(frozen=True, slots=True)
class Event:
    """An event as its page has it."""

    id: str
    row: AnyRow
    dossier: Dossier
    headers: Mapping[str, str]
    timeline: Sequence[Happening]


class EventView(Rows):
    """The events."""

    key = "events"
    menu_label = "Events"
    display_name = "event"
    icon = "fa-solid fa-inbox"
    sees = "events:read"
    changes = "events:write"
    searched = "Event id, or id of the invoice or customer"
    empty = (
        "No events yet. Configure a source in BILLHOOK_SOURCES, give its provider the URL /webhooks/{source}, or try "
        "`billhook send invoice.paid`."
    )
    detail_template = "event.html"
    row_actions = ("replay", "acknowledge")
    fields = (
        Cell("id", "Event", shown="code"),
        Cell("received_at", "Received", shown="moment"),
        Cell("type", "Type"),
        Cell("object_id", "Object"),
        Cell("source", "Source"),
        Cell("status", "Status", shown="state"),
        Cell("runs", "Runs"),
    )

    def filters(self) -> Sequence[Filter]:
        return (
            Filter("status", "Status", STATUSES),
            Filter("source", "Source", tuple(sorted(self._runtime.settings.sources))),
            Filter("type", "Type", example="invoice.*"),
        )

    def page(self, asked: Asked) -> Page:
        by_id = asked.q is not None and asked.q.startswith("evt_")
        meant = Selection(
            events=(asked.q,) if by_id and asked.q else (),
            object_id=None if by_id else asked.q,
            status=asked["status"],
            source=asked["source"],
            type=asked["type"],
        )
        return browsing.events(self._engine, meant, after=asked.after, limit=LIMIT)

    def one(self, row_id: str) -> Any:
        found = dossier(self._engine, row_id)
        if found is None:
            return None
        return Event(row_id, found.event, found, json.loads(found.event.headers), timeline(found))

    def offered(self, name: str, row: Any) -> bool:
        if name == "acknowledge":
            return bool(row.status == "dead" and row.acknowledged_at is None)
        return bool(row.status != "waiting")

    @row_action(
        name="replay",
        text="Replay",
        header="Replay this event?",
        confirmation="Its handlers run again: dead runs go on behind their last step, succeeded ones begin anew unless "
        "the event is dead. What they emitted before is not sent twice.",
        submit_btn_text="Replay",
        icon_class="fa-solid fa-rotate-right",
        action_btn_class="btn btn-primary",
    )
    async def replay(self, request: Request, pk: str) -> None:
        def do(doing: Doing) -> int:
            meant = Selection(events=(pk,))
            (row,) = browsing.events(self._engine, meant, limit=1).rows or (None,)
            if row is not None and row.status == "dead":
                meant = Selection(events=(pk,), status="dead")
            wish = Wish(selection=meant)
            return replay.replay(self._engine, wish, actor=doing.actor, now=doing.now).events

        done = await self.carry_out(request, do)
        say(request, "It is being replayed." if done else "There was nothing to replay: it has not ended yet.")

    @row_action(
        name="acknowledge",
        text="Acknowledge",
        header="Acknowledge this event?",
        confirmation="It was seen, and nothing more will be done about it: it no longer counts as dead work, and is "
        "deleted with its retention time.",
        submit_btn_text="Acknowledge",
        icon_class="fa-solid fa-check",
    )
    async def acknowledge(self, request: Request, pk: str) -> None:
        def do(doing: Doing) -> int:
            meant = Selection(events=(pk,))
            return acknowledgement.acknowledge(self._engine, meant, actor=doing.actor, now=doing.now)

        say(
            request,
            "It is acknowledged." if await self.carry_out(request, do) else "It was not dead, or acknowledged before.",
        )
