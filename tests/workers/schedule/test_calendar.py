from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from datetime import UTC, date, datetime, timedelta
from itertools import dropwhile, islice, pairwise
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.schedule.calendar import Frequency, Rule, due_date, due_dates, on_or_after

WEEKS = {"weekly": 1, "biweekly": 2}
MONTHS = {"monthly": 1, "quarterly": 3, "biannually": 6, "yearly": 12}
DAY = timedelta(days=1)


# ---- The model: walks the calendar and shares no arithmetic with what it checks.


def walk(rule: Rule) -> Iterator[date]:
    """The due dates of `rule`, found by walking day by day or month by month and counting."""
    dates = walk_days(rule) if rule.frequency in WEEKS else walk_months(rule)
    for found, due in enumerate(dates):
        if found == rule.max_occurrences or (rule.end_date is not None and due > rule.end_date):
            return
        yield due


def walk_days(rule: Rule) -> Iterator[date]:
    names = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
    wanted = f"{rule.start_date:%A}" if rule.day_of_week is None else names[rule.day_of_week]
    weeks_to_wait = 1
    for day in every_day(rule.start_date):
        if f"{day:%A}" != wanted:
            continue
        weeks_to_wait -= 1
        if weeks_to_wait == 0:
            weeks_to_wait = WEEKS[rule.frequency] * rule.interval_count
            yield day


def walk_months(rule: Rule) -> Iterator[date]:
    wanted = rule.day_of_month or rule.start_date.day
    months_to_wait = 1
    for year, month in every_month(rule.start_date):
        due = last_existing(year, month, wanted)
        if due < rule.start_date:
            continue
        months_to_wait -= 1
        if months_to_wait == 0:
            months_to_wait = MONTHS[rule.frequency] * rule.interval_count
            yield due


def every_day(day: date) -> Iterator[date]:
    while day < date.max:
        yield day
        day += DAY
    yield day


def every_month(start: date) -> Iterator[tuple[int, int]]:
    year, month = start.year, start.month
    while year <= 9999:
        yield year, month
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)


def last_existing(year: int, month: int, day: int) -> date:
    """The day of that month, or the nearest earlier one that exists."""
    try:
        return date(year, month, day)
    except ValueError:
        return last_existing(year, month, day - 1)


# ---- Rules as hypothesis draws them.

start_dates = st.one_of(
    st.dates(date(2019, 1, 1), date(2032, 12, 31)),
    st.builds(last_existing, st.integers(2019, 2032), st.integers(1, 12), st.integers(28, 31)),  # where drift shows
    st.dates(date(9990, 1, 1)),  # where the calendar ends
)


