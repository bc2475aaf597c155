from handlers import Event, on


@on("invoice.paid")
def send_receipt(event: Event, copies: int = 1, *, printer: str) -> None:
    print(event.object_id, copies, printer)
