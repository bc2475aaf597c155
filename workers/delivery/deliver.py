"""Delivering, phase by phase: prepare → sign → send → classify → record.

If the process dies before `record` commits, the lease runs out and the attempt is made again under the same
`webhook-id`: a subscriber may see a message twice, never not at all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography.fernet import MultiFernet
from sqlalchemy import Connection, Engine, bindparam, select, update

from handlers.vocabulary import INTERNAL
from workers import database, ids, leases, retry, tracing
from workers.database import Held
from workers.delivery import headers, health, keys, notices
from workers.delivery.gate import Gate
from workers.delivery.messages import OWN
from workers.delivery.notices import Notice, Told
from workers.delivery.sender import Answer, Request, Sender
from workers.delivery.targets import Defaults, Target, health_of
from workers.leases import Clock, utcnow
from workers.logs import log
from workers.metrics import ATTEMPTS, DELIVERED_SECONDS, ENDPOINTS
from workers.models import WAITING, AnyRow, Attempt, Delivery, Endpoint, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Courier:
    """What delivering needs in one process."""

    engine: Engine
    vault: MultiFernet
    sender: Sender
    gate: Gate
    lease: timedelta
    """Longer than an exchange can take."""
    defaults: Defaults = field(default_factory=Defaults)
    traceparent: bool = False
    """Whether its requests bear that header."""
    in_flight: int = 400
    """Deliveries that are under way at once."""
    clock: Clock = utcnow
    chance: Callable[[], float] = field(default=random.random)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A leased delivery with what it sends and where to."""

    row: AnyRow
    """Of the table of deliveries."""
    target: Target
    message: AnyRow = field(repr=False)
    """Its type, source, content type, body and traceparent."""
    span: tracing.Span = field(default=tracing.OFF, repr=False, compare=False)
    """Of this attempt."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer means for its delivery: a final status, or the wait before the next attempt."""

    status: str
    wait: timedelta | None = None


def prepare(
    courier: Courier, connection: Connection, delivery_ids: Sequence[str], targets: dict[str, Target]
) -> list[Prepared]:
    """Lease those of these deliveries that are still due and free, and read what they send."""
    rows = leases.claim(connection, Delivery, delivery_ids, now=courier.clock(), lease=courier.lease)
    if not rows:
        return []
    wanted = {"ids": sorted({row.message_id for row in rows})}
    messages = {row.id: row for row in connection.execute(_sent(connection.dialect.name), wanted)}
    return [_prepared(row, targets[row.endpoint_id], messages[row.message_id]) for row in rows]


def _prepared(row: AnyRow, target: Target, message: AnyRow) -> Prepared:
    about = {
        "http.request.method": "POST",
        "billhook.delivery.id": row.id,
        "billhook.message.id": message.id,
        "billhook.message.type": message.type,
        "billhook.endpoint.id": target.id,
        "billhook.attempt": row.attempts + 1,
    }
    return Prepared(row, target, message, tracing.continued("deliver", "client", message.traceparent, about))


@cache
def _sent(dialect: str) -> Any:
    """What of messages is sent. Written once, because it takes longer to write than to run."""
    parts = (Message.id, Message.type, Message.source, Message.content_type, Message.body, Message.traceparent)
    return select(*parts).where(database.among(dialect, Message.id, bindparam("ids")))


def request(one: Prepared, timestamp: int, *, traceparent: bool = False) -> Request:
    """The signed request; id stable, timestamp (Unix seconds) fresh (Standard Webhooks, "Webhook Headers").

    With `traceparent` it bears that header, where the attempt is traced and the endpoint has no such header of its own.
    """
    target, message = one.target, one.message
    signed = keys.signed(target.keys, message.id, timestamp, message.body)
    trace = one.span.traceparent if traceparent else None
    own = any(name.lower() == tracing.HEADER for name, _ in target.headers)
    traces = () if trace is None or own else ((tracing.HEADER, trace),)
    return Request(
        url=target.url,
        headers=(("content-type", message.content_type), *target.headers, *signed.items(), *traces),
        body=message.body,
        ca=target.ca,
        certificate=target.certificate,
    )


def classify(answer: Answer, attempt: int, *, schedule: Sequence[timedelta], chance: float) -> Verdict:
    """What an answer to attempt `attempt` (from 1) means: 2xx succeeded; 410 and our own rules end it; else again."""
    if answer.ok:
        return Verdict("succeeded")
    if answer.status == 410:
        return Verdict("exhausted")
    if answer.refused:
        return Verdict("refused")
    wait = retry.next_delivery(attempt, chance=chance, retry_after=answer.retry_after, schedule=schedule)
    return Verdict("exhausted") if wait is None else Verdict(WAITING, wait)


def note(one: Prepared, answer: Answer) -> None:
    """End the span of an attempt. Neither the URL nor what the endpoint said is on it."""
    one.span.note({"http.response.status_code": answer.status})
    if not answer.ok:
        one.span.fail(answer.error or str(answer.status))
    one.span.end()


_OURS = {"interrupted": timedelta(0), "proxy": timedelta(seconds=30)}
"""What is no fault of the endpoint and no attempt at it, and the wait before it is tried again."""

Ended = tuple[Prepared, Answer]