@st.composite
def open_rules(draw: st.DrawFn) -> Rule:
    """Rules without an end."""
    frequency = draw(st.sampled_from(Frequency))
    weekly = frequency in WEEKS
    return Rule(
        frequency,
        draw(start_dates),
        interval_count=draw(st.integers(1, 12)),
        day_of_week=draw(st.none() | st.integers(0, 6)) if weekly else None,
        day_of_month=draw(st.none() | st.integers(1, 28)) if not weekly else None,
    )


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Rules with and without an end."""
    rule = draw(open_rules())
    days_left = (date.max - rule.start_date).days
    lasts = draw(st.none() | st.integers(0, min(3000, days_left)))
    return Rule(
        rule.frequency,
        rule.start_date,
        rule.interval_count,
        rule.day_of_month,
        rule.day_of_week,
        end_date=None if lasts is None else rule.start_date + lasts * DAY,
        max_occurrences=draw(st.none() | st.integers(1, 30)),
    )


# ---- Tables.


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param(
            {"frequency": "weekly", "start_date": date(2026, 12, 24)},
            ["2026-12-24", "2026-12-31", "2027-01-07"],
            id="weekly keeps the weekday of its start",
        ),
        pytest.param(
            {"frequency": "weekly", "start_date": date(2026, 1, 1), "day_of_week": 0},  # a Thursday
            ["2026-01-04", "2026-01-11", "2026-01-18"],
            id="0 is Sunday",
        ),
        pytest.param(
            {"frequency": "weekly", "start_date": date(2026, 1, 1), "day_of_week": 6},
            ["2026-01-03", "2026-01-10", "2026-01-17"],
            id="6 is Saturday",
        ),
        pytest.param(
            {"frequency": "weekly", "start_date": date(2026, 1, 1), "day_of_week": 4},
            ["2026-01-01", "2026-01-08", "2026-01-15"],
            id="a start on the day of the week is due itself",
        ),
        pytest.param(
            {"frequency": "biweekly", "start_date": date(2026, 1, 1), "day_of_week": 3},
            ["2026-01-07", "2026-01-21", "2026-02-04"],
            id="biweekly counts from its first due date",
        ),
        pytest.param(
            {"frequency": "biweekly", "start_date": date(2026, 1, 1), "interval_count": 3},
            ["2026-01-01", "2026-02-12", "2026-03-26"],
            id="three times biweekly is six weeks",
        ),
        pytest.param(
            {"frequency": "monthly", "start_date": date(2026, 11, 15)},
            ["2026-11-15", "2026-12-15", "2027-01-15"],
            id="monthly crosses the year",
        ),
        pytest.param(
            {"frequency": "monthly", "start_date": date(2027, 12, 31)},
            ["2027-12-31", "2028-01-31", "2028-02-29", "2028-03-31", "2028-04-30", "2028-05-31"],
            id="the 31st is the last day of shorter months and comes back",
        ),
        pytest.param(
            {"frequency": "monthly", "start_date": date(2026, 1, 29)},
            ["2026-01-29", "2026-02-28", "2026-03-29"],
            id="the 29th is the 28th in a common February only",
        ),
        pytest.param(
            {"frequency": "monthly", "start_date": date(2026, 2, 28)},
            ["2026-02-28", "2026-03-28", "2026-04-28"],
            id="the last day of February is the 28th, not month's end",
        ),
        pytest.param(
            {"frequency": "monthly", "start_date": date(2026, 1, 20), "day_of_month": 20},
            ["2026-01-20", "2026-02-20", "2026-03-20"],
            id="a start on the day of the month is due itself",
        ),
        pytest.param(
            {"frequency": "monthly", "start_date": date(2026, 12, 20), "day_of_month": 19},
            ["2027-01-19", "2027-02-19", "2027-03-19"],
            id="a day of the month that has passed waits for the next month",
        ),
        pytest.param(
            {"frequency": "monthly", "start_date": date(2026, 1, 31), "day_of_month": 28},
            ["2026-02-28", "2026-03-28", "2026-04-28"],
            id="the day of the month wins over the day of the start",
        ),
        pytest.param(
            {"frequency": "monthly", "start_date": date(2026, 1, 31), "interval_count": 12},
            ["2026-01-31", "2027-01-31", "2028-01-31"],
            id="every twelve months",
        ),
        pytest.param(
            {"frequency": "quarterly", "start_date": date(2026, 11, 30)},
            ["2026-11-30", "2027-02-28", "2027-05-30", "2027-08-30"],
            id="quarterly is three months from the start, not a calendar quarter",
        ),
        pytest.param(
            {"frequency": "biannually", "start_date": date(2026, 8, 31), "interval_count": 3},
            ["2026-08-31", "2028-02-29", "2029-08-31"],
            id="three times biannually is eighteen months",
        ),
        pytest.param(
            {"frequency": "yearly", "start_date": date(2096, 2, 29)},
            ["2096-02-29", "2097-02-28", "2098-02-28", "2099-02-28", "2100-02-28", "2101-02-28"],
            id="29 February is the 28th in common years, 2100 among them",
        ),
        pytest.param(
            {"frequency": "yearly", "start_date": date(2024, 2, 29), "interval_count": 4},
            ["2024-02-29", "2028-02-29", "2032-02-29"],
            id="every leap year",
        ),
        pytest.param(
            {"frequency": "yearly", "start_date": date(2026, 3, 20), "day_of_month": 15},
            ["2026-04-15", "2027-04-15", "2028-04-15"],
            id="yearly on a day of the month starts with the first such day",
        ),
    ],
)
def test_due_dates_fall_where_the_rule_says(fields: dict[str, Any], expected: list[str]) -> None:
    rule = Rule(**fields)
    assert [due.isoformat() for due in islice(due_dates(rule), len(expected))] == expected


@pytest.mark.parametrize(
    ("end_date", "max_occurrences", "expected"),
    [
        (date(2026, 3, 31), None, 3),  # an end date that is due is still due
        (date(2026, 3, 30), None, 2),
        (date(2026, 1, 31), None, 1),
        (None, 1, 1),
        (None, 4, 4),
        (date(2026, 3, 31), 2, 2),
        (date(2026, 3, 31), 9, 3),
    ],
)
def test_the_first_end_reached_ends_the_schedule(
    end_date: date | None, max_occurrences: int | None, expected: int
) -> None:
    rule = Rule(Frequency.MONTHLY, date(2026, 1, 31), end_date=end_date, max_occurrences=max_occurrences)
    assert len(list(due_dates(rule))) == expected
    assert due_date(rule, expected - 1) is not None
    assert due_date(rule, expected) is None


def test_an_end_before_the_first_matching_day_leaves_nothing_due() -> None:
    rule = Rule(Frequency.MONTHLY, date(2026, 1, 20), day_of_month=15, end_date=date(2026, 2, 14))
    assert list(due_dates(rule)) == []
    assert on_or_after(rule, date(2026, 1, 1)) is None


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (date.min, (0, date(2026, 1, 31))),
        (date(2026, 1, 31), (0, date(2026, 1, 31))),
        (date(2026, 2, 1), (1, date(2026, 2, 28))),
        (date(2026, 2, 28), (1, date(2026, 2, 28))),
        (date(2026, 3, 1), (2, date(2026, 3, 31))),
        (date(2026, 4, 30), (3, date(2026, 4, 30))),
        (date(2026, 5, 1), None),
        (date.max, None),
    ],
)
def test_the_first_due_date_on_or_after_a_day(day: date, expected: tuple[int, date] | None) -> None:
    rule = Rule(Frequency.MONTHLY, date(2026, 1, 31), max_occurrences=4)
    assert on_or_after(rule, day) == expected


def test_iteration_can_start_at_any_number() -> None:
    rule = Rule(Frequency.WEEKLY, date(2026, 1, 1), max_occurrences=4)
    assert list(due_dates(rule, 2)) == [date(2026, 1, 15), date(2026, 1, 22)]
    assert list(due_dates(rule, 4)) == []


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (date.min, ["2031-03-31", "2031-04-30", "2031-05-31"]),  # before the first
        (date(2031, 3, 31), ["2031-03-31", "2031-04-30", "2031-05-31"]),
        (date(2031, 4, 1), ["2031-04-30", "2031-05-31"]),
        (date(2031, 5, 31), ["2031-05-31"]),  # the last
        (date(2031, 6, 1), []),
        (date.max, []),
    ],
)
def test_iteration_can_start_at_any_day(day: date, expected: list[str]) -> None:
    rule = Rule(Frequency.MONTHLY, date(2031, 3, 31), max_occurrences=3)
    assert [due.isoformat() for due in due_dates(rule, day)] == expected


@pytest.mark.parametrize(
    "rule",
    [
        Rule(Frequency.WEEKLY, date.max),
        Rule(Frequency.MONTHLY, date.max),
        Rule(Frequency.YEARLY, date.max, interval_count=12),
    ],
)
def test_nothing_is_due_beyond_the_end_of_the_calendar(rule: Rule) -> None:
    assert list(due_dates(rule)) == [date.max]
    assert due_date(rule, 10**30) is None
    assert on_or_after(rule, date.max) == (0, date.max)


@pytest.mark.parametrize(
    "rule",
    [
        Rule(Frequency.WEEKLY, date.max, day_of_week=0),  # it is a Friday
        Rule(Frequency.MONTHLY, date.max, day_of_month=28),
    ],
)
def test_a_first_due_date_beyond_the_end_of_the_calendar_is_none(rule: Rule) -> None:
    assert due_date(rule, 0) is None
    assert on_or_after(rule, date.min) is None


# ---- Construction.


def monthly_unless(**fields: Any) -> Rule:
    allowed: dict[str, Any] = {"frequency": "monthly", "start_date": date(2026, 1, 1)}
    return Rule(**allowed | fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"frequency": "daily"},
            "frequency must be one of weekly, biweekly, monthly, quarterly, biannually, yearly.",
        ),
        ({"frequency": None}, "frequency must be one of weekly, biweekly, monthly, quarterly, biannually, yearly."),
        (
            {"frequency": ["weekly"]},
            "frequency must be one of weekly, biweekly, monthly, quarterly, biannually, yearly.",
        ),
        ({"start_date": "2026-01-01"}, "start_date must be a date without a time of day."),
        ({"start_date": datetime(2026, 1, 1, tzinfo=UTC)}, "start_date must be a date without a time of day."),
        ({"start_date": None}, "start_date must be a date without a time of day."),
        ({"interval_count": 0}, "interval_count must be a whole number from 1 to 12."),
        ({"interval_count": 13}, "interval_count must be a whole number from 1 to 12."),
        ({"interval_count": True}, "interval_count must be a whole number from 1 to 12."),
        ({"interval_count": 1.0}, "interval_count must be a whole number from 1 to 12."),
        ({"interval_count": None}, "interval_count must be a whole number from 1 to 12."),
        ({"day_of_month": 0}, "day_of_month must be a whole number from 1 to 28."),
        ({"day_of_month": 29}, "day_of_month must be a whole number from 1 to 28."),
        ({"day_of_month": True}, "day_of_month must be a whole number from 1 to 28."),
        ({"day_of_month": "1"}, "day_of_month must be a whole number from 1 to 28."),
        (
            {"frequency": "biweekly", "day_of_month": 1},
            "day_of_month is accepted only with monthly, quarterly, biannually, yearly.",
        ),
        ({"frequency": "weekly", "day_of_week": -1}, "day_of_week must be a whole number from 0 to 6."),
        ({"frequency": "weekly", "day_of_week": 7}, "day_of_week must be a whole number from 0 to 6."),
        ({"frequency": "weekly", "day_of_week": False}, "day_of_week must be a whole number from 0 to 6."),
        ({"day_of_week": 0}, "day_of_week is accepted only with weekly, biweekly."),
        ({"end_date": datetime(2027, 1, 1, tzinfo=UTC)}, "end_date must be a date without a time of day."),
        ({"end_date": date(2025, 12, 31)}, "end_date must not be before start_date."),
        ({"max_occurrences": 0}, "max_occurrences must be a whole number of at least 1."),
        ({"max_occurrences": True}, "max_occurrences must be a whole number of at least 1."),
        ({"max_occurrences": 2.0}, "max_occurrences must be a whole number of at least 1."),
    ],
)
def test_a_value_the_document_does_not_allow_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"\.$") as refused:
        monthly_unless(**fields)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    "fields",
    [
        {"interval_count": 1, "day_of_month": 1, "max_occurrences": 1},
        {"interval_count": 12, "day_of_month": 28, "end_date": date(2026, 1, 1)},
        {"frequency": "weekly", "day_of_week": 0},
        {"frequency": "biweekly", "day_of_week": 6},
    ],
)
def test_the_limits_themselves_are_accepted(fields: dict[str, Any]) -> None:
    rule = monthly_unless(**fields)
    assert {name: getattr(rule, name) for name in fields} == fields


def test_a_word_becomes_the_frequency_it_names() -> None:
    assert monthly_unless(frequency="weekly").frequency is Frequency.WEEKLY


def test_a_rule_is_a_value() -> None:
    rule = Rule(Frequency.MONTHLY, date(2026, 1, 31))
    assert rule == Rule(Frequency("monthly"), date(2026, 1, 31))
    assert len({rule, Rule(Frequency.MONTHLY, date(2026, 1, 31))}) == 1
    with pytest.raises(FrozenInstanceError):
        rule.interval_count = 2  # type: ignore[misc]


@pytest.mark.parametrize("n", [-1, True, 1.0])
def test_a_number_that_no_due_date_has_is_refused(n: Any) -> None:
    with pytest.raises(ValueError, match=r"^n must be a whole number of at least 0\.$"):
        due_date(Rule(Frequency.WEEKLY, date(2026, 1, 1)), n)


def test_a_moment_is_not_a_day() -> None:
    with pytest.raises(ValueError, match=r"^day must be a date without a time of day\.$"):
        on_or_after(Rule(Frequency.WEEKLY, date(2026, 1, 1)), datetime(2026, 1, 1, tzinfo=UTC))


def test_iteration_cannot_start_at_a_moment() -> None:
    dues = due_dates(Rule(Frequency.WEEKLY, date(2026, 1, 1)), datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match=r"^day must be a date without a time of day\.$"):
        next(dues)


# ---- Properties.


@given(rules())
def test_due_dates_are_those_of_walking_the_calendar(rule: Rule) -> None:
    assert list(islice(due_dates(rule), 40)) == list(islice(walk(rule), 40))


@given(rules(), st.integers(0, 40))
def test_a_due_date_is_found_by_its_number_alone(rule: Rule, n: int) -> None:
    assert due_date(rule, n) == next(islice(walk(rule), n, None), None)


@given(rules())
def test_due_dates_strictly_increase_from_the_start_date(rule: Rule) -> None:
    dues = list(islice(due_dates(rule), 40))
    assert all(earlier < later for earlier, later in pairwise(dues))
    assert all(due >= rule.start_date for due in dues)


@given(open_rules())
def test_due_dates_never_drift_from_their_anchor(rule: Rule) -> None:
    dues = list(islice(due_dates(rule), 60))
    if rule.frequency in WEEKS:
        gap = timedelta(weeks=WEEKS[rule.frequency] * rule.interval_count)
        assert all(later - earlier == gap for earlier, later in pairwise(dues))
    else:
        anchor = rule.day_of_month or rule.start_date.day
        gap_in_months = MONTHS[rule.frequency] * rule.interval_count
        months = [due.year * 12 + due.month for due in dues]
        assert all(later - earlier == gap_in_months for earlier, later in pairwise(months))
        assert all(due == last_existing(due.year, due.month, anchor) for due in dues)


@given(rules())
def test_the_end_and_the_count_are_respected(rule: Rule) -> None:
    dues = list(islice(due_dates(rule), 500))
    assert rule.max_occurrences is None or len(dues) <= rule.max_occurrences
    assert rule.end_date is None or all(due <= rule.end_date for due in dues)
    if len(dues) < 500:  # ended, and stays ended
        assert due_date(rule, len(dues)) is None
        assert due_date(rule, len(dues) + 1000) is None


@given(rules(), st.data())
def test_the_first_due_date_on_or_after_a_day_is_what_a_linear_search_finds(rule: Rule, data: st.DataObject) -> None:
    dues = list(islice(walk(rule), 41))
    centre = data.draw(st.sampled_from(dues[:40] or [rule.start_date]))
    ordinal = centre.toordinal() + data.draw(st.integers(-2, 2) | st.integers(-400, 400))
    day = date.fromordinal(min(ordinal, date.max.toordinal()))
    if len(dues) == 41:  # the walk was cut off there: it knows nothing of later days
        day = min(day, dues[-1])
    assert on_or_after(rule, day) == next(((n, due) for n, due in enumerate(dues) if due >= day), None)


@given(rules(), st.integers(-60, 1500))
def test_iteration_from_a_day_goes_on_as_walking_the_calendar_does(rule: Rule, days: int) -> None:
    ordinal = rule.start_date.toordinal() + days
    day = date.fromordinal(min(ordinal, date.max.toordinal()))
    walked = dropwhile(lambda due: due < day, walk(rule))
    assert list(islice(due_dates(rule, day), 10)) == list(islice(walked, 10))


@given(rules(), st.dates())
def test_any_day_has_a_first_due_date_or_none(rule: Rule, day: date) -> None:
    found = on_or_after(rule, day)
    if found is None:
        first = due_date(rule, 0)
        ends = (rule.end_date, rule.max_occurrences) != (None, None)
        assert first is None or ends or day.year > 9999 - 12  # no period is longer than 12 years
    else:
        n, due = found
        assert due == due_date(rule, n)
        assert due >= day
        before = due_date(rule, n - 1) if n else None
        assert before is None or before < day


@pytest.mark.parametrize("frequency", Frequency)
def test_a_jump_of_5000_occurrences_lands_where_walking_does(frequency: Frequency) -> None:
    rule = Rule(frequency, date(2024, 2, 29) if frequency in MONTHS else date(2026, 1, 1))
    walked = next(islice(walk(rule), 5000, None))
    assert due_date(rule, 5000) == walked
    assert on_or_after(rule, walked) == (5000, walked)
    assert on_or_after(rule, walked + DAY) == (5001, due_date(rule, 5001))
    assert next(due_dates(rule, walked + DAY)) == due_date(rule, 5001)


@pytest.mark.parametrize("frequency", Frequency)
def test_a_far_jump_takes_as_many_steps_as_a_near_one(frequency: Frequency) -> None:
    rule = Rule(frequency, date(2026, 1, 31))
    near, far = due_date(rule, 1), due_date(rule, 6001)  # in the same month, for all but the weekly ones
    assert near is not None
    assert far is not None
    assert calls_of_a_jump(rule, near) == calls_of_a_jump(rule, far) > 0


def calls_of_a_jump(rule: Rule, day: date) -> int:
    """How many calls the calendar makes and takes until iteration from `day` yields its first due date."""
    calls = 0

    def count(frame: FrameType, event: str, _arg: object) -> None:
        nonlocal calls
        if frame.f_globals["__name__"] == due_dates.__module__:  # not those of a tool that measures the tests
            calls += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        next(due_dates(rule, day))
    finally:
        sys.setprofile(before)
    return calls
