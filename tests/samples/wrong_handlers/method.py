from handlers import Context, Event, on


class Receipts:
    @on("invoice.paid")
    def send(self, event: Event, ctx: Context) -> None:
        ctx.emit("receipt.issued", {"invoice": event.object_id})
