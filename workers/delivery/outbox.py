"""Messages as people look at them, page by page and one by one; and those that somebody publishes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, func, select

from handlers.errors import BillhookError
from handlers.event import valid_type
from workers import audit_log, database, ids
from workers.delivery import messages
from workers.delivery.messages import OWN, Outgoing
from workers.listing import Page, page
from workers.models import AnyRow, Delivery, Message

SHOWN = 100
"""Deliveries that are shown with a message."""
_COLUMNS = (
    Message.id, Message.type, Message.event_id, Message.source, Message.forwarded, Message.content_type,
    func.length(Message.body).label("size"), Message.created_at,
)  # fmt: skip


class MessageError(BillhookError):
    """A message cannot be published as asked."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A message with its body, and its newest deliveries."""

    message: AnyRow
    deliveries: Sequence[AnyRow]


@dataclass(frozen=True, slots=True)
class Published:
    """A message that was published, and deliveries of it that are to be rung for."""

    id: str
    rung: Sequence[str]


def newest(
    engine: Engine,
    *,
    type: str | None = None,  # noqa: A002 - the column's word
    event_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: str | None = None,
    limit: int,
) -> Page:
    """A page of the messages that fit all of what is given, newest first, with the `size` of their bodies."""
    rows = select(*_COLUMNS)
    if type is not None:
        rows = rows.where(Message.type == type)
    if event_id is not None:
        rows = rows.where(Message.event_id == event_id)
    if since is not None:
        rows = rows.where(Message.created_at >= since)
    if until is not None:
        # What came of an event has the event's time in its id, so nothing is known of where its `since` lies.
        rows = rows.where(Message.created_at < until, Message.id < ids.until("msg", until))
    with database.read(engine) as connection:
        return page(connection, rows, Message.id, after=after, limit=limit)


def shown(engine: Engine, message_id: str) -> Shown | None:
    """All about a message; None where there is none with that id."""
    sent = (Delivery.id, Delivery.endpoint_id, Delivery.status, Delivery.attempts)
    its = select(*sent).where(Delivery.message_id == message_id).order_by(Delivery.id.desc()).limit(SHOWN)
    with database.read(engine) as connection:
        row = connection.execute(select(*_COLUMNS, Message.body).where(Message.id == message_id)).first()
        return None if row is None else Shown(row, connection.execute(its).all())


def publish(engine: Engine, type: str, data: bytes, *, actor: str, now: datetime) -> Published:  # noqa: A002
    """Publish a message, of no event and no source, to every endpoint that wants its type; `data` is JSON.

    Raises MessageError where the type is none that a handler could emit.
    """
    if not valid_type(type) or type.startswith(OWN):
        raise MessageError(f"{type[:128]!r} is no type for a message: dotted lower-case words, not of {OWN}")
    message = Outgoing(ids.new("msg"), None, type, data)
    with database.write(engine) as connection:
        rung = messages.publish(connection, [message], now=now)
        audit_log.note(connection, actor, "message.publish", {"message": message.id, "type": type}, now)
    return Published(message.id, rung)
