"""What the workers of `test_storm` run: a handler that sends each event on, and one that keeps each object's order.

Calls stand, line by line, in the file `calls` of the folder that the workers run in. What goes under with a worker
is looked for after seconds rather than a minute: a storm is many accidents in a short time.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from handlers import Context, Event, on
from workers import claims, leases

leases.RING_AGAIN = claims.HELD_BACK = timedelta(seconds=10)


@on("invoice.paid", timeout=1)
def sends_on(event: Event, ctx: Context) -> None:
    ctx.emit("invoice.numbered", {"number": event.data["number"]})


@on("invoice.paid", timeout=1, ordered=True)
def in_order(event: Event, ctx: Context) -> None:
    with Path("calls").open("a") as calls:
        calls.write(f"{event.object_id} {event.data['number']}\n")
