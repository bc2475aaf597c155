from handlers import Context, Event, on


@on("invoice.paid", retrys=3)
def send_receipt(event: Event, ctx: Context) -> None:
    ctx.emit("receipt.issued", {"invoice": event.object_id})
