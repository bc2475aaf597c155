"""What the document of the Hisab API forbids in a request, refused before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, get_args
from urllib.parse import urlsplit

from handlers.errors import ProviderError
from handlers.providers.hisab.models import (
    MAX_PER_PAGE,
    TAX_RATES,
    Address,
    CustomerType,
    Frequency,
    InvoiceItem,
    Locale,
    Order,
)

Check = Callable[[str, Any], Any]
"""Of a field's name and value: what is sent for it. Raises InvalidRequest."""

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ICE = re.compile(r"[0-9]{15}")


class InvalidRequest(ProviderError, ValueError, TypeError):
    """A request that the API's document forbids; nothing was sent. `details` names the field and the rule.

    It is caught as what it is, a wrong value, and as what the API itself would have answered: VALIDATION_ERROR.
    """

    def __init__(self, field: str, rule: str) -> None:
        super().__init__("VALIDATION_ERROR", f"{field} {rule}", details=[{"field": field, "message": rule}])


def body(form: Any, given: Mapping[str, Any], *, nulls: bool = False, **checks: Check) -> dict[str, Any]:
    """What is sent for a request: the fields of the typed dict `form`, each checked. `checks` overrule by field.

    Fields that are None are left out, or with `nulls` sent as null: then None clears a field. Raises InvalidRequest.
    """
    return _checked("", form, given, nulls=nulls, checks=checks)


