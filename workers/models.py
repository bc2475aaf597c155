"""The tables. What is waiting carries the same columns (`Work`), read and written by `workers.leases`."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from workers.access_models import ApiKey, AuditEntry, EndedSession, IdempotencyKey, User
from workers.columns import (
    HELD,
    JSON_TYPE,
    RUNNING,
    WAITING,
    AnyRow,
    Model,
    Prose,
    Utc,
    Work,
    due,
    partial,
    prose,
)
from workers.tally_models import StaleHour, Tally


class EventRow(Model):
    """One delivery, stored exactly once. Status: waiting, processed, ignored, dead."""

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("source", "delivery_id"),
        UniqueConstraint("source", "event_key"),
        # Whatever of status, source and type is asked for, `seeks` finds it here, newest first.
        Index("ix_events_seek", "status", "source", "type", "id"),
        partial("ix_events_object", "object_id", "id", where=text("object_id IS NOT NULL")),
        # What of an object nobody planned yet.
        partial("ix_events_unplanned", "object_id", where=text("ring_at IS NOT NULL")),
        partial("ix_events_reconciled", "source", "object_id", "type", where=text("reconciled")),
        due("events"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    source: Mapped[str]
    provider: Mapped[str]
    delivery_id: Mapped[str]
    event_key: Mapped[str]
    """The id inside the signed body, else the body's SHA-256."""
    type: Mapped[str]
    organization: Mapped[str | None]
    object_kind: Mapped[str | None]
    object_id: Mapped[str | None]
    occurred_at: Mapped[datetime]
    received_at: Mapped[datetime]
    headers: Mapped[str]
    """JSON of the few headers that are kept."""
    body: Mapped[bytes]
    body_hash: Mapped[bytes]
    status: Mapped[str] = mapped_column(String(12), default=WAITING)
    conflicts: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """How often its delivery id came with another body."""
    reconciled: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Found at the provider's API by us; no delivery of it had come."""
    acknowledged_at: Mapped[datetime | None]
    """When somebody said that a dead event may go; until then it is kept."""
    ring_at: Mapped[datetime | None]
    """When the sweep announces it; NULL once its runs are planned and none of them ends at once."""
    traceparent: Mapped[str | None] = mapped_column(String(55))
    """The span that it came by (W3C Trace Context); NULL where nobody traced it."""


OPEN = text("status IN ('waiting', 'running')")
OPEN_AND_ORDERED = text("ordered AND status IN ('waiting', 'running')")
_RUNNING_AND_ORDERED = text("ordered AND status = 'running'")


class HandlerRun(Work, Model):
    """One handler on one event. Status: waiting, running, succeeded, discarded, dead."""

    __tablename__ = "handler_runs"
    __table_args__ = (
        UniqueConstraint("event_id", "handler"),
        due("handler_runs"),
        # Who handled what of an object, and when it happened.
        partial("ix_handler_runs_lane", "lane", "handler", "occurred_at", where=text("lane IS NOT NULL")),
        # The runs of one object that stand in line, and the law that only one of them runs.
        partial("ix_handler_runs_line", "lane", "handler", "occurred_at", "event_id", where=OPEN_AND_ORDERED),
        partial("uq_handler_runs_lane", "lane", "handler", where=_RUNNING_AND_ORDERED, unique=True),
        # The places of handlers with a limit, and who waits for one.
        partial("uq_handler_runs_slot", "handler", "slot", where=text("slot IS NOT NULL"), unique=True),
        partial("ix_handler_runs_waiting", "handler", "next_attempt_at", where=text("status = 'waiting'")),
        Index("ix_handler_runs_seek", "handler", "status", "id"),
    )

    event_id: Mapped[str] = mapped_column(ForeignKey("events.id"))
    handler: Mapped[str]
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    """Starts that ended: failures, and the success."""
    pauses: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Starts that ended in a pause the handler asked for."""
    replays: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """How often somebody asked for it again after it had ended."""
    lane: Mapped[str | None]
    """The object it is about: source, kind and id."""
    ordered: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Whether the runs of its lane run one after the other, by `occurred_at`."""
    occurred_at: Mapped[datetime | None]
    """When the event happened."""
    slot: Mapped[int | None]
    """While it runs: which of the places of its handler it has, where the handler has a limit."""
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    duration_ms: Mapped[int | None]
    """How long its last start took; None before one has ended."""
    error: Mapped[str | None] = mapped_column(Prose)


