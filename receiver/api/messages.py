"""`/messages`: what is sent on, and to publish something to the endpoints that want it."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response, Security
from pydantic import Field, JsonValue
from sqlalchemy import Engine

from receiver.api.access import Running, caller
from receiver.api.answers import Many, Model, Moment, One, Pages, many, refusals, text_of
from receiver.api.changes import Change, changing
from receiver.api.errors import ApiError, missing
from workers.api_keys import Caller
from workers.app import DELIVER
from workers.delivery import outbox

router = APIRouter(prefix="/messages", tags=["messages"])

Read = Annotated[Caller, Security(caller, scopes=["deliveries:read"])]
Changes = Annotated[Change, changing("deliveries:write")]
MessageId = Annotated[str, Path(max_length=40, description="`msg_…`; the `webhook-id` under which it is sent.")]


class Message(Model):
    """What is sent on, to each endpoint that wants it."""

    id: str
    type: str
    event_id: str | None = Field(description="The event that it came of.")
    source: str | None = Field(description="Of that event.")
    forwarded: bool = Field(description="Whether it is the event itself, as the provider sent it.")
    content_type: str
    size: int = Field(description="Of its body, in bytes.")
    created_at: Moment


class MessageDelivery(Model):
    """Where a message is sent, and how far that came."""

    id: str
    endpoint_id: str
    status: str
    attempts: int


class WholeMessage(Message):
    """A message with its body, and where it is sent."""

    body: str | None = Field(description="Exactly as it is signed and sent; null where it is no UTF-8.")
    body_base64: str | None = Field(description="The same where it is no UTF-8.")
    deliveries: list[MessageDelivery] = Field(
        description=f"The newest {outbox.SHOWN}; all of them are at `/deliveries?message_id=…`."
    )


class WantedMessage(Model):
    """A message as it is asked for."""

    type: str = Field(
        max_length=128, description="Dotted lower-case words, such as `receipt.issued`; not `billhook.…`."
    )
    data: dict[str, JsonValue] = Field(description="What it tells. Write amounts of money as strings.")


class Wanted(Pages):
    """Which messages; all that is given must fit."""

    listed = "msg"

    type: str | None = Query(None, max_length=200, description="Exactly this type.")
    event_id: str | None = Query(None, max_length=40, description="Those that came of this event.")
    since: Moment | None = Query(None, description="Published then or later.")
    until: Moment | None = Query(None, description="Published earlier.")


@router.get("", summary="List messages", responses=refusals())
def list_messages(wanted: Annotated[Wanted, Query()], running: Running, _caller: Read) -> Many[Message]:
    """The newest first, without their bodies. What came of an event stands where the event's time is."""
    found = outbox.newest(
        running.engine,
        type=wanted.type,
        event_id=wanted.event_id,
        since=wanted.since,
        until=wanted.until,
        after=wanted.after,
        limit=wanted.limit,
    )
    return many(found, Message.of)


@router.post(
    "", status_code=202, summary="Publish a message", response_model=One[WholeMessage], responses=refusals(409)
)
def publish_message(wanted: WantedMessage, change: Changes) -> Response:
    """Send something to every endpoint that wants its type, as a handler's `emit` does: wrapped as Standard Webhooks
    recommends, signed, and tried again.

    It comes of no source, so endpoints that want certain sources do not get it. With an `Idempotency-Key` a request
    that is sent again publishes nothing twice.
    """
    engine, data, rung = change.runtime.engine, _encoded(wanted.data), list[str]()

    def do() -> WholeMessage:
        published = outbox.publish(engine, wanted.type, data, actor=change.actor, now=change.now)
        rung[:] = published.rung
        return _whole(engine, published.id)

    return change.carry_out(do, status=202, rings=[(DELIVER, rung)])


@router.get("/{message_id}", summary="Show a message", responses=refusals(404))
def show_message(message_id: MessageId, running: Running, _caller: Read) -> One[WholeMessage]:
    """One message with its body, and where it is sent."""
    return One(data=_whole(running.engine, message_id))


@router.get(
    "/{message_id}/body",
    summary="Get the body of a message",
    response_class=Response,
    responses=refusals(404) | {200: {"content": {"application/octet-stream": {}}}},
)
def show_message_body(message_id: MessageId, running: Running, _caller: Read) -> Response:
    """The body, byte for byte as it is signed and sent."""
    return Response(_found(running.engine, message_id).message.body, media_type="application/octet-stream")


def _found(engine: Engine, message_id: str) -> outbox.Shown:
    found = outbox.shown(engine, message_id)
    if found is None:
        raise missing("message", message_id)
    return found


def _whole(engine: Engine, message_id: str) -> WholeMessage:
    found = _found(engine, message_id)
    text, encoded = text_of(found.message.body)
    its = [MessageDelivery.of(row) for row in found.deliveries]
    return WholeMessage.of(found.message, body=text, body_base64=encoded, deliveries=its)


def _encoded(data: dict[str, JsonValue]) -> bytes:
    """As JSON. Raises ApiError 400 where JSON cannot hold it: NaN, halves of characters, what is nested too deeply."""
    try:
        return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        problem = {"field": "data", "message": "has what JSON in UTF-8 cannot hold"}
        raise ApiError(400, "the request is not valid", details=[problem]) from None
