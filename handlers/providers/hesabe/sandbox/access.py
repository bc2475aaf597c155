"""Who may call what, and what a call says once it is decrypted.

The merchant API needs the access code and a bearer token, and a request that decrypts to an object with the merchant's
own code; the gateway needs the access code alone, and to end a subscription nothing. Chosen: the order access code and
token (401), ciphertext (506), merchant code (501), and only then what was asked. The token can be switched off, because
Hesabe's own sample calls come without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy.orm import Session
from starlette.responses import Response

from handlers.providers.hesabe.crypto import CipherError
from handlers.providers.hesabe.sandbox import answers, login
from handlers.providers.hesabe.sandbox.models import Merchant, settings_of
from handlers.providers.sandbox import fields, keys
from handlers.providers.sandbox.fields import Fields, Invalid, NotJson
from handlers.providers.sandbox.machine import Call, Machine, Work

F = TypeVar("F", bound=Fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """An authorised call; `data` is what it said, decrypted."""

    call: Call
    merchant: Merchant
    data: Mapping[str, Any]

    @property
    def machine(self) -> Machine:
        return self.call.machine

    @property
    def session(self) -> Session:
        return self.call.session

    @property
    def now(self) -> datetime:
        return self.call.now

    def body(self, model: type[F]) -> F:
        return read(model, self.data)

    def query(self, model: type[F]) -> F:
        return read(model, self.call.request.query_params)

    @property
    def number(self) -> int:
        """The `{id}` of the path, where it is one of a row; -1 where it cannot be."""
        return row_number(self.call.id)


Asked = Callable[[Visit], dict[str, Any]]


def merchant_api(work: Asked) -> Work:
    """Encrypted both ways."""

    def enter(call: Call) -> Response:
        merchant = identified(call)
        if settings_of(call.session).login_required:
            login.check(call, merchant)
        visit = Visit(call=call, merchant=merchant, data=_opened(call, merchant))
        return answers.sealed(merchant, work(visit))

    return enter


def gateway(work: Callable[[Visit], Response]) -> Work:
    """Encrypted both ways; the answer is the work's to write."""

    def enter(call: Call) -> Response:
        merchant = identified(call)
        return work(Visit(call=call, merchant=merchant, data=_opened(call, merchant)))

    return enter


def identified(call: Call) -> Merchant:
    """Whose access code it is. Raises Refusal."""
    key = keys.find(call.session, call.request.headers.get("accesscode", ""))
    if key is None:
        raise answers.unauthorized("the header accessCode is missing, or names no merchant")
    return call.session.get_one(Merchant, key.owner)


def read(model: type[F], data: Mapping[str, Any]) -> F:
    """Raises Refusal (506) that says in its header which fields are wrong."""
    try:
        return fields.read(model, data)
    except Invalid as error:
        raise answers.invalid(str(error)) from None


def row_number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1


def _opened(call: Call, merchant: Merchant) -> Mapping[str, Any]:
    """The object that the ciphertext hides: in the query of a GET, in `data` of any other body."""
    try:
        hidden = call.request.query_params.get("data") or fields.document(call.raw).get("data")
        if not isinstance(hidden, str):
            raise answers.invalid('the ciphertext is missing: {"data": "..."}')
        data = fields.document(answers.cipher_of(merchant).decrypt(hidden))
    except CipherError as error:
        raise answers.invalid(f"data cannot be decrypted: {error}") from None
    except NotJson as error:
        raise answers.invalid(f"data is not readable: {error}") from None
    if str(data.get("merchantCode")) != merchant.code:
        reason = "merchantCode is missing, or is not the one of this access code"
        raise answers.coded(answers.INVALID_MERCHANT, "Invalid Merchant", reason)
    return data
