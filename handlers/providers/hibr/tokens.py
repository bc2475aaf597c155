"""What HIBR's OAuth endpoints answer, as values (RFC 6749, section 5.1; RFC 7662, section 2.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from handlers.providers.answers import bad_answer

LEEWAY = timedelta(seconds=60)
"""How long before its end a token counts as expired: a call takes time, and clocks differ."""

_TOKEN = re.compile(r"[!-~]+")
_SECONDS = re.compile(r"[0-9]{1,11}")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Tokens:
    """An access token, for `HibrClient(api_key=tokens.access_token)`, and what came with it."""

    access_token: str
    refresh_token: str | None = None
    """None: HIBR gave none; when the access token has expired the user is asked again."""
    expires_at: datetime | None = None
    """UTC; None: HIBR did not say."""
    scope: str = ""
    """What was granted, separated by spaces."""

    def expired(self, now: datetime, leeway: timedelta = LEEWAY) -> bool:
        """Whether the access token is of no more use at `now`; False where its end is not known."""
        return self.expires_at is not None and now >= self.expires_at - leeway

    def __repr__(self) -> str:
        refresh_token = None if self.refresh_token is None else "***"
        return (
            f"Tokens(access_token='***', refresh_token={refresh_token!r}, "
            f"expires_at={self.expires_at!r}, scope={self.scope!r})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Introspection:
    """What HIBR knows of a token."""

    active: bool
    """False too for a token that never was one; then the rest is empty."""
    scope: str = ""
    expires_at: datetime | None = None
    """UTC."""
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The whole answer."""


def read_tokens(answer: Any, *, now: datetime, scope: str, refresh_token: str | None = None) -> Tokens:
    """The tokens of an answer; `scope` and `refresh_token` hold where it does not name any.

    Raises ProviderUnavailable (BAD_ANSWER) on an answer out of shape; the message quotes nothing of it.
    """
    if not isinstance(answer, dict) or not _is_token(answer.get("access_token")):
        raise bad_answer("it has no access_token")
    if str(answer.get("token_type")).lower() != "bearer":
        raise bad_answer("its token_type is not Bearer")
    renewed = answer.get("refresh_token")
    if renewed is not None and not _is_token(renewed):
        raise bad_answer("its refresh_token is none")
    granted = answer.get("scope")
    return Tokens(
        access_token=answer["access_token"],
        refresh_token=renewed or refresh_token,
        expires_at=_end(answer.get("expires_in"), now),
        scope=granted if isinstance(granted, str) else scope,
    )


def read_introspection(answer: Any) -> Introspection:
    """Raises ProviderUnavailable (BAD_ANSWER) on an answer that does not say whether the token is active."""
    if not isinstance(answer, dict) or not isinstance(answer.get("active"), bool):
        raise bad_answer("it does not say whether the token is active")
    if not answer["active"]:
        return Introspection(active=False, claims=answer)
    scope = answer.get("scope")
    return Introspection(
        active=True,
        scope=scope if isinstance(scope, str) else "",
        expires_at=_end(answer.get("exp"), datetime.fromtimestamp(0, UTC)),
        claims=answer,
    )


def _is_token(value: object) -> bool:
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def _end(seconds: object, start: datetime) -> datetime | None:
    if seconds is None:
        return None
    text = str(seconds).removesuffix(".0")  # some servers write a float or a string
    if _SECONDS.fullmatch(text) is None:
        raise bad_answer("the end of the token is no number of seconds")
    return start + timedelta(seconds=int(text))
