"""Deliveries: messages on their way to endpoints, each attempt, and to have one sent now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette_admin.actions import row_action

from receiver.console.rows import LIMIT, Asked, Cell, Doing, Filter, Rows, say
from workers.app import DELIVER, ring
from workers.delivery import deliveries, recover
from workers.delivery.deliveries import Wanted
from workers.listing import Page
from workers.models import AnyRow


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery as its page has it."""

    id: str
    row: AnyRow
    attempts: Sequence[AnyRow]


class DeliveryView(Rows):
    """The deliveries."""

    key = "deliveries"
    menu_label = "Deliveries"
    display_name = "delivery"
    icon = "fa-solid fa-paper-plane"
    sees = "deliveries:read"
    changes = "deliveries:write"
    searched = "Message id"
    empty = (
        "No deliveries yet. A delivery is a message that a handler emitted, on its way to an endpoint that wants it."
    )
    detail_template = "delivery.html"
    row_actions = ("retry",)
    fields = (
        Cell("id", "Delivery", shown="code"),
        Cell("created_at", "Made", shown="moment"),
        Cell("type", "Type"),
        Cell("endpoint_id", "Endpoint", shown="short"),
        Cell("status", "Status", shown="state"),
        Cell("attempts", "Attempts"),
        Cell("last", "Last answer"),
    )

    def filters(self) -> Sequence[Filter]:
        return (
            Filter("status", "Status", deliveries.STATUSES),
            Filter("endpoint", "Endpoint", example="ep_…"),
        )

    def page(self, asked: Asked) -> Page:
        status = asked["status"]
        wanted = Wanted(endpoint_id=asked["endpoint"], message_id=asked.q, statuses=() if status is None else (status,))
        return deliveries.newest(self._engine, wanted, after=asked.after, limit=LIMIT)

    def one(self, row_id: str) -> Any:
        found = deliveries.shown(self._engine, row_id)
        return None if found is None else Delivery(row_id, found.delivery, found.attempts)

    def offered(self, name: str, row: Any) -> bool:
        return bool(row.status != "running")

    @row_action(
        name="retry",
        text="Send now",
        header="Send this delivery now?",
        confirmation="The message is sent to its endpoint at once. One that has ended gets all of its schedule anew; "
        "one that succeeded is sent once more, under the same webhook-id.",
        submit_btn_text="Send now",
        icon_class="fa-solid fa-paper-plane",
        action_btn_class="btn btn-primary",
    )
    async def retry(self, request: Request, pk: str) -> None:
        def do(doing: Doing) -> bool:
            retried = recover.retry(self._engine, [pk], actor=doing.actor, now=doing.now, succeeded=True)
            ring(DELIVER, list(retried.due))
            return bool(retried.due)

        due = await self.carry_out(request, do)
        say(request, "It is due now." if due else "It is being sent at this moment.")
