"""How Hesabe answers: envelopes in JSON as PHP writes it, encrypted or plain, and its refusals.

Bodies of errors are those of "Single invoice" to the letter, so what was wrong stands in the header X-Sandbox-Reason.
That they come plain, with HTTP 404, 500 and 506 for the three of that page, is inferred from the order in which it
lists them; 401 is documented for a wrong login, and chosen for a wrong access code or token. The other codes are those
of ProcessResponse; their wording, and HTTP 422 for them, is chosen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson
from starlette.responses import Response

from handlers.providers.hesabe.crypto import Cipher
from handlers.providers.hesabe.sandbox.models import Merchant
from handlers.providers.hesabe.webhook import KUWAIT
from handlers.providers.sandbox.machine import Refusal

REASON = "X-Sandbox-Reason"

INVALID_MERCHANT, INVALID_PAYMENT_TOKEN, INVALID_REQUEST, TRANSACTION_ERROR = "501", "505", "506", "507"
FAILED, NOT_FOUND, UNAUTHORIZED, INTERNAL, TOO_MANY = "FAILED", "NOT_FOUND", "UNAUTHORIZED", "INTERNAL", "TOO_MANY"
NO_TRANSACTION, NO_SUBSCRIPTION = "NO_TRANSACTION", "NO_SUBSCRIPTION"

_SPECIAL = re.compile(r"/|[^\x00-\x7f]+")


def envelope(message: str, about: Any) -> dict[str, Any]:
    return {"status": True, "message": message, "response": about}


def plain(document: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(written(document), status, headers, media_type="application/json")


def sealed(merchant: Merchant, document: Mapping[str, Any]) -> Response:
    """As the merchant API answers: the ciphertext in `response`."""
    return plain({"response": cipher_of(merchant).encrypt(written(document), block=32)})


def sealed_text(merchant: Merchant, document: Mapping[str, Any], status: int = 200) -> Response:
    """As the gateway answers: the ciphertext and nothing else (Hesabe's PHP kit decrypts the whole body)."""
    return Response(cipher_of(merchant).encrypt(written(document), block=32), status, media_type="text/html")


def cipher_of(merchant: Merchant) -> Cipher:
    return Cipher(merchant.secret_key, merchant.iv_key)


def written(document: Mapping[str, Any]) -> bytes:
    """JSON as PHP's json_encode writes it: ASCII, with each slash escaped. A Decimal is a number, 15.000 is 15."""
    text = orjson.dumps(document, default=_number).decode()
    return _SPECIAL.sub(_escaped, text).encode()


def refused(error: Refusal) -> Response:
    """The body of a refusal, by its code."""
    bodies: dict[str, dict[str, Any]] = {
        INTERNAL: {"message": error.message},
        TOO_MANY: {"message": error.message},
        NO_TRANSACTION: {"status": False, "message": error.message, "data": None},
        NO_SUBSCRIPTION: {"status": False, "code": error.status, "message": error.message},
    }
    code = {"code": int(error.code)} if error.code.isdecimal() else {}
    whole = {"status": False, **code, "message": error.message, "response": None}
    return plain(bodies.get(error.code, whole), error.status, error.headers)


def invalid(reason: str) -> Refusal:
    return Refusal(506, INVALID_REQUEST, "Invalid Request Data", headers={REASON: reason})


def not_found(reason: str) -> Refusal:
    return Refusal(404, NOT_FOUND, "Request not found, Please verify the request data", headers={REASON: reason})


def unauthorized(reason: str) -> Refusal:
    return Refusal(401, UNAUTHORIZED, "Invalid Signature.", headers={REASON: reason})


def internal() -> Refusal:
    return Refusal(500, INTERNAL, "Internal server error occurred")


def too_many() -> Refusal:
    return Refusal(429, TOO_MANY, "Too Many Attempts.", headers={"Retry-After": "1"})


def coded(code: str, message: str, reason: str) -> Refusal:
    """One of the codes of ProcessResponse, which all are refusals of what was asked."""
    return Refusal(422, code, message, headers={REASON: reason})


def moment(value: datetime) -> str:
    """`2025-10-05 11:11:58`, in Kuwait."""
    return value.astimezone(KUWAIT).strftime("%Y-%m-%d %H:%M:%S")


def money(value: Decimal) -> str:
    return format(value, ".3f")


def _number(value: Decimal) -> orjson.Fragment:
    return orjson.Fragment(format(value.normalize(), "f"))


def _escaped(found: re.Match[str]) -> str:
    return "\\/" if found[0] == "/" else json.dumps(found[0])[1:-1]
