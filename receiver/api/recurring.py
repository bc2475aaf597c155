"""`/recurring-invoices`: schedules with the paths, fields and codes of the Hisab document, and what we do beside it.

Numbers of items may be asked as JSON numbers, as the document writes them, or as decimal strings; they are answered as
decimal strings, just as they were written, so that no reader makes floating point of them. A list is paged as the
document has it (`page`, `per_page`, with a total), or with the `limit` and `cursor` of our other lists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response, Security
from pydantic import AfterValidator, Field
from sqlalchemy import Engine

from receiver.api.access import Running, caller
from receiver.api.answers import Many, Model, One, Pagination, many, pagination_of, refusals, tagged
from receiver.api.changes import Change, IfMatch, answer, changing, expect
from receiver.api.exact import Exact
from receiver.api.recurring_fields import (
    ChangedSchedule,
    Day,
    Following,
    Listed,
    ListMeta,
    Numbers,
    Occurrence,
    Preceding,
    Preview,
    Schedule,
    Wanted,
    WantedSchedule,
    WholeSchedule,
    storable,
)
from receiver.api.services import Services
from workers.api_keys import Caller
from workers.app import GENERATE
from workers.leases import utcnow
from workers.models import RUNNING, WAITING, AnyRow
from workers.schedule import browsing, on_demand, schedules, verbs
from workers.schedule.at_once import AtOnce
from workers.schedule.plans import Plan, only_source

router = APIRouter(prefix="/recurring-invoices", tags=["recurring invoices"], route_class=Exact)

Read = Annotated[Caller, Security(caller, scopes=["recurring:read"])]
Changes = Annotated[Change, changing("recurring:write")]
Deletes = Annotated[Change, changing("recurring:delete")]
ScheduleId = Annotated[
    str,
    Path(max_length=40, description="`sch_…`", examples=["sch_01M802JFQ4BKP1Z2J476R6XRE8"]),
    AfterValidator(storable),
]
LATEST = 5
"""Entries of the history that a schedule is shown with."""
_WHOLE = One[WholeSchedule]


class WantedInvoice(Model):
    """When the invoice is to be dated."""

    issue_date: Day | None = Field(None, description="Default: today, in the schedule's time zone.")


class WantedResumption(Model):
    """From when a schedule goes on."""

    next_run_date: Day | None = Field(
        None,
        description="Go on at this day, today or later: the rhythm counts from it, and what was missed is skipped.",
    )


class WantedRetry(Model):
    """What of a schedule is to be tried again."""

    due_on: list[Day] | None = Field(None, min_length=1, max_length=500, description="Only of these due dates.")


class Retried(Model):
    """What will be tried again."""

    occurrences: int


def _at_once(request: Request) -> AtOnce:
    return Services.of(request).at_once


def _counts(request: Request) -> browsing.Counts:
    return Services.of(request).counts


@router.get("", summary="List recurring invoices", responses=refusals())
def list_schedules(
    wanted: Annotated[Wanted, Query()],
    running: Running,
    counts: Annotated[browsing.Counts, Depends(_counts)],
    _caller: Read,
) -> Listed:
    """The schedules, the newest first unless `order` says otherwise. All filters that are given must fit.

    With `limit` or `cursor` the answer has `meta.pagination` of our other lists: better for many, because a page costs
    the same wherever it is. With neither it is paged by numbers, as in the Hisab document, whose scope `invoices:read`
    is `recurring:read` here. Of more than 10,000 the total may be a minute old.
    """
    oldest_first = wanted.order == "asc"
    if wanted.by_cursor:
        found = browsing.schedules(
            running.engine, wanted.meant, after=wanted.after, limit=wanted.limit or 50, oldest_first=oldest_first
        )
        rows = found.rows
        pagination: Numbers | Pagination = pagination_of(found)
    else:
        number, size = wanted.page or 1, wanted.per_page or 20
        page = browsing.numbered(
            running.engine, counts, wanted.meant, number=number, size=size, oldest_first=oldest_first
        )
        rows, pages = page.rows, -(-page.total // size)
        pagination = Numbers(total=page.total, page=number, perPage=size, totalPages=pages)
    return Listed(data=[shown(row) for row in rows], meta=ListMeta(pagination=pagination))


@router.post("", status_code=201, summary="Create a recurring invoice", response_model=_WHOLE, responses=refusals(409))
def create_schedule(wanted: WantedSchedule, change: Changes) -> Response:
    """Have an invoice made on every due date from today on; a start date in the past only anchors the rhythm.

    Refused with QUOTA_EXCEEDED where the source has as many as its `max_schedules`. The scope `invoices:write` of the
    Hisab document is `recurring:write` here.
    """
    engine, settings = change.runtime.engine, change.runtime.settings

    def create() -> WholeSchedule:
        fields = wanted.fields()
        plan = Plan(**fields if "source" in fields else {**fields, "source": only_source(settings)})
        made = schedules.add(engine, settings, plan, actor=change.actor, now=change.now)
        return whole(engine, schedules.get(engine, made))

    return change.carry_out(create, status=201)


@router.get("/{schedule_id}", summary="Show a recurring invoice", response_model=_WHOLE, responses=refusals(404))
def show_schedule(
    request: Request, schedule_id: ScheduleId, running: Running, _caller: Read
) -> Response | One[WholeSchedule]:
    """A schedule with the latest entries of its history. Its ETag changes with either."""
    return tagged(request, whole(running.engine, schedules.get(running.engine, schedule_id)))


@router.put(
    "/{schedule_id}", summary="Change a recurring invoice", response_model=_WHOLE, responses=refusals(404, 409, 412)
)
@router.patch(
    "/{schedule_id}", summary="Change a recurring invoice", response_model=_WHOLE, responses=refusals(404, 409, 412)
)
def change_schedule(
    schedule_id: ScheduleId, wanted: ChangedSchedule, change: Changes, if_match: IfMatch = None
) -> Response:
    """Change an active or paused schedule, only in what is given (PUT too, as in the Hisab document).

    `items` replaces all items. A changed rhythm is counted from the next due date. What has been begun stays as it was.
    """
    engine, settings = change.runtime.engine, change.runtime.settings

    def update() -> AnyRow:
        expect(whole(engine, schedules.get(engine, schedule_id, lock=True)), if_match)
        return verbs.update_schedule(engine, settings, schedule_id, wanted.fields(), actor=change.actor, now=change.now)

    return _carried_out(change, update)


@router.delete(
    "/{schedule_id}", status_code=204, summary="Delete a recurring invoice", responses=refusals(404, 409, 412)
)
def delete_schedule(schedule_id: ScheduleId, change: Deletes, if_match: IfMatch = None) -> Response:
    """Remove a schedule and its history, but not while an invoice of it is being made. Invoices and events stay.

    The scope `invoices:write` of the Hisab document is `recurring:delete` here.
    """
    engine = change.runtime.engine

    def delete() -> None:
        expect(whole(engine, schedules.get(engine, schedule_id, lock=True)), if_match)
        verbs.delete_schedule(engine, schedule_id, actor=change.actor, now=change.now)

    return change.carry_out(delete)


@router.post(
    "/{schedule_id}/generate",
    status_code=201,
    summary="Generate the next invoice now",
    response_model=One[Occurrence],
    responses=refusals(404, 409)
    | {
        200: {
            "model": One[Occurrence],
            "description": "It has ended without an invoice; `status` and `error_message` say how.",
        },
        202: {
            "model": One[Occurrence],
            "description": "It is under way: ask again under the same `Idempotency-Key`, or look into the history.",
        },
    },
)
def generate_invoice(
    schedule_id: ScheduleId,
    change: Changes,
    at_once: Annotated[AtOnce, Depends(_at_once)],
    wanted: Annotated[WantedInvoice | None, Body()] = None,
) -> Response:
    """Make the invoice of the next due date now, dated today or `issue_date`; that due date is used up by it.

    Send an `Idempotency-Key`: who asks again under it gets what has become of that invoice, and never a second one.
    What the provider does not do at once is waited for 10 seconds, and is then finished by the workers.
    Refused with INVALID_STATE unless the schedule is active and nothing of it is under way, with CUSTOMER_INACTIVE
    where the customer is not to be billed, and with PROVIDER_UNAVAILABLE where the provider cannot say.
    """
    issue_date = None if wanted is None else wanted.issue_date
    occurrence, before = change.begin(
        lambda: on_demand.plan_now(at_once.generator, schedule_id, issue_date=issue_date, actor=change.actor),
        first=lambda: at_once.expect_billable(schedule_id),
    )
    if not before:
        at_once.make(occurrence)
    row = at_once.look(occurrence)
    status = 201 if row.status == "generated" else 202 if row.status in {WAITING, RUNNING} else 200
    return answer(entry(row), status, before=before)


@router.get("/{schedule_id}/history", summary="List what became of its due dates", responses=refusals(404))
def list_history(
    schedule_id: ScheduleId,
    wanted: Annotated[Preceding, Query()],
    running: Running,
    _caller: Read,
) -> Many[Occurrence]:
    """The latest due date first: success, failed or skipped; waiting, running or held before."""
    found = browsing.history(running.engine, schedule_id, after=wanted.after, limit=wanted.limit)
    return many(found, entry)


@router.get("/{schedule_id}/preview", summary="List the due dates to come", responses=refusals(404, 409))
def preview_schedule(
    schedule_id: ScheduleId, wanted: Annotated[Following, Query()], running: Running, _caller: Read
) -> One[list[Preview]]:
    """The next due dates, and what their invoices will come to; none once it is completed or cancelled."""
    row = schedules.get(running.engine, schedule_id)
    coming = schedules.preview(running.settings, row, wanted.next, utcnow(), issued=wanted.issue_date)
    return One(data=[Preview(**asdict(one) | {"total": format(one.total, "f")}) for one in coming])


@router.post(
    "/{schedule_id}/pause", summary="Pause a recurring invoice", response_model=_WHOLE, responses=refusals(404, 409)
)
def pause_schedule(schedule_id: ScheduleId, change: Changes) -> Response:
    """Make no further invoices until it is resumed; what is planned and not begun is held."""
    engine = change.runtime.engine
    return _carried_out(change, lambda: verbs.pause(engine, schedule_id, actor=change.actor, now=change.now))


@router.post(
    "/{schedule_id}/resume", summary="Resume a recurring invoice", response_model=_WHOLE, responses=refusals(404, 409)
)
def resume_schedule(
    schedule_id: ScheduleId, change: Changes, wanted: Annotated[WantedResumption | None, Body()] = None
) -> Response:
    """Go on with a paused schedule; what came due meanwhile is made up for as its `catch_up` says."""
    engine, day = change.runtime.engine, None if wanted is None else wanted.next_run_date
    return _carried_out(
        change, lambda: verbs.resume(engine, schedule_id, next_run_date=day, actor=change.actor, now=change.now)
    )


@router.post(
    "/{schedule_id}/cancel", summary="Cancel a recurring invoice", response_model=_WHOLE, responses=refusals(404, 409)
)
def cancel_schedule(schedule_id: ScheduleId, change: Changes) -> Response:
    """End a schedule for good, and keep its history; what is planned and not begun is skipped."""
    engine = change.runtime.engine
    return _carried_out(change, lambda: verbs.cancel(engine, schedule_id, actor=change.actor, now=change.now))


@router.post(
    "/{schedule_id}/retry",
    summary="Try again what failed",
    response_model=One[Retried],
    responses=refusals(404, 409),
)
def retry_schedule(
    schedule_id: ScheduleId, change: Changes, wanted: Annotated[WantedRetry | None, Body()] = None
) -> Response:
    """Try again what failed, as the schedule is now, and at once what was postponed; no invoice is made twice."""
    engine, due_on = change.runtime.engine, None if wanted is None else wanted.due_on
    sources: list[str] = []

    def retry() -> Retried:
        count = verbs.retry(engine, schedule_id, due_on=due_on, actor=change.actor, now=change.now)
        sources[:] = [schedules.get(engine, schedule_id).source]
        return Retried(occurrences=count)

    return change.carry_out(retry, rings=[(GENERATE, sources)])


def _carried_out(change: Change, do: Callable[[], AnyRow]) -> Response:
    return change.carry_out(lambda: whole(change.runtime.engine, do()))


def shown(row: AnyRow) -> Schedule:
    """A schedule as the API shows it."""
    return Schedule.of(row, next_run_date=schedules.next_run_date(row))


def entry(row: AnyRow) -> Occurrence:
    """An occurrence as the API shows it."""
    return Occurrence(**asdict(schedules.entry(row)))


def whole(engine: Engine, row: AnyRow) -> WholeSchedule:
    """A schedule with the latest entries of its history, as the API shows it."""
    entries = schedules.history(engine, row.id, limit=LATEST)
    history = [Occurrence(**asdict(one)) for one in entries]
    return WholeSchedule.of(row, next_run_date=schedules.next_run_date(row), history=history)
