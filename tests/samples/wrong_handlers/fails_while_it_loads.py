import os

from handlers import Context, Event, on


def setting(name: str) -> str:
    return os.environ[name]


PRINTER = setting("PRINTER_OF_THE_SHOP")


@on("invoice.paid")
def send_receipt(event: Event, ctx: Context) -> None:
    print(PRINTER, event.object_id)
