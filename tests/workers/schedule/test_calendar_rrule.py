"""The calendar against somebody else's: the recurrence rules of iCalendar (RFC 5545), as dateutil computes them.

The two coincide once rrule is told what our rules imply: the weeks of a schedule begin on the weekday of its start,
and of the days from 28 to the anchor the last one that a month has is meant.

They do not coincide, and are not compared, where

- `day_of_month` is before the day of the start and the period is longer than a month: rrule lets the whole first period
  pass, ours begins with the next such day;
- an end date and a count are both given, which RFC 5545 forbids;
- the calendar ends: rrule raises where a week reaches beyond the year 9999.

The tables have those, and the cases where a plain rrule, told nothing, has other dates.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, time, timedelta
from itertools import islice
from typing import Any

import pytest
from dateutil.rrule import MONTHLY, WE, WEEKLY, YEARLY, rrule
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.schedule.calendar import Frequency, Rule, due_dates, on_or_after

COMPARED = 30
WEEKS = {"weekly": 1, "biweekly": 2}
MONTHS = {"monthly": 1, "quarterly": 3, "biannually": 6, "yearly": 12}


# ---- Our rules in the words of rrule.


def as_rrule(rule: Rule) -> Any:
    ends: dict[str, Any] = {"until": rule.end_date, "count": rule.max_occurrences}
    if rule.frequency in WEEKS:
        first_day = rule.start_date.weekday()  # its 0 is Monday
        wanted = first_day if rule.day_of_week is None else (rule.day_of_week - 1) % 7
        weeks = WEEKS[rule.frequency] * rule.interval_count
        return rrule(WEEKLY, rule.start_date, weeks, wkst=first_day, byweekday=wanted, **ends)
    anchor = rule.day_of_month or rule.start_date.day
    days: dict[str, Any] = {"bymonthday": range(min(anchor, 28), anchor + 1), "bysetpos": -1}
    if rule.frequency is Frequency.YEARLY:
        return rrule(YEARLY, rule.start_date, rule.interval_count, bymonth=rule.start_date.month, **days, **ends)
    return rrule(MONTHLY, rule.start_date, MONTHS[rule.frequency] * rule.interval_count, **days, **ends)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Schedules that rrule can express: a third each without an end, with a count, and with an end date."""
    frequency = draw(st.sampled_from(Frequency))
    interval = draw(st.integers(1, 12))
    start = draw(st.dates(date(1900, 1, 1), date(2400, 12, 31)) | month_ends())
    if frequency in WEEKS:
        period = timedelta(weeks=WEEKS[frequency] * interval)
        rule = Rule(frequency, start, interval, day_of_week=draw(st.none() | st.integers(0, 6)))
    else:
        period = timedelta(31) * MONTHS[frequency] * interval
        earliest = 1 if MONTHS[frequency] * interval == 1 else start.day
        days = st.none() if earliest > 28 else st.none() | st.integers(earliest, 28)
        rule = Rule(frequency, start, interval, day_of_month=draw(days))
    ends = draw(st.sampled_from(["never", "after a count", "on a day"]))
    if ends == "after a count":
        return replace(rule, max_occurrences=draw(st.integers(1, COMPARED + 10)))
    if ends == "on a day":
        return replace(rule, end_date=start + timedelta(draw(st.integers(0, period.days * COMPARED))))
    return rule


@st.composite
def month_ends(draw: st.DrawFn) -> date:
    """One of the last four days of a month, where dates would drift."""
    first = date(draw(st.integers(1996, 2104)), draw(st.integers(1, 12)), 1)
    return (first + timedelta(31)).replace(day=1) - timedelta(draw(st.integers(1, 4)))


@settings(max_examples=10_000)
@given(rules(), st.integers(0, COMPARED), st.integers(-2, 2) | st.integers(-400, 400))
def test_the_calendar_agrees_with_dateutil(rule: Rule, nearby: int, days: int) -> None:
    theirs = as_rrule(rule)
    dues = [found.date() for found in islice(theirs, COMPARED)]
    assert list(islice(due_dates(rule), COMPARED)) == dues

    day = dues[min(nearby, len(dues) - 1)] if dues else rule.start_date
    day += timedelta(days)
    found, expected = on_or_after(rule, day), theirs.after(datetime.combine(day, time()), inc=True)
    assert (found and found[1]) == (expected and expected.date())
    assert next(due_dates(rule, day), None) == (found and found[1])
    if found is not None and found[0] < COMPARED:
        assert dues[found[0]] == found[1]


