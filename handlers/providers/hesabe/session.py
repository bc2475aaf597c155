"""The bearer token of Hesabe's merchant API: fetched when first needed, renewed before it ends.

It lasts 15 minutes (Hesabe, Merchant login; Get refresh token). Whoever needs it while another thread fetches it
waits for that one.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers.answers import bad_answer
from handlers.providers.hesabe.answers import Reader, about
from handlers.providers.http import RestClient

LIFETIME = 900.0
"""Seconds that a token lasts where the answer does not say."""
MARGIN = 60.0
"""Seconds before its end at which it is renewed."""

_TOKEN = re.compile(r"[!-~]{1,8000}")


@dataclass(frozen=True, slots=True)
class _Token:
    access: str = field(repr=False)
    refresh: str | None = field(repr=False)
    renew_at: float


class Session:
    """Safe to share between threads. `clock` gives monotonic seconds."""

    def __init__(
        self, rest: RestClient, reader: Reader, login: Mapping[str, str], *, clock: Callable[[], float]
    ) -> None:
        """`login`: {username, password} of the merchant panel."""
        self._rest, self._reader, self._login, self._clock = rest, reader, login, clock
        self._lock = threading.Lock()
        self._token: _Token | None = None

    def access(self, *, refused: str | None = None) -> str:
        """The token to send; `refused` is one that the API has just turned down.

        Raises ProviderError (UNAUTHORIZED) where the login is wrong, ProviderUnavailable where nobody answers.
        """
        with self._lock:
            token = self._token
            if token is None or token.access == refused or self._clock() >= token.renew_at:
                self._token = token = self._renewed(token)
            return token.access

    def _renewed(self, token: _Token | None) -> _Token:
        if token is not None and token.refresh is not None:
            try:
                return self._fetch("/api/v1/token-refresh", {"refreshToken": token.refresh})
            except ProviderUnavailable:
                raise
            except ProviderError:
                pass  # it was too old: the login itself is not
        return self._fetch("/api/v1/login", self._login)

    def _fetch(self, path: str, body: Mapping[str, str]) -> _Token:
        # Sent plain, as documented; to ask twice does no harm.
        answer = about(self._reader.envelope(self._rest.exchange("POST", path, json=body, safe=True)))
        given: Any = answer.get("token") if isinstance(answer, dict) else None
        access = given.get("access_token") if isinstance(given, dict) else None
        if not isinstance(access, str) or _TOKEN.fullmatch(access) is None:
            raise bad_answer("it has no access_token")
        refresh = given.get("refresh_token")
        lifetime = _seconds(given.get("expires_in"))
        return _Token(
            access, refresh if isinstance(refresh, str) else None, self._clock() + lifetime - min(MARGIN, lifetime / 2)
        )


def _seconds(value: object) -> float:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 8:
        value = int(value)
    return float(value) if isinstance(value, int) and 0 <= value < 10**7 else LIFETIME
