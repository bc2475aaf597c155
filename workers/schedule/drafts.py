"""The invoice that a schedule asks for at one of its due dates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Protocol

from handlers.invoicing import Draft
from workers.schedule.calendar import Frequency


class Terms(Protocol):
    """What of a schedule its invoices follow from; a stored row has it, and so has a `Plan`."""

    @property
    def customer_id(self) -> str: ...
    @property
    def frequency(self) -> str: ...
    @property
    def interval_count(self) -> int: ...
    @property
    def currency(self) -> str: ...
    @property
    def items(self) -> Sequence[Mapping[str, str]]: ...
    @property
    def auto_finalize(self) -> bool: ...
    @property
    def auto_send(self) -> bool: ...
    @property
    def days_until_due(self) -> int: ...
    @property
    def options(self) -> Mapping[str, Any]: ...


def draft_of(
    terms: Terms, issue_date: date, *, occurrence_id: str, retries: int, recurrences: int | None, now: datetime
) -> Draft:
    """The draft of one occurrence; `recurrences`: it and those that follow."""
    return Draft(
        customer_id=terms.customer_id,
        issue_date=issue_date,
        due_date=_plus(issue_date, terms.days_until_due),
        currency=terms.currency,
        items=terms.items,
        finalize=terms.auto_finalize,
        send=terms.auto_send,
        marker=f"billhook:{occurrence_id}",
        # Who asks again after a failure may have changed what is asked: that needs another key.
        key=f"billhook:{occurrence_id}:{retries}",
        begun_on=now.date(),
        options=terms.options,
        monthly=terms.frequency == Frequency.MONTHLY and terms.interval_count == 1,
        recurrences=recurrences,
    )


def _plus(day: date, days: int) -> date:
    return day + timedelta(days=min(days, (date.max - day).days))
