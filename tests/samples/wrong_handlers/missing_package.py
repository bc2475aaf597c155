import stripe_of_my_own

from handlers import Context, Event, on


@on("invoice.paid")
def send_receipt(event: Event, ctx: Context) -> None:
    stripe_of_my_own.refund(event.object_id)
