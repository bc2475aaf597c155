from collections.abc import Iterator

from handlers import Context, Event, on


@on("invoice.paid")
def send_receipt(event: Event, ctx: Context) -> Iterator[None]:
    ctx.emit("receipt.issued", {"invoice": event.object_id})
    yield
