"""Deliveries as people look at them: page by page, newest first, and all about one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, Select, Text, bindparam, cast, func, select, union_all
from sqlalchemy.sql.elements import ColumnElement

from workers import database, ids
from workers.listing import Page, page
from workers.models import RUNNING, WAITING, AnyRow, Attempt, Delivery, Endpoint, Message

OPEN = (WAITING, RUNNING)
FAILED = ("exhausted", "refused", "cancelled")
"""The statuses of a delivery that ended without a success."""
ENDED = ("succeeded", *FAILED)
STATUSES = (*OPEN, *ENDED)
SHOWN = 100
"""Attempts that are shown with a delivery."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A delivery with its message and its endpoint, and its last `SHOWN` attempts, oldest first."""

    delivery: AnyRow
    """Its columns; `type`, `event_id`, `content_type`, `body` of its message; `url`, `endpoint_status`,
    `held_until`."""
    attempts: Sequence[AnyRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The deliveries that fit all of what is given."""

    endpoint_id: str | None = None
    message_id: str | None = None
    statuses: Sequence[str] = ()
    since: datetime | None = None
    """Made then or later."""
    until: datetime | None = None
    """Made earlier."""


def newest(engine: Engine, wanted: Wanted, *, after: str | None = None, limit: int) -> Page:
    """A page of the deliveries that are wanted, newest first, behind the id `after`.

    With `type` of the message, and `last`: the status of the last answer, or why none came.
    """
    outcome = func.coalesce(cast(Attempt.status, Text), Attempt.error)
    last = select(outcome).where(Attempt.delivery_id == Delivery.id, Attempt.number == Delivery.attempts)
    columns = (Delivery.id, Delivery.created_at, Message.type, Delivery.message_id, Delivery.endpoint_id)
    rest = (Delivery.status, Delivery.attempts, last.scalar_subquery().label("last"), Delivery.next_attempt_at)
    rows = select(*columns, *rest, Delivery.ended_at).join(Message, Message.id == Delivery.message_id)
    with database.read(engine) as connection:
        return page(connection, rows.where(*_meant(wanted, after, limit)), Delivery.id, after=after, limit=limit)


def newest_ids(wanted: Wanted, *, after: str | None = None, limit: int) -> Select[str]:
    """The ids of the newest of these: of each status so many as are asked for, out of the index that has it.

    No index has all of one endpoint's deliveries in their order: it would be written at each change of what waits.
    """
    parts = [
        _behind(after, *_given(wanted), *_of(status)).order_by(Delivery.id.desc()).limit(limit).subquery()
        for status in wanted.statuses or STATUSES
    ]
    found = union_all(*(select(part.c.id) for part in parts)).subquery()
    return select(found.c.id).order_by(found.c.id.desc()).limit(limit)


def _meant(wanted: Wanted, after: str | None, limit: int) -> list[ColumnElement[bool]]:
    if wanted.message_id is None and (wanted.endpoint_id is not None or wanted.statuses):
        return [Delivery.id.in_(newest_ids(wanted, after=after, limit=limit + 1))]
    status = [Delivery.status.in_(wanted.statuses)] if wanted.statuses else []
    return [*_given(wanted), *status]


def _given(wanted: Wanted) -> list[ColumnElement[bool]]:
    """What has to be so but for the status."""
    meant: list[ColumnElement[bool]] = []
    if wanted.endpoint_id is not None:
        meant.append(Delivery.endpoint_id == wanted.endpoint_id)
    if wanted.message_id is not None:
        meant.append(Delivery.message_id == wanted.message_id)
    if wanted.since is not None:
        meant += [Delivery.created_at >= wanted.since, Delivery.id >= ids.since("dlv", wanted.since)]
    if wanted.until is not None:
        meant += [Delivery.created_at < wanted.until, Delivery.id < ids.until("dlv", wanted.until)]
    return meant


def _of(status: str) -> list[ColumnElement[bool]]:
    """A status, and the partial index that has it, in its words."""
    meant = [Delivery.status == bindparam("status", status, literal_execute=True, unique=True)]
    if status in OPEN:
        return [*meant, among(OPEN)]
    return [*meant, among(ENDED)] + ([among(FAILED)] if status in FAILED else [])


def among(statuses: Sequence[str]) -> ColumnElement[bool]:
    """Whether a delivery has one of these, which stand in the statement: so partial indexes are found."""
    return Delivery.status.in_(bindparam("among", statuses, expanding=True, literal_execute=True, unique=True))


def _behind(after: str | None, *meant: ColumnElement[bool]) -> Select[str]:
    return select(Delivery.id).where(*meant, *([] if after is None else [Delivery.id < after]))


def shown(engine: Engine, delivery_id: str) -> Shown | None:
    """All about a delivery; None where there is none with that id."""
    sent = (Message.type, Message.event_id, Message.content_type, Message.body)
    where = (Endpoint.url, Endpoint.status.label("endpoint_status"), Endpoint.held_until)
    found = (
        select(*Delivery.__table__.columns, *sent, *where)
        .join(Message, Message.id == Delivery.message_id)
        .join(Endpoint, Endpoint.id == Delivery.endpoint_id)
        .where(Delivery.id == delivery_id)
    )
    made = select(*Attempt.__table__.columns).where(Attempt.delivery_id == delivery_id)
    last = made.order_by(Attempt.number.desc()).limit(SHOWN)
    with database.read(engine) as connection:
        row = connection.execute(found).first()
        return None if row is None else Shown(row, connection.execute(last).all()[::-1])
