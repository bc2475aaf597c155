"""The dossier of an event: all there is about it, for somebody who wants to know what became of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, Text, and_, cast, func, select

from workers import database
from workers.models import AnyRow, Attempt, Delivery, EventRow, HandlerRun, Message, Step


@dataclass(frozen=True, slots=True)
class Dossier:
    """An event, its runs, and what came of them; oldest first."""

    event: AnyRow
    runs: Sequence[AnyRow]
    steps: Mapping[str, Sequence[AnyRow]]
    """By run: `name`, `size` in bytes, `created_at`."""
    messages: Sequence[AnyRow]
    deliveries: Mapping[str, Sequence[AnyRow]]
    """By message; with `last`, the status of the last answer or why none came, and `last_at`."""


def dossier(engine: Engine, event_id: str) -> Dossier | None:
    """All there is about an event, in one snapshot; None where there is no such event."""
    with database.read(engine, snapshot=True) as connection:
        event = connection.execute(select(*EventRow.__table__.columns).where(EventRow.id == event_id)).first()
        if event is None:
            return None
        mine = HandlerRun.event_id == event_id
        runs = connection.execute(select(*HandlerRun.__table__.columns).where(mine).order_by(HandlerRun.id)).all()
        steps = connection.execute(
            select(Step.run_id, Step.name, func.length(Step.value).label("size"), Step.created_at)
            .join(HandlerRun, HandlerRun.id == Step.run_id)
            .where(mine)
            .order_by(Step.created_at, Step.name)
        ).all()
        sent = Message.event_id == event_id
        messages = connection.execute(
            select(Message.id, Message.type, Message.created_at).where(sent).order_by(Message.created_at, Message.id)
        ).all()
        last = and_(Attempt.delivery_id == Delivery.id, Attempt.number == Delivery.attempts)
        outcome = func.coalesce(cast(Attempt.status, Text), Attempt.error).label("last")
        deliveries = connection.execute(
            select(
                Delivery.id,
                Delivery.message_id,
                Delivery.endpoint_id,
                Delivery.status,
                Delivery.attempts,
                Delivery.next_attempt_at,
                Attempt.started_at.label("last_at"),
                outcome,
            )
            .join(Message, Message.id == Delivery.message_id)
            .outerjoin(Attempt, last)
            .where(sent)
            .order_by(Delivery.id)
        ).all()
    return Dossier(event, runs, _by(steps, "run_id"), messages, _by(deliveries, "message_id"))


def _by(rows: Sequence[AnyRow], column: str) -> Mapping[str, Sequence[AnyRow]]:
    grouped = defaultdict(list)
    for row in rows:
        grouped[getattr(row, column)].append(row)
    return grouped
