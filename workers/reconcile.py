"""Reconciling: what a provider must have reported, by what its API lists, is compared with the events that came.

A change of which no event came is taken in as one, marked `reconciled`, with the object as it is now. It is stored
under a key that says what it is (`workers.reconciled`): each change is an event once, however often this is done, by
how many at a time, and wherever it was broken off. A delivery that comes after all is recognised when it is planned.

What happened before the time that events are kept cannot be told from what was missed, and is left alone. So is what
happened a moment ago: the provider may still be delivering it.

Redis keys: `{prefix}reconciled:{source}`, there while a source is compared and until its next time; a mere guard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any

from redis import RedisError
from sqlalchemy import Connection, Engine, select

from handlers.errors import BillhookError, ParseError, ProviderError, ProviderUnavailable
from handlers.providers import PROVIDERS, Inbound
from handlers.reconciling import Change
from workers import database, ids, inbox
from workers.app import PROCESS, Runtime, app, ring, runtime
from workers.clients import Clients
from workers.inbox import Arrival
from workers.leases import Clock, utcnow
from workers.logs import log
from workers.metrics import RECONCILED, REDIS_ERRORS
from workers.models import EventRow
from workers.reconciled import key_of
from workers.settings import Settings, Source

GRACE = timedelta(hours=1)
"""How long a provider is left to deliver a change itself."""
BATCH = 100
_LEEWAY = timedelta(days=1)
"""By how much the provider's clock may differ from ours where the time of receipt only bounds a search."""
_SAME = timedelta(seconds=1)
_HELD = timedelta(minutes=15)
"""How long a comparison may be silent until another begins."""


