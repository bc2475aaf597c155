"""Claims: which runs a process may start now, and taking them.

Four kinds are taken differently. Those that merely wait: all at once. Those whose process died: one by one, so that
their next death is counted against the one that causes it. Ordered ones: the first of each line (the runs of one
handler for one object, by `occurred_at`), unless another of the line is running. Those of a handler with a limit: one
by one, each with one of the handler's places. That no two of a line run, and no place is taken twice, are unique
indexes, so a race is refused rather than won by both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, exists, func, literal, or_, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import BindParameter, ColumnElement

from handlers.registry import Handler
from workers import database, leases, planning
from workers.dispatcher import Dispatcher, Lease, Reading, Taken
from workers.models import RUNNING, WAITING, AnyRow, EventRow, HandlerRun

HELD_BACK = timedelta(minutes=1)
"""How often the sweep looks at a run that its line or its handler's limit holds back. Who frees it looks at once."""


@dataclass(frozen=True, slots=True)
class Due:
    """Runs that are due, by how they are taken."""

    waiting: tuple[str, ...]
    lapsed: tuple[str, ...]
    """Whose process died, now or in an earlier start, ordered or not."""
    ordered: tuple[str, ...]
    limited: Mapping[Handler, tuple[str, ...]]
    """By handler."""


def due(dispatcher: Dispatcher, connection: Connection, event_ids: Sequence[str]) -> Due:
    """The runs of these events that somebody should start."""
    died = HandlerRun.starts > HandlerRun.attempts + HandlerRun.pauses
    rows = connection.execute(
        select(HandlerRun.id, HandlerRun.handler, HandlerRun.ordered, died.label("died"))
        .where(
            database.among(connection.dialect.name, HandlerRun.event_id, event_ids),
            HandlerRun.status.in_((WAITING, RUNNING)),
            HandlerRun.next_attempt_at <= dispatcher.clock(),
        )
        .order_by(HandlerRun.id)
    ).all()
    limited: dict[Handler, list[str]] = {}
    free = []
    for row in rows:
        handler = dispatcher.registry.get(row.handler)
        if handler is not None and handler.concurrency is not None:
            limited.setdefault(handler, []).append(row.id)
        else:
            free.append(row)
    return Due(
        waiting=tuple(row.id for row in free if not row.died and not row.ordered),
        lapsed=tuple(row.id for row in free if row.died),
        ordered=tuple(row.id for row in free if not row.died and row.ordered),
        limited={handler: tuple(run_ids) for handler, run_ids in limited.items()},
    )


def take(dispatcher: Dispatcher, connection: Connection, run_ids: Sequence[str]) -> list[Taken]:
    """Those of the runs that wait for nothing but a process."""
    return _claim(dispatcher, connection, run_ids, only=HandlerRun.ordered.is_(False))


def heads(dispatcher: Dispatcher, run_ids: Sequence[str]) -> list[Taken]:
    """Those of the runs that stand in no line, or first in theirs, where nobody else of the line is running."""
    if not run_ids:
        return []
    try:
        with database.write(dispatcher.engine) as connection:
            return _claim(dispatcher, connection, run_ids, only=_free_of_lines())
    except IntegrityError:
        # Another process took one of these lines between our look and our claim: the others are still ours to take.
        return [] if len(run_ids) == 1 else [one for run_id in run_ids for one in heads(dispatcher, [run_id])]


def next_in_line(dispatcher: Dispatcher, connection: Connection, run_ids: Collection[str]) -> list[str]:
    """The runs that are first where these ordered ones stand or stood, and are due."""
    if not run_ids:
        return []
    mine, its = aliased(HandlerRun), aliased(HandlerRun)
    # The head of each line by the index's order, so that the cost does not grow with what stands behind it.
    head = select(its.id).where(_stands_in(its, mine)).order_by(its.occurred_at, its.event_id).limit(1)
    heads = select(head.correlate(mine).scalar_subquery()).where(
        database.among(connection.dialect.name, mine.id, sorted(run_ids))
    )
    due_now = (HandlerRun.status == WAITING, HandlerRun.next_attempt_at <= dispatcher.clock())
    return list(connection.execute(select(HandlerRun.id).where(HandlerRun.id.in_(heads), *due_now)).scalars())


