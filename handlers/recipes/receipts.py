"""A paid invoice becomes a row in your ledger, and a receipt that is sent on.

The ledger is yours: here a file of SQLite, which `LEDGER_FILE` names.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from decimal import Decimal

from handlers import Context, Discard, Event, on

LEDGER = os.environ.get("LEDGER_FILE", "ledger.db")


@on("invoice.paid")
def issue_receipt(event: Event, ctx: Context) -> None:
    """The ledger row is repeatable, because it has a reference; the receipt is sent once, because it is emitted."""
    invoice = event.invoice
    if invoice.total is None:
        raise Discard("the delivery does not say how much was paid")
    entry = book(invoice.id, invoice.total, reference=event.id)
    ctx.emit(
        "receipt.issued", {"invoice": invoice.id, "number": invoice.number, "total": invoice.total, "entry": entry}
    )


def book(invoice: str, amount: Decimal, *, reference: str) -> int:
    """The number of the ledger's row for this reference, which is written unless it is there."""
    with closing(sqlite3.connect(LEDGER, timeout=10)) as ledger, ledger:
        ledger.execute(
            "CREATE TABLE IF NOT EXISTS entries "
            "(entry INTEGER PRIMARY KEY, reference TEXT NOT NULL UNIQUE, invoice TEXT NOT NULL, amount TEXT NOT NULL)"
        )
        # A process may die between this commit and Billhook's: then the handler runs again, and finds its row.
        ledger.execute(
            "INSERT INTO entries (reference, invoice, amount) VALUES (?, ?, ?) ON CONFLICT (reference) DO NOTHING",
            (reference, invoice, str(amount)),
        )
        (entry,) = ledger.execute("SELECT entry FROM entries WHERE reference = ?", (reference,)).fetchone()
        return int(entry)
