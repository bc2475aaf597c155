"""`/endpoints/{id}/recover` and `/missing`: send an endpoint what failed there, or what it never got."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from fastapi import APIRouter, Response
from pydantic import Field, model_validator

from receiver.api.answers import Model, Moment, One, cursor_of, id_of, refusals
from receiver.api.changes import Change, changing
from receiver.api.endpoint_fields import EndpointId
from workers.delivery import recover
from workers.delivery.recover import Part, Span

router = APIRouter(prefix="/endpoints", tags=["endpoints"])

Changes = Annotated[Change, changing("deliveries:write")]
AT_ONCE = 2_000
"""What is looked at in one call, which is one transaction."""


class WantedSpan(Model):
    """From when until when."""

    listed: ClassVar[str] = "dlv"

    since: Moment
    until: Moment | None = Field(None, description="Before then; without it, until now.")
    dry_run: bool = Field(False, description="Count only, and change nothing.")
    cursor: str | None = Field(None, max_length=200, description="`next_cursor` of the call before, to go on there.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.until is not None and self.until <= self.since:
            raise ValueError("until must be later than since")
        return self

    @property
    def span(self) -> Span:
        """The same, for the engine."""
        return Span(self.since, self.until)

    @property
    def after(self) -> str | None:
        """The id behind which this call begins. Raises ApiError 400."""
        return None if self.cursor is None else id_of(self.cursor, self.listed)


class WantedMissing(WantedSpan):
    """Which messages."""

    listed: ClassVar[str] = "msg"

    forwarded: bool = Field(False, description="Also what was forwarded of providers.")


class Recovered(Model):
    """What a call did."""

    deliveries: int = Field(description="How many are due now; in a dry run, how many would be.")
    dry_run: bool
    next_cursor: str | None = Field(description="Where there may be more: ask again with it. Null at the end.")


@router.post(
    "/{endpoint_id}/recover",
    summary="Send again what failed at an endpoint",
    response_model=One[Recovered],
    responses=refusals(404, 409),
)
def recover_failed(endpoint_id: EndpointId, wanted: WantedSpan, change: Changes) -> Response:
    """Have exhausted, refused and cancelled deliveries that ended in this span be due again, the oldest first.

    At most 2,000 in one call; a dry run counts all of them. Each keeps its `webhook-id`, its schedule begins anew, and
    first attempts go before it.
    """
    engine, after = change.runtime.engine, wanted.after

    def do() -> Recovered:
        if wanted.dry_run:
            return _done(Part(recover.failed(engine, endpoint_id, wanted.span, after), None), dry_run=True)
        done = recover.recover_part(
            engine, endpoint_id, wanted.span, actor=change.actor, now=change.now, after=after, most=AT_ONCE
        )
        return _done(done, dry_run=False)

    return change.carry_out(do)


@router.post(
    "/{endpoint_id}/missing",
    summary="Send an endpoint what it never got",
    response_model=One[Recovered],
    responses=refusals(404, 409),
)
def send_missing(endpoint_id: EndpointId, wanted: WantedMissing, change: Changes) -> Response:
    """Send what was published in this span, the endpoint wants, and it has no delivery of, the oldest first.

    Such as what was published before it was added, or while it was disabled. At most 2,000 messages are looked at in
    one call, in a dry run too. Billhook's own messages are not among them: they tell of a moment that has passed.
    """
    engine, after = change.runtime.engine, wanted.after

    def do() -> Recovered:
        if wanted.dry_run:
            part = recover.missing_part(
                engine, endpoint_id, wanted.span, forwarded=wanted.forwarded, after=after, most=AT_ONCE
            )
        else:
            part = recover.fill_part(
                engine,
                endpoint_id,
                wanted.span,
                actor=change.actor,
                now=change.now,
                forwarded=wanted.forwarded,
                after=after,
                most=AT_ONCE,
            )
        return _done(part, dry_run=wanted.dry_run)

    return change.carry_out(do)


def _done(part: Part, *, dry_run: bool) -> Recovered:
    return Recovered(deliveries=part.deliveries, dry_run=dry_run, next_cursor=cursor_of(part.after))
