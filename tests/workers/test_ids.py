from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from hypothesis import assume, given
from hypothesis import strategies as st

from workers import ids

AT = datetime(2026, 6, 5, 14, 0, 0, 123_456, tzinfo=UTC)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - given one
PARTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4)


def test_an_id_is_its_prefix_and_a_ulid() -> None:
    assert re.fullmatch(r"evt_[0-9A-HJKMNP-TV-Z]{26}", ids.new("evt"))
    assert re.fullmatch(r"msg_[0-9A-HJKMNP-TV-Z]{26}", ids.derived("msg", AT, "a"))


def test_no_two_fresh_ids_are_the_same() -> None:
    assert len({ids.new("evt") for _ in range(10_000)}) == 10_000


def test_a_fresh_id_stands_between_what_was_and_what_comes() -> None:
    now = datetime.now(UTC)
    before, after = ids.derived("evt", now - timedelta(seconds=1)), ids.derived("evt", now + timedelta(minutes=5))

    assert before < ids.new("evt") < after


def test_a_derived_id_is_the_same_in_every_release() -> None:
    # An id that changed with an upgrade would send a message twice.
    assert ids.derived("msg", AT, "evt_1", "shop.receipt", "0") == "msg_01KTC1ASVVJYFBMCFBA9VWN1EE"


@given(MOMENTS, PARTS)
def test_the_same_parts_always_have_the_same_id(at: datetime, parts: list[str]) -> None:
    assert ids.derived("msg", at, *parts) == ids.derived("msg", at, *parts)


@given(PARTS, PARTS)
def test_other_parts_have_another_id(one: list[str], two: list[str]) -> None:
    assume(one != two)

    assert ids.derived("msg", AT, *one) != ids.derived("msg", AT, *two)


def test_where_a_part_ends_makes_a_difference() -> None:
    spellings = [("a", "bc"), ("ab", "c"), ("abc",), ("abc", ""), ("", "abc"), ("1:a", "bc"), ("a2:bc",)]

    assert len({ids.derived("msg", AT, *parts) for parts in spellings}) == len(spellings)


@given(MOMENTS, MOMENTS)
def test_derived_ids_sort_by_their_time(one: datetime, two: datetime) -> None:
    assume(abs(one - two) >= timedelta(milliseconds=1))

    assert (ids.derived("msg", one, "x") < ids.derived("msg", two, "y")) == (one < two)


def test_the_zone_of_the_moment_makes_no_difference() -> None:
    local = AT.astimezone(datetime.fromisoformat("2026-06-05T15:00:00+01:00").tzinfo)

    assert ids.derived("msg", local, "x") == ids.derived("msg", AT, "x")


@given(MOMENTS)
def test_a_span_of_ids_has_all_that_was_made_in_it(moment: datetime) -> None:
    made = ids.derived("dlv", moment, "x")

    assert ids.since("dlv", moment) <= made < ids.until("dlv", moment + timedelta(milliseconds=1))


def test_a_span_of_ids_may_begin_and_end_at_any_moment() -> None:
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

    assert ids.since("dlv", first) == "dlv_" + "0" * 26
    assert ids.since("dlv", first) < ids.new("dlv") < ids.until("dlv", last)
