"""When a schedule is due: each date is counted from the anchor, never from the date before.

The reference names the fields and no more; this is chosen. `day_of_week` (0 is Sunday) counts for weekly and biweekly,
`day_of_month` for the others; the one that does not fit is ignored. The first due date is the first such day on or
after the anchor. Without it the anchor's own day counts, and falls on the last day of a month that is shorter.
"""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import MAXYEAR, date

WEEKS = {"weekly": 1, "biweekly": 2}
MONTHS = {"monthly": 1, "quarterly": 3, "biannually": 6, "yearly": 12}
FREQUENCIES = (*WEEKS, *MONTHS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    frequency: str
    interval_count: int
    anchor: date
    day_of_month: int | None = None
    day_of_week: int | None = None

    def due(self, earliest: date) -> date | None:
        """The first due date on or after `earliest`; None where there is none before the year 10000."""
        if self.frequency in WEEKS:
            return self._by_weeks(earliest)
        return self._by_months(earliest)

    def _by_weeks(self, earliest: date) -> date | None:
        first, step = self.anchor.toordinal(), 7 * WEEKS[self.frequency] * self.interval_count
        if self.day_of_week is not None:
            first += (self.day_of_week - first) % 7  # an ordinal that 7 divides is a Sunday
        due = first + max(0, -(-(earliest.toordinal() - first) // step)) * step
        return date.fromordinal(due) if due <= date.max.toordinal() else None

    def _by_months(self, earliest: date) -> date | None:
        first, step = self._month(self.anchor), MONTHS[self.frequency] * self.interval_count
        if self.day_of_month is not None and self.day_of_month < self.anchor.day:
            first += 1
        periods = max(0, (self._month(earliest) - first) // step)
        for month in (first + periods * step, first + (periods + 1) * step):
            due = self._in_month(month)
            if due is None or due >= earliest:
                return due
        return None

    def _in_month(self, month: int) -> date | None:
        year, index = divmod(month, 12)
        if year > MAXYEAR:
            return None
        last = monthrange(year, index + 1)[1]
        return date(year, index + 1, min(self.day_of_month or self.anchor.day, last))

    @staticmethod
    def _month(day: date) -> int:
        return day.year * 12 + day.month - 1
