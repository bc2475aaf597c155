from handlers import Context, Event, on


@on("invoice.finalised")
def send_invoice(event: Event, ctx: Context) -> None:
    ctx.emit("invoice.ready", {"invoice": event.object_id})
