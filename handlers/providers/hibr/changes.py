"""What must have been reported of HIBR's invoices: that they were paid.

That is the one event of a resource whose name is public, and `created_at` is the one moment of a resource that is
documented (HIBR API reference, Dates). So the paid invoices are listed that were created since `since`, or in the 30
days before, for which HIBR itself replays. When one was paid is read off `paid_at` or `updated_at`, where it has them;
else it counts as paid when it was created.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import orjson

from handlers.providers import json_body
from handlers.providers.hibr.client import VERSION, HibrClient
from handlers.providers.hibr.resources import Record
from handlers.reconciling import Change

PAID_WITHIN = timedelta(days=30)
"""After its creation: an invoice that is paid later is not found."""
_PAID = "invoice.paid"


def changes(client: HibrClient, since: datetime) -> Iterator[Change]:
    """See `Provider.changes`."""
    first = since.replace(microsecond=0) - PAID_WITHIN
    for invoice in client.invoices.list({"status": "paid", "created_at.gte": first}, sort="created_at:desc"):
        created = json_body.moment("created_at of a listed invoice", invoice.get("created_at"))
        told = next((name for name in ("paid_at", "updated_at") if invoice.get(name) is not None), None)
        paid = created if told is None else json_body.moment(f"{told} of a listed invoice", invoice[told])
        # Which fields can be filtered by is not published.
        if invoice.get("status") == "paid" and created >= first and (told is None or paid >= since):
            yield _change(client, invoice, max(created, paid), created)


def _change(client: HibrClient, invoice: Record, paid: datetime, created: datetime) -> Change:
    invoice_id = json_body.text("the id of a listed invoice", invoice.get("id"))
    body = {
        "id": f"{_PAID}:{invoice_id}",  # that of its event is not known
        "object": "event",
        "type": _PAID,
        "created": paid.isoformat().replace("+00:00", "Z"),
        "api_version": VERSION,
        "livemode": client.livemode,
        "data": {"object": invoice, "previous_attributes": {}},
    }
    return Change(
        type=_PAID,
        occurred_at=paid,
        earliest=created,
        object_kind="invoice",
        object_id=invoice_id,
        body=orjson.dumps(body),
        repeats=False,
    )
