"""Recovering: deliveries that have ended, or never were made, are sent because somebody asks for it.

What is asked for anew is due at once, its schedule begins anew, and it stands in the line of what failed before: the
endpoint's limits set the pace, and first attempts go first. A message keeps its `webhook-id` however often it is sent.

A delivery is changed, under its lock, only while it is still as it was meant, and batches commit each with what the
audit log says of them: of two calls at once the second finds nothing, and so does one after a call that ended well;
after a process that died it finds the rest. Nothing is begun for an endpoint that is disabled, which would only cancel
it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, Select, func, select, update
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.elements import ColumnElement

from workers import audit_log, database
from workers.delivery.deliveries import FAILED, among
from workers.delivery.errors import HasSucceeded, NoDelivery, NoEndpoint, WrongState
from workers.delivery.messages import OWN, WANTS, Outgoing, new_delivery, wants
from workers.errands import Amount, Done, Errand, carry_out, insistently, nobody, pages, part
from workers.metrics import REDELIVERED
from workers.models import RUNNING, WAITING, AnyRow, Delivery, Endpoint, EventRow, Message


@dataclass(frozen=True, slots=True)
class Deliveries(Amount):
    """How many deliveries are due because of what was asked."""

    deliveries: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """What was done to a part of what is meant."""

    deliveries: int
    """How many are due because of it, or would be."""
    after: str | None
    """The id behind which the next part begins; None where nothing is left."""


@dataclass(frozen=True, slots=True)
class Span:
    """From when, and until before when."""

    since: datetime
    until: datetime | None = None

    def has(self, moment: InstrumentedAttribute[Any]) -> list[ColumnElement[bool]]:
        """The conditions for a column to lie in it."""
        return [moment >= self.since] + ([] if self.until is None else [moment < self.until])

    def described(self) -> dict[str, str]:
        """As JSON, for the audit log."""
        return {name: value.isoformat() for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of deliveries that somebody named."""

    due: Sequence[str]
    """Those that are due now, to be rung."""
    under_way: Sequence[str]
    """Those that some process is sending just then; they were left alone."""


# --- some, by their ids ---------------------------------------------------------------------------


def retry(
    engine: Engine, delivery_ids: Sequence[str], *, actor: str, now: datetime, succeeded: bool = False
) -> Retried:
    """Have these deliveries be due now, all or none of them; one that waits keeps its place in its schedule.

    One that succeeded sends its message once more, and only with `succeeded`. Raises DeliveryError, EndpointError.
    """
    wanted = sorted(set(delivery_ids))

    def change(connection: Connection) -> tuple[Retried, int]:
        rows = _locked(connection, wanted)
        _check(connection, wanted, rows, succeeded)
        ended = [row.id for row in rows if row.status not in (WAITING, RUNNING)]
        later = [row.id for row in rows if row.status == WAITING and max(row.next_attempt_at, row.ring_at) > now]
        _send_again(connection, ended, now)
        if later:
            soon = update(Delivery).where(Delivery.id.in_(later))
            connection.execute(soon.values(next_attempt_at=now, ring_at=now))
        if ended or later:
            audit_log.note(connection, actor, "delivery.retry", {"deliveries": sorted([*ended, *later])}, now)
        under_way = [row.id for row in rows if row.status == RUNNING]
        return Retried([row.id for row in rows if row.status != RUNNING], under_way), len(ended) + len(later)

    retried, changed = insistently(engine, change)
    REDELIVERED.labels("retried").inc(changed)
    return retried


def _check(connection: Connection, wanted: Sequence[str], rows: Sequence[AnyRow], succeeded: bool) -> None:
    if unknown := sorted(set(wanted) - {row.id for row in rows}):
        raise NoDelivery(f"there is no delivery {', '.join(unknown)}")
    done = [row.id for row in rows if row.status == "succeeded"]
    if done and not succeeded:
        raise HasSucceeded(done)
    for endpoint_id in sorted({row.endpoint_id for row in rows}):
        _enabled(connection, endpoint_id)


# --- all that failed at an endpoint ---------------------------------------------------------------


def failed(engine: Engine, endpoint_id: str, span: Span, after: str | None = None) -> int:
    """How many deliveries, of those behind the id `after`, `recover` would send again; changes nothing.

    Raises EndpointError.
    """
    meant = [*_failed(endpoint_id, span), Delivery.id > (after or "")]
    with database.read(engine) as connection:
        _enabled(connection, endpoint_id)
        return connection.execute(select(func.count(Delivery.id)).where(*meant)).scalar_one()


def recover(
    engine: Engine, endpoint_id: str, span: Span, *, actor: str, now: datetime, done: Done[Deliveries] = nobody
) -> int:
    """Send all that ended without a success at an endpoint in this span again; how many. Raises EndpointError."""
    batches = pages(engine, _failed(endpoint_id, span), Delivery.id)
    return _recover(engine, endpoint_id, span, batches, actor=actor, now=now, done=done)


