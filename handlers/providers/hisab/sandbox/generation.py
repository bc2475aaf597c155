"""What a schedule does when it is due, at midnight in Morocco of its next run date.

Chosen, as the reference says nothing of it: a run whose customer is not active, or whose invoice is refused, is in the
history as `failed` and makes nothing; the schedule goes on with its next date. Only invoices that were made count
towards `max_occurrences`. `auto_send` alone sends nothing, because a draft cannot be sent. Runs that an archived
organization missed are in the history as `skipped` when it is restored.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time

from sqlalchemy import select
from sqlalchemy.orm import Session

from handlers.providers.hisab.sandbox import invoices, models
from handlers.providers.hisab.sandbox.access import ZONE, Desk
from handlers.providers.hisab.sandbox.answers import new_id
from handlers.providers.hisab.sandbox.models import Invoice, Organization, Run, Schedule
from handlers.providers.hisab.sandbox.rhythm import Rhythm
from handlers.providers.sandbox.machine import Machine, Refusal

ACTIVE = "active"
PAUSED = "paused"
COMPLETED = "completed"
CANCELLED = "cancelled"
CUSTOMER_ACTIVE = models.ACTIVE

SUCCESS = "success"
FAILED = "failed"
SKIPPED = "skipped"


class Schedules:
    """The alarm of the sandbox: one run at a time, the earliest first."""

    def next(self, session: Session) -> datetime | None:
        schedule = _earliest(session)
        return None if schedule is None or schedule.next_run_date is None else _midnight(schedule.next_run_date)

    def ring(self, machine: Machine, session: Session, moment: datetime) -> None:
        schedule = _earliest(session)
        if schedule is None or schedule.next_run_date is None:
            return
        due = schedule.next_run_date
        desk = Desk(machine=machine, session=session, organization=schedule.organization, now=machine.clock.now())
        try:
            with session.begin_nested():
                if schedule.customer.status != CUSTOMER_ACTIVE:
                    raise Refusal(0, "CUSTOMER_INACTIVE", f"The customer is {schedule.customer.status}")
                invoice = issue(desk, schedule, due)
        except Refusal as refusal:
            details = "; ".join(f"{problem['field']} {problem['message']}" for problem in refusal.details)
            record(desk, schedule, due, None, f"{refusal.code}: {details or refusal.message}")
        else:
            record(desk, schedule, due, invoice)


def issue(desk: Desk, schedule: Schedule, issue_date: date) -> Invoice:
    """Make the invoice of a run, finalized and sent as the schedule says. Raises Refusal."""
    invoice = invoices.draft(
        desk,
        schedule.customer,
        items=schedule.items,
        issue_date=issue_date,
        due_date=_plus(issue_date, schedule.days_until_due),
        currency=schedule.currency,
    )
    if schedule.auto_finalize:
        invoices.finalize(desk, invoice)
        if schedule.auto_send:
            invoices.send(desk, invoice)
    return invoice


def record(desk: Desk, schedule: Schedule, due: date, invoice: Invoice | None, error: str | None = None) -> None:
    """Write a run into the history, and plan the next one."""
    _add(desk, schedule, due, SUCCESS if invoice is not None else FAILED, invoice, error)
    if invoice is not None:
        schedule.occurrences_created += 1
        schedule.last_run_date = invoice.issue_date
    plan(schedule, _plus(due, 1))


def plan(schedule: Schedule, earliest: date) -> None:
    """Set the next run to the first due date from `earliest` on; without one the schedule is completed."""
    _set_next(schedule, rhythm(schedule).due(earliest))


def plan_from(schedule: Schedule, day: date) -> None:
    """Set the next run to a day that somebody chose; the rhythm goes on from there."""
    schedule.anchor = day
    _set_next(schedule, day)


def rhythm(schedule: Schedule) -> Rhythm:
    return Rhythm(
        frequency=schedule.frequency,
        interval_count=schedule.interval_count,
        anchor=schedule.anchor,
        day_of_month=schedule.day_of_month,
        day_of_week=schedule.day_of_week,
    )


def skip_missed(desk: Desk) -> None:
    """Write down as skipped what was due in the days that the organization was archived."""
    rows = select(Schedule).where(Schedule.organization_id == desk.organization.id, Schedule.status == ACTIVE)
    for schedule in desk.session.scalars(rows).all():
        while schedule.next_run_date is not None and schedule.next_run_date < desk.today:
            _add(desk, schedule, schedule.next_run_date, SKIPPED, None, "the organization was archived")
            plan(schedule, _plus(schedule.next_run_date, 1))


def _set_next(schedule: Schedule, due: date | None) -> None:
    done = schedule.max_occurrences is not None and schedule.occurrences_created >= schedule.max_occurrences
    if due is None or done or (schedule.end_date is not None and due > schedule.end_date):
        schedule.status, schedule.next_run_date = COMPLETED, None
    else:
        schedule.next_run_date = due


def _add(desk: Desk, schedule: Schedule, due: date, status: str, invoice: Invoice | None, error: str | None) -> None:
    run = Run(
        id=new_id("run"),
        invoice=invoice,
        scheduled_date=due,
        generated_at=desk.now,
        status=status,
        error_message=error,
    )
    schedule.runs.insert(0, run)
    desk.session.flush()


def _earliest(session: Session) -> Schedule | None:
    rows = (
        select(Schedule)
        .join(Schedule.organization)
        .where(Schedule.status == ACTIVE, Schedule.next_run_date.is_not(None), Organization.archived_at.is_(None))
        .order_by(Schedule.next_run_date, Schedule.number)
    )
    return session.scalars(rows.limit(1)).one_or_none()


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, ZONE).astimezone(UTC)


def _plus(day: date, days: int) -> date:
    return date.fromordinal(min(day.toordinal() + days, date.max.toordinal()))
