"""For those who test what they built on Billhook: no server, no database, no network.

    from handlers.testing import event, run
    from receipts import send_receipt

    def test_a_paid_invoice_gets_its_receipt() -> None:
        ran = run(send_receipt, event("invoice.paid", data={"total": "120.00"}))

        assert ran.outcome == "succeeded", ran.trace
        assert ran.emitted == [("receipt.issued", {"invoice": "inv_8f3a91", "total": "120.00"})]

`event` makes what a handler gets, `run` starts the handler in memory, and `signed_request` makes a delivery to post.
"""

from __future__ import annotations

from handlers.testing.deliveries import SignedRequest, signed_request
from handlers.testing.events import event
from handlers.testing.memory import Store
from handlers.testing.running import Emitted, Ran, run

__all__ = ["Emitted", "Ran", "SignedRequest", "Store", "event", "run", "signed_request"]
