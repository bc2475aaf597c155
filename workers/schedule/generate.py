"""Generating: the tick turns due schedules into occurrences; each occurrence becomes exactly one invoice.

Hisab has no idempotency key, so the step `intended` is committed before the invoice is created, and a marker
(the occurrence's id) travels in the invoice. Whoever takes up an occurrence that was intended looks for the marker
before it creates. What comes after creation is read off the invoice's own status and needs no record.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, select, update

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.event import Event
from handlers.invoicing import DRAFT, FINALIZED, Draft, Invoice, Invoicing
from handlers.providers import PROVIDERS
from handlers.vocabulary import INTERNAL
from workers import database, ids, inbox, leases, retry
from workers.app import GENERATE, PROCESS, Runtime, app, ring, ringing, runtime
from workers.clients import Clients
from workers.leases import Clock, utcnow
from workers.logs import log
from workers.metrics import OCCURRENCES, RUNG_AGAIN
from workers.models import RUNNING, WAITING, AnyRow, Occurrence, Schedule
from workers.schedule.calendar import due_date
from workers.schedule.schedules import rule_of, start_of_day
from workers.settings import Settings

LEASE = timedelta(seconds=90)
"""Longer than five calls of an API at their timeouts."""
RETRIES = 40
"""A week, with waits of up to six hours: a key that was revoked on a Friday night is replaced on Monday."""
FIRST_WAIT = 5.0
SETTLES_WITHIN = 120.0
"""Seconds in which a creation that we did not hear the end of may still take place at the provider."""
AT_ONCE = 200
TOO_MANY = 429


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """What generating invoices needs in one process."""

    engine: Engine
    settings: Settings
    clients: Clients
    clock: Clock = utcnow
    chance: Callable[[], float] = field(default=random.random)


def tick(engine: Engine, *, now: datetime) -> list[str]:
    """Plan an occurrence for every due date that has come, all that were missed included; their ids.

    Two ticks at once are harmless: each schedule is locked by one, and the due date is unique.
    """
    planned: list[str] = []
    while True:
        with database.write(engine) as connection:
            rows = connection.execute(
                select(*Schedule.__table__.columns)
                .where(Schedule.next_run_at <= now, Schedule.status == "active")
                .order_by(Schedule.next_run_at)
                .limit(AT_ONCE)
                .with_for_update(skip_locked=True)
            ).all()
            occurrences = [occurrence for row in rows for occurrence in _advance(connection, row, now)]
            if occurrences:
                connection.execute(database.insert(connection, Occurrence).on_conflict_do_nothing(), occurrences)
        planned += [occurrence["id"] for occurrence in occurrences]
        if len(rows) < AT_ONCE:
            return planned


def _advance(connection: Connection, row: AnyRow, now: datetime) -> list[dict[str, Any]]:
    """The occurrences of one schedule that are due by now; its next run is set behind them."""
    rule, index = rule_of(row), row.next_index
    occurrences = []
    due = due_date(rule, index)
    while due is not None and start_of_day(due, row.timezone) <= now:
        occurrences.append(_occurrence(row.id, due, now))
        index += 1
        due = due_date(rule, index)
    connection.execute(
        update(Schedule)
        .where(Schedule.id == row.id)
        .values(
            next_index=index,
            next_run_at=None if due is None else start_of_day(due, row.timezone),
            status="completed" if due is None else row.status,
        )
    )
    return occurrences


def _occurrence(schedule_id: str, due_on: date, now: datetime) -> dict[str, Any]:
    return {
        "id": ids.derived("occ", start_of_day(due_on, "UTC"), schedule_id, due_on.isoformat()),
        "schedule_id": schedule_id,
        "due_on": due_on,
        "step": "planned",
        "status": WAITING,
        "starts": 0,
        "fence": 0,
        "attempts": 0,
        "next_attempt_at": now,
        "ring_at": now + leases.RING_AGAIN,
        "created_at": now,
    }


def generate(generator: Generator, occurrence_ids: Sequence[str]) -> list[str]:
    """Make the invoice of each occurrence that is due and free; the ids of the events that report them."""
    events = []
    for occurrence_id in occurrence_ids:
        now = generator.clock()
        with database.write(generator.engine) as connection:
            claimed = leases.claim(connection, Occurrence, [occurrence_id], now=now, lease=LEASE)
            if not claimed:
                continue
            row = claimed[0]
            schedule = connection.execute(
                select(*Schedule.__table__.columns).where(Schedule.id == row.schedule_id)
            ).one()
        events += _generate(generator, row, schedule)
    return events


def _generate(generator: Generator, row: AnyRow, schedule: AnyRow) -> list[str]:
    if row.starts - row.attempts > generator.settings.max_starts:
        died = f"its process died {generator.settings.max_starts} times while it was generated"
        return _end(generator, row, schedule, error=ProviderError("DIED", died))
    try:
        invoicing = _invoicing(generator, schedule.source)
        invoice = _issue(generator, invoicing, row, schedule)
    except ProviderError as error:
        # A key that was revoked is replaced by a person; the invoice must not be lost meanwhile.
        if isinstance(error, ProviderUnavailable) or error.status in {401, 403}:
            return _postpone(generator, row, schedule, error)
        return _end(generator, row, schedule, error=error)
    except Exception as error:  # a fault of ours: it must not keep the other occurrences of the batch waiting
        log.exception("generating failed", action="generation_failed", occurrence_id=row.id)
        return _postpone(generator, row, schedule, ProviderError("UNEXPECTED", type(error).__name__))
    return [] if invoice is None else _end(generator, row, schedule, invoice=invoice)


def _invoicing(generator: Generator, source: str) -> Invoicing:
    client = generator.clients.get(source)
    provider = PROVIDERS[generator.settings.sources[source].provider]
    if provider.invoicing is None:
        raise ProviderError("NO_INVOICING", f"{provider.name} is no provider that invoices are made with")
    return provider.invoicing(client)


def _issue(generator: Generator, invoicing: Invoicing, row: AnyRow, schedule: AnyRow) -> Invoice | None:
    """Create (or find again), finalize, send. None: the lease was lost on the way, another goes on."""
    draft = Draft(
        customer_id=schedule.customer_id,
        issue_date=row.due_on,
        due_date=row.due_on + timedelta(days=schedule.days_until_due),
        currency=schedule.currency,
        items=schedule.items,
        marker=f"billhook:{row.id}",
    )
    invoice: Invoice | None = None
    if row.invoice_id is not None:
        invoice = invoicing.get(row.invoice_id)
    elif row.step == "intended":
        invoice = invoicing.find(draft)
    if invoice is None:
        if not _note(generator, row, step="intended"):
            return None
        invoice = _create(invoicing, draft)
    if not _note(generator, row, step="created", invoice_id=invoice.id):
        return None
    if schedule.auto_finalize and invoice.status == DRAFT:
        invoice = invoicing.finalize(invoice.id)
    if schedule.auto_send and invoice.status == FINALIZED:
        invoice = invoicing.send(invoice.id)
    return invoice


def _create(invoicing: Invoicing, draft: Draft) -> Invoice:
    try:
        return invoicing.create(draft)
    except ProviderUnavailable as error:
        # Looked for sooner, an invoice that is still being made would not be found, and be made twice.
        if error.status != TOO_MANY:
            error.retry_after = max(error.retry_after or 0.0, SETTLES_WITHIN)
        raise


def _note(generator: Generator, row: AnyRow, **values: Any) -> bool:
    """Commit how far an occurrence came, under its lease. False: the lease is over."""
    now = generator.clock()
    statement = (
        update(Occurrence)
        .where(
            Occurrence.id == row.id,
            Occurrence.fence == row.fence,
            Occurrence.status == RUNNING,
            Occurrence.next_attempt_at > now,
        )
        # A full lease from here on: no other may look for the invoice while our call that creates it is under way.
        .values(next_attempt_at=now + LEASE, ring_at=now + LEASE, **values)
    )
    with database.write(generator.engine) as connection:
        return connection.execute(statement).rowcount == 1


def _postpone(generator: Generator, row: AnyRow, schedule: AnyRow, error: ProviderError) -> list[str]:
    if row.attempts >= RETRIES:
        return _end(generator, row, schedule, error=error)
    attempt = row.attempts + 1
    wait = retry.backoff(attempt, first=FIRST_WAIT, chance=generator.chance())
    wait = max(wait, timedelta(seconds=min(error.retry_after or 0.0, retry.MAX_RETRY_AFTER)))
    with database.write(generator.engine) as connection:
        leases.wait(connection, Occurrence, row, until=generator.clock() + wait, attempts=attempt, error=str(error))
    log.warning(
        "the invoice could not be generated; it is tried again later",
        action="occurrence_postponed",
        occurrence_id=row.id,
        attempt=attempt,
        error=str(error),
    )
    return []


def _end(
    generator: Generator,
    row: AnyRow,
    schedule: AnyRow,
    *,
    invoice: Invoice | None = None,
    error: ProviderError | None = None,
) -> list[str]:
    """Record the outcome, with the event that reports it, in one transaction; the event's id."""
    now = generator.clock()
    status = "failed" if invoice is None else "generated"
    with database.write(generator.engine) as connection:
        made = connection.execute(select(Occurrence.invoice_id).where(Occurrence.id == row.id)).scalar_one()
        event = _event(row, schedule, status, invoice, error, now, made)
        held = leases.finish(
            connection,
            Occurrence,
            row,
            status=status,
            attempts=row.attempts + 1,
            error=None if error is None else str(error),
            ended_at=now,
        )
        if not held:
            return []
        inbox.store(connection, [inbox.internal(event, row.id)])
    OCCURRENCES.labels(status).inc()
    log.info(
        "an occurrence ended",
        action="occurrence_ended",
        occurrence_id=row.id,
        event_id=event.id,
        outcome=status,
        invoice_id=None if invoice is None else invoice.id,
        error=None if error is None else str(error),
    )
    return [event.id]


