"""Hesabe's deliveries: plain, unsigned, and hence confirmed at its API (Hesabe, Webhook integration).

A body is `{blocks, token, amount, reference_number, status, payment_type, service_type, datetime}`; `blocks` is the
same once more as a message for Slack, and fills in what is missing beside it. There is no event id and no event type:
the type is `transaction.` and the status in lower case, and one event is one status of one transaction. `datetime` has
no zone; it is the time of Kuwait, UTC+3 all year.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from importlib import resources
from typing import TYPE_CHECKING, Any

import orjson

from handlers.errors import ParseError, ProviderError, ProviderUnavailable, VerificationError
from handlers.event import Event, Headers
from handlers.providers import json_body
from handlers.providers.provider import Inbound, Options, read_options

if TYPE_CHECKING:
    from handlers.providers.hesabe.client import HesabeClient

EVENTS = ("transaction.successful", "transaction.failed", "transaction.authorized", "transaction.refunded")
"""By the statuses that are documented (Hesabe, Transaction enquiry); any other makes a type of its own."""
KUWAIT = timezone(timedelta(hours=3))

_LABELS = {
    "token": "Transaction Token",
    "amount": "Amount",
    "reference_number": "Order Reference Number",
    "payment_type": "Payment Type",
    "service_type": "Service Type",
    "datetime": "Date & Time",
}
"""What a member is called in `blocks`."""
_ABSENT = (None, "")
_NEEDED = ("token", "amount", "reference_number", "status", "datetime")

_LABELLED = re.compile(r"\*([^*:\n]{1,50}):\*\n(.{1,200})")
_HEADING = re.compile(r"TRANSACTION (.{1,64})")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,100}")  # it becomes a part of an address
_AMOUNT = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")
_CURRENCY = re.compile(r"[A-Z]{3} ")
_STATUS = re.compile(r"[A-Za-z][A-Za-z0-9_ -]{0,63}")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})?"
)
_EXACT_DIGITS = 18

_UNKNOWN = frozenset({"NOT_FOUND", "INVALID_PAYMENT_TOKEN"})


def inbound(options: Mapping[str, Any]) -> Inbound:
    """For a source; there are no options. Raises ValueError on any."""
    read_options(Options, options)
    return Inbound(schemes=(), parse=parse, confirm=confirm)


def parse(headers: Headers, body: bytes) -> Event:
    """Read a body, which anyone may have sent. Raises ParseError, and nothing else, on any bytes.

    `data` is the transaction without `blocks`; its amount is text, as exact as it was sent. The messages of errors
    quote nothing of the body.
    """
    transaction = data(body)
    token, status = transaction["token"], _status(transaction["status"])
    return Event(
        type=f"transaction.{status}",
        data=transaction,
        occurred_at=_moment(transaction["datetime"]),
        object_kind="transaction",
        object_id=token,
        key=f"{len(token)}:{token}{len(status)}:{status}",
        body=body,
        provider="hesabe",
    )


def data(body: bytes) -> Mapping[str, Any]:
    """The transaction that a body is about. Raises ParseError."""
    json_body.read_object(body)
    # Read once more with exact numbers: an amount must not become a float on its way into text.
    document: dict[str, Any] = json.loads(body.decode(), parse_float=str, parse_int=_integer)
    for name, value in _of_blocks(document.pop("blocks", None)):
        if document.get(name) in _ABSENT:
            document[name] = value
    missing = [name for name in _NEEDED if document.get(name) in _ABSENT]
    if missing:
        raise ParseError(f"{', '.join(missing)}: neither there nor in blocks")
    document |= {name: _text(name, document[name]) for name in _NEEDED}
    _check(document)
    return document


def confirm(client: HesabeClient, event: Event) -> None:
    """Ask Hesabe whether the event is true: token, reference, amount (as a number) and status must agree.

    Raises VerificationError (mismatch) where they do not, or where Hesabe knows no such transaction. What else goes
    wrong with the enquiry passes through: ProviderUnavailable where it may succeed later, ProviderError where it is
    refused, for example for a wrong access code; neither says that the event is false.
    """
    token = event.data.get("token")
    if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
        raise VerificationError("mismatch", "the event names no transaction")
    try:
        found = client.transactions.get(token)
    except ProviderError as error:
        if isinstance(error, ProviderUnavailable) or error.code not in _UNKNOWN:
            raise
        raise VerificationError("mismatch", "Hesabe knows no transaction with this token") from None
    differing = [name for name in _NEEDED if name != "datetime" and not _agree(name, event.data, found)]
    if differing:
        raise VerificationError("mismatch", f"Hesabe's own record has another {', '.join(differing)}")


def sample(event_type: str) -> Mapping[str, Any]:
    """A body such as Hesabe sends. Only that of a success is documented; the others differ in their status alone.

    Raises KeyError for an event type without a documented status.
    """
    if event_type not in EVENTS:
        raise KeyError(event_type)
    file = resources.files("handlers.providers.hesabe").joinpath("samples", f"{event_type}.json")
    document: dict[str, Any] = orjson.loads(file.read_bytes())
    return document


def _of_blocks(blocks: object) -> Iterator[tuple[str, str]]:
    """What a message for Slack says of the transaction."""
    names = {label: name for name, label in _LABELS.items()}
    for block in blocks if isinstance(blocks, list) else ():
        if not isinstance(block, dict):
            continue
        heading = _HEADING.fullmatch(_written(block.get("text")))
        if block.get("type") == "header" and heading is not None:
            yield "status", heading[1]
        given = block.get("fields")
        for field in given if isinstance(given, list) else ():
            labelled = _LABELLED.fullmatch(_written(field))
            if labelled is not None and labelled[1] in names:
                name = names[labelled[1]]
                yield name, _CURRENCY.sub("", labelled[2], count=1) if name == "amount" else labelled[2]


def _written(text: object) -> str:
    found = text.get("text") if isinstance(text, dict) else None
    return found if isinstance(found, str) else ""


def _text(name: str, value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return json_body.text(name, value.strip() if isinstance(value, str) else value)


def _check(transaction: Mapping[str, str]) -> None:
    if _TOKEN.fullmatch(transaction["token"]) is None:
        raise ParseError("token must be 1 to 100 letters, digits, - and _")
    if _AMOUNT.fullmatch(transaction["amount"]) is None:
        raise ParseError("amount must be a decimal number with at most 12 digits before the point and 6 behind it")
    if _STATUS.fullmatch(transaction["status"]) is None:
        raise ParseError("status must be 1 to 64 letters, digits, spaces, - and _")
    _moment(transaction["datetime"])


def _status(value: str) -> str:
    return re.sub("[ -]", "_", value.lower())


def _moment(value: str) -> datetime:
    try:
        if _MOMENT.fullmatch(value):
            found = datetime.fromisoformat(value)
            return (found.replace(tzinfo=KUWAIT) if found.tzinfo is None else found).astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # OverflowError: the year 1 or 9999, moved over the edge by its zone
    raise ParseError("datetime must be a date and time, such as 2023-09-20 10:09:36")


def _agree(name: str, told: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    ours, theirs = told.get(name), found.get(name)
    if ours is None or theirs is None:
        return False
    if name == "amount":
        return _AMOUNT.fullmatch(str(ours)) is not None and _decimal(theirs) == Decimal(ours)
    if name == "status":
        return _status(str(ours)) == _status(str(theirs))
    return str(ours) == str(theirs)


def _decimal(value: object) -> Decimal | None:
    """An amount as the API has it: text or a number."""
    if isinstance(value, Decimal | int) and not isinstance(value, bool):
        return Decimal(value)
    return Decimal(value) if isinstance(value, str) and _AMOUNT.fullmatch(value) else None


def _integer(digits: str) -> int | str:
    # A longer one cannot be written out again: it stays the text that it is.
    return int(digits) if len(digits) <= _EXACT_DIGITS else digits