class CannotReconcile(BillhookError):
    """A source cannot be compared, or not since then; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciler:
    """What comparing one source needs."""

    engine: Engine
    settings: Settings
    source: str
    client: Any
    grace: timedelta = GRACE
    dry_run: bool = False
    """Whether to only look."""
    announce: Callable[[Sequence[str]], object] = field(default=partial(ring, PROCESS))
    """Called with the ids of new events, after their commit. The sweep finds them too."""
    clock: Clock = utcnow

    @property
    def configured(self) -> Source:
        return self.settings.sources[self.source]


@dataclass(frozen=True, slots=True)
class Compared:
    """What became of the changes of one batch."""

    known: int
    too_recent: int
    missed: Sequence[Change]
    """Those that were taken in, or with a dry run would have been."""


@dataclass(slots=True)
class Totals:
    """How many changes were seen, and how many of them had come, were missed, or are too recent to tell."""

    seen: int = 0
    known: int = 0
    missed: int = 0
    too_recent: int = 0

    def add(self, compared: Compared) -> None:
        self.known += compared.known
        self.missed += len(compared.missed)
        self.too_recent += compared.too_recent
        self.seen = self.known + self.missed + self.too_recent


def reconcile(
    reconciler: Reconciler, since: datetime, watch: Callable[[Compared], None] = lambda _compared: None
) -> Totals:
    """Compare what happened since then and take in what was missed; `watch` is called after each batch's commit.

    Raises CannotReconcile before anything is done, and ProviderError where the provider's API refuses or fails; what
    was taken in by then stays.
    """
    totals = Totals()
    try:
        for batch in _batches(_changes(reconciler, since)):
            compared = _compare(reconciler, batch, since)
            totals.add(compared)
            watch(compared)
    except ParseError as error:
        raise ProviderError("BAD_ANSWER", f"what it lists is out of shape: {error}") from None
    return totals


def _batches(changes: Iterator[Change]) -> Iterator[list[Change]]:
    """The changes, `BATCH` at a time. Where the provider fails, what it has told comes first."""
    batch: list[Change] = []
    try:
        for change in changes:
            batch.append(change)
            if len(batch) == BATCH:
                yield batch
                batch = []
    except (ProviderError, ParseError):
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _changes(reconciler: Reconciler, since: datetime) -> Iterator[Change]:
    changes = _lister(reconciler.configured)
    kept_since = _kept_since(reconciler)
    if since < kept_since:
        raise CannotReconcile(
            f"whether deliveries came is known since {kept_since:%Y-%m-%d %H:%M}Z: see BILLHOOK_RETENTION_DAYS"
        )
    return (change for change in changes(reconciler.client, since) if change.earliest >= kept_since)


def _lister(source: Source) -> Callable[[Any, datetime], Iterator[Change]]:
    changes = PROVIDERS[source.provider].changes
    if changes is None:
        raise CannotReconcile(f"{source.provider} has no API that lists changes: its sources cannot be reconciled")
    return changes


def _kept_since(reconciler: Reconciler) -> datetime:
    return reconciler.clock() - timedelta(days=reconciler.settings.retention_days) + _LEEWAY


def _compare(reconciler: Reconciler, batch: Sequence[Change], since: datetime) -> Compared:
    now = reconciler.clock()
    changes = {key_of(change): change for change in batch}  # a list that grows meanwhile repeats what it has shown
    with database.read(reconciler.engine) as connection:
        unknown = _unknown(connection, reconciler, changes.values(), since)
    old = [change for change in unknown if change.occurred_at <= now - reconciler.grace]
    missed = old if reconciler.dry_run or not old else _take_in(reconciler, old, now)
    compared = Compared(
        known=len(changes) - len(unknown) + len(old) - len(missed), too_recent=len(unknown) - len(old), missed=missed
    )
    if not reconciler.dry_run:
        counts = {"known": compared.known, "missed": len(missed), "too_recent": compared.too_recent}
        for outcome, count in counts.items():
            RECONCILED.labels(reconciler.source, outcome).inc(count)
    return compared


def _unknown(
    connection: Connection, reconciler: Reconciler, changes: Iterable[Change], since: datetime
) -> list[Change]:
    """Those of the changes that no event stands for."""
    unknown = _without_event(connection, reconciler, changes, since)
    # Few are left now, and for some of them the event may be older: a payment that was dated back, say.
    earliest = min((change.earliest for change in unknown), default=since)
    return _without_event(connection, reconciler, unknown, earliest) if earliest < since else unknown


def _without_event(
    connection: Connection, reconciler: Reconciler, changes: Iterable[Change], received_since: datetime
) -> list[Change]:
    changes = list(changes)
    # Ids are in the order of receipt: where many objects are asked for, only what came since then is read.
    statement = select(EventRow.object_kind, EventRow.object_id, EventRow.type, EventRow.occurred_at).where(
        EventRow.id >= ids.derived("evt", received_since - _LEEWAY),
        EventRow.source == reconciler.source,
        EventRow.provider == reconciler.configured.provider,
        EventRow.object_id.in_({change.object_id for change in changes}),
    )
    types: set[tuple[str, str]] = set()
    latest: dict[tuple[str, str], datetime] = {}
    for row in connection.execute(statement):
        types.add((row.object_id, row.type))
        object_ = (row.object_kind, row.object_id)
        latest[object_] = max(row.occurred_at, latest.get(object_, row.occurred_at))

    def has_event(change: Change) -> bool:
        if not change.repeats:
            return (change.object_id, change.type) in types
        # Whoever handled a later event of the object has seen what this one changed.
        last = latest.get((change.object_kind, change.object_id))
        return last is not None and last >= change.occurred_at - _SAME

    return [change for change in changes if not has_event(change)]


def _take_in(reconciler: Reconciler, missed: Sequence[Change], now: datetime) -> list[Change]:
    """Store these as events; those that nobody else took in at the same time."""
    inbound = reconciler.configured.inbound()
    arrivals = [_arrival(reconciler, inbound, change, now, position) for position, change in enumerate(missed)]
    outcomes = inbox.accept(reconciler.engine, arrivals)
    reconciler.announce([outcome.event_id for outcome in outcomes if outcome.kind == "accepted"])
    return [change for change, outcome in zip(missed, outcomes, strict=True) if outcome.kind == "accepted"]


def _arrival(reconciler: Reconciler, inbound: Inbound, change: Change, now: datetime, position: int) -> Arrival:
    key = key_of(change)
    return Arrival(
        # One millisecond behind the one before, so that the order among those of one second is kept; else by chance,
        # so that of two who compare at once neither takes the other's for its own.
        id=ids.derived("evt", now + timedelta(milliseconds=position), ids.new("evt")),
        source=reconciler.source,
        received_at=now,
        event=inbound.parse([], change.body),
        delivery_id=key,
        event_key=key,
        body_hash=hashlib.sha256(change.body).digest(),
        headers={},
        reconciled=True,
    )


def patient_client(settings: Settings, name: str, max_wait: float) -> Any:
    """A client of a source that waits out its API's limit itself, `max_wait` seconds at a time at most.

    Raises CannotReconcile with what is missing.
    """
    if name not in settings.sources:
        raise CannotReconcile(f"there is no source {name!r}; configured: {', '.join(settings.sources) or 'none'}")
    _lister(settings.sources[name])
    try:
        return Clients(settings, max_wait=max_wait).get(name)
    except ProviderUnavailable as error:
        raise CannotReconcile(str(error)) from None


def tick(process: Runtime, clients: Clients, clock: Clock = utcnow) -> list[str]:
    """Compare each source whose time has come; their names. Two ticks at once are harmless."""
    begun = []
    for name, source in process.settings.sources.items():
        if source.reconcile_hours is None or not _guard(process, name, _HELD, new=True):
            continue
        begun.append(name)
        interval = timedelta(hours=source.reconcile_hours)
        # After a failure the guard is left to end by itself: the next tick then tries again.
        if _compare_on_time(process, clients, name, clock() - 2 * interval - timedelta(days=1), clock):
            _guard(process, name, interval)
    return begun


def _compare_on_time(process: Runtime, clients: Clients, name: str, since: datetime, clock: Clock) -> bool:
    """Compare a source, say in the log what came of it, and whether it was compared to the end."""
    totals = Totals()

    def watch(compared: Compared) -> None:
        totals.add(compared)
        _guard(process, name, _HELD)

    try:
        client = clients.get(name)
        reconciler = Reconciler(
            engine=process.engine, settings=process.settings, source=name, client=client, clock=clock
        )
        reconcile(reconciler, since, watch)
    except Exception as error:  # of one source; the others have their own
        RECONCILED.labels(name, "failed").inc()
        expected = isinstance(error, BillhookError)
        (log.warning if expected else log.exception)(
            "a source could not be compared with its provider; it is tried again",
            action="reconcile_failed",
            source=name,
            error=str(error) if expected else type(error).__name__,
            **asdict(totals),
        )
        return False
    (log.warning if totals.missed else log.info)(
        "a source was compared with its provider", action="reconciled", source=name, **asdict(totals)
    )
    return True


def _guard(process: Runtime, name: str, lifetime: timedelta, *, new: bool = False) -> bool:
    """Keep others from comparing a source for so long; with `new`, False where one does already."""
    key = f"{process.settings.redis_prefix}reconciled:{name}"
    try:
        return bool(process.redis.set(key, b"1", nx=new, ex=lifetime))
    except (RedisError, OSError) as error:
        REDIS_ERRORS.labels("reconcile").inc()
        log.warning(
            "Redis did not answer; doing without", action="redis_failed", call="reconcile", error=type(error).__name__
        )
        return False


@cache
def _clients() -> Clients:
    return Clients(runtime().settings)


@app.task(name="billhook.schedules.reconcile")
def reconcile_task() -> None:
    tick(runtime(), _clients())
