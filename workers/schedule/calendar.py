"""The due dates of a schedule, as pure arithmetic: each is computed from its number, never from the one before.

The fields are those of Hisab's recurring invoices, whose API reference gives their names and ranges and no more. What
it leaves open is decided here:

- The first due date is the first matching day on or after `start_date`, and counts as number 0: a start date is the
  earliest day a customer agreed to, and whoever names a day there expects the next such day.
- Without `day_of_month` or `day_of_week` the start date is itself the first due date, and its day is the anchor: no
  other day was named, and Hisab's help promises the "same date each month".
- `day_of_month` names no month, so the first such day decides it: "yearly, on the 15th, from 20 March" is first due on
  15 April, and on every 15 April after that. To wait for the next March would leave a year without an invoice.
- An anchor of 29 to 31 falls on the last day of a shorter month: every period is billed once, none is skipped and
  none slips into the next month. It comes back where the month is long enough (31 January, 28 February, 31 March),
  because each date is counted from the anchor. Yearly from 29 February is due on 28 February in common years. A
  rhythm that is changed keeps the anchor (`anchor_day`): from 28 February on, quarterly, the 31st goes on to 31 May.
- `day_of_week` 0 is Sunday, as in Hisab's own client library; the reference says only "0-6".
- biweekly is 2 weeks from the first due date, not the even weeks of the year: a year of 53 weeks would put a week or
  three between two invoices.
- quarterly, biannually and yearly are 3, 6 and 12 months from the first due date, not the quarters of the calendar
  year: what is billed is a period of the contract, which begins when it begins.
- `interval_count` multiplies the period, as INTERVAL does in a calendar entry (RFC 5545): quarterly with 2 is every
  six months.
- `day_of_month` of a weekly schedule and `day_of_week` of a monthly one are refused: to pass over a field that somebody
  filled in would bill on a day they did not choose.
- `end_date` is inclusive, as an end date on a contract is. One before `start_date` is refused, because it can only be
  a slip of the pen. One before the first matching day is none, and leaves nothing due.
- `max_occurrences` counts due dates, whatever became of them: the end of a contract is known in advance, and a period
  that was skipped or failed does not lengthen it silently. Who wants it longer changes the schedule.
- Where both are given, the first one reached ends the schedule: each promises that nothing is billed beyond it.
- Dates have no time zone here, so that no change of the clocks moves one: which day is today is for the caller to say.
- A day beyond the year 9999, where `date` ends, is no due date rather than an error: a schedule without an end is not
  wrong, and its iterator has to stop somewhere.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import MAXYEAR, date, datetime
from enum import StrEnum
from typing import NoReturn


class Frequency(StrEnum):
    """How often a schedule is due; an unknown word is a ValueError that lists the known ones."""

    WEEKLY = "weekly"
    BIWEEKLY = "biweekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"
    BIANNUALLY = "biannually"
    YEARLY = "yearly"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise ValueError(f"frequency must be one of {', '.join(cls)}.")


_DAYS = {Frequency.WEEKLY: 7, Frequency.BIWEEKLY: 14}
_MONTHS = {Frequency.MONTHLY: 1, Frequency.QUARTERLY: 3, Frequency.BIANNUALLY: 6, Frequency.YEARLY: 12}


@dataclass(frozen=True)
class Rule:
    """When a schedule is due; `day_of_week` 0 is Sunday.

    Raises ValueError, one sentence that begins with the field's name, for a value the Hisab document does not allow.
    """

    frequency: Frequency
    start_date: date
    interval_count: int = 1
    day_of_month: int | None = None
    day_of_week: int | None = None
    end_date: date | None = None
    max_occurrences: int | None = None
    anchor_day: int | None = None
    """The day of the month that is meant, where `start_date` is in a month too short for it; without: its own day."""

    def __post_init__(self) -> None:
        # A plain "weekly" out of a database or a body becomes the member it names.
        object.__setattr__(self, "frequency", Frequency(self.frequency))
        _check_date("start_date", self.start_date)
        _check_int("interval_count", self.interval_count, 1, 12)
        if self.day_of_month is not None:
            _check_int("day_of_month", self.day_of_month, 1, 28)
            if self.frequency not in _MONTHS:
                raise ValueError(f"day_of_month is accepted only with {', '.join(_MONTHS)}.")
        if self.day_of_week is not None:
            _check_int("day_of_week", self.day_of_week, 0, 6)
            if self.frequency not in _DAYS:
                raise ValueError(f"day_of_week is accepted only with {', '.join(_DAYS)}.")
        if self.anchor_day is not None:
            _check_int("anchor_day", self.anchor_day, self.start_date.day, 31)
        if self.end_date is not None:
            _check_date("end_date", self.end_date)
            if self.end_date < self.start_date:
                raise ValueError("end_date must not be before start_date.")
        if self.max_occurrences is not None:
            _check_int("max_occurrences", self.max_occurrences, 1)


def due_date(rule: Rule, n: int) -> date | None:
    """The n-th due date, counted from 0; None when the schedule has ended by then. O(1).

    A date beyond `date.max` is None too. Raises ValueError for a negative `n`.
    """
    _check_int("n", n, 0)
    if rule.max_occurrences is not None and n >= rule.max_occurrences:
        return None
    due = _nth_by_days(rule, n) if rule.frequency in _DAYS else _nth_by_months(rule, n)
    if due is None or (rule.end_date is not None and due > rule.end_date):
        return None
    return due


def on_or_after(rule: Rule, day: date) -> tuple[int, date] | None:
    """The first due date on or after `day`, with its number; None when the schedule has ended by then. O(1).

    Raises ValueError for a datetime: which day it is depends on a time zone.
    """
    _check_date("day", day)
    if rule.frequency in _DAYS:
        behind, step = day.toordinal() - _first_day(rule), _days(rule)
    else:
        behind, step = _month_number(day) - _first_month(rule), _months(rule)
    n = max(0, behind // step)
    due = due_date(rule, n)
    if due is not None and due < day:  # at most one step short: the division rounds down
        n += 1
        due = due_date(rule, n)
    return None if due is None else (n, due)


def due_dates(rule: Rule, start: int | date = 0) -> Iterator[date]:
    """The due dates in order until the schedule ends; without an end, until the year 9999.

    `start` is the number of the first one, or a day: then the first is the one on or after it, found in O(1).
    """
    if isinstance(start, date):
        found = on_or_after(rule, start)
        if found is None:
            return
        n = found[0]
    else:
        n = start
    while (due := due_date(rule, n)) is not None:
        yield due
        n += 1


def _nth_by_days(rule: Rule, n: int) -> date | None:
    ordinal = _first_day(rule) + n * _days(rule)
    return date.fromordinal(ordinal) if ordinal <= date.max.toordinal() else None


def _nth_by_months(rule: Rule, n: int) -> date | None:
    year, month = divmod(_first_month(rule) + n * _months(rule), 12)
    if year > MAXYEAR:
        return None
    return date(year, month + 1, min(_anchor(rule), monthrange(year, month + 1)[1]))


def _days(rule: Rule) -> int:
    return _DAYS[rule.frequency] * rule.interval_count


def _months(rule: Rule) -> int:
    return _MONTHS[rule.frequency] * rule.interval_count


def _first_day(rule: Rule) -> int:
    """The proleptic ordinal of the first due date; it may lie beyond `date.max`."""
    start = rule.start_date.toordinal()
    if rule.day_of_week is None:
        return start
    return start + (rule.day_of_week - start) % 7  # an ordinal that 7 divides is a Sunday


def _first_month(rule: Rule) -> int:
    """The month of the first due date, counted from January of the year 0."""
    return _month_number(rule.start_date) + (_anchor(rule) < rule.start_date.day)


def _anchor(rule: Rule) -> int:
    if rule.day_of_month is not None:
        return rule.day_of_month
    return rule.anchor_day or rule.start_date.day


def _month_number(day: date) -> int:
    return day.year * 12 + day.month - 1


def _check_int(field: str, value: object, low: int, high: int | None = None) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and low <= value and (high is None or value <= high):
        return
    accepted = f"from {low} to {high}" if high is not None else f"of at least {low}"
    raise ValueError(f"{field} must be a whole number {accepted}.")


def _check_date(field: str, value: object) -> None:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise ValueError(f"{field} must be a date without a time of day.")
