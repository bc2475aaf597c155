"""The due dates of a stored schedule: those of its rule, counted from where its rhythm was last changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

from workers.schedule.calendar import Frequency, Rule, due_date, on_or_after


class Recurring(Protocol):
    """What of a schedule its due dates follow from; a stored row has it."""

    @property
    def frequency(self) -> str: ...
    @property
    def start_date(self) -> date: ...
    @property
    def interval_count(self) -> int: ...
    @property
    def day_of_month(self) -> int | None: ...
    @property
    def day_of_week(self) -> int | None: ...
    @property
    def end_date(self) -> date | None: ...
    @property
    def max_occurrences(self) -> int | None: ...
    @property
    def anchor_date(self) -> date | None: ...
    @property
    def anchor_day(self) -> int | None: ...
    @property
    def prior(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """That of a schedule which is not stored yet."""

    frequency: str
    start_date: date
    interval_count: int
    day_of_month: int | None
    day_of_week: int | None
    end_date: date | None
    max_occurrences: int | None
    anchor_date: date | None = None
    anchor_day: int | None = None
    prior: int = 0


def due(schedule: Recurring, index: int) -> date | None:
    """The due date with this number, from 0 at the anchor; None once the schedule has ended."""
    if schedule.max_occurrences is not None and schedule.prior + index >= schedule.max_occurrences:
        return None
    found = due_date(_rule_of(schedule), index)
    return None if found is None or (schedule.end_date is not None and found > schedule.end_date) else found


def due_from(schedule: Recurring, day: date) -> tuple[int, date] | None:
    """The first due date on or after `day`, with its number; None if the schedule has ended by then."""
    found = on_or_after(_rule_of(schedule), day)
    if found is None or due(schedule, found[0]) is None:
        return None
    return found


def left(schedule: Recurring, index: int) -> int | None:
    """How many due dates there are from this one on; None: without end."""
    counted = None if schedule.max_occurrences is None else schedule.max_occurrences - schedule.prior - index
    if schedule.end_date is None:
        return counted
    after = on_or_after(_rule_of(schedule), _next_day(schedule.end_date))
    by_date = None if after is None else after[0] - index
    return min((one for one in (counted, by_date) if one is not None), default=None)


def today(now: datetime, timezone: str) -> date:
    """Which day it is there."""
    return now.astimezone(_zone(timezone)).date()


@lru_cache(4096)
def start_of_day(day: date, timezone: str) -> datetime:
    """The moment, in UTC, at which that day begins there; after the gap where midnight is skipped."""
    return datetime.combine(day, time(), _zone(timezone)).astimezone(UTC)


def _next_day(day: date) -> date:
    return date.fromordinal(min(day.toordinal() + 1, date.max.toordinal()))


@lru_cache(1024)
def _zone(timezone: str) -> ZoneInfo:
    return ZoneInfo(timezone)


def _rule_of(schedule: Recurring) -> Rule:
    return _rule(
        schedule.frequency,
        schedule.anchor_date or schedule.start_date,
        schedule.interval_count,
        schedule.day_of_month,
        schedule.day_of_week,
        schedule.anchor_day,
    )


@lru_cache(16_384)
def _rule(
    frequency: str,
    start_date: date,
    interval_count: int,
    day_of_month: int | None,
    day_of_week: int | None,
    anchor_day: int | None,
) -> Rule:
    return Rule(
        Frequency(frequency),
        start_date,
        interval_count,
        day_of_month=day_of_month,
        day_of_week=day_of_week,
        anchor_day=anchor_day,
    )