def text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(name, f"is {_kind(value)}; it must be a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(name, "has a character that UTF-8 cannot write") from None
    return value


def some_text(name: str, value: object) -> str:
    given = text(name, value)
    if not given.strip():
        raise InvalidRequest(name, "is empty")
    return given


def one_of(words: Any) -> Check:
    """A check for the words of a Literal."""
    allowed = get_args(words)

    def check(name: str, value: object) -> object:
        if value not in allowed:
            raise InvalidRequest(name, f"is {value!r}; it must be one of: {', '.join(allowed)}")
        return value

    return check


def whole(low: int | None = None, high: int | None = None) -> Check:
    """A check for an integer within bounds, both included."""
    if high is not None:
        rule = f"it must be an integer from {low} to {high}"
    else:
        rule = "it must be an integer" + ("" if low is None else f" of at least {low}")

    def check(name: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidRequest(name, f"is {_kind(value)}; {rule}")
        if (low is not None and value < low) or (high is not None and value > high):
            raise InvalidRequest(name, f"is {value}; {rule}")
        return value

    return check


def number(name: str, value: object) -> int | Decimal:
    if isinstance(value, float):
        raise InvalidRequest(name, f"is a float, which is not exact; write Decimal({str(value)!r})")
    if isinstance(value, str):
        raise InvalidRequest(name, f"is a str; write Decimal({value!r})")
    if not isinstance(value, int | Decimal) or isinstance(value, bool):
        raise InvalidRequest(name, f"is {_kind(value)}; it must be an int or a Decimal")
    if not Decimal(value).is_finite():
        raise InvalidRequest(name, f"is {value}; it must be a number")
    return value


def tax_rate(name: str, value: object) -> int | Decimal:
    rate = number(name, value)
    if rate not in TAX_RATES:
        raise InvalidRequest(name, f"is {rate}; it must be one of: {', '.join(map(str, TAX_RATES))} (percent)")
    return rate


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(name, f"is {_kind(value)}; it must be True or False")
    return value


def day(name: str, value: object) -> str:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    if not isinstance(value, str):
        raise InvalidRequest(name, f"is {_kind(value)}; it must be a date")
    try:
        if _DAY.fullmatch(value) is not None:
            return date.fromisoformat(value).isoformat()
    except ValueError:
        pass  # such as 2026-02-30
    raise InvalidRequest(name, f"is {value!r}; it must be a date of the form YYYY-MM-DD")


def moment(name: str, value: object) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidRequest(name, "has no time zone; write datetime(…, tzinfo=UTC)")
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    given = text(name, value)
    try:
        if "T" in given:
            datetime.fromisoformat(given)
            return given
    except ValueError:
        pass  # such as Tuesday
    raise InvalidRequest(name, f"is {given!r}; it must be an ISO 8601 date and time, such as 2026-06-05T14:00:00Z")


def ice(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(name, f"is {_kind(value)}; it must be a string of 15 digits")
    if _ICE.fullmatch(value) is None:
        raise InvalidRequest(name, f"is {value!r}; it must be 15 digits")
    return value


def url(name: str, value: object) -> str:
    given = text(name, value)
    try:
        parts = urlsplit(given)
        if parts.scheme in {"http", "https"} and parts.hostname:
            return given
    except ValueError:
        pass  # such as an unclosed bracket
    raise InvalidRequest(name, f"is {given!r}; it must be a URL that begins with https:// or http://")


def words(name: str, value: object) -> list[str]:
    return [text(f"{name}[{place}]", word) for place, word in enumerate(_sequence(name, value))]


def mapping(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidRequest(name, f"is {_kind(value)}; it must be an object (a dict)")
    return value


def address(name: str, value: object) -> dict[str, Any]:
    return _checked(f"{name}.", Address, mapping(name, value), nulls=False, checks={})


def items_of(form: Any) -> Check:
    """A check for a list, not empty, of the typed dict `form`."""

    def check(name: str, value: object) -> list[dict[str, Any]]:
        lines = [(f"{name}[{place}]", line) for place, line in enumerate(_sequence(name, value))]
        if not lines:
            raise InvalidRequest(name, "is empty; an invoice has at least one item")
        return [_checked(f"{at}.", form, mapping(at, line), nulls=False, checks={}) for at, line in lines]

    return check


_FIELDS: Mapping[str, Check] = {
    "name": some_text,
    "legal_name": some_text,
    "customer_id": some_text,
    "description": some_text,
    "items": items_of(InvoiceItem),
    "quantity": number,
    "unit_price": number,
    "tax_rate": tax_rate,
    **dict.fromkeys(("issue_date", "due_date", "date_from", "date_to"), day),
    **dict.fromkeys(("start_date", "end_date", "next_run_date"), day),
    "paid_at": moment,
    "type": one_of(CustomerType),
    "ice": ice,
    "address": address,
    "billing_address": mapping,
    "website": url,
    "tags": words,
    "frequency": one_of(Frequency),
    "interval_count": whole(1, 12),
    "day_of_month": whole(1, 28),
    "day_of_week": whole(0, 6),
    "days_until_due": whole(0, 365),
    "max_occurrences": whole(),
    "auto_finalize": flag,
    "auto_send": flag,
    "include_archived": flag,
    "page": whole(1),
    "per_page": whole(1, MAX_PER_PAGE),
    "limit": whole(1, MAX_PER_PAGE),
    "order": one_of(Order),
    "locale": one_of(Locale),
    "reason": some_text,
}
"""A field means the same wherever it stands, but for `status`. What is not here is text."""


def field(name: str, value: object) -> Any:
    """What is sent for a single field. Raises InvalidRequest."""
    return _FIELDS.get(name, text)(name, value)


def _checked(
    prefix: str, form: Any, given: Mapping[str, Any], *, nulls: bool, checks: Mapping[str, Check]
) -> dict[str, Any]:
    for name in given:
        if name not in form.__annotations__:
            known = ", ".join(form.__annotations__)
            raise InvalidRequest(f"{prefix}{name}", f"is no field of this request, which takes: {known}")
    for name in form.__annotations__:
        if name in form.__required_keys__ and given.get(name) is None:
            raise InvalidRequest(f"{prefix}{name}", "is required")
    sent = {}
    for name, value in given.items():
        if value is not None:
            sent[name] = (checks.get(name) or _FIELDS.get(name, text))(f"{prefix}{name}", value)
        elif nulls:
            sent[name] = None
    return sent


def _sequence(name: str, value: object) -> Sequence[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise InvalidRequest(name, f"is {_kind(value)}; it must be a list")
    return value


def _kind(value: object) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
