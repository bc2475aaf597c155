from handlers import Context, Event, on


@on("invoice.paid", timeout=float("inf"))
def send_receipt(event: Event, ctx: Context) -> None:
    ctx.emit("receipt.issued", {"invoice": event.object_id})
