"""Delivering: claim → prepare → sign → send → classify → record, many at once.

If the process dies before `record` commits, the lease runs out and the attempt is made again under the same
`webhook-id`: a subscriber may see a message twice, never not at all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import version

from cryptography.fernet import MultiFernet
from sqlalchemy import Connection, Engine, select

from handlers.signing import STANDARD, hmac_key, sign
from workers import database, ids, leases, retry
from workers.app import CHUNK, DELIVER, Runtime, app, ring, ringing, runtime
from workers.delivery import endpoints
from workers.delivery.sender import IN_FLIGHT, Answer, Request, Sender
from workers.leases import Clock, utcnow
from workers.logs import log
from workers.metrics import ATTEMPTS, RUNG_AGAIN
from workers.models import AnyRow, Attempt, Delivery, Endpoint, Message
from workers.vault import VaultError, decrypt, open_vault

_ROUNDS = -(-CHUNK // IN_FLIGHT)
"""How often in a row one batch may have to wait for the slowest of its exchanges."""


UNREADABLE_WAIT = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Courier:
    """What delivering needs in one process."""

    engine: Engine
    vault: MultiFernet
    sender: Sender
    lease: timedelta
    """Longer than any exchange can take."""
    clock: Clock = utcnow
    chance: Callable[[], float] = field(default=random.random)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A leased delivery with what it sends and where to."""

    row: AnyRow
    message_id: str
    body: bytes = field(repr=False)
    endpoint_id: str
    url: str = field(repr=False)
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer means for its delivery: a final status, or the wait before the next attempt."""

    status: str
    wait: timedelta | None = None
    disable: str | None = None
    """Why the endpoint gets nothing more."""


def deliver(courier: Courier, delivery_ids: Sequence[str]) -> int:
    """Make one attempt for each of these deliveries that is due and free; how many were made."""
    prepared = _claim(courier, delivery_ids)
    if not prepared:
        return 0
    started = courier.clock()
    answers = courier.sender.send([_request(one, int(started.timestamp())) for one in prepared])
    with database.write(courier.engine) as connection:
        # In one order for all, so that two batches that disable the same endpoints do not wait in a circle.
        for one, answer in sorted(zip(prepared, answers, strict=True), key=lambda pair: pair[0].endpoint_id):
            _record(courier, connection, one, answer)
    return len(prepared)


def _claim(courier: Courier, delivery_ids: Sequence[str]) -> list[Prepared]:
    with database.write(courier.engine) as connection:
        rows = leases.claim(connection, Delivery, delivery_ids, now=courier.clock(), lease=courier.lease)
        found = _look_up(connection, rows)
        prepared = []
        for row in rows:
            detail = found[row.id]
            if detail.status != "enabled":
                leases.finish(connection, Delivery, row, status="cancelled", ended_at=courier.clock())
                continue
            try:
                secret = decrypt(courier.vault, detail.secret)
            except VaultError as error:
                # A matter of the settings, not of the endpoint: no attempt is spent, and the others go out.
                log.error(str(error), action="secret_unreadable", endpoint_id=row.endpoint_id, delivery_id=row.id)
                leases.wait(connection, Delivery, row, until=courier.clock() + UNREADABLE_WAIT)
                continue
            prepared.append(Prepared(row, row.message_id, detail.body, row.endpoint_id, detail.url, secret))
        return prepared


def _look_up(connection: Connection, rows: Sequence[AnyRow]) -> dict[str, AnyRow]:
    statement = (
        select(Delivery.id, Message.body, Endpoint.url, Endpoint.secret, Endpoint.status)
        .join(Message, Message.id == Delivery.message_id)
        .join(Endpoint, Endpoint.id == Delivery.endpoint_id)
        .where(Delivery.id.in_([row.id for row in rows]))
    )
    return {row.id: row for row in connection.execute(statement)}


def _request(one: Prepared, timestamp: int) -> Request:
    """The signed request; id stable, timestamp fresh (Standard Webhooks, "Webhook Headers")."""
    key = hmac_key(STANDARD, one.secret)
    signed = sign(STANDARD, key, delivery_id=one.message_id, timestamp=timestamp, body=one.body)
    return Request(url=one.url, headers=(("content-type", "application/json"), *signed.items()), body=one.body)


def classify(answer: Answer, attempt: int, *, chance: float) -> Verdict:
    """What an answer to attempt `attempt` (from 1) means: 2xx succeeded, 410 ends the endpoint, else try again."""
    if answer.status is not None and 200 <= answer.status < 300:
        return Verdict("succeeded")
    if answer.status == 410:
        return Verdict("exhausted", disable="it answered 410 Gone")
    if answer.refused:
        return Verdict("refused", disable=answer.detail)
    wait = retry.next_delivery(attempt, chance=chance, retry_after=answer.retry_after)
    return Verdict("exhausted") if wait is None else Verdict("waiting", wait)


def _record(courier: Courier, connection: Connection, one: Prepared, answer: Answer) -> None:
    number = one.row.attempts + 1
    verdict = classify(answer, number, chance=courier.chance())
    now = courier.clock()
    if verdict.wait is not None:
        held = leases.wait(connection, Delivery, one.row, until=now + verdict.wait, attempts=number)
    else:
        held = leases.finish(connection, Delivery, one.row, status=verdict.status, attempts=number, ended_at=now)
    if not held:
        log.warning("the lease was lost; another process delivers this", action="lease_lost", delivery_id=one.row.id)
        return
    if verdict.disable:
        endpoints.disable(connection, one.endpoint_id, verdict.disable)
    attempt = {
        "id": ids.new("att"),
        "delivery_id": one.row.id,
        "number": number,
        "started_at": datetime.fromtimestamp(answer.started, UTC),
        "duration_ms": answer.duration_ms,
        "status": answer.status,
        "error": answer.error,
        "response": answer.body,
    }
    connection.execute(database.insert(connection, Attempt), [attempt])
    ATTEMPTS.labels(verdict.status).inc()
    log.info(
        "attempted a delivery",
        action="delivery_attempted",
        delivery_id=one.row.id,
        message_id=one.message_id,
        endpoint_id=one.endpoint_id,
        attempt=number,
        status=answer.status,
        error=answer.error,
        outcome=verdict.status,
    )


def sweep(process: Runtime, now: Clock = utcnow) -> int:
    """Ring for deliveries that are due and that nobody took; how many."""
    if ringing(process.redis, process.settings, "deliveries"):
        return 0
    with database.write(process.engine) as connection:
        found = leases.due(connection, Delivery, Delivery.id, now=now())
    ring(DELIVER, found)
    RUNG_AGAIN.labels("deliveries").inc(len(found))
    return len(found)


@cache
def _courier() -> Courier:
    settings = runtime().settings
    sender = Sender(
        user_agent=f"Billhook/{version('billhook')}",
        private=settings.allow_private_endpoints,
        deadline=settings.delivery_timeout,
    )
    return Courier(
        engine=runtime().engine,
        vault=open_vault(settings),
        sender=sender,
        lease=timedelta(seconds=_ROUNDS * settings.delivery_timeout + settings.lease_grace),
    )


@app.task(name=DELIVER)
def deliver_task(delivery_ids: list[str]) -> None:
    deliver(_courier(), delivery_ids)


@app.task(name="billhook.deliveries.sweep")
def sweep_task() -> None:
    sweep(runtime())
