"""OAuth 2.0 for applications that HIBR's customers install: authorization code with PKCE (RFC 6749, RFC 7636).

    oauth = HibrOAuth(client_id="…", client_secret="…", redirect_uri="https://app.example/hibr/callback")

    authorization = oauth.authorize(["read:invoices", "write:invoices"])
    # keep `authorization` in the user's session, and send the browser to authorization.url; then, in the callback:
    tokens = oauth.exchange(authorization, str(request.url))

    with HibrClient(api_key=tokens.access_token) as hibr:
        ...
    if tokens.expired(datetime.now(UTC)):
        tokens = oauth.refresh(tokens)

HIBR documents the four addresses, PKCE, and that an application has an id and a secret (HIBR API reference,
Authentication). How it authenticates with them it does not say: HTTP Basic is used, which every server that hands out
secrets has to take (RFC 6749, section 2.3.1). S256 is the only method of PKCE used, for the same reason (RFC 7636,
section 4.2).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Self
from urllib.parse import parse_qsl, quote, quote_plus, urlencode

import httpx

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers.answers import MAX_MESSAGE, may_pass
from handlers.providers.hibr import failures
from handlers.providers.hibr.network import API_URL, APP_URL, address, redirect_address, tls_transport
from handlers.providers.hibr.tokens import Introspection, Tokens, read_introspection, read_tokens
from handlers.providers.http import RestClient

_SCOPE = re.compile(r"[!#-\[\]-~]+")  # RFC 6749, section 3.3
_WORD = re.compile(r"[ !#-\[\]-~]{1,100}")  # section 5.2
_PASSING = frozenset({"server_error", "temporarily_unavailable"})
_SECRET = frozenset({"token", "refresh_token", "code", "code_verifier"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """A request for a user's consent that is under way; made of strings, so that a session can hold it."""

    url: str
    """Where to send the user's browser."""
    state: str
    """What the callback has to bring back: it proves that this user's browser began the flow."""
    verifier: str = field(repr=False)
    """The secret of PKCE. Whoever has it and the code has the tokens."""
    scope: str


