"""The tables. What is waiting carries the same four columns (`Work`), read and written by `workers.leases`."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Text,
    TextClause,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

AnyRow = Row[*tuple[Any, ...]]
"""A row of a SELECT or RETURNING, whatever its columns."""

WAITING = "waiting"
RUNNING = "running"
JSON_TYPE = "application/json"


class Utc(TypeDecorator[datetime]):
    """A moment in UTC: with its zone on PostgreSQL; SQLite knows none, so it is taken off and put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Prose(TypeDecorator[str]):
    """Text of others' making (an error, a reason): what a database cannot store in it is written out."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: object, dialect: Dialect) -> str | None:
        return None if value is None else prose(str(value))


def prose(text: str) -> str:
    """Text that any database can store: what it cannot is written out."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


class Model(DeclarativeBase):
    """Root of the tables; `Model.metadata` is what Alembic compares with."""

    # Named, because SQLite's migrations address constraints by name.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: Text, bytes: LargeBinary, datetime: Utc, dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012


class Work:
    """Work that processes lease: waiting until `next_attempt_at`; while running, leased until then.

    `fence` grows with each lease: a result is written only under the fence it was leased with. `ring_at` is
    when the sweep announces the row if nobody took it (deliveries it finds by their endpoints); NULL when there is
    nothing left to do.
    """

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    status: Mapped[str] = mapped_column(String(12), default=WAITING)
    starts: Mapped[int] = mapped_column(Integer, default=0)
    fence: Mapped[int] = mapped_column(Integer, default=0)
    next_attempt_at: Mapped[datetime]
    ring_at: Mapped[datetime | None]


def _partial(name: str, *columns: str, where: TextClause, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, postgresql_where=where, sqlite_where=where)


def _due(table: str) -> Index:
    """Only what has work left is in it, so that its size follows the work and not the history."""
    return _partial(f"ix_{table}_ring_at", "ring_at", where=text("ring_at IS NOT NULL"))


class EventRow(Model):
    """One delivery, stored exactly once. Status: waiting, processed, ignored, dead."""

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("source", "delivery_id"),
        UniqueConstraint("source", "event_key"),
        _partial("ix_events_status", "status", where=text("status IN ('waiting', 'dead')")),
        # What of an object nobody planned yet.
        _partial("ix_events_unplanned", "object_id", where=text("ring_at IS NOT NULL")),
        _partial("ix_events_reconciled", "source", "object_id", "type", where=text("reconciled")),
        _due("events"),
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


_OPEN = text("status IN ('waiting', 'running')")
_OPEN_AND_ORDERED = text("ordered AND status IN ('waiting', 'running')")
_RUNNING_AND_ORDERED = text("ordered AND status = 'running'")


class HandlerRun(Work, Model):
    """One handler on one event. Status: waiting, running, succeeded, discarded, dead."""

    __tablename__ = "handler_runs"
    __table_args__ = (
        UniqueConstraint("event_id", "handler"),
        _due("handler_runs"),
        # Who handled what of an object, and when it happened.
        _partial("ix_handler_runs_lane", "lane", "handler", "occurred_at", where=text("lane IS NOT NULL")),
        # The runs of one object that stand in line, and the law that only one of them runs.
        _partial("ix_handler_runs_line", "lane", "handler", "occurred_at", "event_id", where=_OPEN_AND_ORDERED),
        _partial("uq_handler_runs_lane", "lane", "handler", where=_RUNNING_AND_ORDERED, unique=True),
        # The places of handlers with a limit, and who waits for one.
        _partial("uq_handler_runs_slot", "handler", "slot", where=text("slot IS NOT NULL"), unique=True),
        _partial("ix_handler_runs_waiting", "handler", "next_attempt_at", where=text("status = 'waiting'")),
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


class AuditEntry(Model):
    """Something that a person had done: who, what, and to how much of what."""

    __tablename__ = "audit_log"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str]
    detail: Mapped[dict[str, Any]]


class Message(Model):
    """An outbound event: the exact bytes that every endpoint gets."""

    __tablename__ = "messages"

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


class Delivery(Work, Model):
    """One message to one endpoint. Status: waiting, running, succeeded, exhausted, refused, cancelled."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("message_id", "endpoint_id"),
        # What is due at an endpoint: first attempts beside those that failed before, longest due first.
        _partial("ix_deliveries_line", "endpoint_id", "again", "next_attempt_at", where=_OPEN),
    )

    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id"))
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("endpoints.id"), index=True)
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
    __table_args__ = (_partial("ix_schedules_next_run_at", "next_run_at", where=text("next_run_at IS NOT NULL")),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    source: Mapped[str]
    """The source whose API the invoices are made with."""
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
    status: Mapped[str] = mapped_column(String(12), default="active")
    next_index: Mapped[int]
    """Number of the next occurrence, from 0."""
    next_run_at: Mapped[datetime | None]
    """Start of the next due date in the schedule's time zone; NULL when there is none."""
    created_at: Mapped[datetime]


class Occurrence(Work, Model):
    """One due date of a schedule. Status: waiting, running, generated, failed."""

    __tablename__ = "occurrences"
    __table_args__ = (UniqueConstraint("schedule_id", "due_on"), _due("occurrences"))

    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedules.id"))
    due_on: Mapped[date]
    step: Mapped[str] = mapped_column(String(12), default="planned")
    """How far it came: planned, intended, created. What follows is read off the invoice itself."""
    invoice_id: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(Prose)


__all__ = [
    "JSON_TYPE", "RUNNING", "WAITING", "Attempt", "AuditEntry", "Delivery", "Endpoint", "EndpointKey", "EventRow",
    "HandlerRun", "Message", "Model", "Occurrence", "OnceKey", "Schedule", "Step", "Utc", "Work", "prose",
]  # fmt: skip
