"""Worked handlers, one lesson each. Run them with `BILLHOOK_HANDLERS=handlers.examples`, or watch `billhook demo`.

A module of your own looks like this one, and may have any name but `handlers`: name it in `BILLHOOK_HANDLERS`. What
these send on reaches every endpoint that wants its type (`billhook endpoints add URL --types "receipt.*"`). Whole tasks
are in `handlers/recipes`, and docs/handlers.md has the rules.
"""

from __future__ import annotations

import asyncio

from handlers import Context, Discard, Event, on


@on("invoice.paid")
def send_receipt(event: Event, ctx: Context) -> None:
    """A handler is a function of an event and a context. What it emits is sent on if, and only if, it returns."""
    invoice = event.data
    ctx.emit(
        "receipt.issued", {"invoice": invoice["id"], "number": invoice["invoice_number"], "total": invoice["total"]}
    )


@on("invoice.paid", retries=5, backoff=1.0)
def book_payment(event: Event, ctx: Context) -> None:
    """A handler that raises is run again: here up to 5 times, after 1 s, 2 s, 4 s and so on.

    Each handler has a run of its own, so `send_receipt` is not repeated with it. A step that has returned is not called
    again by a later attempt. Only its process may die between the work and the record of it; so give the other side a
    reference that stays the same, and let it tell what it has seen before. Raise `Retry(after=60)` instead of an
    error of your own to choose the wait.
    """
    ledger = _Ledger(awake=ctx.attempt > 1)
    entry = ctx.step("book", lambda: ledger.book(event.data["total"], reference=event.id))
    ctx.emit("payment.booked", {"invoice": event.data["id"], "entry": entry})


@on("invoice.finalized")
def tell_customer(event: Event, ctx: Context) -> None:
    """`ctx.client` calls the provider's API with the key of the event's source, for what a delivery does not say.

    `event.invoice` is a typed view of `event.data`, the same for every provider; its money is `Decimal`.
    """
    customer = ctx.client("hisab").customers.get(event.invoice.customer_id)
    ctx.emit("invoice.ready", {"invoice": event.invoice.number, "total": event.invoice.total, "to": customer["email"]})


@on("customer.created", "customer.updated")
async def check_customer(event: Event, ctx: Context) -> None:
    """An `async def` handler: use it where several answers can be waited for at the same time."""
    customer = event.data
    registered, reachable = await asyncio.gather(
        _is_registered(customer.get("ice")), _takes_mail(customer.get("email"))
    )
    ctx.emit("customer.checked", {"customer": customer["id"], "registered": registered, "reachable": reachable})


@on("invoice.sent", "invoice.voided")
def plan_reminder(event: Event, ctx: Context) -> None:
    """`Discard` ends a run for good without calling it a failure; its reason is recorded with the run.

    `handlers/recipes/dunning.py` waits for the day itself, with `ctx.sleep_until`.
    """
    due = event.data.get("due_date")
    if event.type == "invoice.voided" or due is None:
        raise Discard("nothing to remind of")
    ctx.logger.info("a reminder is planned", due=due)  # the line carries the event's id and the handler's name
    ctx.emit("reminder.planned", {"invoice": event.data["id"], "on": due})


@on("recurring.generated")
def announce_renewal(event: Event, ctx: Context) -> None:
    """Billhook's own events are handled like a provider's: this one reports the invoice that a schedule made."""
    ctx.emit("subscription.renewed", {"schedule": event.data["schedule_id"], "invoice": event.data["invoice"]["id"]})


class _Ledger:
    """A made-up bookkeeping system that sleeps until it is called a second time."""

    def __init__(self, *, awake: bool) -> None:
        self._awake = awake

    def book(self, amount: str, *, reference: str) -> str:
        if not self._awake:
            raise ConnectionError("the ledger is asleep")
        return f"{reference}: {amount}"


async def _is_registered(ice: str | None) -> bool:
    """A made-up question to the register of companies: an ICE, Morocco's company number, has 15 digits."""
    await asyncio.sleep(0)
    return ice is not None and ice.isascii() and ice.isdigit() and len(ice) == 15


async def _takes_mail(address: str | None) -> bool:
    """A made-up question to a mail server."""
    await asyncio.sleep(0)
    return address is not None and "@" in address