def recover_part(
    engine: Engine, endpoint_id: str, span: Span, *, actor: str, now: datetime, after: str | None, most: int
) -> Part:
    """As `recover`, of the `most` oldest of them behind the id `after`."""
    batches, last = part(engine, _failed(endpoint_id, span), Delivery.id, after=after, most=most)
    return Part(_recover(engine, endpoint_id, span, batches, actor=actor, now=now, done=nobody), last)


def _recover(
    engine: Engine,
    endpoint_id: str,
    span: Span,
    batches: Iterable[Sequence[str]],
    *,
    actor: str,
    now: datetime,
    done: Done[Deliveries],
) -> int:
    asked = {"endpoint": endpoint_id, **span.described()}
    errand = Errand(actor=actor, action="endpoint.recover", asked=asked, now=now)
    meant = _failed(endpoint_id, span)
    with database.read(engine) as connection:
        _enabled(connection, endpoint_id)

    def change(connection: Connection, delivery_ids: Sequence[str], _before: Deliveries) -> Deliveries:
        _enabled(connection, endpoint_id)
        rows = _locked(connection, delivery_ids, *meant)
        _send_again(connection, [row.id for row in rows], now)
        return Deliveries(len(rows))

    return carry_out(engine, errand, batches, change, _counted("recovered", done), Deliveries()).deliveries


def _failed(endpoint_id: str, span: Span) -> list[ColumnElement[bool]]:
    return [Delivery.endpoint_id == endpoint_id, among(FAILED), *span.has(Delivery.ended_at)]


# --- all that an endpoint never got ---------------------------------------------------------------


def missing(engine: Engine, endpoint_id: str, span: Span, *, forwarded: bool = False) -> int:
    """How many deliveries `fill` would make; changes nothing. Raises EndpointError."""
    return _missing(engine, endpoint_id, forwarded, pages(engine, _meant(span, forwarded), Message.id))


def missing_part(
    engine: Engine, endpoint_id: str, span: Span, *, forwarded: bool, after: str | None, most: int
) -> Part:
    """As `missing`, of the `most` oldest messages behind the id `after`."""
    batches, last = part(engine, _meant(span, forwarded), Message.id, after=after, most=most)
    return Part(_missing(engine, endpoint_id, forwarded, batches), last)


def _missing(engine: Engine, endpoint_id: str, forwarded: bool, batches: Iterable[Sequence[str]]) -> int:
    with database.read(engine) as connection:
        _wanting(connection, endpoint_id, forwarded)
    total = 0
    for message_ids in batches:
        with database.read(engine) as connection:
            wanted = _wanted(connection, _enabled(connection, endpoint_id), message_ids)
            total += len(wanted) - _had(connection, endpoint_id, wanted)
    return total


def fill(
    engine: Engine,
    endpoint_id: str,
    span: Span,
    *,
    actor: str,
    now: datetime,
    forwarded: bool = False,
    done: Done[Deliveries] = nobody,
) -> int:
    """Send an endpoint what it wants of the messages of this span and has no delivery of; how many.

    Such as what was published before it was added, or while it was disabled; forwarded ones only where that is asked.
    Billhook's own messages (`billhook.*`) are not among them: they tell of a moment that has passed. Raises
    EndpointError.
    """
    batches = pages(engine, _meant(span, forwarded), Message.id)
    return _fill_all(engine, endpoint_id, span, batches, actor=actor, now=now, forwarded=forwarded, done=done)


def fill_part(
    engine: Engine,
    endpoint_id: str,
    span: Span,
    *,
    actor: str,
    now: datetime,
    forwarded: bool,
    after: str | None,
    most: int,
) -> Part:
    """As `fill`, of the `most` oldest messages behind the id `after`."""
    batches, last = part(engine, _meant(span, forwarded), Message.id, after=after, most=most)
    filled = _fill_all(engine, endpoint_id, span, batches, actor=actor, now=now, forwarded=forwarded, done=nobody)
    return Part(filled, last)


def _fill_all(
    engine: Engine,
    endpoint_id: str,
    span: Span,
    batches: Iterable[Sequence[str]],
    *,
    actor: str,
    now: datetime,
    forwarded: bool,
    done: Done[Deliveries],
) -> int:
    asked = {"endpoint": endpoint_id, "forwarded": forwarded, **span.described()}
    errand = Errand(actor=actor, action="endpoint.missing", asked=asked, now=now)
    with database.read(engine) as connection:
        _wanting(connection, endpoint_id, forwarded)
    change = partial(_fill, endpoint_id, now)
    return carry_out(engine, errand, batches, change, _counted("missing", done), Deliveries()).deliveries


