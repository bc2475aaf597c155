"""`/deliveries`: messages on their way to endpoints, how each attempt went, and to have some sent now."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Path, Query, Response, Security
from pydantic import Field
from sqlalchemy import Engine

from receiver.api.access import Running, caller
from receiver.api.answers import Many, Model, Moment, One, Pages, many, refusals, text_of
from receiver.api.changes import Change, changing
from receiver.api.errors import ApiError, missing
from workers.api_keys import Caller
from workers.app import DELIVER
from workers.delivery import deliveries, recover
from workers.delivery.errors import HasSucceeded
from workers.models import AnyRow

router = APIRouter(prefix="/deliveries", tags=["deliveries"])

Read = Annotated[Caller, Security(caller, scopes=["deliveries:read"])]
Changes = Annotated[Change, changing("deliveries:write")]
DeliveryId = Annotated[str, Path(max_length=40, description="`dlv_…`")]
Status = Literal["waiting", "running", "succeeded", "exhausted", "refused", "cancelled"]
AT_ONCE = 100
"""Deliveries that are named in one request."""


class Delivery(Model):
    """One message to one endpoint."""

    id: str
    message_id: str
    endpoint_id: str
    type: str = Field(description="Of the message.")
    status: Status
    attempts: int
    created_at: Moment
    next_attempt_at: Moment | None = Field(description="While it waits.")
    ended_at: Moment | None


class ListedDelivery(Delivery):
    """A delivery, and how it went last."""

    last: str | None = Field(description="The status of the last answer, or in one word why none came.")


class Attempt(Model):
    """One HTTP exchange, as it went."""

    number: int
    started_at: Moment
    duration_ms: int
    status: int | None = Field(description="Of the answer; null where none came.")
    error: str | None = Field(description="Why none came, in one word.")
    response: str | None = Field(
        description="The body of the answer, its first 64 KiB, with the values of the endpoint's own headers masked; "
        "null where it is no UTF-8."
    )
    response_base64: str | None = Field(description="The same where it is no UTF-8.")


class Request(Model):
    """What is sent. The id, the body and its type are exactly those of every attempt.

    The URL and the names of the endpoint's own headers are what they are now: they may have been others before.
    Each attempt has a `webhook-timestamp` of its own, a second at most before `started_at` as a rule, and in
    `webhook-signature` one signature of each secret that was live then; neither is stored.
    """

    method: Literal["POST"] = "POST"
    url: str
    webhook_id: str
    content_type: str
    body: str | None = Field(description="Null where it is no UTF-8.")
    body_base64: str | None


class WholeDelivery(Delivery):
    """A delivery, what it sends, and each attempt."""

    event_id: str | None = Field(description="The event that the message came of.")
    leased_until: Moment | None = Field(description="While it is sent: until then its process has it for itself.")
    prior: int = Field(description="Attempts that were made before it was last asked for anew.")
    endpoint_status: Literal["enabled", "disabled"]
    held_until: Moment | None = Field(description="Until then nothing is sent to the endpoint.")
    request: Request
    attempts_made: list[Attempt] = Field(description=f"The last {deliveries.SHOWN}, oldest first.")


class WantedRetry(Model):
    """How deliveries are sent again."""

    succeeded: bool = Field(False, description="Also those that succeeded: the same message once more.")


class WantedRetries(WantedRetry):
    """Which deliveries are sent again."""

    ids: list[Annotated[str, Field(max_length=40)]] = Field(min_length=1, max_length=AT_ONCE, description="`dlv_…`")


class Retried(Model):
    """What became of them."""

    due: list[str] = Field(description="Those that are due now.")
    under_way: list[str] = Field(description="Those that were being sent just then, and were left alone.")


class Wanted(Pages):
    """Which deliveries; all that is given must fit."""

    listed = "dlv"

    endpoint_id: str | None = Query(None, max_length=40)
    message_id: str | None = Query(None, max_length=40)
    status: list[Status] = Query([], max_length=6, description="One of these: `status=exhausted&status=refused`.")
    since: Moment | None = Query(None, description="Made then or later.")
    until: Moment | None = Query(None, description="Made earlier.")

    @property
    def wanted(self) -> deliveries.Wanted:
        """The same, for the engine."""
        return deliveries.Wanted(
            endpoint_id=self.endpoint_id,
            message_id=self.message_id,
            statuses=tuple(dict.fromkeys(self.status)),
            since=self.since,
            until=self.until,
        )


@router.get("", summary="List deliveries", responses=refusals())
def list_deliveries(wanted: Annotated[Wanted, Query()], running: Running, _caller: Read) -> Many[ListedDelivery]:
    """The newest first."""
    found = deliveries.newest(running.engine, wanted.wanted, after=wanted.after, limit=wanted.limit)
    return many(found, lambda row: ListedDelivery.of(row, next_attempt_at=_next(row)))


@router.get("/{delivery_id}", summary="Show a delivery", responses=refusals(404))
def show_delivery(delivery_id: DeliveryId, running: Running, _caller: Read) -> One[WholeDelivery]:
    """One delivery with what it sends and how each attempt went."""
    found = _found(running.engine, delivery_id)
    row = found.delivery
    body, encoded = text_of(row.body)
    request = Request(
        url=row.url, webhook_id=row.message_id, content_type=row.content_type, body=body, body_base64=encoded
    )
    made = [_attempt(attempt) for attempt in found.attempts]
    leased = row.next_attempt_at if row.status == "running" else None
    return One(
        data=WholeDelivery.of(row, next_attempt_at=_next(row), leased_until=leased, request=request, attempts_made=made)
    )


@router.post("/retry", summary="Send deliveries now", response_model=One[Retried], responses=refusals(404, 409))
def retry_deliveries(wanted: WantedRetries, change: Changes) -> Response:
    """Have all of these be due now, or none of them.

    What ended has all of its schedule before it; what waits keeps its place in it; what is being sent is left alone.
    """
    return _retry(wanted.ids, wanted, change)


@router.post(
    "/{delivery_id}/retry", summary="Send a delivery now", response_model=One[Retried], responses=refusals(404, 409)
)
def retry_delivery(
    delivery_id: DeliveryId, change: Changes, wanted: Annotated[WantedRetry | None, Body()] = None
) -> Response:
    """Have one be due now. One that waits keeps its place in its schedule; one that is being sent is left alone."""
    return _retry([delivery_id], wanted or WantedRetry(), change)


def _retry(ids: list[str], wanted: WantedRetry, change: Change) -> Response:
    engine, due = change.runtime.engine, list[str]()

    def do() -> Retried:
        try:
            retried = recover.retry(engine, ids, actor=change.actor, now=change.now, succeeded=wanted.succeeded)
        except HasSucceeded as error:
            message = f'{error.named} succeeded: say "succeeded": true to send the same message once more'
            raise ApiError(409, message, code="INVALID_STATE") from None
        due[:] = retried.due
        return Retried(due=list(retried.due), under_way=list(retried.under_way))

    return change.carry_out(do, rings=[(DELIVER, due)])


def shown(engine: Engine, delivery_id: str) -> Delivery:
    """A delivery as the API shows it. Raises ApiError 404."""
    row = _found(engine, delivery_id).delivery
    return Delivery.of(row, next_attempt_at=_next(row))


def _found(engine: Engine, delivery_id: str) -> deliveries.Shown:
    found = deliveries.shown(engine, delivery_id)
    if found is None:
        raise missing("delivery", delivery_id)
    return found


def _attempt(row: AnyRow) -> Attempt:
    text, encoded = text_of(row.response)
    return Attempt.of(row, response=text, response_base64=encoded)


def _next(row: AnyRow) -> object:
    return row.next_attempt_at if row.status == "waiting" else None
