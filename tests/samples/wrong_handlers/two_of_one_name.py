from handlers import Context, Event, on


@on("invoice.paid")
def book(event: Event, ctx: Context) -> None:
    ctx.emit("payment.booked", {"invoice": event.object_id})


@on("invoice.voided")
def book(event: Event, ctx: Context) -> None:
    ctx.emit("payment.returned", {"invoice": event.object_id})
