"""The handler of a trial: it says that an event came."""

from handlers import Context, Event, on


@on("*", source="trial")
def seen(event: Event, ctx: Context) -> None:
    """Writes a line to the worker's log."""
    ctx.logger.info("an event of the trial has come", type=event.type, object=event.object_id)
