"""Bodies and queries read with pydantic: what is wrong is told field by field, as the providers do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StrictBool,
    StringConstraints,
    ValidationError,
)

MAX_NUMBER = Decimal(10) ** 9
MAX_PLACES = 6
MAX_TEXT = 10_000

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DIGITS = re.compile(r"[0-9]{1,7}")
_MESSAGES = {
    "missing": "is required",
    "string_type": "must be a string",
    "string_too_short": "must not be empty",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "too_short": "must have at least one item",
}

Problem = dict[str, str]


class NotJson(Exception):
    """The body is not a JSON object."""


class Invalid(Exception):
    """`problems` has a `field` and a `message` for each thing that is wrong, in the order of the fields."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(f"{problem['field']} {problem['message']}" for problem in problems))
        self.problems = list(problems)

    @classmethod
    def of(cls, field: str, message: str) -> Invalid:
        return cls({"field": field, "message": message})


class Fields(BaseModel):
    """Root of the models: a field they do not have is ignored, as the providers' own tables list what is read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    def given(self) -> dict[str, Any]:
        """What was there, null included, by name; for partial updates."""
        return {name: getattr(self, name) for name in self.model_fields_set}


F = TypeVar("F", bound=Fields)


def document(raw: bytes) -> dict[str, Any]:
    """The body as an object, its fractions as Decimal; no body is an empty object. Raises NotJson."""
    raw = raw or b"{}"
    try:
        orjson.loads(raw)  # stricter: UTF-8, no half of a surrogate pair, no endless nesting
        value = json.loads(raw, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError):  # ArithmeticError: an exponent beyond all
        raise NotJson("the body is not valid JSON") from None
    if not isinstance(value, dict):
        raise NotJson("the body must be an object")
    return value


def read(model: type[F], data: Mapping[str, Any]) -> F:
    """Read a body, or the parameters of a query. Raises Invalid."""
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        problems = [{"field": _field(found["loc"]), "message": _message(dict(found))} for found in error.errors()]
        raise Invalid(*problems) from None


def number(*, least: int | Decimal = 0, most: Decimal = MAX_NUMBER) -> BeforeValidator:
    """A JSON number, exact, from `least` to `most`, with at most six decimal places: `Annotated[Decimal, number()]`."""

    def check(value: Any) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise ValueError("must be a number")
        exact = Decimal(value)
        if not least <= exact <= most or places(exact) > MAX_PLACES:
            raise ValueError(f"must be from {least} to {most}, with at most {MAX_PLACES} decimal places")
        return exact

    return BeforeValidator(check)


def whole(least: int, most: int | None = None) -> BeforeValidator:
    """A JSON integer from `least` to `most`: `Annotated[int, whole(1, 12)]`."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not _within(value, least, most):
            raise ValueError(_range(least, most))
        return value

    return BeforeValidator(check)


def digits(least: int, most: int | None = None) -> BeforeValidator:
    """The same as a parameter of a query, where it is written in digits."""

    def check(value: Any) -> int:
        if isinstance(value, int):  # the default
            return value
        if _DIGITS.fullmatch(value) is None or not _within(int(value), least, most):
            raise ValueError(_range(least, most))
        return int(value)

    return BeforeValidator(check)


def one_of(*words: str) -> BeforeValidator:
    def check(value: Any) -> str:
        if value not in words or not isinstance(value, str):
            raise ValueError(
                f"must be {' or '.join(words)}" if len(words) == 2 else f"must be one of {', '.join(words)}"
            )
        return value

    return BeforeValidator(check)


def matching(pattern: str, message: str) -> BeforeValidator:
    """A string that the pattern matches as a whole."""
    compiled = re.compile(pattern)

    def check(value: Any) -> str:
        if not isinstance(value, str) or compiled.fullmatch(value) is None:
            raise ValueError(message)
        return value

    return BeforeValidator(check)


def places(value: Decimal) -> int:
    """Decimal places of a number, as it is written."""
    exponent = value.as_tuple().exponent
    return -exponent if isinstance(exponent, int) and exponent < 0 else 0


def _day(value: Any) -> date:
    if isinstance(value, date):
        return value
    if not isinstance(value, str) or _DATE.fullmatch(value) is None:
        raise ValueError("must be a date (YYYY-MM-DD)")
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise ValueError("must be a date (YYYY-MM-DD)") from None


def _moment(value: Any) -> str:
    try:
        # fromisoformat reads past a NUL at the end, and takes a date alone
        if value.isprintable() and "T" in value.upper():
            datetime.fromisoformat(value)
            return str(value)
    except (AttributeError, ValueError):
        pass
    raise ValueError("must be a date and time (ISO 8601)")


def _words(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


Text = Annotated[str, StringConstraints(strict=True, max_length=MAX_TEXT)]
Words = Annotated[Text, AfterValidator(_words)]
"""Text with more than spaces in it."""
Flag = StrictBool
Day = Annotated[date, BeforeValidator(_day)]
Moment = Annotated[str, BeforeValidator(_moment)]
"""A date and time, kept as it was written."""
Email = Annotated[str, matching(r"[^@\s]+@[^@\s]+\.[^@\s]+", "must be an email address")]


def _field(location: tuple[int | str, ...]) -> str:
    """`items[0].quantity`; the steps that pydantic takes inside a union or a validator are left out."""
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step.isidentifier():
            path += f".{step}" if path else step
    return path


def _message(found: dict[str, Any]) -> str:
    if found["type"] == "value_error":
        return str(found["ctx"]["error"])
    message: str = found["msg"]
    return _MESSAGES.get(found["type"], message[:1].lower() + message[1:])


def _within(value: int, least: int, most: int | None) -> bool:
    return least <= value and (most is None or value <= most)


def _range(least: int, most: int | None) -> str:
    return f"must be an integer of at least {least}" if most is None else f"must be an integer from {least} to {most}"
