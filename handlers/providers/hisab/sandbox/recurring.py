"""Recurring invoices: schedules, their verbs and their history (API reference, Recurring invoices).

Where the reference is silent, this is chosen: a start date in the past only anchors the rhythm; a quota counts active
and paused schedules; an update may leave out any field, and a change of frequency counts from the next run; `generate`
needs an active schedule, makes the next invoice now, and the run it was for is then not due any more; `resume` goes on
with the first due date from today; `cancelled` is set nowhere in the API (see the sandbox's own surface).
"""

from __future__ import annotations

from typing import Annotated

from sqlalchemy import func, or_, select
from starlette.responses import Response

from handlers.providers.hisab.sandbox import generation, lines
from handlers.providers.hisab.sandbox.access import Desk, Visit
from handlers.providers.hisab.sandbox.answers import (
    Page,
    day,
    invalid,
    moment,
    new_id,
    not_found,
    paged,
    refusal,
    success,
)
from handlers.providers.hisab.sandbox.generation import ACTIVE, CANCELLED, COMPLETED, PAUSED
from handlers.providers.hisab.sandbox.invoices import CURRENCY, Currency, billed
from handlers.providers.hisab.sandbox.invoices import shown as shown_invoice
from handlers.providers.hisab.sandbox.models import Customer, Resource, Run, Schedule
from handlers.providers.hisab.sandbox.rhythm import FREQUENCIES
from handlers.providers.sandbox import fields
from handlers.providers.sandbox.fields import Fields

STATUSES = (ACTIVE, PAUSED, COMPLETED, CANCELLED)
LATEST = 5
"""Runs that a schedule shows of its history."""

Frequency = Annotated[str, fields.one_of(*FREQUENCIES)]
Days = Annotated[int, fields.whole(0, 365)]


class ScheduleQuery(Page):
    status: Annotated[str, fields.one_of(*STATUSES)] | None = None
    customer_id: str | None = None
    frequency: Frequency | None = None
    search: str | None = None


class CreateSchedule(Fields):
    customer_id: fields.Words
    frequency: Frequency
    start_date: fields.Day
    name: fields.Text | None = None
    interval_count: Annotated[int, fields.whole(1, 12)] = 1
    day_of_month: Annotated[int, fields.whole(1, 28)] | None = None
    day_of_week: Annotated[int, fields.whole(0, 6)] | None = None
    end_date: fields.Day | None = None
    max_occurrences: Annotated[int, fields.whole(1, 100_000)] | None = None
    auto_finalize: fields.Flag = False
    auto_send: fields.Flag = False
    days_until_due: Days = 30
    currency: Currency = CURRENCY
    items: lines.Items


class ChangeSchedule(Fields):
    """A default stands for "not given": none of them is ever read."""

    frequency: Frequency = ""
    end_date: fields.Day | None = None
    auto_finalize: fields.Flag = False
    auto_send: fields.Flag = False
    days_until_due: Days = 30
    items: lines.Items = []  # noqa: RUF012 - pydantic copies it


class Generate(Fields):
    issue_date: fields.Day | None = None


class Resume(Fields):
    next_run_date: fields.Day | None = None


class HistoryQuery(Fields):
    limit: Annotated[int, fields.digits(1, 100)] = 20


def list_schedules(visit: Visit) -> Response:
    query = visit.query(ScheduleQuery)
    rows = select(Schedule).where(Schedule.organization_id == visit.desk.organization.id)
    for name in ("status", "customer_id", "frequency"):
        value = getattr(query, name)
        if value is not None:
            rows = rows.where(getattr(Schedule, name) == value)
    if query.search is not None:
        columns = (Schedule.name, Customer.name)
        found = or_(*(column.icontains(query.search, autoescape=True) for column in columns))
        rows = rows.join(Schedule.customer).where(found)
    schedules, meta = paged(visit.session, rows, Schedule.number, query)
    return success([shown(schedule) for schedule in schedules], meta=meta)


def get_schedule(visit: Visit) -> Response:
    schedule = _schedule(visit)
    return success(shown(schedule) | {"history": [_entry(run) for run in schedule.runs[:LATEST]]})


def create_schedule(visit: Visit) -> Response:
    desk, body = visit.desk, visit.body(CreateSchedule)
    customer = billed(desk, body.customer_id)
    if body.end_date is not None and body.end_date < body.start_date:
        raise invalid({"field": "end_date", "message": "must not be before start_date"})
    _expect_quota(desk)
    schedule = Schedule(
        id=new_id("rec"),
        organization_id=desk.organization.id,
        customer=customer,
        status=ACTIVE,
        anchor=body.start_date,
        occurrences_created=0,
        items=lines.plain(body.items),
        created_at=desk.now,
        updated_at=desk.now,
        **body.model_dump(exclude={"customer_id", "items"}),
    )
    schedule.organization = desk.organization
    visit.session.add(schedule)
    generation.plan(schedule, max(body.start_date, desk.today))
    visit.session.flush()
    return success(shown(schedule), status=201)


