"""A fake of Hesabe's documented API, merchant API and payment gateway behind one address, that needs no account.

`create_app(...)` builds it; `app` has the table of its endpoints. Each module says what was chosen where Hesabe's pages
are silent or contradict each other; `seeds` has the credentials that a new sandbox knows (those of Hesabe's own public
sandbox), `switches` and `handlers.providers.sandbox.admin` what can be done to it under `/sandbox`.

A payment goes like this: an invoice is made over the API; its `url` leads to a page (`page`) on which whoever plays the
customer pays or fails; that makes a transaction, which the webhook tells (unsigned, as Hesabe's are) and the enquiry
confirms. By hand, `curl -d outcome=pay http://127.0.0.1:8801/s/98WRR6R9` is as good as the page.
"""

from __future__ import annotations

from handlers.providers.hesabe.sandbox.app import create_app
from handlers.providers.sandbox.sender import Sent

__all__ = ["Sent", "create_app"]
