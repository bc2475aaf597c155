"""Taking over the schedules that a provider keeps itself, so that no due date is billed twice and none is left out.

One after the other: it is stored here, paused; paused there; read there once more, for what it did until then; and made
active here from its next run date there. If the process dies in between, nobody bills for it meanwhile, and taking over
again goes on where it ended: what came due in between is made up for. Paused there it stays, for whoever wants to look.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, Engine, select, update

from handlers.errors import ProviderError
from handlers.invoicing import Keeping, Kept
from workers import audit_log, database
from workers.models import AnyRow, Schedule
from workers.schedule import rhythm
from workers.schedule.errors import ScheduleError
from workers.schedule.plans import Plan
from workers.schedule.schedules import TAKING_OVER, Start, insert, read, row_of
from workers.settings import Settings

_ACTIVE = "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of one: taken (over), paused (and paused here too), known (before), or refused for a reason."""

    kept: Kept
    outcome: str
    schedule_id: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakingOver:
    """What taking over works with."""

    engine: Engine
    settings: Settings
    source: str
    keeping: Keeping
    actor: str
    clock: Callable[[], datetime]
    dry_run: bool = False


def take_over(work: TakingOver) -> Iterator[Taken]:
    """Take over each schedule that the provider keeps for this source; what became of each.

    Raises ProviderError and ProviderUnavailable, where the provider does not do as asked: then do it again.
    """
    for kept in work.keeping.schedules():
        try:
            yield _take(work, kept)
        except ScheduleError as error:
            yield Taken(kept=kept, outcome="refused", reason=str(error))


def _take(work: TakingOver, kept: Kept) -> Taken:
    row, new = _known(work, kept), False
    if row is None:
        planned = _row(work, kept)
        if work.dry_run:
            return Taken(kept=kept, outcome="taken" if kept.status == _ACTIVE else "paused")
        new = _store(work, kept, planned)
        row = _known(work, kept)
    if row is None or row.reason != TAKING_OVER:
        schedule_id = None if row is None else row.id
        return Taken(kept=kept, outcome="paused" if new else "known", schedule_id=schedule_id)
    if work.dry_run:
        return Taken(kept=kept, outcome="taken", schedule_id=row.id)
    if kept.status == _ACTIVE:
        work.keeping.pause(kept.id)
    # What it made until it was paused is not to be made again.
    kept = work.keeping.schedule(kept.id)
    if kept.status == _ACTIVE:
        raise ProviderError("NOT_PAUSED", f"the provider says that it paused {kept.id}, and then that it is active")
    _activate(work, row.id, kept)
    return Taken(kept=kept, outcome="taken", schedule_id=row.id)


def _known(work: TakingOver, kept: Kept) -> AnyRow | None:
    mine = (Schedule.source == work.source, Schedule.external_id == _external_id(work, kept))
    with database.read(work.engine) as connection:
        return connection.execute(select(*Schedule.__table__.columns).where(*mine)).one_or_none()


def _external_id(work: TakingOver, kept: Kept) -> str:
    return f"{work.settings.sources[work.source].provider}:{kept.id}"


def _row(work: TakingOver, kept: Kept) -> dict[str, Any]:
    """Its row, paused. Raises ScheduleError."""
    now = work.clock()
    plan = Plan(source=work.source, **kept.fields)
    start = Start(earliest=kept.next_run_date, status="paused", external_id=_external_id(work, kept))
    row = row_of(work.settings, plan, now, start) | _counted(plan, kept)
    return row | {"reason": TAKING_OVER if kept.status == _ACTIVE else None, "updated_at": now}


def _counted(plan: Plan, kept: Kept) -> dict[str, Any]:
    """Where its rhythm goes on: at its next run date there, with what was made there counted."""
    if kept.next_run_date is None:
        return {}
    return {
        "anchor_date": kept.next_run_date,
        "anchor_day": _meant(plan, kept.next_run_date),
        "prior": kept.occurrences_created,
        "next_index": 0,
        **_fitting(plan, kept.next_run_date),
    }


def _meant(plan: Plan, day: date) -> int | None:
    """The day of the month that is meant, where this month is too short for it."""
    short = monthrange(day.year, day.month)[1]
    return plan.start_date.day if plan.day_of_month is None and day.day == short < plan.start_date.day else None


def _fitting(plan: Plan, day: date) -> dict[str, None]:
    """The days to drop, where somebody there chose another next run date than they name."""
    of_week = day.toordinal() % 7  # 0 is Sunday
    strange = {
        "day_of_month": plan.day_of_month is not None and plan.day_of_month != day.day,
        "day_of_week": plan.day_of_week is not None and plan.day_of_week != of_week,
    }
    return {name: None for name, is_strange in strange.items() if is_strange}


def _store(work: TakingOver, kept: Kept, row: dict[str, Any]) -> bool:
    """False: somebody else takes it over at the same time."""
    with database.write(work.engine) as connection:
        stored = bool(insert(connection, work.settings, [row]))
        if stored:
            _note(connection, work, row["id"], kept)
    return stored


def _activate(work: TakingOver, schedule_id: str, kept: Kept) -> None:
    now = work.clock()
    with database.write(work.engine) as connection:
        row = read(connection, schedule_id, lock=True)
        if row.reason != TAKING_OVER:  # somebody else took it over at the same time
            return
        change: dict[str, Any] = _counted(Plan(source=work.source, **kept.fields), kept)
        over = kept.next_run_date is None or kept.status not in {_ACTIVE, "paused"}
        change |= {"status": "completed", "ended_at": now} if over else {"status": "active"}
        if kept.next_run_date is not None and not over:
            change["next_run_at"] = rhythm.start_of_day(kept.next_run_date, row.timezone)
        change |= {"reason": None, "updated_at": now}
        connection.execute(update(Schedule).where(Schedule.id == schedule_id).values(**change))
        _note(connection, work, schedule_id, kept)


def _note(connection: Connection, work: TakingOver, schedule_id: str, kept: Kept) -> None:
    following = None if kept.next_run_date is None else kept.next_run_date.isoformat()
    detail = {"schedule": schedule_id, "source": work.source, "kept": kept.id, "next_run_date": following}
    audit_log.note(connection, work.actor, "schedules.take_over", detail, work.clock())
