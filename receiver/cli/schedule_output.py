"""How schedules, their due dates and their errors are shown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

from receiver.cli.output import CommandError, WrongUse, show

if TYPE_CHECKING:
    from workers.models import AnyRow
    from workers.schedule.plans import Plan
    from workers.settings import Settings

LISTED = ("id", "name", "source", "customer_id", "frequency", "status", "next_run_date")
_HISTORY = (
    "scheduled_date", "status", "invoice_number", "invoice_total", "invoice_id", "attempts", "next_attempt_at",
    "error_message",
)  # fmt: skip
SHOWN_FIRST = 12
"""Due dates to come that are shown unless somebody says how many."""


def public(row: AnyRow) -> dict[str, Any]:
    """A schedule without what only the engine has use for, and with its next due date as people know it."""
    from workers.schedule.schedules import next_run_date

    hidden = {"anchor_date", "anchor_day", "prior", "next_index", "agreement_token"}
    shown = {name: value for name, value in row._asdict().items() if name not in hidden}
    return shown | {"next_run_date": next_run_date(row)}


def say(shown: dict[str, Any], *, as_json: bool) -> None:
    """Print a schedule in one line."""
    show([shown], LISTED, as_json=as_json, empty="")


def say_all(shown: dict[str, Any], entries: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print all of a schedule, and entries of its history."""
    if as_json:
        show([shown | {"history": [_plain(entry) for entry in entries]}], (), as_json=True, empty="")
        return
    known = [{"field": name, "value": _told(value)} for name, value in shown.items() if value is not None]
    show(known, ("field", "value"), as_json=False, empty="")
    print()
    say_history(entries, as_json=False)


def say_history(entries: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print what became of due dates."""
    show(entries, _HISTORY, as_json=as_json, empty="nothing was due yet")


def say_coming(coming: Sequence[dict[str, Any]], *, as_json: bool, empty: str = "") -> None:
    """Print due dates to come."""
    show(coming, ("due_on", "pay_by", "total", "currency"), as_json=as_json, empty=empty)


def coming_of(configured: Settings, plan: Plan) -> list[dict[str, Any]]:
    """What a schedule that is not added would do. Raises ScheduleError."""
    from workers.leases import utcnow
    from workers.schedule import schedules

    return [asdict(one) for one in schedules.coming_of(configured, plan, SHOWN_FIRST, utcnow())]


def dates_of(configured: Settings, row: Any, count: int, issued: date | None = None) -> list[dict[str, Any]]:
    """The next due dates of a schedule. Raises ScheduleError."""
    from workers.leases import utcnow
    from workers.schedule import schedules

    return [asdict(one) for one in schedules.preview(configured, row, count, utcnow(), issued=issued)]


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in values.items()}


def _told(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


@contextmanager
def explained() -> Iterator[None]:
    """What a schedule cannot be is a wrong use of the command; what it cannot do now, a failure."""
    from workers.schedule.errors import VALIDATION_ERROR, ScheduleError

    try:
        yield
    except ScheduleError as error:
        if error.code == VALIDATION_ERROR:
            raise WrongUse(str(error)) from None
        raise CommandError(f"{error.code}: {error}") from None
