from handlers import Context, Event, on


@on("invoice.paid")
def send_receipt(ctx: Context, event: Event) -> None:
    ctx.emit("receipt.issued", {"invoice": event.object_id})