# ---- Where a plain rrule has other dates.


@pytest.mark.parametrize(
    ("rule", "plain", "ours", "theirs"),
    [
        pytest.param(
            Rule(Frequency.MONTHLY, date(2026, 1, 31)),
            rrule(MONTHLY, date(2026, 1, 31)),
            ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30"],
            ["2026-01-31", "2026-03-31", "2026-05-31", "2026-07-31"],
            id="31 January monthly: a month without a 31st is billed all the same",
        ),
        pytest.param(
            Rule(Frequency.YEARLY, date(2024, 2, 29)),
            rrule(YEARLY, date(2024, 2, 29)),
            ["2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"],
            ["2024-02-29", "2028-02-29", "2032-02-29", "2036-02-29", "2040-02-29"],
            id="the leap day yearly: a common year is billed all the same",
        ),
        pytest.param(
            Rule(Frequency.YEARLY, date(2096, 2, 29), interval_count=4),
            rrule(YEARLY, date(2096, 2, 29), 4),
            ["2096-02-29", "2100-02-28", "2104-02-29"],
            ["2096-02-29", "2104-02-29", "2108-02-29"],
            id="the leap day every four years: 2100 has none and is billed all the same",
        ),
        pytest.param(
            Rule(Frequency.QUARTERLY, date(2026, 8, 30)),
            rrule(MONTHLY, date(2026, 8, 30), 3),
            ["2026-08-30", "2026-11-30", "2027-02-28", "2027-05-30"],
            ["2026-08-30", "2026-11-30", "2027-05-30", "2027-08-30"],
            id="30 August quarterly: February is billed all the same",
        ),
        pytest.param(
            Rule(Frequency.BIANNUALLY, date(2026, 8, 31)),
            rrule(MONTHLY, date(2026, 8, 31), 6),
            ["2026-08-31", "2027-02-28", "2027-08-31", "2028-02-29", "2028-08-31"],
            ["2026-08-31", "2027-08-31", "2028-08-31", "2029-08-31", "2030-08-31"],
            id="biannually from 31 August: every other one is in February",
        ),
        pytest.param(
            Rule(Frequency.QUARTERLY, date(2026, 3, 20), day_of_month=15),
            rrule(MONTHLY, date(2026, 3, 20), 3, bymonthday=15),
            ["2026-04-15", "2026-07-15", "2026-10-15"],
            ["2026-06-15", "2026-09-15", "2026-12-15"],
            id="a day of the month before the start's, quarterly: the next such day is the first",
        ),
        pytest.param(
            Rule(Frequency.YEARLY, date(2026, 12, 20), day_of_month=1),
            rrule(YEARLY, date(2026, 12, 20), bymonth=12, bymonthday=1),
            ["2027-01-01", "2028-01-01"],
            ["2027-12-01", "2028-12-01"],
            id="a day of the month before the start's, yearly in December: it becomes January",
        ),
        pytest.param(
            Rule(Frequency.BIWEEKLY, date(2026, 1, 1), day_of_week=3),  # starts on a Thursday
            rrule(WEEKLY, date(2026, 1, 1), 2, byweekday=WE),
            ["2026-01-07", "2026-01-21"],
            ["2026-01-14", "2026-01-28"],
            id="a weekday before the start's, biweekly: the next such day is the first",
        ),
    ],
)
def test_a_period_is_billed_where_a_plain_rrule_skips_it(
    rule: Rule, plain: Any, ours: list[str], theirs: list[str]
) -> None:
    assert [due.isoformat() for due in islice(due_dates(rule), len(ours))] == ours
    assert [found.date().isoformat() for found in islice(plain, len(theirs))] == theirs


# ---- Named hard cases.


