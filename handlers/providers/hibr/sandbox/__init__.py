"""A fake of HIBR's documented API that needs no account, and sends the same signed webhooks.

`create_app(...)` builds it; `catalog` has its resources. Each module says what in it is published and what is the
sandbox's own choice, because HIBR has published its conventions and very few names: no field of any resource but
`invoice_no`, `customer_id`, `invoice_date`, `status`, `lines[].unit_price`, `created_at`, no path but
`/v1/invoices`, and two of 32 events. What works here by a name that HIBR has not published may have another name
there.

    key            hibr_test_sandbox                  with the scope *; others by POST /sandbox/keys
    OAuth          client id hibr_app_sandbox, client secret hibr_app_secret_sandbox
    data           `seeds`: customers, items, invoices and more of the account `sandbox`
    own surface    /sandbox: `switches`, and `handlers.providers.sandbox.admin`

Sent are `invoice.paid`, when an invoice is, and `hibr.api.deprecation`, when POST /sandbox/deprecations asks for
it; the names of the other events are not known. `livemode` is false always. A hibr_live_ key is refused, and a
revoked one at once.
"""

from __future__ import annotations

from handlers.providers.hibr.sandbox.app import create_app
from handlers.providers.sandbox.sender import Sent

__all__ = ["Sent", "create_app"]