def _event(
    row: AnyRow,
    schedule: AnyRow,
    status: str,
    invoice: Invoice | None,
    error: ProviderError | None,
    now: datetime,
    made: str | None,
) -> Event:
    data: dict[str, Any] = {"schedule_id": schedule.id, "occurrence_id": row.id, "due_on": row.due_on.isoformat()}
    if invoice is not None:
        data["invoice"] = {
            "id": invoice.id,
            "number": invoice.number,
            "status": invoice.status,
            "total": str(invoice.total),
            "currency": invoice.currency,
        }
    if error is not None:
        data["error"] = {"code": error.code, "message": str(error)}
        data["invoice_id"] = made
    return Event(
        id=ids.new("evt"),
        type=f"recurring.{status}",
        data=data,
        occurred_at=now,
        object_kind="schedule",
        object_id=schedule.id,
        source=schedule.source,
        provider=INTERNAL,
        received_at=now,
    )


def sweep(process: Runtime, now: Clock = utcnow) -> int:
    """Plan what has come due and ring for it, and for what nobody took; how many occurrences."""
    planned = tick(process.engine, now=now())
    if planned:
        log.info("schedules are due", action="occurrences_planned", occurrence_ids=planned)
    if ringing(process.redis, process.settings, "schedules"):
        return 0
    with database.write(process.engine) as connection:
        missed = leases.due(connection, Occurrence, Occurrence.id, now=now())
    RUNG_AGAIN.labels("schedules").inc(len(missed))
    ring(GENERATE, planned + missed)
    return len(planned) + len(missed)


@cache
def _generator() -> Generator:
    settings = runtime().settings
    return Generator(engine=runtime().engine, settings=settings, clients=Clients(settings))


@app.task(name=GENERATE)
def generate_task(occurrence_ids: list[str]) -> None:
    ring(PROCESS, generate(_generator(), occurrence_ids))


@app.task(name="billhook.schedules.sweep")
def sweep_task() -> None:
    sweep(runtime())