def rule_of(frequency: str, start: str, **fields: Any) -> Rule:
    return Rule(Frequency(frequency), date.fromisoformat(start), **fields)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        pytest.param(
            rule_of("yearly", "1996-02-29", interval_count=4),
            ["1996-02-29", "2000-02-29", "2004-02-29"],
            id="2000 is a leap year, as every fourth century",
        ),
        pytest.param(
            rule_of("yearly", "2088-02-29", interval_count=12),
            ["2088-02-29", "2100-02-28", "2112-02-29"],
            id="yearly with interval 12 comes back to the leap day after a century without one",
        ),
        pytest.param(
            rule_of("monthly", "2100-01-29"),
            ["2100-01-29", "2100-02-28", "2100-03-29"],
            id="February 2100 has 28 days",
        ),
        pytest.param(
            rule_of("monthly", "2028-02-29"),
            ["2028-02-29", "2028-03-29", "2028-04-29"],
            id="the leap day monthly is the 29th, not month's end",
        ),
        pytest.param(
            rule_of("quarterly", "2027-11-30", interval_count=12),
            ["2027-11-30", "2030-11-30", "2033-11-30"],
            id="quarterly with interval 12 is three years",
        ),
        pytest.param(
            rule_of("monthly", "2026-01-20", day_of_month=21),
            ["2026-01-21", "2026-02-21", "2026-03-21"],
            id="a day of the month after the start's is in the month of the start",
        ),
        pytest.param(
            rule_of("yearly", "2024-02-10", day_of_month=28),
            ["2024-02-28", "2025-02-28", "2026-02-28"],
            id="the 28th of February stays the 28th in a leap year",
        ),
        pytest.param(
            rule_of("biweekly", "2026-12-24"),  # 2026 has 53 weeks
            ["2026-12-24", "2027-01-07", "2027-01-21"],
            id="biweekly across a year of 53 weeks is two weeks still",
        ),
        pytest.param(
            rule_of("weekly", "2028-02-22", day_of_week=2),
            ["2028-02-22", "2028-02-29", "2028-03-07"],
            id="weekly falls on the leap day",
        ),
        pytest.param(
            rule_of("weekly", "2026-03-22"),
            ["2026-03-22", "2026-03-29", "2026-04-05"],
            id="weekly across the change of clocks in Europe, and in Morocco after Ramadan",
        ),
        pytest.param(
            rule_of("weekly", "2026-10-18", day_of_week=0),
            ["2026-10-18", "2026-10-25", "2026-11-01"],
            id="weekly on the Sunday that has 25 hours",
        ),
    ],
)
def test_a_hard_case_falls_where_its_name_says(rule: Rule, expected: list[str]) -> None:
    assert [due.isoformat() for due in islice(due_dates(rule), len(expected))] == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        pytest.param(
            rule_of("monthly", "2028-01-31", end_date=date(2028, 2, 29)),
            ["2028-01-31", "2028-02-29"],
            id="an end date equal to a due date on the last day of a shorter month",
        ),
        pytest.param(
            rule_of("yearly", "2024-02-29", end_date=date(2025, 2, 27)),
            ["2024-02-29"],
            id="an end date one day before the leap day's stand-in",
        ),
        pytest.param(
            rule_of("weekly", "2026-01-01", end_date=date(2026, 1, 1)),
            ["2026-01-01"],
            id="an end date equal to the start",
        ),
        pytest.param(
            rule_of("weekly", "2026-01-01", day_of_week=3, end_date=date(2026, 1, 6)),
            [],
            id="an end before the first matching weekday",
        ),
        pytest.param(
            rule_of("weekly", "2026-01-01", day_of_week=3, end_date=date(2026, 1, 14), max_occurrences=2),
            ["2026-01-07", "2026-01-14"],
            id="an end date and a count that are reached together",
        ),
        pytest.param(
            rule_of("yearly", "2026-03-20", day_of_month=15, end_date=date(2027, 4, 14), max_occurrences=2),
            ["2026-04-15"],
            id="an end date before the count is full",
        ),
        pytest.param(
            rule_of("weekly", "9999-12-12", day_of_week=3),
            ["9999-12-15", "9999-12-22", "9999-12-29"],
            id="weekly to the last week of the year 9999",
        ),
        pytest.param(
            rule_of("monthly", "9999-10-31"),
            ["9999-10-31", "9999-11-30", "9999-12-31"],
            id="monthly to the last day of the year 9999",
        ),
        pytest.param(
            rule_of("yearly", "9976-02-29", interval_count=11),
            ["9976-02-29", "9987-02-28", "9998-02-28"],
            id="a last period that reaches beyond the year 9999",
        ),
    ],
)
def test_a_schedule_ends_where_its_name_says(rule: Rule, expected: list[str]) -> None:
    assert [due.isoformat() for due in due_dates(rule)] == expected