def record(courier: Courier, held: Held, ended: Sequence[Ended]) -> Told:
    """Write these attempts down, and what they mean for their deliveries and endpoints; what is to be rung for."""
    now = courier.clock()
    rows = [_row(courier, one, answer, now) for one, answer in ended]
    with held.write() as connection:
        ours = database.update_held(connection, Delivery, rows)
        mine = [(pair, row) for pair, row in zip(ended, rows, strict=True) if row["id"] in ours]
        made = [(pair, row) for pair, row in mine if pair[1].error not in _OURS]
        if made:
            database.insert_new(connection, Attempt, [_attempt(*pair) for pair, _ in made])
        told = [
            *_heal(courier, connection, [pair for pair, _ in made], now),
            *(_exhausted(pair[0], row) for pair, row in made if row["status"] == "exhausted" and _tellable(pair[0])),
        ]
        rung = notices.tell(connection, told, now=now)
    for pair, row in zip(ended, rows, strict=True):
        _report(*pair, row["status"] if row["id"] in ours else "lost", now)
    return rung


def _row(courier: Courier, one: Prepared, answer: Answer, now: datetime) -> dict[str, Any]:
    """What a delivery becomes; `id` and `fence` say under which lease."""
    row, number = one.row, one.row.attempts + 1
    waits = {"id": row.id, "fence": row.fence, "status": WAITING, "attempts": number, "again": True}
    if answer.error in _OURS:
        unspent = {"attempts": row.attempts, "again": row.again}
        due = now + _OURS[answer.error]
        return waits | unspent | {"next_attempt_at": due, "ring_at": due, "ended_at": None}
    verdict = classify(answer, number - row.prior, schedule=one.target.schedule, chance=courier.chance())
    if verdict.wait is None:
        return waits | {"status": verdict.status, "next_attempt_at": now, "ring_at": None, "ended_at": now}
    return waits | {"next_attempt_at": now + verdict.wait, "ring_at": now + verdict.wait, "ended_at": None}


def _attempt(one: Prepared, answer: Answer) -> dict[str, Any]:
    return {
        "id": ids.new("att"),
        "delivery_id": one.row.id,
        "number": one.row.attempts + 1,
        "started_at": datetime.fromtimestamp(answer.started, UTC),
        "duration_ms": answer.duration_ms,
        "status": answer.status,
        "error": answer.error,
        "response": headers.masked(answer.body, one.target.headers),
    }


def _heal(courier: Courier, connection: Connection, made: Sequence[Ended], now: datetime) -> list[Notice]:
    """Write what these answers say of the health of their endpoints; what is to be told of it."""
    answers: dict[str, list[Answer]] = {}
    for one, answer in made:
        answers.setdefault(one.target.id, []).append(answer)
    sound = {one.target.id for one, _ in made if one.target.health.sound}
    changed = sorted(key for key, given in answers.items() if key not in sound or not all(one.ok for one in given))
    if not changed:
        return []
    # In one order for all, so that two batches do not wait for each other in a circle.
    mine = database.among(connection.dialect.name, Endpoint.id, changed)
    locked = select(*Endpoint.__table__.columns).where(mine).order_by(Endpoint.id).with_for_update(key_share=True)
    told = []
    for row in connection.execute(locked):
        before = health_of(row)
        then, changes = health.after(before, answers[row.id], now=now, chance=courier.chance())
        if then != before:
            connection.execute(update(Endpoint).where(Endpoint.id == row.id).values(**_columns(then)))
        told += [_of_endpoint(row, then, change) for change in changes]
        for change in (*changes, *health.turned(before, then)):
            ENDPOINTS.labels(change).inc()
    return told


def _columns(then: health.Health) -> dict[str, Any]:
    return {
        "status": "enabled" if then.enabled else "disabled",
        "disabled_reason": then.disabled_reason,
        "failures": then.failures,
        "failing_since": then.failing_since,
        "warned_at": then.warned_at,
        "held_until": then.held_until,
    }


def _of_endpoint(row: AnyRow, then: health.Health, change: str) -> Notice:
    log.warning("an endpoint changed", action=f"endpoint_{change}", endpoint_id=row.id, reason=then.disabled_reason)
    data = {
        "endpoint_id": row.id,
        "description": row.description,
        "failures": max(then.failures, row.failures),
        "failing_since": then.failing_since or row.failing_since,
        "reason": then.disabled_reason,
    }
    return Notice(f"{OWN}endpoint.{change}", row.id, data)


def _tellable(one: Prepared) -> bool:
    """Whether what became of a delivery may be told: not of what was told, nor of what came of that."""
    return one.message.source != INTERNAL and not one.message.type.startswith(OWN)


def _exhausted(one: Prepared, row: dict[str, Any]) -> Notice:
    data = {
        "delivery_id": one.row.id,
        "message_id": one.message.id,
        "type": one.message.type,
        "endpoint_id": one.target.id,
        "attempts": row["attempts"],
    }
    return Notice(f"{OWN}delivery.exhausted", one.target.id, data, one.row.id)


def _report(one: Prepared, answer: Answer, outcome: str, now: datetime) -> None:
    if outcome == "lost":
        log.warning("the lease was lost; another process delivers this", action="lease_lost", delivery_id=one.row.id)
        return
    ATTEMPTS.labels(outcome).inc()
    if outcome == "succeeded":
        DELIVERED_SECONDS.observe((now - one.row.created_at).total_seconds())
    log.info(
        "attempted a delivery",
        action="delivery_attempted",
        delivery_id=one.row.id,
        message_id=one.message.id,
        endpoint_id=one.target.id,
        attempt=one.row.attempts + 1,
        status=answer.status,
        error=answer.error,
        outcome=outcome,
        **tracing.trace_id(one.span.traceparent),
    )
