"""Up to three reminders of an invoice that stays unpaid, 3, 10 and 24 days after it was due.

What a run emits is sent when the run succeeds, not when it pauses. So each reminder is a handler of its own: of every
invoice that is sent there are three runs, and each pauses until its day.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from handlers import Context, Discard, Event, on

OFFICE = ZoneInfo("Africa/Casablanca")


@on("invoice.sent", provider="hisab")
def first_reminder(event: Event, ctx: Context) -> None:
    remind(event, ctx, "first", days=3)


@on("invoice.sent", provider="hisab")
def second_reminder(event: Event, ctx: Context) -> None:
    remind(event, ctx, "second", days=10)


@on("invoice.sent", provider="hisab")
def last_reminder(event: Event, ctx: Context) -> None:
    remind(event, ctx, "last", days=24)


def remind(event: Event, ctx: Context, which: str, *, days: int) -> None:
    """Wait for the day, look at the invoice as it is then, and remind its customer if it is still unpaid."""
    due = event.invoice.due_date
    if due is None:
        raise Discard("the invoice has no due date")
    # The pause is in the database: nothing waits in a process, and a restart in between changes nothing.
    ctx.sleep_until(datetime.combine(due + timedelta(days=days), time(9), OFFICE))
    invoice = ctx.client().invoices.get(event.object_id)
    if invoice["status"] != "sent":
        raise Discard(f"the invoice is {invoice['status']}")
    # An invoice that is sent twice has two events, each with its runs; one of them reminds.
    if not ctx.once(f"{event.object_id} {which}"):
        raise Discard("another run has sent this reminder")
    ctx.emit(
        "invoice.reminder",
        {"invoice": invoice["id"], "number": invoice["invoice_number"], "total": invoice["total"], "reminder": which},
    )
