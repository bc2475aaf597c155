from datetime import timedelta

from handlers import Context, Event, on


@on(
    "invoice.paid",
    timeout=timedelta(minutes=2),
)
def send_receipt(event: Event, ctx: Context) -> None:
    ctx.emit("receipt.issued", {"invoice": event.object_id})
