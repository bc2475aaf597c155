from handlers import Context, Event, on


@on(["invoice.paid", "invoice.voided"])
def book(event: Event, ctx: Context) -> None:
    ctx.emit("invoice.booked", {"invoice": event.object_id})
