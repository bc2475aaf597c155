"""What a handler's author imports: `on`, `Event`, `Context`, `Retry`, `Discard`. That is all of it.

from handlers import Context, Event, on

@on("invoice.paid")
def send_receipt(event: Event, ctx: Context) -> None:
    ctx.emit("receipt.issued", {"invoice": event.object_id})
"""

from __future__ import annotations

from handlers.context import Context
from handlers.errors import Discard, Retry
from handlers.event import Event
from handlers.registry import on

__all__ = ["Context", "Discard", "Event", "Retry", "on"]
