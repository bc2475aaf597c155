"""The end of a schedule that has no due date any more: told once, when the last of its occurrences has ended."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, func, select

from handlers.event import Event
from handlers.vocabulary import INTERNAL
from workers import ids, inbox
from workers.metrics import SCHEDULES
from workers.models import HELD, RUNNING, WAITING, EventRow, Occurrence, Schedule

OPEN = (WAITING, RUNNING, HELD)


def complete(connection: Connection, schedule_id: str, now: datetime) -> str | None:
    """Report `recurring.completed` if a completed schedule has nothing open any more; the event's id.

    The caller has locked the schedule: of two who end its last occurrences, the second sees the first's end.
    """
    columns = (Schedule.status, Schedule.source, Schedule.name, Schedule.customer_id)
    schedule = connection.execute(select(*columns).where(Schedule.id == schedule_id)).one()
    if schedule.status != "completed":
        return None
    counted = select(Occurrence.status, func.count()).where(Occurrence.schedule_id == schedule_id)
    counts = {status: count for status, count in connection.execute(counted.group_by(Occurrence.status))}  # noqa: C416
    if any(counts.get(status) for status in OPEN):
        return None
    delivery_id = f"{schedule_id}:completed"
    told = select(EventRow.id).where(EventRow.source == schedule.source, EventRow.delivery_id == delivery_id)
    if connection.execute(told).first() is not None:  # one that had failed was tried again
        return None
    event = Event(
        id=ids.new("evt"),
        type="recurring.completed",
        data={
            "schedule_id": schedule_id,
            "name": schedule.name,
            "customer_id": schedule.customer_id,
            **{status: counts.get(status, 0) for status in ("generated", "failed", "skipped")},
        },
        occurred_at=now,
        object_kind="schedule",
        object_id=schedule_id,
        source=schedule.source,
        provider=INTERNAL,
        received_at=now,
    )
    inbox.store(connection, [inbox.internal(event, delivery_id)])
    SCHEDULES.labels(schedule.source, "completed").inc()
    return event.id
