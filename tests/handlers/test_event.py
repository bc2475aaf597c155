from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import ParseError
from handlers.event import Event, from_json, to_json, valid_type

AT = datetime(2026, 6, 5, 14, 0, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
EVENTS = st.builds(
    Event,
    type=TEXT,
    data=st.dictionaries(TEXT, JSON, max_size=4),
    occurred_at=st.datetimes(datetime(1970, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - given one
    organization=st.none() | TEXT,
    object_kind=st.none() | TEXT,
    object_id=st.none() | TEXT,
)


@given(EVENTS)
def test_what_to_json_writes_from_json_reads(event: Event) -> None:
    body = to_json(event)

    assert from_json(body) == replace(event, body=body)


def test_the_json_form_leaves_out_what_only_the_receiver_knows() -> None:
    event = Event(
        id="evt_1",
        source="shop",
        provider="billhook",
        received_at=AT,
        key="k",
        body=b"x",
        type="recurring.generated",
        data={"total": "12480.00"},
        occurred_at=AT,
        object_kind="schedule",
        object_id="sch_1",
    )

    assert orjson.loads(to_json(event)) == {
        "type": "recurring.generated",
        "occurred_at": "2026-06-05T14:00:00+00:00",
        "organization": None,
        "object": {"kind": "schedule", "id": "sch_1"},
        "data": {"total": "12480.00"},
    }


@given(st.binary(max_size=60) | JSON.map(orjson.dumps))
def test_any_other_bytes_are_a_parse_error(body: bytes) -> None:
    with pytest.raises(ParseError):
        from_json(body)


@pytest.mark.parametrize("missing", ["type", "occurred_at", "organization", "object", "data"])
def test_a_form_that_lacks_a_field_is_a_parse_error(missing: str) -> None:
    form = orjson.loads(to_json(Event(type="a.b", data={}, occurred_at=AT)))
    del form[missing]

    with pytest.raises(ParseError):
        from_json(orjson.dumps(form))


def test_an_event_cannot_be_changed_and_hides_its_body() -> None:
    event = Event(type="a.b", data={}, occurred_at=AT, body=b"whole-body")

    with pytest.raises(FrozenInstanceError):
        event.type = "c.d"  # type: ignore[misc]
    assert "whole-body" not in repr(event)


@pytest.mark.parametrize("name", ["invoice.paid", "a.b.c", "invoice_2.paid_late", "1.2", "a." + "b" * 126])
def test_dotted_lower_case_words_are_a_type(name: str) -> None:
    assert valid_type(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "invoice", "Invoice.Paid", "invoice.", ".paid", "invoice..paid", "invoice.paid\n", "invoice paid.x"),
        *("invoice-2.paid", "invoice.*", "é.paid", "٣.paid", "a." + "b" * 127),
    ],
)
def test_anything_else_is_none(name: str) -> None:
    assert not valid_type(name)
