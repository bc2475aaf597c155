"""`/events/replay` and `/events/acknowledge`: to have events handled again, or to let dead ones go; one or many."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Body, Response
from pydantic import Field, StringConstraints, model_validator

from receiver.api.answers import Model, Moment, One, Text, refusals
from receiver.api.changes import Change
from receiver.api.errors import ApiError, missing
from receiver.api.events import Changes, EventId
from workers import acknowledgement, replay
from workers.replay import Wish
from workers.selection import Selection, unknown

router = APIRouter(prefix="/events", tags=["events"])

MOST = 10_000
"""Events that one request replays or acknowledges at most: it is one transaction."""

Id = Annotated[Text, StringConstraints(max_length=40)]
Handler = Annotated[Text, StringConstraints(min_length=1, max_length=200)]


class Meant(Model):
    """Which events; all that is given must fit, and something has to be."""

    ids: list[Id] | None = Field(None, min_length=1, max_length=1_000)
    type: Annotated[Text, StringConstraints(max_length=200)] | None = Field(
        None, description="`invoice.paid`, `invoice.*` or `*`."
    )
    source: Annotated[Text, StringConstraints(max_length=63)] | None = None
    object_id: Annotated[Text, StringConstraints(max_length=200)] | None = Field(
        None, description="Of the invoice or customer."
    )
    since: Moment | None = Field(None, description="Received then or later.")
    until: Moment | None = Field(None, description="Received earlier.")
    limit: int = Field(1_000, ge=1, le=MOST, description="Events at most, the oldest first.")
    dry_run: bool = Field(False, description="Only count; nothing is changed.")

    @property
    def selection(self) -> Selection:
        """The same, for the engine."""
        return Selection(
            events=tuple(self.ids or ()),
            type=self.type,
            source=self.source,
            object_id=self.object_id,
            since=self.since,
            until=self.until,
        )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self._is_narrowed():
            raise ValueError(f"say which events, by one of: {', '.join(self._filters())}")
        return self

    def _is_narrowed(self) -> bool:
        return bool(self.selection)

    def _filters(self) -> list[str]:
        return [name for name in type(self).model_fields if name not in _NO_FILTERS]


_NO_FILTERS = {"limit", "dry_run", "rate"}


class WantedReplays(Meant):
    """Which events to handle again, and how fast."""

    status: Literal["processed", "ignored", "dead"] | None = Field(
        None, description="With `dead` only the runs that are dead, else all that have ended."
    )
    handler: Handler | None = Field(None, description="Only its runs; it has to have some.")
    rate: float = Field(50.0, ge=0.001, le=1e6, allow_inf_nan=False, description="Events a second.")

    def wish(self) -> Wish:
        """The same, for the engine."""
        return Wish(selection=self.selection, handler=self.handler, rate=self.rate, limit=self.limit)

    @property
    def selection(self) -> Selection:
        return replace(super().selection, status=self.status)

    def _is_narrowed(self) -> bool:
        return bool(self.selection) or self.handler is not None


class WantedReplay(Model):
    """How to handle one event again."""

    handler: Handler | None = Field(None, description="Only its run; without, all that have ended.")
    dry_run: bool = Field(False, description="Only count; nothing is changed.")


class Replayed(Model):
    """What waits again, or would."""

    events: int
    runs: int = Field(description="Runs that had ended.")
    new: int = Field(
        description="Runs of handlers that had none. The receiver loads no handler, so it adds none itself; "
        "an ignored event that is replayed gets its runs from the workers."
    )
    waiting: int | None = Field(
        description="In a dry run: runs that have not ended, and would be left alone. Else null."
    )
    more: bool = Field(
        description="Whether `limit` ended it. What was replayed waits, and is not found by `status` again until it "
        "has ended; narrow by time to go on without it."
    )
    dry_run: bool


class Acknowledged(Model):
    """How many dead events were let go, or would be."""

    events: int
    more: bool = Field(description="Whether `limit` ended it: ask again for the rest.")
    dry_run: bool


@router.post("/replay", summary="Replay events", response_model=One[Replayed], responses=refusals(404, 409))
def replay_events(wanted: WantedReplays, change: Changes) -> Response:
    """Have handlers run again on events that have ended, the oldest first and `rate` a second.

    A dead run goes on behind the last step that it completed; one that succeeded runs anew. What `once` guards is not
    repeated, and what was emitted is not sent twice.
    """
    return change.carry_out(lambda: _replay(change, wanted.wish(), dry_run=wanted.dry_run))


@router.post(
    "/{event_id}/replay", summary="Replay an event", response_model=One[Replayed], responses=refusals(404, 409)
)
def replay_event(event_id: EventId, change: Changes, wanted: Annotated[WantedReplay | None, Body()] = None) -> Response:
    """Have handlers run again on one event. Runs that have not ended are left alone."""
    given = wanted or WantedReplay()
    wish = Wish(selection=Selection(events=(event_id,)), handler=given.handler)
    return change.carry_out(lambda: _replay(change, wish, dry_run=given.dry_run))


@router.post(
    "/acknowledge", summary="Acknowledge dead events", response_model=One[Acknowledged], responses=refusals(404, 409)
)
def acknowledge_events(wanted: Meant, change: Changes) -> Response:
    """Say that dead events were seen: they are then deleted with their retention time. Others are left as they are."""
    engine = change.runtime.engine

    def do() -> Acknowledged:
        _check(change, wanted.selection, None)
        if wanted.dry_run:
            events = acknowledgement.unacknowledged(engine, wanted.selection)
            return Acknowledged(events=min(events, wanted.limit), more=events > wanted.limit, dry_run=True)
        events = acknowledgement.acknowledge(
            engine, wanted.selection, actor=change.actor, now=change.now, limit=wanted.limit
        )
        more = events == wanted.limit and acknowledgement.unacknowledged(engine, wanted.selection) > 0
        return Acknowledged(events=events, more=more, dry_run=False)

    return change.carry_out(do)


def _replay(change: Change, wish: Wish, *, dry_run: bool) -> Replayed:
    engine = change.runtime.engine
    _check(change, wish.selection, wish.handler)
    do = replay.preview if dry_run else partial(replay.replay, actor=change.actor, now=change.now)
    count = do(engine, wish)
    more = wish.limit is not None and count.events >= wish.limit
    waiting = replay.waiting(engine, wish) if dry_run else None
    return Replayed(events=count.events, runs=count.runs, new=count.new, waiting=waiting, more=more, dry_run=dry_run)


def _check(change: Change, meant: Selection, handler: str | None) -> None:
    """Raise ApiError where an event or the handler is not there."""
    engine = change.runtime.engine
    if strangers := unknown(engine, meant.events):
        raise missing("event", strangers[0])
    if handler is not None and handler not in replay.handlers_with_runs(engine):
        problem = {"field": "handler", "message": "no run of such a handler is stored"}
        raise ApiError(400, "the request is not valid", details=[problem])
