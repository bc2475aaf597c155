from collections.abc import Callable

from handlers import Context, Event, on


def audited(function: Callable[..., None]) -> None:
    print("audited", function)


@on("invoice.paid")
@audited
def send_receipt(event: Event, ctx: Context) -> None:
    ctx.emit("receipt.issued", {"invoice": event.object_id})
