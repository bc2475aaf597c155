"""Bodies and queries, field by field."""

from __future__ import annotations

import contextlib
import json
from datetime import date
from decimal import Decimal
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from handlers.providers.sandbox import fields
from handlers.providers.sandbox.fields import Fields, Invalid, NotJson


class Inner(Fields):
    amount: Annotated[Decimal, fields.number()]


class Body(Fields):
    name: fields.Words = "x"
    day: fields.Day | None = None
    at: fields.Moment | None = None
    flag: fields.Flag = False
    count: Annotated[int, fields.whole(1, 12)] = 1
    least: Annotated[int, fields.whole(1)] = 1
    page: Annotated[int, fields.digits(1, 100)] = 1
    colour: Annotated[str, fields.one_of("red", "green", "blue")] = "red"
    email: fields.Email | None = None
    inner: Inner | None = None
    lines: Annotated[list[Inner], Field(min_length=1)] | None = None


def wrong(**given_fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        fields.read(Body, given_fields)
    return [(problem["field"], problem["message"]) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"name": None}, "name", "must be a string"),
        ({"name": " \n"}, "name", "must not be empty"),
        ({"day": "2026-02-29"}, "day", "must be a date (YYYY-MM-DD)"),
        ({"day": 20260605}, "day", "must be a date (YYYY-MM-DD)"),
        ({"day": "2026-06-05T00:00:00Z"}, "day", "must be a date (YYYY-MM-DD)"),
        ({"at": "2026-06-05"}, "at", "must be a date and time (ISO 8601)"),
        ({"at": "2026-06-05T25:00:00Z"}, "at", "must be a date and time (ISO 8601)"),
        ({"at": "2026-06-05T12:00:00Z\x00"}, "at", "must be a date and time (ISO 8601)"),
        ({"flag": "true"}, "flag", "must be true or false"),
        ({"count": 13}, "count", "must be an integer from 1 to 12"),
        ({"count": Decimal("2.5")}, "count", "must be an integer from 1 to 12"),
        ({"count": True}, "count", "must be an integer from 1 to 12"),
        ({"least": 0}, "least", "must be an integer of at least 1"),
        ({"page": "0"}, "page", "must be an integer from 1 to 100"),
        ({"page": "٢"}, "page", "must be an integer from 1 to 100"),
        ({"page": "+2"}, "page", "must be an integer from 1 to 100"),
        ({"colour": "pink"}, "colour", "must be one of red, green, blue"),
        ({"colour": ["red"]}, "colour", "must be one of red, green, blue"),
        ({"email": "a b@c.d"}, "email", "must be an email address"),
        ({"inner": 5}, "inner", "must be an object"),
        ({"inner": {}}, "inner.amount", "is required"),
        ({"lines": []}, "lines", "must have at least one item"),
        ({"lines": {}}, "lines", "must be a list"),
        ({"lines": [{"amount": 1}, {"amount": "1"}]}, "lines[1].amount", "must be a number"),
        ({"lines": [{"amount": Decimal("0.0000001")}]}, "lines[0].amount", "must be from 0 to 1000000000, with"),
    ],
)
def test_what_is_wrong_is_named_and_said(body: dict[str, Any], field: str, message: str) -> None:
    ((found, said),) = wrong(**body)

    assert (found, said[: len(message)]) == (field, message)


def test_everything_wrong_is_told_in_the_order_of_the_fields() -> None:
    assert [field for field, _ in wrong(lines=5, name=5, day=5)] == ["name", "day", "lines"]


def test_what_is_right_is_read_and_the_rest_is_ignored() -> None:
    body = fields.read(Body, {"day": "2026-06-05", "page": "7", "inner": {"amount": Decimal("1.10")}, "more": 5})

    assert (body.day, body.page, body.inner) == (date(2026, 6, 5), 7, Inner(amount=Decimal("1.10")))
    assert set(body.given()) == {"day", "page", "inner"}


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"[]",
        b"5",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": "\\ud800"}',
        b'{"a":' * 5000,
        b"[" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
        '{"a": 1}'.encode("utf-16"),
    ],
)
def test_a_body_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(NotJson):
        fields.document(raw)


@given(st.binary())
def test_any_bytes_are_a_document_or_not_json(raw: bytes) -> None:
    with contextlib.suppress(NotJson):
        assert isinstance(fields.document(raw), dict)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=9), st.integers(-(2**53), 2**53))
def test_numbers_are_read_exactly(fraction: Decimal, whole: int) -> None:
    found = fields.document(f'{{"a": {fraction:f}, "b": {whole}}}'.encode())

    assert (Decimal(found["a"]), found["b"]) == (fraction, whole)
    assert isinstance(found["b"], int)


def test_no_body_is_an_empty_object() -> None:
    assert fields.document(b"") == {}
    assert fields.document(json.dumps({}).encode()) == {}
