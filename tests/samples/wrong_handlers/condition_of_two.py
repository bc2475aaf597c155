from handlers import Context, Event, on


@on("invoice.paid", when=lambda event, ctx: ctx.attempt == 1)
def congratulate(event: Event, ctx: Context) -> None:
    ctx.emit("team.congratulated", {"invoice": event.object_id})