def change_schedule(visit: Visit) -> Response:
    schedule = _schedule(visit)
    given = visit.body(ChangeSchedule).given()
    _expect(schedule, {ACTIVE, PAUSED}, "changed")
    if given.get("end_date") is not None and given["end_date"] < schedule.start_date:
        raise invalid({"field": "end_date", "message": "must not be before start_date"})
    if "items" in given:
        given["items"] = lines.plain(given["items"])
    for name, value in given.items():
        setattr(schedule, name, value)
    if "frequency" in given and schedule.next_run_date is not None:
        schedule.anchor = schedule.next_run_date
    generation.plan(schedule, schedule.next_run_date or visit.desk.today)
    schedule.updated_at = visit.desk.now
    return success(shown(schedule))


def delete_schedule(visit: Visit) -> Response:
    schedule = _schedule(visit)
    visit.session.delete(schedule)
    return success({"id": schedule.id, "deleted": True})


def generate_now(visit: Visit) -> Response:
    schedule, desk = _schedule(visit), visit.desk
    body = visit.body(Generate)
    _expect(schedule, {ACTIVE}, "generated from")
    if schedule.customer.status != generation.CUSTOMER_ACTIVE:
        raise refusal("CUSTOMER_INACTIVE", f"The customer is {schedule.customer.status}")
    invoice = generation.issue(desk, schedule, body.issue_date or desk.today)
    generation.record(desk, schedule, schedule.next_run_date or desk.today, invoice)
    return success(shown_invoice(invoice), status=201)


def list_history(visit: Visit) -> Response:
    schedule = _schedule(visit)
    query = visit.query(HistoryQuery)
    return success([_entry(run) for run in schedule.runs[: query.limit]])


def pause(visit: Visit) -> Response:
    schedule = _schedule(visit)
    _expect(schedule, {ACTIVE}, "paused")
    schedule.status, schedule.updated_at = PAUSED, visit.desk.now
    return success(shown(schedule))


def resume(visit: Visit) -> Response:
    schedule, today = _schedule(visit), visit.desk.today
    body = visit.body(Resume)
    _expect(schedule, {PAUSED}, "resumed")
    schedule.status, schedule.updated_at = ACTIVE, visit.desk.now
    if body.next_run_date is None:
        generation.plan(schedule, max(schedule.next_run_date or today, today))
        return success(shown(schedule))
    if body.next_run_date < today:
        raise invalid({"field": "next_run_date", "message": "must not be in the past"})
    generation.plan_from(schedule, body.next_run_date)
    return success(shown(schedule))


def shown(schedule: Schedule) -> Resource:
    customer = schedule.customer
    plain = ("frequency", "interval_count", "day_of_month", "day_of_week")
    counted = ("max_occurrences", "occurrences_created", "auto_finalize", "auto_send", "days_until_due")
    priced = lines.priced(schedule.items)
    return {
        "id": schedule.id,
        "name": schedule.name,
        "status": schedule.status,
        "customer": {"id": customer.id, "name": customer.name, "ice": customer.ice},
        "currency": schedule.currency,
        **{name: getattr(schedule, name) for name in plain},
        **{name: day(getattr(schedule, name)) for name in ("start_date", "end_date", "next_run_date", "last_run_date")},
        **{name: getattr(schedule, name) for name in counted},
        **lines.sums(priced),
        "items": [{**line, "id": f"{schedule.id}_{line['sort_order']}"} for line in priced],
        "created_at": moment(schedule.created_at),
        "updated_at": moment(schedule.updated_at),
    }


def _entry(run: Run) -> Resource:
    invoice = run.invoice
    return {
        "id": run.id,
        "invoice_id": run.invoice_id,
        "scheduled_date": day(run.scheduled_date),
        "generated_at": moment(run.generated_at),
        "status": run.status,
        "error_message": run.error_message,
        "invoice_number": None if invoice is None else invoice.invoice_number,
        "invoice_total": None if invoice is None else invoice.total,
    }


def _schedule(visit: Visit) -> Schedule:
    rows = select(Schedule).where(Schedule.id == visit.id, Schedule.organization_id == visit.desk.organization.id)
    schedule = visit.session.scalars(rows).one_or_none()
    if schedule is None:
        raise not_found()
    return schedule


def _expect(schedule: Schedule, statuses: set[str], wanted: str) -> None:
    if schedule.status not in statuses:
        raise refusal("INVALID_STATE", f"A schedule that is {schedule.status} cannot be {wanted}")


def _expect_quota(desk: Desk) -> None:
    quota = desk.organization.recurring_quota
    if quota is None:
        return
    live = select(func.count()).where(
        Schedule.organization_id == desk.organization.id, Schedule.status.in_((ACTIVE, PAUSED))
    )
    if (desk.session.scalar(live) or 0) >= quota:
        raise refusal("QUOTA_EXCEEDED", f"The organization may have {quota} recurring invoices")
