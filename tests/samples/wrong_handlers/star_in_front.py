from handlers import Context, Event, on


@on("*.paid")
def book(event: Event, ctx: Context) -> None:
    ctx.emit("invoice.booked", {"invoice": event.object_id})
