from handlers import Context, Event, on


@on("invoice.paid")
class Receipt:
    def __init__(self, event: Event, ctx: Context) -> None:
        ctx.emit("receipt.issued", {"invoice": event.object_id})
