"""Idempotency-Key: what was done under one is not done again for 24 hours (HIBR API reference, Idempotency).

The sandbox's own choices: the key belongs to the account; with another method, path or body it is a conflict_error;
what was refused has changed nothing and is not kept, so that the key can be used again once the request is mended.
Calls follow each other, so of two at the same time the second gets the answer of the first.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

from sqlalchemy import delete
from starlette.responses import Response

from handlers.providers.hibr.sandbox.access import Visit
from handlers.providers.hibr.sandbox.answers import conflict, malformed
from handlers.providers.hibr.sandbox.tables import Answer

KEPT = 24 * 3600
"""Seconds, by the machine's clock."""

_KEY = re.compile(r"[!-~]{1,255}")


def once(visit: Visit, work: Callable[[], Response]) -> Response:
    """Do the work, or give the answer that it had under the same key."""
    request = visit.call.request
    key = request.headers.get("idempotency-key")
    if key is None:
        return work()
    if _KEY.fullmatch(key) is None:
        raise malformed("The Idempotency-Key must be 1 to 255 printable characters, such as a UUID.", "Idempotency-Key")
    wall = visit.call.machine.clock.wall()
    visit.session.execute(delete(Answer).where(Answer.kept_at <= wall - KEPT))
    digest = _digest(request.method, request.url.path, visit.call.raw)
    kept = visit.session.get(Answer, (visit.account.id, key))
    if kept is None:
        response = work()
        visit.session.add(
            Answer(
                account_id=visit.account.id,
                key=key,
                request=digest,
                status=response.status_code,
                body=bytes(response.body),
                kept_at=wall,
            )
        )
        return response
    if kept.request != digest:
        raise conflict("This Idempotency-Key was used for another request: use a new one.", "Idempotency-Key")
    return Response(kept.body, kept.status, media_type="application/json" if kept.body else None)


def _digest(method: str, path: str, body: bytes) -> str:
    return hashlib.sha256(b"\0".join([method.encode(), path.encode(), body])).hexdigest()