def _fill(
    endpoint_id: str, now: datetime, connection: Connection, message_ids: Sequence[str], _before: Deliveries
) -> Deliveries:
    endpoint = _enabled(connection, endpoint_id)
    there = _kept(connection, message_ids)
    # Those that have one already are passed over as they are written: by the unique index, whoever made them.
    wanted = _wanted(connection, endpoint, there)
    rows = [new_delivery(message_id, endpoint_id, now, again=True) for message_id in wanted]
    return Deliveries(len(database.insert_new(connection, Delivery, rows)) if rows else 0)


def _meant(span: Span, forwarded: bool) -> list[ColumnElement[bool]]:
    theirs = func.substr(Message.type, 1, len(OWN)) != OWN
    return [*span.has(Message.created_at), theirs, *([] if forwarded else [~Message.forwarded])]


def _wanting(connection: Connection, endpoint_id: str, forwarded: bool) -> None:
    endpoint = _enabled(connection, endpoint_id)
    if forwarded and not endpoint.forward:
        raise WrongState(f"the endpoint {endpoint_id} gets nothing forwarded: change it to forward first")


def _wanted(connection: Connection, endpoint: AnyRow, message_ids: Sequence[str]) -> list[str]:
    """Those of the messages that are for an endpoint."""
    parts = select(Message.id, Message.event_id, Message.type, Message.source, Message.forwarded)
    rows = connection.execute(parts.where(Message.id.in_(message_ids)).order_by(Message.id))
    return [row.id for row in rows if wants(endpoint, _outgoing(row))]


def _had(connection: Connection, endpoint_id: str, message_ids: Sequence[str]) -> int:
    """How many of the messages an endpoint has a delivery of."""
    # An expression keeps the database to the index that begins with the message. What it knows of an endpoint that was
    # just added is old, and would have it read all of that endpoint's deliveries for each message.
    mine = (Delivery.message_id.in_(message_ids), Delivery.endpoint_id + "" == endpoint_id)
    return connection.execute(select(func.count()).select_from(Delivery).where(*mine)).scalar_one()


def _outgoing(row: AnyRow) -> Outgoing:
    # Without the time of receipt, which would leave out what came before the endpoint was added.
    return Outgoing(row.id, row.event_id, row.type, b"", source=row.source, forwarded=row.forwarded)


# --- of all of them -------------------------------------------------------------------------------


def _counted(kind: str, done: Done[Deliveries]) -> Done[Deliveries]:
    def told(amount: Deliveries) -> None:
        REDELIVERED.labels(kind).inc(amount.deliveries)
        done(amount)

    return told


def _enabled(connection: Connection, endpoint_id: str) -> AnyRow:
    """The endpoint, with `WANTS`. Raises NoEndpoint, and WrongState where it is disabled."""
    row = connection.execute(select(*WANTS, Endpoint.status).where(Endpoint.id == endpoint_id)).first()
    if row is None:
        raise NoEndpoint(f"there is no endpoint {endpoint_id}")
    if row.status != "enabled":
        raise WrongState(f"the endpoint {endpoint_id} is disabled and would get nothing: enable it first")
    return row


def _locked(connection: Connection, delivery_ids: Sequence[str], *meant: ColumnElement[bool]) -> Sequence[AnyRow]:
    """Those of the deliveries that are as meant, and stay so until this transaction ends."""
    mine = Delivery.id.in_(delivery_ids)
    _kept(connection, connection.execute(select(Delivery.message_id).where(mine)).scalars().all())
    # In one order, so that whoever locks several waits in line rather than in a circle.
    lock = select(*Delivery.__table__.columns).where(mine, *meant).order_by(Delivery.id).with_for_update()
    return connection.execute(lock).all()


def _kept(connection: Connection, message_ids: Sequence[str]) -> Sequence[str]:
    """Those of the messages that are there, and that retention leaves alone until this transaction ends."""
    mine = Message.id.in_(message_ids)
    event_ids = connection.execute(select(Message.event_id).where(mine, Message.event_id.is_not(None))).scalars().all()
    _hold(connection, select(EventRow.id).where(EventRow.id.in_(event_ids)).order_by(EventRow.id))
    return _hold(connection, select(Message.id).where(mine).order_by(Message.id))


def _hold(connection: Connection, rows: Select[Any]) -> Sequence[str]:
    # The weakest lock: it keeps nobody but who would delete them.
    return connection.execute(rows.with_for_update(read=True, key_share=True)).scalars().all()


def _send_again(connection: Connection, delivery_ids: Sequence[str], now: datetime) -> None:
    """Have deliveries that ended wait, due now, with all of their schedule before them."""
    if not delivery_ids:
        return
    anew: Mapping[str, Any] = {
        "status": WAITING,
        "again": True,
        "prior": Delivery.attempts,
        "next_attempt_at": now,
        "ring_at": now,
        "ended_at": None,
    }
    connection.execute(update(Delivery).where(Delivery.id.in_(delivery_ids)).values(**anew))
