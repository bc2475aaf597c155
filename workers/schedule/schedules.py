"""Schedules: what a recurring invoice is, adding one, and listing them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

from sqlalchemy import Engine, select

from handlers.errors import BillhookError
from workers import database, ids
from workers.models import AnyRow, Schedule
from workers.schedule.calendar import Frequency, Rule, on_or_after
from workers.settings import Settings

_CURRENCY = re.compile(r"[A-Z]{3}")
_DECIMAL = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,10})?")


class ScheduleError(BillhookError):
    """A schedule cannot be as asked; the message names the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The fields of a schedule as a person gives them, named as in the Hisab document.

    Items are `{description, quantity, unit_price, tax_rate?}` with numbers as decimal strings.
    """

    source: str
    customer_id: str
    frequency: str
    start_date: date
    items: Sequence[Mapping[str, str]]
    name: str = ""
    interval_count: int = 1
    day_of_month: int | None = None
    day_of_week: int | None = None
    end_date: date | None = None
    max_occurrences: int | None = None
    auto_finalize: bool = False
    auto_send: bool = False
    days_until_due: int = 30
    currency: str = "MAD"


def add(engine: Engine, settings: Settings, plan: Plan, *, now: datetime) -> str:
    """Store a schedule and return its id. Its first invoice is for the first due date from today on.

    A start date in the past only anchors the rhythm: no invoice is made for the days before the schedule was
    known here. Raises ScheduleError.
    """
    rule = _check(settings, plan)
    timezone = settings.sources[plan.source].timezone
    first = on_or_after(rule, max(plan.start_date, now.astimezone(ZoneInfo(timezone)).date()))
    if first is None:
        raise ScheduleError("end_date or max_occurrences leaves no due date from today on")
    row = {
        "id": ids.new("sch"),
        "source": plan.source,
        "name": plan.name,
        "customer_id": plan.customer_id,
        "frequency": rule.frequency.value,
        "interval_count": plan.interval_count,
        "day_of_month": plan.day_of_month,
        "day_of_week": plan.day_of_week,
        "start_date": plan.start_date,
        "end_date": plan.end_date,
        "max_occurrences": plan.max_occurrences,
        "timezone": timezone,
        "auto_finalize": plan.auto_finalize,
        "auto_send": plan.auto_send,
        "days_until_due": plan.days_until_due,
        "currency": plan.currency,
        "items": [dict(item) for item in plan.items],
        "status": "active",
        "next_index": first[0],
        "next_run_at": start_of_day(first[1], timezone),
        "created_at": now,
    }
    with database.write(engine) as connection:
        connection.execute(database.insert(connection, Schedule), [row])
    return str(row["id"])


def _check(settings: Settings, plan: Plan) -> Rule:
    source = settings.sources.get(plan.source)
    if source is None:
        raise ScheduleError(f"source: there is no source {plan.source!r} in the settings")
    if source.api_key is None:
        raise ScheduleError(f"source: {plan.source!r} has no api_key, which invoices are made with")
    if not plan.customer_id:
        raise ScheduleError("customer_id: must not be empty")
    if plan.auto_send and not plan.auto_finalize:
        raise ScheduleError("auto_send: needs auto_finalize, because only a finalized invoice can be sent")
    if not 0 <= plan.days_until_due <= 365:
        raise ScheduleError("days_until_due: must be from 0 to 365")
    if _CURRENCY.fullmatch(plan.currency) is None:
        raise ScheduleError("currency: must be three capital letters, such as MAD")
    if not plan.items:
        raise ScheduleError("items: an invoice needs at least one")
    for item in plan.items:
        _check_item(item)
    try:
        return Rule(
            frequency=Frequency(plan.frequency),
            start_date=plan.start_date,
            interval_count=plan.interval_count,
            day_of_month=plan.day_of_month,
            day_of_week=plan.day_of_week,
            end_date=plan.end_date,
            max_occurrences=plan.max_occurrences,
        )
    except ValueError as error:
        raise ScheduleError(str(error)) from None


def _check_item(item: Mapping[str, str]) -> None:
    unknown = set(item) - {"description", "quantity", "unit_price", "tax_rate"}
    if unknown:
        raise ScheduleError(f"items: {sorted(unknown)[0]!r} is no field of an item")
    if not item.get("description"):
        raise ScheduleError("items: description must not be empty")
    for name in ("quantity", "unit_price", *(["tax_rate"] if "tax_rate" in item else [])):
        if not isinstance(item.get(name), str) or _DECIMAL.fullmatch(item[name]) is None:
            raise ScheduleError(f"items: {name} must be a decimal number, such as 1300.00")


def rule_of(row: AnyRow) -> Rule:
    """The calendar rule of a stored schedule."""
    return Rule(
        frequency=Frequency(row.frequency),
        start_date=row.start_date,
        interval_count=row.interval_count,
        day_of_month=row.day_of_month,
        day_of_week=row.day_of_week,
        end_date=row.end_date,
        max_occurrences=row.max_occurrences,
    )


def start_of_day(day: date, timezone: str) -> datetime:
    """The moment, in UTC, at which that day begins there; after the gap where midnight is skipped."""
    return datetime.combine(day, time(), ZoneInfo(timezone)).astimezone(UTC)


def everyone(engine: Engine) -> Sequence[AnyRow]:
    """All schedules, oldest first."""
    with database.read(engine) as connection:
        return connection.execute(select(*Schedule.__table__.columns).order_by(Schedule.id)).all()
