from handlers import Context, Event, on


@on("invoice.paid")
def write_json(event: Event, ctx: Context) -> None:
    ctx.emit("receipt.issued", {"invoice": event.object_id})
