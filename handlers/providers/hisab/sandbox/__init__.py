"""A fake of Hisab's documented API that needs no account, and sends the same signed webhooks.

`create_app(...)` builds it; `app` has the table of its endpoints, each module of a resource says what was chosen where
the API reference is silent, `seeds` what a new sandbox has, and `switches` and `handlers.providers.sandbox.admin` what
can be done to it under `/sandbox`.

Chosen for all of it: a code that belongs to single endpoints is HTTP 409, a creation 201; ids are opaque strings; a
field that the reference's table does not have is ignored; days begin at midnight in Morocco; a webhook's `data` is
flat, with `changes`, `payment` and `reason` beside the resource's own fields, and of a deleted customer only `id` and
`name`.
"""

from __future__ import annotations

from handlers.providers.hisab.sandbox.app import create_app
from handlers.providers.sandbox.sender import Sent

__all__ = ["Sent", "create_app"]