def one_of(dispatcher: Dispatcher, handler: Handler, run_ids: Sequence[str] | None) -> list[Taken]:
    """One run of a handler with a limit, of these or (None) of all that are due, with what its event got beside it.

    None where no place is free.
    """
    try:
        with database.write(dispatcher.engine) as connection:
            return _one_of(dispatcher, connection, handler, run_ids)
    except IntegrityError:
        return []  # another of its line was taken meanwhile


def _one_of(
    dispatcher: Dispatcher, connection: Connection, handler: Handler, run_ids: Sequence[str] | None
) -> list[Taken]:
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"billhook.{handler.name}"))))
    mine = HandlerRun.handler == handler.name
    places = select(HandlerRun.id, HandlerRun.slot, HandlerRun.next_attempt_at).where(
        mine, HandlerRun.slot.is_not(None)
    )
    used = connection.execute(places.order_by(HandlerRun.next_attempt_at)).all()
    # A run whose process died still has its place, and takes it up again before others are let in.
    for place in used:
        if place.next_attempt_at <= dispatcher.clock() and (run_ids is None or place.id in run_ids):
            return _claim(dispatcher, connection, [place.id], slot=place.slot)
    limit = handler.concurrency or 1
    if len(used) >= limit:  # counted, because under a higher limit some may have taken places beyond this one
        return []
    free = next(slot for slot in range(limit) if slot not in {place.slot for place in used})
    chosen = connection.execute(_longest_due(dispatcher, connection, mine, run_ids)).scalar()
    return _claim(dispatcher, connection, [chosen] if chosen else [], slot=free)


def _longest_due(
    dispatcher: Dispatcher, connection: Connection, mine: ColumnElement[bool], run_ids: Sequence[str] | None
) -> Select[Any]:
    """The run without a place that is due for the longest time, of these or of all that wait."""
    if run_ids is None:
        # In the words of the partial index, so that the cost does not grow with what has ended.
        of_these = HandlerRun.status == literal(WAITING, literal_execute=True)
    else:
        of_these = database.among(connection.dialect.name, HandlerRun.id, run_ids) & HandlerRun.status.in_(
            (WAITING, RUNNING)
        )
    due_now = HandlerRun.next_attempt_at <= dispatcher.clock()
    due_first = (HandlerRun.next_attempt_at, HandlerRun.id)
    return select(HandlerRun.id).where(mine, of_these, due_now, _free_of_lines()).order_by(*due_first).limit(1)


def hold_back(dispatcher: Dispatcher, connection: Connection, run_ids: Sequence[str]) -> None:
    """Have the sweep leave alone for a while what was not taken of these."""
    if run_ids:
        later = dispatcher.clock() + HELD_BACK
        mine = (
            database.among(connection.dialect.name, HandlerRun.id, run_ids),
            HandlerRun.status == WAITING,
            HandlerRun.ring_at < later,
        )
        due_now = HandlerRun.next_attempt_at <= dispatcher.clock()
        connection.execute(update(HandlerRun).where(*mine, due_now).values(ring_at=later))


def events_of(connection: Connection, run_ids: Sequence[str]) -> list[str]:
    """The events of these runs."""
    if not run_ids:
        return []
    return list(
        connection.execute(
            select(HandlerRun.event_id).where(database.among(connection.dialect.name, HandlerRun.id, run_ids))
        ).scalars()
    )


def longest_due(dispatcher: Dispatcher, connection: Connection, handler: Handler) -> list[str]:
    """The events of as many due runs of a handler as it may run at once."""
    waiting = (HandlerRun.handler == handler.name, HandlerRun.status == WAITING)
    due_now = HandlerRun.next_attempt_at <= dispatcher.clock()
    longest = select(HandlerRun.event_id).where(*waiting, due_now).order_by(HandlerRun.next_attempt_at)
    return list(connection.execute(longest.limit(handler.concurrency)).scalars())


