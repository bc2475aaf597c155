from handlers import on


@on("invoice.paid")
def ring_the_bell() -> None:
    print("\a")
