from handlers import Context, Event, on


@on("invoices.*")
def book(event: Event, ctx: Context) -> None:
    ctx.emit("invoice.booked", {"invoice": event.object_id})
