"""Deliveries as people look at them: the newest, and all about one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, Text, cast, func, select

from workers import database
from workers.models import RUNNING, WAITING, AnyRow, Attempt, Delivery, Endpoint, Message

STATUSES = (WAITING, RUNNING, "succeeded", "exhausted", "refused", "cancelled")


@dataclass(frozen=True, slots=True)
class Shown:
    """A delivery with its message and its endpoint, and its attempts, oldest first."""

    delivery: AnyRow
    """The columns of the delivery, and `type`, `event_id`, `endpoint_status`, `held_until`."""
    attempts: Sequence[AnyRow]


def latest(
    engine: Engine,
    *,
    limit: int,
    endpoint_id: str | None = None,
    message_id: str | None = None,
    statuses: Sequence[str] = (),
    since: datetime | None = None,
) -> Sequence[AnyRow]:
    """The newest deliveries that fit all of what is given, newest first.

    With `type` of the message, and `last`: the status of the last answer, or why none came.
    """
    meant = []
    if endpoint_id is not None:
        meant.append(Delivery.endpoint_id == endpoint_id)
    if message_id is not None:
        meant.append(Delivery.message_id == message_id)
    if statuses:
        meant.append(Delivery.status.in_(statuses))
    if since is not None:
        meant.append(Delivery.created_at >= since)
    outcome = func.coalesce(cast(Attempt.status, Text), Attempt.error)
    last = select(outcome).where(Attempt.delivery_id == Delivery.id, Attempt.number == Delivery.attempts)
    columns = (Delivery.id, Delivery.created_at, Message.type, Delivery.message_id, Delivery.endpoint_id)
    rest = (Delivery.status, Delivery.attempts, last.scalar_subquery().label("last"), Delivery.next_attempt_at)
    found = select(*columns, *rest).join(Message, Message.id == Delivery.message_id).where(*meant)
    with database.read(engine) as connection:
        return connection.execute(found.order_by(Delivery.id.desc()).limit(limit)).all()


def shown(engine: Engine, delivery_id: str) -> Shown | None:
    """All about a delivery; None where there is none with that id."""
    others = (Message.type, Message.event_id, Endpoint.status.label("endpoint_status"), Endpoint.held_until)
    found = (
        select(*Delivery.__table__.columns, *others)
        .join(Message, Message.id == Delivery.message_id)
        .join(Endpoint, Endpoint.id == Delivery.endpoint_id)
        .where(Delivery.id == delivery_id)
    )
    made = select(*Attempt.__table__.columns).where(Attempt.delivery_id == delivery_id).order_by(Attempt.number)
    with database.read(engine) as connection:
        row = connection.execute(found).first()
        return None if row is None else Shown(row, connection.execute(made).all())
