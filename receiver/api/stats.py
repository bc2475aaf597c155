"""`/stats`: what a dashboard shows, counted from the database."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Security
from pydantic import BaseModel, ConfigDict, Field

from receiver.api.access import Running, caller
from receiver.api.answers import Many, Model, Moment, One, Text, all_of, refusals
from receiver.api.errors import ApiError
from receiver.api.runs import Outcomes, outcomes
from receiver.api.sources import Counts, counts
from workers import stats
from workers.api_keys import Caller
from workers.leases import utcnow
from workers.stats import LONGEST, STEPS
from workers.tally import CLASSES, Step

router = APIRouter(prefix="/stats", tags=["stats"])

Read = Annotated[Caller, Security(caller, scopes=["stats:read"])]


_WITHIN = f"Exact to the class of {len(CLASSES)} durations that it is in."


class Time(BaseModel):
    """Of which time, and by which steps."""

    model_config = ConfigDict(extra="forbid")

    since: Annotated[Moment | None, Query(description="Its step is the first. Default: 24 hours before `until`.")] = (
        None
    )
    until: Annotated[Moment | None, Query(description="Before that. Default: now.")] = None

    def range(self, longest: timedelta) -> tuple[datetime, datetime]:
        """From when to when. Raises ApiError 400."""
        until = self.until or utcnow()
        try:
            since = self.since or until - timedelta(days=1)
        except OverflowError:
            raise _wrong("until", "is too early") from None
        if since >= until:
            raise _wrong("since", "must be before until")
        if until - since > longest:
            raise _wrong("since", f"must be at most {longest / timedelta(hours=1):g} hours before until")
        return since, until


class Steps(Time):
    """The same by minutes or hours."""

    step: Annotated[
        Literal["minute", "hour"], Query(description="minute: for at most 24 hours; hour: for at most 62 days.")
    ] = "hour"

    def bounds(self) -> tuple[datetime, datetime]:
        """From when to when. Raises ApiError 400."""
        return self.range(LONGEST[self.step])


class OfEvents(Steps):
    """Which events are counted."""

    source: Annotated[Text | None, Query(max_length=63)] = None
    type: Annotated[Text | None, Query(max_length=200, description="Exactly as events have it.")] = None


class OfHandlers(Time):
    """Which runs are counted."""

    handler: Annotated[Text | None, Query(max_length=200)] = None


class Backlog(Model):
    """What of one queue is due and not taken."""

    queue: Literal["events", "deliveries", "schedules"]
    waiting: int = Field(description="No more than 100,000 are counted.")
    oldest_seconds: float = Field(description="For how long the oldest of it has been due.")


class EndpointStates(Model):
    """Endpoints by state."""

    enabled: int
    held: int = Field(description="Left alone for a while.")
    disabled: int


class DueSchedule(Model):
    """A schedule and when it is due next."""

    id: str
    name: str
    source: str
    next_run_at: Moment


class Now(Model):
    """How things are."""

    at: Moment
    queues: list[Backlog]
    dead_events: int = Field(description="That nobody has acknowledged; no more than 100,000 are counted.")
    endpoints: EndpointStates
    due_next: list[DueSchedule] | None = Field(
        description="The five schedules that are due next; null to a key without `recurring:read`."
    )
    last_hour: Counts = Field(description="Events received, to the minute.")
    last_day: Counts


class EventStep(Counts):
    """The events received in a minute or hour, by what became of them so far."""

    at: Moment


class DeliveryStep(Model):
    """The attempts at endpoints that began in a minute or hour."""

    at: Moment
    attempts: int
    succeeded: int
    failed: int
    p50_ms: float | None = Field(description=f"Half of them took no longer. {_WITHIN}")
    p95_ms: float | None


class HandlerStats(Outcomes):
    """The runs of one handler on the events received in that time."""

    handler: str
    p50_ms: float | None = Field(
        description=f"Of those that have a duration, the last starts of half took no longer. {_WITHIN}"
    )
    p95_ms: float | None


@router.get("/now", summary="How things are now", responses=refusals())
def show_now(running: Running, asking: Read) -> One[Now]:
    """What waits and since when, what is dead, endpoints by state, the schedules due next, the last hour and day."""
    now = utcnow()
    found = stats.current(running.engine, now)
    sees = "recurring:read" in asking.scopes
    return One(
        data=Now(
            at=now,
            queues=[
                Backlog(queue=one.queue, waiting=one.waiting, oldest_seconds=round(one.oldest, 3))
                for one in found.backlogs
            ],
            dead_events=found.dead,
            endpoints=EndpointStates(**found.endpoints),
            due_next=[DueSchedule.of(row) for row in found.schedules] if sees else None,
            last_hour=counts(dict(found.last_hour)),
            last_day=counts(dict(found.last_day)),
        )
    )


@router.get("/events", summary="Events by time", responses=refusals())
def show_events(wanted: Annotated[OfEvents, Query()], running: Running, _caller: Read) -> Many[EventStep]:
    """How many were received in each step, and what became of them so far; every step is there, the oldest first."""
    since, until = wanted.bounds()
    found = stats.counts(
        running.engine, "events", wanted.step, since, until, ("at", "outcome"), name=wanted.source, kind=wanted.type
    )
    by_step: dict[datetime, dict[str, int]] = defaultdict(dict)
    for (at, status), amount in found.items():
        by_step[at][status] = amount
    return all_of([EventStep(at=at, **counts(by_step[at]).model_dump()) for at in _steps(wanted, since, until)])


@router.get("/deliveries", summary="Attempts at endpoints by time", responses=refusals())
def show_deliveries(wanted: Annotated[Steps, Query()], running: Running, _caller: Read) -> Many[DeliveryStep]:
    """How many attempts began in each step, how they ended, and how long they took; the oldest first."""
    since, until = wanted.bounds()
    found = stats.counts(running.engine, "attempts", wanted.step, since, until, ("at", "kind", "outcome"))
    outcome: dict[datetime, Counter[str]] = defaultdict(Counter)
    classes: dict[datetime, Counter[str]] = defaultdict(Counter)
    for (at, kind, ended), amount in found.items():
        outcome[at][ended] += amount
        classes[at][kind] += amount
    return all_of(
        [
            DeliveryStep(
                at=at,
                attempts=outcome[at].total(),
                succeeded=outcome[at]["succeeded"],
                failed=outcome[at]["failed"],
                p50_ms=stats.percentile(classes[at], 0.5),
                p95_ms=stats.percentile(classes[at], 0.95),
            )
            for at in _steps(wanted, since, until)
        ]
    )


@router.get("/handlers", summary="Runs by handler", responses=refusals())
def show_handlers(wanted: Annotated[OfHandlers, Query()], running: Running, _caller: Read) -> Many[HandlerStats]:
    """How many runs each handler had on the events received in that time, what became of them, and how long they took.

    At most 62 days: to the minute where it is 24 hours or less, else to the hour.
    """
    since, until = wanted.range(LONGEST["hour"])
    step: Step = "minute" if until - since <= LONGEST["minute"] else "hour"
    found = stats.counts(running.engine, "runs", step, since, until, ("name", "kind", "outcome"), name=wanted.handler)
    outcome: dict[str, Counter[str]] = defaultdict(Counter)
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for (name, kind, status), amount in found.items():
        outcome[name][status] += amount
        classes[name][kind] += amount
    return all_of(
        [
            HandlerStats(
                handler=name,
                p50_ms=stats.percentile(classes[name], 0.5),
                p95_ms=stats.percentile(classes[name], 0.95),
                **outcomes(outcome[name]).model_dump(),
            )
            for name in sorted(outcome)
        ]
    )


def _steps(wanted: Steps, since: datetime, until: datetime) -> Iterator[datetime]:
    first, step = stats.floor(since, wanted.step), STEPS[wanted.step]
    return (first + number * step for number in range(math.ceil((until - first) / step)))


def _wrong(field: str, message: str) -> ApiError:
    return ApiError(400, "the request is not valid", details=[{"field": field, "message": message}])