class HibrOAuth:
    """One application at HIBR's OAuth endpoints. Close it, or use it in `with`.

    Raises ProviderError with the code of RFC 6749 (`invalid_grant`: the code or refresh token is used up, expired or
    another application's) and ProviderUnavailable where the same call may succeed later. A code can be exchanged only
    once, and so can, at many servers, a refresh token; neither call is repeated when no answer came.
    """

    def __init__(
        self,
        *,
        client_id: str,
        client_secret: str,
        redirect_uri: str,
        app_url: str = APP_URL,
        api_url: str = API_URL,
        max_wait: float = 60.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`redirect_uri` is where HIBR sends the browser back to, as it is registered there.

        Raises ValueError on an address without TLS that is not this machine's, and on an empty id or secret.
        """
        if not client_id or not client_secret:
            raise ValueError("client_id and client_secret are in HIBR's settings: Developers, OAuth Apps")
        self._client_id, self._client_secret = client_id, client_secret
        self._redirect_uri = redirect_address(redirect_uri)
        self._authorize_url = f"{address(app_url, 'app_url')}/oauth/authorize"
        self._now = now
        self._rest = RestClient(
            address(api_url),
            {"Authorization": f"Basic {_basic(client_id, client_secret)}"},
            failure=self._failure,
            max_wait=max_wait,
            transport=tls_transport() if transport is None else transport,
            sleep=sleep,
        )

    def authorize(self, scopes: Sequence[str] = ()) -> Authorization:
        """Begin: make the address of the consent page, with a fresh state and verifier.

        `scopes` as in `handlers.providers.hibr.models.SCOPES`; without any, HIBR decides. Raises TypeError or
        ValueError on what are no scopes.
        """
        if isinstance(scopes, str):
            raise TypeError("scopes is a list of strings, not one string")
        if not all(_SCOPE.fullmatch(scope) for scope in scopes):
            raise ValueError("a scope is printable ASCII without spaces, such as read:invoices")
        state, verifier, scope = secrets.token_urlsafe(32), secrets.token_urlsafe(32), " ".join(scopes)
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect_uri,
            **({"scope": scope} if scope else {}),
            "state": state,
            "code_challenge": challenge(verifier),
            "code_challenge_method": "S256",
        }
        url = f"{self._authorize_url}?{urlencode(query, quote_via=quote, safe='')}"
        return Authorization(url=url, state=state, verifier=verifier, scope=scope)

    def exchange(self, authorization: Authorization, callback_url: str) -> Tokens:
        """End: turn the code in the address that the browser came back to into tokens.

        Raises ProviderError with `state_mismatch` where the callback does not belong to this authorization, with
        HIBR's code where the user said no (`access_denied`), and as the class says.
        """
        code = _code(callback_url, authorization.state)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": authorization.verifier,
        }
        # The time before the request: a token may live shorter than we say, not longer.
        now = self._now()
        return read_tokens(self._rest.request("POST", "/oauth/token", form=form), now=now, scope=authorization.scope)

    def refresh(self, tokens: Tokens) -> Tokens:
        """New tokens for old ones; keep them all, since the refresh token may have changed too.

        Raises ValueError where there is no refresh token, and as the class says.
        """
        if tokens.refresh_token is None:
            raise ValueError("these tokens have no refresh_token: ask the user again, with authorize()")
        form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token}
        now = self._now()
        answer = self._rest.request("POST", "/oauth/token", form=form)
        return read_tokens(answer, now=now, scope=tokens.scope, refresh_token=tokens.refresh_token)

    def revoke(self, token: str, kind: Literal["access_token", "refresh_token"] | None = None) -> None:
        """Make a token useless (RFC 7009); with the refresh token the whole consent ends. Unknown ones are no error."""
        self._rest.exchange("POST", "/oauth/revoke", form=_token(token, kind), safe=True)

    def introspect(self, token: str, kind: Literal["access_token", "refresh_token"] | None = None) -> Introspection:
        """Ask whether a token is active, until when and for what (RFC 7662)."""
        answer = self._rest.request("POST", "/oauth/introspect", form=_token(token, kind), safe=True)
        return read_introspection(answer)

    def close(self) -> None:
        self._rest.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<HibrOAuth of {self._client_id}>"

    def _failure(self, response: httpx.Response) -> ProviderError:
        """`{"error": "invalid_grant", "error_description"?}`, or what the rest of HIBR's API answers."""
        document = failures.read(response)
        code = document.get("error") if isinstance(document, dict) else None
        if isinstance(code, str) and response.status_code >= httpx.codes.BAD_REQUEST:
            error = _refusal(code, document.get("error_description"), response.status_code)
        else:
            error = failures.failure(response)
        # A server that repeats what it was sent must not bring a token into logs.
        form = parse_qsl(response.request.content.decode())
        hidden = [self._client_secret, *(value for name, value in form if name in _SECRET)]
        error.args = tuple(_masked(str(argument), hidden) for argument in error.args)
        error.details = tuple(
            {name: _masked(text, hidden) for name, text in detail.items()} for detail in error.details
        )
        return error


def challenge(verifier: str) -> str:
    """The S256 challenge of a verifier (RFC 7636, section 4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _code(callback_url: str, state: str) -> str:
    """The code that a callback brings. Nothing of it is believed before its state was checked."""
    query = callback_url.partition("?")[2].partition("#")[0]
    pairs = parse_qsl(query, keep_blank_values=True)
    given = dict(pairs)
    if not hmac.compare_digest(_bytes(given.get("state", "")), _bytes(state)):
        raise ProviderError("state_mismatch", "this callback belongs to another authorization: begin anew")
    if len(given) < len(pairs):
        raise ProviderError("invalid_request", "the callback has a parameter twice")
    if "error" in given:
        raise _refusal(given["error"], given.get("error_description"), 0)
    if not given.get("code"):
        raise ProviderError("invalid_request", "the callback brings neither a code nor an error")
    return given["code"]


def _refusal(code: str, description: object, status: int) -> ProviderError:
    kind = ProviderUnavailable if may_pass(status) or code in _PASSING else ProviderError
    code = code if _WORD.fullmatch(code) else "unknown_error"
    said = description if isinstance(description, str) and description.isprintable() else ""
    return kind(code, said[:MAX_MESSAGE] or "HIBR gives no reason", status=status)


def _token(token: str, kind: str | None) -> dict[str, str]:
    return {"token": token} if kind is None else {"token": token, "token_type_hint": kind}


def _basic(client_id: str, client_secret: str) -> str:
    # Each half is form-encoded first, so that a colon or an umlaut in it does no harm (RFC 6749, section 2.3.1).
    return base64.b64encode(f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode()).decode()


def _masked(text: str, hidden: Sequence[str]) -> str:
    for secret in hidden:
        text = text.replace(secret, "***")
    return text


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
