from handlers import Context, Event, on


@on(event="invoice.paid")
def send_receipt(event: Event, ctx: Context) -> None:
    ctx.emit("receipt.issued", {"invoice": event.object_id})