class Step(Model):
    """What a step of a run returned. The run skips it from then on."""

    __tablename__ = "steps"

    run_id: Mapped[str] = mapped_column(ForeignKey("handler_runs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[bytes]
    created_at: Mapped[datetime]


class OnceKey(Model):
    """An effect that only one run of a handler may have, and whether that run has succeeded."""

    __tablename__ = "once_keys"
    __table_args__ = (Index("ix_once_keys_run_id", "run_id"), Index("ix_once_keys_created_at", "created_at"))

    handler: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    run_id: Mapped[str] = mapped_column(String(40))
    """Outlives the run."""
    done: Mapped[bool] = mapped_column(Boolean, default=False)
    created_at: Mapped[datetime]


class Message(Model):
    """An outbound event: the exact bytes that every endpoint gets."""

    __tablename__ = "messages"
    __table_args__ = (Index("ix_messages_created_at", "created_at"), Index("ix_messages_type", "type", "id"))

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    event_id: Mapped[str | None] = mapped_column(ForeignKey("events.id"), index=True)
    source: Mapped[str | None]
    """Of the event that it came of."""
    type: Mapped[str]
    forwarded: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """The provider's event as it was received; only endpoints that forward get it."""
    content_type: Mapped[str] = mapped_column(Text, default=JSON_TYPE, server_default=JSON_TYPE)
    body: Mapped[bytes]
    created_at: Mapped[datetime]
    traceparent: Mapped[str | None] = mapped_column(String(55))
    """The span that it came of, as that of an event."""


class Endpoint(Model):
    """A subscriber's URL. Status: enabled, disabled."""

    __tablename__ = "endpoints"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    url: Mapped[str]
    description: Mapped[str] = mapped_column(Text, default="")
    event_types: Mapped[list[Any]]
    """Patterns such as `receipt.*`; `["*"]` is all but Billhook's own `billhook.*`."""
    sources: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    """Names of the sources whose events it wants; none is all."""
    forward: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Whether it also gets what providers sent, as it was received."""
    headers: Mapped[bytes | None]
    """Its own headers: a JSON object, encrypted."""
    signing: Mapped[str] = mapped_column(String(8), default="v1", server_default="v1")
    """v1 (HMAC), v1a (Ed25519) or both."""
    schedule: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    """Seconds before each attempt; NULL is the usual schedule."""
    rate: Mapped[int | None]
    """Deliveries a second, 0 without limit; NULL is the setting."""
    concurrency: Mapped[int | None]
    """Deliveries at once; NULL is the setting."""
    ca: Mapped[str | None]
    """PEM of the authorities that vouch for it, instead of the usual ones."""
    client_certificate: Mapped[bytes | None]
    """PEM of a certificate and its key, encrypted."""
    status: Mapped[str] = mapped_column(String(12), default="enabled")
    disabled_reason: Mapped[str | None]
    failures: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Attempts that failed since the last success."""
    failing_since: Mapped[datetime | None]
    """When the first of them failed."""
    warned_at: Mapped[datetime | None]
    """When it was said that it has failed for long; NULL after a success."""
    held_until: Mapped[datetime | None]
    """Nothing is sent to it until then: it asked for that, or failed too often."""
    created_at: Mapped[datetime]


class EndpointKey(Model):
    """A secret that signs for an endpoint; after a rotation two or more do, until the older ones expire."""

    __tablename__ = "endpoint_keys"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("endpoints.id"), index=True)
    kind: Mapped[str] = mapped_column(String(3))
    """v1 or v1a."""
    secret: Mapped[bytes]
    """`whsec_…` or `whsk_…`, encrypted."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]


_ENDED = text("status IN ('succeeded', 'exhausted', 'refused', 'cancelled')")
_FAILED = text("status IN ('exhausted', 'refused', 'cancelled')")


class Delivery(Work, Model):
    """One message to one endpoint. Status: waiting, running, succeeded, exhausted, refused, cancelled."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("message_id", "endpoint_id"),
        # What is due at an endpoint: first attempts beside those that failed before, longest due first.
        partial("ix_deliveries_line", "endpoint_id", "again", "next_attempt_at", where=OPEN),
        # What people look for, of one endpoint and of all. What waits is in neither: it is changed often.
        partial("ix_deliveries_ended", "endpoint_id", "status", "id", where=_ENDED),
        partial("ix_deliveries_failed", "status", "id", where=_FAILED),
    )

    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id"))
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("endpoints.id"))
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    again: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Whether it has failed before, or was asked for anew."""
    prior: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Attempts made before it was last asked for anew; its schedule counts from there."""
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class Attempt(Model):
    """One HTTP exchange of a delivery, as it went."""

    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("delivery_id", "number"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    delivery_id: Mapped[str] = mapped_column(ForeignKey("deliveries.id"))
    number: Mapped[int]
    started_at: Mapped[datetime]
    duration_ms: Mapped[int]
    status: Mapped[int | None]
    """The HTTP status; NULL where no answer came."""
    error: Mapped[str | None]
    response: Mapped[bytes]


class Schedule(Model):
    """A recurring invoice. Status: active, paused, completed, cancelled. Fields as in the Hisab document."""

    __tablename__ = "schedules"
    __table_args__ = (
        # Only an active schedule has a next run, so the size of the index follows these.
        partial("ix_schedules_next_run_at", "next_run_at", where=text("next_run_at IS NOT NULL")),
        partial(
            "uq_schedules_external_id",
            "source",
            "external_id",
            where=text("external_id IS NOT NULL"),
            unique=True,
        ),
        # What lists are found by: any of these may be rare.
        *(Index(f"ix_schedules_{name}_id", name, "id") for name in ("source", "status", "customer_id", "frequency")),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    source: Mapped[str]
    """The source whose API the invoices are made with."""
    external_id: Mapped[str | None]
    """What it is known by where it was imported from; it is imported once."""
    name: Mapped[str]
    customer_id: Mapped[str]
    frequency: Mapped[str]
    interval_count: Mapped[int]
    day_of_month: Mapped[int | None]
    day_of_week: Mapped[int | None]
    start_date: Mapped[date]
    end_date: Mapped[date | None]
    max_occurrences: Mapped[int | None]
    timezone: Mapped[str]
    auto_finalize: Mapped[bool] = mapped_column(Boolean)
    auto_send: Mapped[bool] = mapped_column(Boolean)
    days_until_due: Mapped[int]
    currency: Mapped[str]
    items: Mapped[list[Any]]
    options: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    """What its provider has to be told beside that."""
    catch_up: Mapped[str] = mapped_column(String(8), default="all", server_default="all")
    """What becomes of due dates that were missed: all, latest or none."""
    status: Mapped[str] = mapped_column(String(12), default="active")
    reason: Mapped[str | None] = mapped_column(Prose)
    """Why Billhook paused it."""
    failures: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Occurrences that failed in a row."""
    anchor_date: Mapped[date | None]
    """Where its rhythm is counted from since it was changed; NULL: from `start_date`."""
    anchor_day: Mapped[int | None]
    """The day of the month that is meant, where the month of the anchor is too short for it."""
    prior: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Due dates before the anchor, which count towards `max_occurrences`."""
    next_index: Mapped[int]
    """Number of the next due date, from 0 at the anchor."""
    next_run_at: Mapped[datetime | None]
    """Start of the next due date in the schedule's time zone, while it is active."""
    planned: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Due dates that became occurrences, skipped ones too."""
    agreement: Mapped[str | None]
    """The id, at its provider, of the invoice by which the customer agreed to be charged."""
    agreement_token: Mapped[str | None]
    """What names that consent when a payment is captured."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    """When it was completed or cancelled."""


class Occurrence(Work, Model):
    """One due date of a schedule. Status: waiting, running, held, generated, failed, skipped.

    What is held was planned when its schedule was paused.
    """

    __tablename__ = "occurrences"
    __table_args__ = (
        UniqueConstraint("schedule_id", "due_on"),
        # What is due at a source, the oldest first.
        partial("ix_occurrences_line", "source", "next_attempt_at", where=OPEN),
    )

    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedules.id"))
    source: Mapped[str] = mapped_column(Text, default="", server_default=text("''"))
    """Its schedule's."""
    due_on: Mapped[date]
    issue_on: Mapped[date | None]
    """The date that its invoice bears, where that is not the due date."""
    step: Mapped[str] = mapped_column(String(12), default="planned")
    """How far it came: planned, intended, created, capturing. What else follows is read off the invoice itself."""
    draft: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """What was asked of the provider, as it was when it was intended."""
    intended_at: Mapped[datetime | None]
    """When the provider was asked for what it may have carried out unheard."""
    invoice_id: Mapped[str | None]
    invoice_number: Mapped[str | None]
    invoice_total: Mapped[str | None]
    """A decimal number, in the currency of the draft."""
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    retries: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """How often somebody asked for it again after it had failed."""
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    error_code: Mapped[str | None]
    error: Mapped[str | None] = mapped_column(Prose)
    event_id: Mapped[str | None] = mapped_column(String(40))
    """The event that reports how it ended."""


__all__ = [
    "HELD", "JSON_TYPE", "RUNNING", "WAITING", "AnyRow", "ApiKey", "Attempt", "AuditEntry", "Delivery", "EndedSession",
    "Endpoint", "EndpointKey", "EventRow", "HandlerRun", "IdempotencyKey", "Message", "Model", "Occurrence", "OnceKey",
    "Schedule", "StaleHour", "Step", "Tally", "User", "Utc", "Work", "prose",
]  # fmt: skip
