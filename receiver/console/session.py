"""Sessions: who is signed in, in a signed cookie, and whether they still may be.

The cookie says only which key or user; what these may see and do is asked anew with each request, so a session ends
with its key or user, and with signing out, which is noted. Whoever has the cookie has the session: it is sent to nobody
else, and no script can read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from itsdangerous import BadSignature, URLSafeTimedSerializer
from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import Response
from starlette_admin.auth import AdminUser

from workers import api_keys, sessions, users
from workers.api_keys import Caller
from workers.leases import utcnow
from workers.users import SignedIn

COOKIE = "billhook_session"
_LASTS = int(sessions.LASTS.total_seconds())


@dataclass
class Visitor(AdminUser):
    """Who is signed in."""

    caller: Caller | None = None


class Sessions:
    """Begins, finds and ends sessions. The last of the secrets signs, all are believed."""

    def __init__(self, engine: Engine, secrets: Sequence[str]) -> None:
        self._engine = engine
        self._signer = URLSafeTimedSerializer(list(secrets), salt=COOKIE)

    def begin(self, request: Request, response: Response, who: Caller | SignedIn) -> None:
        """Let whoever gets this response be signed in."""
        whose = {"user": who.caller.id, "mark": who.mark} if isinstance(who, SignedIn) else {"key": who.id}
        response.set_cookie(
            COOKIE,
            self._signer.dumps({"session": sessions.new(), **whose}),
            max_age=_LASTS,
            path=_path(request),
            secure=request.url.scheme == "https",
            httponly=True,
            # Not strict: whoever follows a link from a chat would have to sign in again. Forms have their own guard.
            samesite="lax",
        )

    def end(self, request: Request, response: Response) -> None:
        """End the session that this request belongs to, wherever its cookie is, and have the browser forget it."""
        if claim := self._claim(request):
            sessions.end(self._engine, claim["session"])
        response.delete_cookie(COOKIE, path=_path(request))

    def visitor(self, request: Request) -> Visitor | None:
        """Who is signed in; None where nobody is, or no longer may be."""
        claim = self._claim(request)
        if claim is None or sessions.ended(self._engine, claim["session"]):
            return None
        caller = self._caller(claim)
        return None if caller is None else Visitor(username=caller.name, caller=caller)

    def _claim(self, request: Request) -> dict[str, Any] | None:
        """What its cookie says; None where it has none, or one that is too old, forged, or of a version before."""
        try:
            claim: dict[str, Any] = self._signer.loads(request.cookies.get(COOKIE, ""), max_age=_LASTS)
        except BadSignature:
            return None
        return claim if "session" in claim else None

    def _caller(self, claim: dict[str, Any]) -> Caller | None:
        if "key" in claim:
            return api_keys.live(self._engine, claim["key"], utcnow())
        return users.live(self._engine, claim["user"], claim["mark"])


def caller_of(request: Request) -> Caller:
    """Who asks; only for requests that the door has let in."""
    visitor: Visitor = request.state.admin_user
    assert visitor.caller is not None  # noqa: S101 - the door lets nobody else in
    return visitor.caller


def may(request: Request, scope: str) -> bool:
    """Whether whoever asks has the scope; nobody has any."""
    visitor: Visitor | None = getattr(request.state, "admin_user", None)
    return visitor is not None and visitor.caller is not None and scope in visitor.caller.scopes


def _path(request: Request) -> str:
    return str(request.scope.get("root_path") or "/")
