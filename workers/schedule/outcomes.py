"""How an occurrence ends, or waits: each outcome in one transaction with all that follows from it.

The schedule is locked first and the occurrence written then, here as in `verbs`: so they wait for each other in line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select, update

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.event import Event
from handlers.invoicing import Invoice, Payment
from handlers.vocabulary import INTERNAL
from workers import database, ids, inbox, leases, retry
from workers.logs import log
from workers.metrics import OCCURRENCE_DELAY, OCCURRENCES, SCHEDULES
from workers.models import HELD, WAITING, AnyRow, Occurrence, Schedule
from workers.schedule import rhythm, schedules
from workers.schedule.completion import complete
from workers.schedule.generator import Generator
from workers.schedule.tick import SKIPPED

HAS_ENDED, WAS_CANCELLED = "the schedule has ended", "the schedule was cancelled"
"""Why what was planned of it is skipped."""
RETRIES = 40
"""A week, with waits of up to six hours: a key that was revoked on a Friday night is replaced on Monday."""
FIRST_WAIT = 5.0
AGREES_WITHIN = timedelta(days=30)
"""How long a customer may take to agree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an occurrence ended: with an invoice, with an error, or with neither, skipped for a reason."""

    invoice: Invoice | None = None
    payment: Payment | None = None
    error: ProviderError | None = None
    reason: str | None = None

    @property
    def status(self) -> str:
        if self.error is not None:
            return "failed"
        return "generated" if self.invoice is not None else SKIPPED


def end(generator: Generator, row: AnyRow, outcome: Outcome) -> list[str]:
    """Record how an occurrence ended, with the events that report it; their ids. None where the lease was lost."""
    now = generator.clock()
    with database.write(generator.engine) as connection:
        schedule = schedules.read(connection, row.schedule_id, lock=True)
        step, left = _reached(connection, row)
        if outcome.error is not None and step == "planned" and schedule.status != "active":
            if schedule.status == "paused":  # before anything was asked for: so it has not failed
                leases.finish(connection, Occurrence, row, status=HELD, starts=row.starts - 1, next_attempt_at=now)
                return []
            outcome = outcome if schedule.status == "completed" else Outcome(reason=WAS_CANCELLED)
        event = _event(row, schedule, outcome, left, now)
        reported = outcome.status != SKIPPED
        if not leases.finish(connection, Occurrence, row, **_ended(row, outcome, event.id if reported else None, now)):
            return []
        paused = _count(connection, generator, schedule, outcome, now)
        if reported:
            inbox.store(connection, [inbox.internal(_telling(event, paused), _delivery_id(row))])
        completed = complete(connection, schedule.id, now)
    _tell(row, schedule, outcome, event.id if reported else None, now)
    if paused:
        SCHEDULES.labels(row.source, "paused").inc()
        log.warning("a schedule was paused", action="schedule_paused", schedule_id=schedule.id, reason=paused)
    return [event_id for event_id in (event.id if reported else None, completed) if event_id is not None]


def postpone(generator: Generator, row: AnyRow, error: ProviderError) -> list[str]:
    """Let an occurrence wait and be tried again; after `RETRIES` it has failed. The ids of events that report that."""
    if row.attempts >= RETRIES:
        return end(generator, row, Outcome(error=error))
    attempt = row.attempts + 1
    wait = retry.backoff(attempt, first=FIRST_WAIT, chance=generator.chance())
    wait = max(wait, timedelta(seconds=min(error.retry_after or 0.0, retry.MAX_RETRY_AFTER)))
    told = {"error": str(error), "error_code": error.code}
    with database.write(generator.engine) as connection:
        schedule = schedules.read(connection, row.schedule_id, lock=True)
        until = generator.clock() + wait
        if leases.wait(connection, Occurrence, row, until=until, attempts=attempt, **told):
            _after_pause(connection, schedule, generator.clock())
    OCCURRENCES.labels(row.source, "postponed").inc()
    log.warning(
        "the invoice could not be generated; it is tried again later",
        action="occurrence_postponed",
        occurrence_id=row.id,
        attempt=attempt,
        error=str(error),
    )
    return []


def _after_pause(connection: Connection, schedule: AnyRow, now: datetime) -> None:
    """Treat what has just been given back as `verbs` treated what waited when the schedule was paused or cancelled."""
    if schedule.status in {"paused", "cancelled"}:
        hold(connection, schedule.id)
    if schedule.status == "cancelled":
        skip_held(connection, schedule.id, now, WAS_CANCELLED)


def skip_held(connection: Connection, schedule_id: str, now: datetime, why: str) -> int:
    """End what of a schedule is held without an invoice; how many occurrences."""
    held = update(Occurrence).where(Occurrence.schedule_id == schedule_id, Occurrence.status == HELD)
    return connection.execute(held.values(status=SKIPPED, error=why, ended_at=now, ring_at=None)).rowcount


def wait_for_customer(generator: Generator, row: AnyRow, error: ProviderError) -> list[str]:
    """Ask again later whether the customer has agreed to be charged; no failure, until that has taken too long."""
    now = generator.clock()
    if now - (row.intended_at or now) > AGREES_WITHIN:
        return end(generator, row, Outcome(error=error))
    until = now + timedelta(seconds=error.retry_after or FIRST_WAIT)
    told = {"error": str(error), "error_code": error.code}
    with database.write(generator.engine) as connection:
        leases.wait(connection, Occurrence, row, until=until, starts=row.starts - 1, **told)
    return []


def hold(connection: Connection, schedule_id: str) -> int:
    """Keep back what of a schedule was planned and not begun; how many occurrences."""
    planned = update(Occurrence).where(
        Occurrence.schedule_id == schedule_id, Occurrence.status == WAITING, Occurrence.step == "planned"
    )
    return connection.execute(planned.values(status=HELD, ring_at=None)).rowcount


def _ended(row: AnyRow, outcome: Outcome, event_id: str | None, now: datetime) -> dict[str, Any]:
    error, of_invoice = outcome.error, {}
    if (invoice := outcome.invoice) is not None:
        total = invoice.total if outcome.payment is None else outcome.payment.amount
        of_invoice = {"invoice_id": invoice.id, "invoice_number": invoice.number, "invoice_total": str(total)}
    # What was refused was not carried out: who tries it again need not wait for that.
    refused = error is not None and not isinstance(error, ProviderUnavailable)
    return {
        **({"intended_at": None} if refused else {}),
        "status": outcome.status,
        "attempts": row.attempts + 1,
        "error": outcome.reason if error is None else str(error),
        "error_code": None if error is None else error.code,
        "ended_at": now,
        "event_id": event_id,
        **of_invoice,
    }


def _count(
    connection: Connection, generator: Generator, schedule: AnyRow, outcome: Outcome, now: datetime
) -> str | None:
    """Count failures in a row, and pause the schedule for too many of them; why, if it is paused by this one."""
    failures = schedule.failures + 1 if outcome.error is not None else 0
    if outcome.status == SKIPPED or failures == schedule.failures == 0:
        return None
    change: dict[str, Any] = {"failures": failures}
    reason = None
    if failures >= generator.settings.pause_after_failures and schedule.status == "active":
        reason = f"{failures} invoices in a row failed, the last one with {outcome.error}"
        change |= {"status": "paused", "reason": reason, "next_run_at": None, "updated_at": now}
        hold(connection, schedule.id)
    connection.execute(update(Schedule).where(Schedule.id == schedule.id).values(**change))
    return reason


def _delivery_id(row: AnyRow) -> str:
    return f"{row.id}:{row.retries}" if row.retries else str(row.id)


def _reached(connection: Connection, row: AnyRow) -> tuple[str, str | None]:
    """The step that an occurrence has come to by now, and its invoice, for those who look after one that failed."""
    columns = select(Occurrence.step, Occurrence.invoice_id).where(Occurrence.id == row.id)
    found = connection.execute(columns).one()
    return found.step, found.invoice_id


def _event(row: AnyRow, schedule: AnyRow, outcome: Outcome, left: str | None, now: datetime) -> Event:
    data: dict[str, Any] = {
        "schedule_id": schedule.id,
        "name": schedule.name,
        "customer_id": schedule.customer_id,
        "occurrence_id": row.id,
        "due_on": row.due_on.isoformat(),
    }
    if (invoice := outcome.invoice) is not None:
        data["invoice"] = {
            "id": invoice.id,
            "number": invoice.number,
            "status": invoice.status,
            "total": str(invoice.total),
            "currency": invoice.currency,
        }
    if (payment := outcome.payment) is not None:
        data["payment"] = {"token": payment.token, "status": payment.status, "amount": str(payment.amount)}
    if (error := outcome.error) is not None:
        message = str(error).removeprefix(f"{error.code}: ")
        data |= {"error": {"code": error.code, "message": message}, "invoice_id": left}
    return Event(
        id=ids.new("evt"),
        type=f"recurring.{outcome.status}",
        data=data,
        occurred_at=now,
        object_kind="schedule",
        object_id=schedule.id,
        source=schedule.source,
        provider=INTERNAL,
        received_at=now,
    )


def _telling(event: Event, paused: str | None) -> Event:
    """The event, which says of a failure whether the schedule was paused for it."""
    if "error" not in event.data:
        return event
    return replace(event, data={**event.data, "schedule_paused": paused is not None})


def _tell(row: AnyRow, schedule: AnyRow, outcome: Outcome, event_id: str | None, now: datetime) -> None:
    OCCURRENCES.labels(row.source, outcome.status).inc()
    if outcome.invoice is not None:
        due_at = rhythm.start_of_day(row.due_on, schedule.timezone)
        OCCURRENCE_DELAY.labels(row.source).observe(max(0.0, (now - due_at).total_seconds()))
    log.info(
        "an occurrence ended",
        action="occurrence_ended",
        occurrence_id=row.id,
        event_id=event_id,
        outcome=outcome.status,
        invoice_id=None if outcome.invoice is None else outcome.invoice.id,
        error=None if outcome.error is None else str(outcome.error),
    )
