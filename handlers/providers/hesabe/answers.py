"""What Hesabe's API answers: encrypted in three forms or plain, a result or a refusal (Hesabe, ProcessResponse).

Which form comes is not said by any header: the body tells. Messages are for people: what they say is decided by
codes and statuses, except that a refusal without either is "not found" where its message says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers.answers import MAX_DETAILS, MAX_MESSAGE, bad_answer, may_pass
from handlers.providers.hesabe import exact_json
from handlers.providers.hesabe.crypto import Cipher

NOT_FOUND, UNAUTHORIZED, REFUSED = "NOT_FOUND", "UNAUTHORIZED", "REFUSED"
INVALID_PAYMENT_TOKEN = "INVALID_PAYMENT_TOKEN"  # noqa: S105 - a code

CODES: Mapping[int, str] = {
    0: "INVALID_RESPONSE",
    401: UNAUTHORIZED,
    404: NOT_FOUND,
    422: "INVALID_INPUT",
    500: "INVALID_TOKEN",
    501: "INVALID_MERCHANT",
    503: "INVALID_MERCHANT_SERVICE",
    504: "INVALID_MERCHANT_LOGIN",
    505: INVALID_PAYMENT_TOKEN,
    506: "INVALID_REQUEST_DATA",
    507: "TRANSACTION_ERROR",
}
"""What the `code` inside a refusal means. Any other one, 400 for example, is `HESABE_400`."""

_STATUSES = {401: UNAUTHORIZED, 403: "FORBIDDEN", 404: NOT_FOUND, 422: "INVALID_INPUT", 429: "TOO_MANY_REQUESTS"}
_OUTAGES = frozenset({500, 503, 504})
_HEX = re.compile(r"(?:[0-9a-fA-F]{32})+")
_NUMBER = re.compile(r"[0-9]{1,6}")


class Reader:
    """Reads the answers to one merchant. `secrets` are kept out of messages, should the API repeat them."""

    def __init__(self, cipher: Cipher, secrets: Sequence[str] = ()) -> None:
        self._cipher, self._secrets = cipher, tuple(secrets)

    def envelope(self, response: httpx.Response) -> dict[str, Any]:
        """The whole of a successful answer; `about` tells what it is about.

        Raises ProviderError where it is a refusal, which comes with HTTP 200 as well, and ProviderUnavailable
        where it is out of shape.
        """
        document = self.document(response)
        if document.get("status") is True:
            return document
        if (refused := self._refusal(document, response.status_code)) is not None:
            raise refused
        if "status" not in document and "token" in document:
            return {"status": True, "response": document}  # "Get Invoice Details" shows the invoice by itself
        raise bad_answer("it is not an envelope", status=response.status_code)

    def document(self, response: httpx.Response) -> dict[str, Any]:
        """The object in an answer: bare hexadecimal, a JSON text of it, `{"response": hexadecimal}`, or plain JSON."""
        try:
            found = self._opened(response.content)
        except ValueError:
            what = "it is neither JSON nor a ciphertext under this key"
            raise bad_answer(what, status=response.status_code) from None
        if not isinstance(found, dict):
            raise bad_answer("it is not an object", status=response.status_code)
        return found

    def failure(self, response: httpx.Response) -> ProviderError:
        """The exception for an answer with another status than 2xx."""
        status = response.status_code
        try:
            refused = self._refusal(self.document(response), status)
        except ProviderUnavailable:
            refused = None
        if refused is not None:
            return refused
        if may_pass(status):
            return ProviderUnavailable(f"HTTP_{status}", "the API is over its limit or failed", status=status)
        return bad_answer("it is not an envelope", status=status)

    def _opened(self, body: bytes) -> Any:
        text = body.decode().strip()
        if _HEX.fullmatch(text):
            return self._cipher.read(text)
        found = exact_json.read(body)
        hidden = found.get("response") if isinstance(found, dict) and "status" not in found else found
        if isinstance(hidden, str) and _HEX.fullmatch(hidden):
            return self._cipher.read(hidden)
        return found

    def _refusal(self, document: Mapping[str, Any], status: int) -> ProviderError | None:
        """The exception that `{"status": false, "code"?, "message"}` asks for; None if it is something else."""
        message = self._text(_of_language(document.get("message")))
        enveloped = document.get("status") is False
        if not enveloped and (status < httpx.codes.BAD_REQUEST or not message):
            return None
        limited = status == httpx.codes.TOO_MANY_REQUESTS  # says enough by itself
        inner = _number(document.get("code")) if enveloped and not limited else None
        if inner is None and status < httpx.codes.BAD_REQUEST and "not found" in message.lower():
            inner = 404
        kind = ProviderUnavailable if _may_pass(inner, status) else ProviderError
        found = next((document[name] for name in ("errors", "data", "response") if document.get(name)), None)
        return kind(_code(inner, status, enveloped), message, status=status, details=self._details(found))

    def _details(self, found: object) -> tuple[Mapping[str, str], ...]:
        """What is said of single fields: `{"amount": ["…", "…"]}`."""
        if not isinstance(found, dict):
            return ()
        pairs = ((name, text) for name, texts in found.items() if isinstance(texts, list) for text in texts)
        told = [{"field": self._text(name), "message": self._text(text)} for name, text in pairs]
        return tuple(told[:MAX_DETAILS])

    def _text(self, value: object) -> str:
        """Fit for a log: without secrets, lone surrogates and what is too long."""
        text = value if isinstance(value, str) else ""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text[:MAX_MESSAGE].encode("utf-8", "replace").decode()


def about(envelope: Mapping[str, Any]) -> Any:
    """The merchant API puts the resource into `response`, the gateway into `data`."""
    return envelope["response"] if "response" in envelope else envelope.get("data")


def _code(inner: int | None, status: int, enveloped: bool) -> str:
    if inner is not None:
        return CODES.get(inner, f"HESABE_{inner}")
    if status < httpx.codes.BAD_REQUEST:
        return REFUSED
    if status == httpx.codes.NOT_FOUND and not enveloped:
        return "HTTP_404"  # perhaps a proxy's, for another path: that is no word on a transaction
    return _STATUSES.get(status, f"HTTP_{status}")


def _may_pass(inner: int | None, status: int) -> bool:
    # Hesabe's own codes lie among the HTTP statuses: 506 is a refusal, 503 under HTTP 503 may be an outage.
    if inner in CODES and not (inner == status and inner in _OUTAGES):
        return False
    return may_pass(status) or inner == httpx.codes.TOO_MANY_REQUESTS


def _of_language(message: object) -> object:
    """A message is a text, or {en, ar}."""
    return (message.get("en") or message.get("ar")) if isinstance(message, dict) else message


def _number(value: object) -> int | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**6 else None