def give_back(dispatcher: Dispatcher, connection: Connection, taken: Sequence[Taken]) -> None:
    """Undo the taking of runs that were not started."""
    if not taken:
        return
    now = dispatcher.clock()
    leased = [(one.lease.id, one.lease.fence) for one in taken]
    connection.execute(
        update(HandlerRun)
        .where(tuple_(HandlerRun.id, HandlerRun.fence).in_(leased), HandlerRun.status == RUNNING)
        .values(status=WAITING, starts=HandlerRun.starts - 1, next_attempt_at=now, ring_at=now, slot=None)
    )


def _claim(
    dispatcher: Dispatcher,
    connection: Connection,
    run_ids: Sequence[str],
    *,
    only: ColumnElement[bool] | None = None,
    **values: object,
) -> list[Taken]:
    if not run_ids:
        return []
    wanted = select(HandlerRun.handler, HandlerRun.event_id, EventRow.ring_at).join(
        EventRow, EventRow.id == HandlerRun.event_id
    )
    looked = connection.execute(wanted.where(database.among(connection.dialect.name, HandlerRun.id, run_ids))).all()
    _lock_events(connection, {row.event_id for row in looked if row.ring_at is not None})
    loaded = [handler for name in {row.handler for row in looked} if (handler := dispatcher.registry.get(name))]
    lease = dispatcher.lease(max((handler.timeout for handler in loaded), default=0.0))
    now = dispatcher.clock()
    rows = leases.claim(connection, HandlerRun, run_ids, now=now, lease=lease, only=only, **values)
    readings = planning.read(connection, sorted({row.event_id for row in rows}))
    # Replayed events are planned again, for handlers that are new; once a run of theirs has ended it were too late.
    replayed = [event_id for event_id, reading in readings.items() if reading.row.ring_at is not None]
    fresh = planning.plan(dispatcher, connection, replayed).taken if replayed else []
    return [*(_taken(dispatcher, row, readings) for row in rows), *fresh]


def _lock_events(connection: Connection, event_ids: Collection[str]) -> None:
    """Lock events that are to be planned before their runs, as whoever settles does: each would wait for the other.

    One that a replay opens just now is missed here; then the database undoes one of the two, which is tried again.
    """
    if event_ids and connection.dialect.name == "postgresql":
        mine = database.among("postgresql", EventRow.id, sorted(event_ids))
        locked = select(EventRow.id).where(mine).order_by(EventRow.id).with_for_update(key_share=True)
        connection.execute(locked).all()


def _taken(dispatcher: Dispatcher, row: AnyRow, readings: Mapping[str, Reading]) -> Taken:
    return Taken(Lease.of(row), dispatcher.registry.get(row.handler), readings[row.event_id])


def _free_of_lines() -> ColumnElement[bool]:
    """Whether no line keeps a run that is due from being started.

    One that runs and is due lost its process: it is its line's turn, whatever came before it meanwhile.
    """
    return or_(HandlerRun.ordered.is_(False), HandlerRun.status == RUNNING, _first_in_line())


def _first_in_line() -> ColumnElement[bool]:
    """Whether no other open run of the line is running, or happened earlier."""
    other, at_work = aliased(HandlerRun), aliased(HandlerRun)
    earlier = tuple_(other.occurred_at, other.event_id) < tuple_(HandlerRun.occurred_at, HandlerRun.event_id)
    # Two questions, so that each is one look into an index.
    return and_(
        ~exists().where(_stands_in(other, HandlerRun), earlier),
        ~exists().where(_stands_in(at_work, HandlerRun, literal(RUNNING, literal_execute=True))),
    )


def _stands_in(other: Any, run: Any, status: ColumnElement[str] | None = None) -> ColumnElement[bool]:
    """Whether an ordered run is open, or has this status, in the line of another."""
    is_open: BindParameter[Any] = bindparam("open", (WAITING, RUNNING), expanding=True, literal_execute=True)
    state = other.status.in_(is_open) if status is None else other.status == status
    return and_(other.lane == run.lane, other.handler == run.handler, other.ordered, state)
