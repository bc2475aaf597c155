"""`/handlers` and `/runs`: which handlers have had runs, and what became of each run.

The receiver loads no handler. So a handler is known here by its runs, and one that never had any is not.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Security
from pydantic import Field

from receiver.api.access import Running, caller
from receiver.api.answers import Many, Model, Moment, One, Pages, Text, all_of, many, refusals
from receiver.api.errors import missing
from receiver.api.events import Step
from workers import browsing, handled
from workers.api_keys import Caller
from workers.handled import Handled
from workers.leases import utcnow
from workers.models import AnyRow

router = APIRouter(tags=["handlers"])

Read = Annotated[Caller, Security(caller, scopes=["handlers:read"])]
Status = Literal["waiting", "running", "succeeded", "discarded", "dead"]


class Outcomes(Model):
    """Runs by what became of them."""

    runs: int
    succeeded: int
    discarded: int
    dead: int
    waiting: int = Field(description="Waiting or running.")


class Handler(Model):
    """A handler, as its stored runs show it."""

    name: str
    waiting: int = Field(description="Runs that have not ended; no more than 100,000 are counted.")
    dead: int = Field(description="Dead runs that are stored; no more than 100,000 are counted.")
    last_run_at: Moment = Field(description="When its newest run was made.")
    last_day: Outcomes = Field(description="Runs of the events received in the last 24 hours.")


class Run(Model):
    """One handler on one event."""

    id: str
    handler: str
    event_id: str
    status: Status
    attempts: int = Field(description="Starts that ended: failures, and the success.")
    starts: int
    pauses: int
    replays: int = Field(description="How often somebody asked for it again.")
    ordered: bool
    created_at: Moment
    next_attempt_at: Moment | None = Field(description="While it waits.")
    ended_at: Moment | None
    duration_ms: int | None = Field(description="How long its last start took; null before one has ended.")


class WholeRun(Run):
    """A run with its error and its steps."""

    error: str | None = Field(description="The traceback, with the secrets of the settings masked.")
    steps: list[Step]


class Wanted(Pages):
    """Which runs; all that is given must fit."""

    listed = "run"

    handler: Annotated[Text | None, Query(max_length=200)] = None
    status: Status | None = None
    event_id: Annotated[Text | None, Query(max_length=40)] = None
    since: Annotated[Moment | None, Query(description="Made then or later.")] = None
    until: Annotated[Moment | None, Query(description="Made earlier.")] = None


def outcomes(by_status: dict[str, int]) -> Outcomes:
    """Counts by status, with their sum."""
    each = {name: by_status.get(name, 0) for name in ("succeeded", "discarded", "dead", "waiting")}
    return Outcomes(runs=sum(each.values()), **each)


def shown_handler(found: Handled) -> Handler:
    """A handler as the API shows it."""
    return Handler(
        name=found.name,
        waiting=found.waiting,
        dead=found.dead,
        last_run_at=found.last_run_at,
        last_day=outcomes(dict(found.last_day)),
    )


def shown(row: AnyRow) -> Run:
    """A run as the API shows it."""
    return Run.of(row, next_attempt_at=_waits_until(row))


def _waits_until(row: AnyRow) -> Moment | None:
    return row.next_attempt_at if row.status == "waiting" else None


@router.get("/handlers", summary="List handlers", responses=refusals())
def list_handlers(running: Running, _caller: Read) -> Many[Handler]:
    """Those that have had a run which is still stored, by name; there is one page."""
    return all_of([shown_handler(one) for one in handled.handlers(running.engine, utcnow())])


@router.get("/handlers/{name}", summary="Show a handler", responses=refusals(404))
def show_handler(name: Text, running: Running, _caller: Read) -> One[Handler]:
    """One handler, by its stored runs."""
    for one in handled.handlers(running.engine, utcnow()):
        if one.name == name:
            return One(data=shown_handler(one))
    raise missing("handler with runs", name)


@router.get("/runs", summary="List runs", responses=refusals())
def list_runs(wanted: Annotated[Wanted, Query()], running: Running, _caller: Read) -> Many[Run]:
    """The newest first."""
    meant = browsing.Runs(
        handler=wanted.handler,
        status=wanted.status,
        event_id=wanted.event_id,
        since=wanted.since,
        until=wanted.until,
    )
    return many(browsing.runs(running.engine, meant, after=wanted.after, limit=wanted.limit), shown)


@router.get("/runs/{run_id}", summary="Show a run", responses=refusals(404))
def show_run(run_id: Text, running: Running, _caller: Read) -> One[WholeRun]:
    """One run, with its error and the steps that it will not repeat."""
    found = browsing.run(running.engine, run_id)
    if found is None:
        raise missing("run", run_id)
    row, steps = found
    return One(data=WholeRun.of(row, next_attempt_at=_waits_until(row), steps=[Step.of(step) for step in steps]))
