"""The fields of Hesabe's requests: each function checks one and gives it as it is sent. Errors quote no value.

Raises ValueError on what is not allowed, TypeError on an amount that is neither Decimal nor text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar

MAX_TEXT = 255
MAX_DESCRIPTION = 1000
MAX_EMAIL = 254
MAX_URL = 2048
DECIMALS = 3
"""Of the Kuwaiti dinar: an amount with two is one in another currency, or a mistake."""

_MONEY = re.compile(r"(?:0|[1-9][0-9]{0,8})\.[0-9]{3}")
_WHOLE = re.compile(r"[1-9][0-9]{0,8}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOBILE = re.compile(r"[0-9]{6,15}")
_COUNTRY = re.compile(r"\+?[1-9][0-9]{0,3}")
_EMAIL = re.compile(r"[!-?A-~]+@[!-?A-~]+")
_URL = re.compile(r"https?://[!-~]+")

E = TypeVar("E", bound=StrEnum)


def given(**values: Any) -> dict[str, Any]:
    """Only what is not None, in the same order."""
    return {name: value for name, value in values.items() if value is not None}


def money(name: str, value: object) -> str:
    """An amount above zero in KWD with exactly three decimals, such as 20.000 or 0.250."""
    if isinstance(value, Decimal):
        # Formatted only where it is short: 1E+999999999 would fill the memory.
        sign, digits, exponent = value.as_tuple()
        value = format(value, "f") if exponent == -DECIMALS and len(digits) <= 12 and not sign else ""
    if not isinstance(value, str):
        raise TypeError(f'{name} is a {type(value).__name__}; write Decimal("20.000") or "20.000"')
    if _MONEY.fullmatch(value) is None or not value.strip("0."):
        raise ValueError(f"{name} must be above zero, with exactly three decimals and at most 9 digits before them")
    return value


def whole(name: str, value: object) -> str:
    """A whole number from 1, as int or text."""
    digits = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(digits, str) or _WHOLE.fullmatch(digits) is None:
        raise ValueError(f"{name} must be a whole number from 1 to 999999999")
    return digits


def text(name: str, value: object, longest: int = MAX_TEXT) -> str:
    """A text that is not blank and has no control characters but line feeds."""
    if not (isinstance(value, str) and value.strip() and len(value) <= longest):
        raise ValueError(f"{name} must be 1 to {longest} characters")
    if not value.replace("\n", "").isprintable():
        raise ValueError(f"{name} has characters that cannot be printed")
    return value


def optional_text(name: str, value: object, longest: int = MAX_TEXT) -> str | None:
    return None if value is None else text(name, value, longest)


def day(name: str, value: object) -> str:
    """A date, as `datetime.date` or YYYY-MM-DD."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    try:
        if isinstance(value, str) and _DAY.fullmatch(value):
            return date.fromisoformat(value).isoformat()
    except ValueError:
        pass
    raise ValueError(f"{name} must be a date, YYYY-MM-DD")


def choice(name: str, value: object, kind: type[E], allowed: Sequence[E] | None = None) -> E:
    """One of the documented values, as the enumeration's or as text."""
    values = tuple(kind) if allowed is None else allowed
    found = next((one for one in values if isinstance(value, str) and one == value), None)
    if found is None:
        listed = ", ".join(f'"{one}" ({one.name})' for one in values)
        raise ValueError(f"{name} must be one of {listed}")
    return found


def choices(name: str, values: object, kind: type[E]) -> Sequence[E]:
    """A list of documented values: at least one, and none twice."""
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise ValueError(f'{name} must be a list of values, such as ["1", "2"]')
    found = [choice(name, value, kind) for value in values]
    if not found or len(set(found)) < len(found):
        raise ValueError(f"{name} must have at least one value, and none of them twice")
    return found


def one_of(name: str, value: object, allowed: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}")
    return value


def language(name: str, value: object) -> str | None:
    return None if value is None else one_of(name, value, ("en", "ar"))


def mobile_number(name: str, value: object) -> str:
    """Digits only; the country's code stands in a field of its own."""
    return _matching(name, value, _MOBILE, "6 to 15 digits, without the code of the country")


def country_code(name: str, value: object) -> str:
    """`965` (Single invoice) or `+965` (Subscription invoice)."""
    return _matching(name, value, _COUNTRY, "the code of a country, such as 965 or +965")


def email(name: str, value: object) -> str | None:
    return None if value is None else _matching(name, value, _EMAIL, "an e-mail address", MAX_EMAIL)


def url(name: str, value: object) -> str | None:
    return None if value is None else _matching(name, value, _URL, "an address with http:// or https://", MAX_URL)


def _matching(name: str, value: object, form: re.Pattern[str], what: str, longest: int = MAX_TEXT) -> str:
    if not isinstance(value, str) or len(value) > longest or form.fullmatch(value) is None:
        raise ValueError(f"{name} must be {what}")
    return value
