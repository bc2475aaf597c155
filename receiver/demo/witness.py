"""What the demo sees: the tables as the processes have written them, and what the endpoint received.

Each look shows what is new since the one before, in the order of time. Nothing is shown that is not in a table, or
was not received by the endpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, select

from receiver.demo.page import Missing, Page
from receiver.demo.sink import Received
from workers import browsing, database
from workers.models import WAITING, AnyRow, Attempt, Delivery, EventRow, HandlerRun, Message, Occurrence
from workers.selection import Selection

NEWEST = 100
"""Events that one look takes in: far more than come in between two."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One line to be: `key` is what it is known by, `bad` says that it should not have happened."""

    key: tuple[str, ...]
    at: datetime
    happening: str
    subject: str
    detail: str
    bad: bool = False
    not_before: datetime | None = None
    """Its cause, which is shown first even where two clocks disagree about the order."""

    @property
    def order(self) -> datetime:
        return max(self.at, self.not_before or self.at)


@dataclass(slots=True)
class Witness:
    """Remembers what it has shown."""

    engine: Engine
    page: Page
    endpoint: Sequence[Received]
    """Grows while messages come in."""
    _shown: dict[tuple[str, ...], datetime] = field(default_factory=dict)
    _status: dict[str, str] = field(default_factory=dict)
    """Of each event, when last looked at: before its runs, so that they are complete when it has ended."""

    def look(self) -> None:
        """Show what is new. Raises Missing, once, for what should not have happened."""
        facts = [fact for fact in self._facts() if fact.key not in self._shown]
        for fact in sorted(facts, key=lambda fact: fact.order):
            self._shown[fact.key] = fact.at
            if fact.bad:
                raise Missing(fact.happening, f"{fact.subject}: {fact.detail}")
            self.page.happened(fact.happening, fact.subject, fact.detail, fact.at)

    def ended(self, event_id: str) -> bool:
        """Whether an event's end was shown, and every message that it caused was shown to have come."""
        if self._status.get(event_id, WAITING) == WAITING:
            return False
        return all(("verified", message_id) in self._shown for message_id in self._messages(event_id))

    def events(self, object_id: str | None = None) -> list[AnyRow]:
        """The events, oldest first; only those about one object if it is named."""
        newest = browsing.events(self.engine, Selection(), limit=NEWEST).rows
        return [row for row in reversed(newest) if object_id in (None, row.object_id)]

    def _messages(self, event_id: str) -> Sequence[str]:
        with database.read(self.engine) as connection:
            return connection.execute(select(Message.id).where(Message.event_id == event_id)).scalars().all()

    def _facts(self) -> Iterator[Fact]:
        events = self.events()
        with database.read(self.engine) as connection:
            occurrences = connection.execute(_OCCURRENCES).all()
            runs = connection.execute(_RUNS.where(EventRow.id.in_([row.id for row in events]))).all()
            attempts = connection.execute(_ATTEMPTS).all()
        self._status = {row.id: row.status for row in events}
        for made in occurrences:
            detail = f"{made.invoice_id}  for {made.due_on}" if made.error is None else made.error
            bad = made.status != "generated"
            yield Fact(("generated", made.id), made.ended_at, "generated", "invoice", detail, bad)
        for row in events:
            origin = "Billhook's own" if row.type.startswith("recurring.") else "signature verified"
            yield Fact(("received", row.id), row.received_at, "received", row.type, f"{row.id}  {origin}")
            if row.status == "ignored":
                yield Fact(("ignored", row.id), datetime.now(UTC), "ignored", row.type, "no handler wants it")
        for run in runs:
            yield self._of_run(run)
        for attempt in attempts:
            yield from self._of_attempt(attempt)

    def _of_attempt(self, row: AnyRow) -> Iterator[Fact]:
        """The attempt as our side recorded it, and the same as the endpoint saw it."""
        good = row.status is not None and 200 <= row.status < 300
        detail = f"{row.message_id}  {row.status or row.error} in {row.duration_ms} ms"
        yield Fact(("sent on", row.id), row.started_at, "sent on", row.type, detail, not good)
        for message in [one for one in self.endpoint if one.id == row.message_id]:
            detail = f"{message.id}  {message.refused or 'standardwebhooks'}"
            refused = message.refused is not None
            yield Fact(
                ("verified", message.id),
                message.at,
                "verified",
                message.type,
                detail,
                refused,
                not_before=row.started_at,
            )

    def _of_run(self, run: AnyRow) -> Fact:
        key, name = ("run", run.id, str(run.attempts)), run.handler.rpartition(".")[2]
        attempt = f"attempt {run.attempts}"
        done = f"{run.type}, {attempt}"
        match run.status:
            case "succeeded" if run.attempts == 1:
                return Fact(key, run.ended_at, "handled", name, done)
            case "succeeded":
                failed_at = self._shown.get(("run", run.id, str(run.attempts - 1)))
                later = f", {(run.ended_at - failed_at) / timedelta(seconds=1):.1f} s later" if failed_at else ""
                return Fact(key, run.ended_at, "retried", name, done + later)
            case "discarded":
                return Fact(key, run.ended_at, "discarded", name, run.error)
        last_line = run.error.rstrip().rpartition("\n")[2]  # without its traceback
        dead = run.status == "dead"
        return Fact(key, datetime.now(UTC), "retried" if dead else "failed", name, f"{attempt}: {last_line}", dead)


_RUNS = (
    select(
        HandlerRun.id,
        HandlerRun.handler,
        HandlerRun.status,
        HandlerRun.attempts,
        HandlerRun.error,
        HandlerRun.ended_at,
        EventRow.type,
    )
    .join(EventRow, EventRow.id == HandlerRun.event_id)
    .where(HandlerRun.attempts > 0)
    .order_by(HandlerRun.id)
)
_ATTEMPTS = (
    select(
        Attempt.id,
        Attempt.status,
        Attempt.error,
        Attempt.started_at,
        Attempt.duration_ms,
        Delivery.message_id,
        Message.type,
    )
    .join(Delivery, Delivery.id == Attempt.delivery_id)
    .join(Message, Message.id == Delivery.message_id)
    .order_by(Attempt.id)
)
_OCCURRENCES = select(
    Occurrence.id, Occurrence.status, Occurrence.due_on, Occurrence.invoice_id, Occurrence.error, Occurrence.ended_at
).where(Occurrence.ended_at.is_not(None))
