"""`/events`: what was received, what became of it, and to have it handled again."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response, Security
from pydantic import Field
from sqlalchemy import Engine

from receiver.api.access import Running, caller
from receiver.api.answers import Many, Model, Moment, One, Pages, Text, many, refusals, text_of
from receiver.api.changes import Change, changing
from receiver.api.errors import missing
from workers import browsing
from workers.acknowledgement import acknowledge
from workers.api_keys import Caller
from workers.dossier import Dossier, dossier
from workers.models import RUNNING, WAITING, AnyRow
from workers.selection import Selection

router = APIRouter(prefix="/events", tags=["events"])

Read = Annotated[Caller, Security(caller, scopes=["events:read"])]
Changes = Annotated[Change, changing("events:write")]
EventId = Annotated[Text, Path(max_length=40, description="`evt_…`", examples=["evt_01M802JFQ4BKP1Z2J476R6XRE8"])]
Status = Literal["waiting", "processed", "ignored", "dead"]


class Event(Model):
    """One delivery, stored once."""

    id: str
    source: str
    provider: str
    delivery_id: str = Field(description="As the provider names it.")
    type: str
    organization: str | None
    object_kind: str | None
    object_id: str | None = Field(description="Of the invoice or customer that it is about.")
    occurred_at: Moment
    received_at: Moment
    status: Status
    conflicts: int = Field(description="How often its delivery id came with another body.")
    reconciled: bool = Field(description="Found at the provider's API; no delivery of it had come.")
    acknowledged_at: Moment | None = Field(description="When somebody let a dead event go.")
    runs: int = Field(description="How many handlers it has a run of.")


class Step(Model):
    """A part of a run that is not repeated."""

    name: str
    size: int = Field(description="Of what it returned, in bytes.")
    created_at: Moment


class EventRun(Model):
    """One handler on the event."""

    id: str
    handler: str
    status: Literal["waiting", "running", "succeeded", "discarded", "dead"]
    attempts: int
    starts: int
    pauses: int
    replays: int
    created_at: Moment
    next_attempt_at: Moment | None = Field(description="While it waits.")
    leased_until: Moment | None = Field(description="While it runs: until then its process has it for itself.")
    ended_at: Moment | None
    duration_ms: int | None = Field(description="How long its last start took; null before one has ended.")
    error: str | None = Field(description="The traceback, with the secrets of the settings masked.")
    steps: list[Step]


class EventDelivery(Model):
    """A message that a handler emitted, on its way to an endpoint."""

    id: str
    endpoint_id: str
    status: str
    attempts: int
    next_attempt_at: Moment | None = Field(description="While it waits.")


class EventMessage(Model):
    """What was sent on because of the event."""

    id: str
    type: str
    created_at: Moment
    deliveries: list[EventDelivery]


class WholeEvent(Event):
    """All there is about an event."""

    headers: dict[str, str] = Field(description="Those that are kept.")
    body: str | None = Field(description="Exactly as it was signed; null where it is no UTF-8.")
    body_base64: str | None = Field(description="The same where it is no UTF-8.")
    handler_runs: list[EventRun]
    messages: list[EventMessage]


class Wanted(Pages):
    """Which events; all that is given must fit."""

    listed = "evt"

    type: Annotated[Text | None, Query(max_length=200, description="`invoice.paid`, `invoice.*` or `*`.")] = None
    source: Annotated[Text | None, Query(max_length=63)] = None
    status: Status | None = None
    object_id: Annotated[Text | None, Query(max_length=200, description="Of the invoice or customer.")] = None
    since: Annotated[Moment | None, Query(description="Received then or later.")] = None
    until: Annotated[Moment | None, Query(description="Received earlier.")] = None

    @property
    def selection(self) -> Selection:
        """The same, for the engine."""
        return Selection(
            type=self.type,
            source=self.source,
            status=self.status,
            object_id=self.object_id,
            since=self.since,
            until=self.until,
        )


@router.get("", summary="List events", responses=refusals())
def list_events(wanted: Annotated[Wanted, Query()], running: Running, _caller: Read) -> Many[Event]:
    """The newest first, without their bodies."""
    return many(browsing.events(running.engine, wanted.selection, after=wanted.after, limit=wanted.limit), shown)


@router.get("/{event_id}", summary="Show an event", responses=refusals(404))
def show_event(event_id: EventId, running: Running, _caller: Read) -> One[WholeEvent]:
    """One event with its body, the headers that are kept, its runs, and what was sent on."""
    return One(data=whole(_found(running.engine, event_id)))


@router.get(
    "/{event_id}/body",
    summary="Get the body of an event",
    response_class=Response,
    responses=refusals(404) | {200: {"content": {"application/octet-stream": {}}}},
)
def show_body(event_id: EventId, running: Running, _caller: Read) -> Response:
    """The body, byte for byte as it was signed."""
    return Response(_found(running.engine, event_id).event.body, media_type="application/octet-stream")


@router.post(
    "/{event_id}/acknowledge",
    summary="Acknowledge a dead event",
    response_model=One[Event],
    responses=refusals(404, 409),
)
def acknowledge_event(event_id: EventId, change: Changes) -> Response:
    """Say that a dead event was seen: it is then deleted with its retention time. Any other is left as it is."""
    engine = change.runtime.engine

    def do() -> Event:
        _found(engine, event_id)
        acknowledge(engine, Selection(events=(event_id,)), actor=change.actor, now=change.now)
        return shown(browsing.events(engine, Selection(events=(event_id,)), limit=1).rows[0])

    return change.carry_out(do)


def _found(engine: Engine, event_id: str) -> Dossier:
    found = dossier(engine, event_id)
    if found is None:
        raise missing("event", event_id)
    return found


def shown(row: AnyRow) -> Event:
    """An event as the API shows it."""
    return Event.of(row)


def whole(found: Dossier) -> WholeEvent:
    """An event with all that is known of it, as the API shows it."""
    text, encoded = text_of(found.event.body)
    runs = [
        EventRun.of(
            run,
            next_attempt_at=_next(run, WAITING),
            leased_until=_next(run, RUNNING),
            steps=[Step.of(step) for step in found.steps.get(run.id, ())],
        )
        for run in found.runs
    ]
    messages = [
        EventMessage.of(one, deliveries=[_delivery(sent) for sent in found.deliveries.get(one.id, ())])
        for one in found.messages
    ]
    return WholeEvent.of(
        found.event,
        runs=len(runs),
        headers=json.loads(found.event.headers),
        body=text,
        body_base64=encoded,
        handler_runs=runs,
        messages=messages,
    )


def _delivery(row: AnyRow) -> EventDelivery:
    return EventDelivery.of(row, next_attempt_at=_next(row, WAITING))


def _next(row: AnyRow, status: str) -> Moment | None:
    """When it is next taken up, where it has this status: while it runs, if it has not ended by then."""
    return row.next_attempt_at if row.status == status else None
