from handlers import Context, Event, on


async def is_large(event: Event) -> bool:
    return event.invoice.total is not None and event.invoice.total > 10_000


@on("invoice.paid", when=is_large)
def congratulate(event: Event, ctx: Context) -> None:
    ctx.emit("team.congratulated", {"invoice": event.object_id})
