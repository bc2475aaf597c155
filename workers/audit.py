"""The audit: proves from the tables that every event received has ended, or waits where it will be found.

    received = processed + ignored + dead + waiting

The sum itself is cheap to satisfy; so each status is also checked against the runs, messages and deliveries that must
stand behind it, and what is waiting against what will ever look at it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, and_, exists, func, not_, or_, select
from sqlalchemy.orm import InstrumentedAttribute, aliased
from sqlalchemy.sql.elements import ColumnElement

from workers import audited, database
from workers.app import app, runtime
from workers.audited import Audited
from workers.leases import Clock, utcnow
from workers.logs import log
from workers.models import (
    HELD,
    RUNNING,
    WAITING,
    Attempt,
    Delivery,
    EventRow,
    HandlerRun,
    Message,
    Occurrence,
    OnceKey,
    Schedule,
)

STATUSES = ("processed", "ignored", "dead", WAITING)
_OPEN = (WAITING, RUNNING)
SHOWN = 20
"""Ids shown for one fault."""
_REPORTED_FOR = timedelta(days=30)
"""How long the event that reports an occurrence is there for certain: less than the shortest retention."""


AUDIT = "billhook.events.audit"


@dataclass(frozen=True, slots=True)
class Fault:
    """Rows that break a rule: which rule, and up to `SHOWN` of their ids."""

    rule: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Balance:
    """What the tables say; it holds when there is no fault."""

    received: int
    processed: int
    ignored: int
    dead: int
    waiting: int
    faults: tuple[Fault, ...]

    @property
    def holds(self) -> bool:
        return not self.faults and self.received == self.processed + self.ignored + self.dead + self.waiting

    def __str__(self) -> str:
        verdict = "in balance" if self.holds else "NOT IN BALANCE"
        return (
            f"received {self.received} = processed {self.processed} + ignored {self.ignored} + dead {self.dead} "
            f"+ waiting {self.waiting}: {verdict}"
        )


def audit(engine: Engine, clock: Clock = utcnow) -> Balance:
    """Count, and look for rows that break a rule. One snapshot; changes nothing."""
    with database.read(engine, snapshot=True) as connection:
        counted = connection.execute(select(EventRow.status, func.count()).group_by(EventRow.status))
        counts: dict[str, int] = {status: count for status, count in counted}  # noqa: C416 - a Row is no pair to dict
        faults = _broken(connection, _rules(clock()))
    numbers = {status: counts.get(status, 0) for status in STATUSES}
    return Balance(received=sum(counts.values()), faults=faults, **numbers)


def stuck(engine: Engine) -> tuple[Fault, ...]:
    """The rules about what is open, and will never be taken up: a small part of `audit`, as large as what is open."""
    with database.read(engine, snapshot=True) as connection:
        return _broken(connection, [_never_taken_up(), *_work_rules()])


def _broken(connection: Connection, rules: Sequence[Rule]) -> tuple[Fault, ...]:
    found = []
    for rule, column, broken in rules:
        ids = connection.execute(select(column).where(broken).order_by(column).limit(SHOWN)).scalars().all()
        if ids:
            found.append(Fault(rule, tuple(ids)))
    return tuple(found)


Rule = tuple[str, InstrumentedAttribute[str], ColumnElement[bool]]


def _rules(now: datetime) -> list[Rule]:
    return [*_event_rules(), *_work_rules(), *_run_rules(), *_delivery_rules(), *_effect_rules(now), *_schedule_rules()]


def _runs(*where: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(HandlerRun.event_id == EventRow.id, *where)


def _event_rules() -> list[Rule]:
    open_run = _runs(HandlerRun.status.in_(_OPEN))
    ended = EventRow.status.in_(("processed", "ignored", "dead"))
    return [
        ("an event has an unknown status", EventRow.id, EventRow.status.not_in(STATUSES)),
        ("an ended event has a run that has not ended", EventRow.id, and_(ended, open_run)),
        ("a processed event has no run", EventRow.id, and_(EventRow.status == "processed", not_(_runs()))),
        (
            "a processed event has a dead run",
            EventRow.id,
            and_(EventRow.status == "processed", _runs(HandlerRun.status == "dead")),
        ),
        ("an ignored event has a run", EventRow.id, and_(EventRow.status == "ignored", _runs())),
        (
            "a dead event has no dead run",
            EventRow.id,
            and_(EventRow.status == "dead", not_(_runs(HandlerRun.status == "dead"))),
        ),
        _never_taken_up(),
    ]


def _never_taken_up() -> Rule:
    idle = and_(EventRow.status == WAITING, EventRow.ring_at.is_(None), not_(_runs(HandlerRun.status.in_(_OPEN))))
    return "a waiting event will never be taken up", EventRow.id, idle


def _work_rules() -> list[Rule]:
    return [
        (
            f"{what} is open and will never be rung",
            table.id,
            and_(table.status.in_(_OPEN), table.ring_at.is_(None)),
        )
        for what, table in (("a run", HandlerRun), ("a delivery", Delivery), ("an occurrence", Occurrence))
    ]


def _run_rules() -> list[Rule]:
    other = aliased(HandlerRun)
    at_work = and_(HandlerRun.ordered, HandlerRun.status == RUNNING)
    beside = exists().where(
        other.id != HandlerRun.id,
        other.handler == HandlerRun.handler,
        other.lane == HandlerRun.lane,
        other.ordered,
        other.status == RUNNING,
    )
    done = exists().where(OnceKey.run_id == HandlerRun.id, OnceKey.done)
    return [
        (
            "a run has ended more often than it was started",
            HandlerRun.id,
            HandlerRun.attempts + HandlerRun.pauses > HandlerRun.starts,
        ),
        (
            "a run that is not running has a place",
            HandlerRun.id,
            and_(HandlerRun.slot.is_not(None), HandlerRun.status != RUNNING),
        ),
        (
            "an ordered run stands in no line",
            HandlerRun.id,
            and_(HandlerRun.ordered, or_(HandlerRun.lane.is_(None), HandlerRun.occurred_at.is_(None))),
        ),
        # An index forbids it; that an index of texts can break is known of servers whose libraries were replaced.
        ("ordered runs of one object run at once", HandlerRun.id, and_(at_work, beside)),
        (
            "a once key of a run that never succeeded is done",
            HandlerRun.id,
            and_(HandlerRun.status != "succeeded", HandlerRun.replays == 0, done),
        ),
    ]


def _delivery_rules() -> list[Rule]:
    attempted = exists().where(Attempt.delivery_id == Delivery.id)
    answered = exists().where(Attempt.delivery_id == Delivery.id, Attempt.status.between(200, 299))
    failed_once = and_(Delivery.attempts > 0, Delivery.status != "succeeded")
    return [
        (
            "a delivery succeeded without a 2xx answer",
            Delivery.id,
            and_(Delivery.status == "succeeded", not_(answered)),
        ),
        (
            "a delivery was given up without an attempt",
            Delivery.id,
            and_(Delivery.status.in_(("exhausted", "refused")), not_(attempted)),
        ),
        (
            "a delivery has ended more often than it was started",
            Delivery.id,
            Delivery.attempts > Delivery.starts,
        ),
        (
            "a delivery was asked for anew after an attempt that was never made",
            Delivery.id,
            Delivery.prior > Delivery.attempts,
        ),
        # It would stand among first attempts, and may then hold them up.
        (
            "a delivery that failed stands in line as if it never had",
            Delivery.id,
            and_(failed_once, not_(Delivery.again)),
        ),
    ]


def _effect_rules(now: datetime) -> list[Rule]:
    # A replay may have taken back a success whose messages were sent; how it ends then is another matter.
    succeeded = exists().where(
        HandlerRun.event_id == Message.event_id, or_(HandlerRun.status == "succeeded", HandlerRun.replays > 0)
    )
    operational = Message.type.startswith("billhook.")
    reported = exists().where(EventRow.id == Occurrence.event_id)
    recent = or_(Occurrence.ended_at.is_(None), Occurrence.ended_at > now - _REPORTED_FOR)
    return [
        (
            "a message has no run that succeeded behind it",
            Message.id,
            and_(Message.event_id.is_not(None), not_(Message.forwarded), not_(operational), not_(succeeded)),
        ),
        (
            "an occurrence ended without an event that reports it",
            Occurrence.id,
            and_(Occurrence.status.in_(("generated", "failed")), recent, not_(reported)),
        ),
    ]


def _schedule_rules() -> list[Rule]:
    mine = Occurrence.schedule_id == Schedule.id
    occurrences = select(func.count()).where(mine).correlate(Schedule).scalar_subquery()
    active = Schedule.status == "active"
    held = exists().where(mine, Occurrence.status == HELD)
    return [
        # Each due date that was passed has exactly one occurrence: made, failed, skipped, or under way.
        ("a schedule has more or fewer occurrences than it planned", Schedule.id, Schedule.planned != occurrences),
        ("an active schedule will never be due", Schedule.id, and_(active, Schedule.next_run_at.is_(None))),
        ("a schedule that is not active is due", Schedule.id, and_(not_(active), Schedule.next_run_at.is_not(None))),
        ("a schedule that is not paused holds occurrences back", Schedule.id, and_(Schedule.status != "paused", held)),
        (
            "an occurrence was generated and has no invoice",
            Occurrence.id,
            and_(Occurrence.status == "generated", Occurrence.invoice_id.is_(None)),
        ),
    ]


@app.task(name=AUDIT)
def audit_task() -> None:
    process = runtime()
    balance = audit(process.engine)
    audited.note(process.redis, process.settings.redis_prefix, Audited(utcnow(), len(balance.faults)))
    for fault in balance.faults:
        log.error("the audit found a fault", action="audit_fault", rule=fault.rule, ids=list(fault.ids))
