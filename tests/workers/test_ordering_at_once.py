"""Ordered runs when several processes come at the same time, and when anything fails in any order."""

from __future__ import annotations

import itertools
import random
import threading
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, update
from sqlalchemy import event as hooks
from sqlalchemy.exc import IntegrityError

from handlers import Context, Discard, Event, Retry
from handlers.registry import Registry
from tests.workers.given import NOW, Clock, another_process, planned, received, rows, until, waits_for_a_lock
from workers import claims, database
from workers.audit import audit
from workers.dispatch import Dispatcher, process
from workers.dispatcher import Taken
from workers.models import EventRow, HandlerRun

_number = itertools.count(1)
on_postgresql = pytest.mark.parametrize("backend", ["servers"], indirect=True)


def happened(engine: Engine, minute: int, object_id: str = "inv_7") -> str:
    """An event about an object that happened at that minute before noon."""
    return received(engine, object_id=object_id, occurred_at=NOW - timedelta(hours=4) + timedelta(minutes=minute))


def run_id_of(engine: Engine, event_id: str) -> str:
    (run_id,) = [run.id for run in rows(engine, HandlerRun) if run.event_id == event_id]
    return str(run_id)


def test_that_two_of_a_line_run_at_once_is_refused_by_the_database(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("*", name="books", ordered=True)(lambda event, ctx: None)
    planned(dispatcher, happened(engine, 10), happened(engine, 20))

    with pytest.raises(IntegrityError), database.write(engine) as connection:
        connection.execute(update(HandlerRun).values(status="running"))

    assert [run.status for run in rows(engine, HandlerRun)] == ["waiting", "waiting"]


@on_postgresql
def test_of_two_processes_that_take_runs_of_one_line_at_once_one_is_refused_that_run_alone(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("*", name="books", ordered=True)(lambda event, ctx: None)
    later, elsewhere = happened(engine, 20), happened(engine, 10, "inv_8")
    planned(dispatcher, later, elsewhere)
    second: list[Future[list[Taken]]] = []

    with another_process(dispatcher) as one, another_process(dispatcher) as two, ThreadPoolExecutor(1) as thread:

        @hooks.listens_for(one.engine, "commit", once=True)
        def _(_connection: object) -> None:
            # One has taken the later run and not yet committed; two cannot see that, and takes what came earlier.
            earlier = happened(engine, 10)
            planned(dispatcher, earlier)
            wanted = [run_id_of(engine, elsewhere), run_id_of(engine, earlier)]
            second.append(thread.submit(claims.heads, two, wanted))
            until(lambda: waits_for_a_lock(engine))

        taken = [claims.heads(one, [run_id_of(engine, later)]), second[0].result(20)]

    assert [[run.lease.event_id for run in found] for found in taken] == [[later], [elsewhere]]
    assert audit(engine).holds


@on_postgresql
def test_the_next_in_line_runs_at_once_even_if_it_is_being_held_back_when_its_turn_comes(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    began, may_end = threading.Event(), threading.Event()

    @registry.on("*", name="books", ordered=True)
    def _(event: Event, ctx: Context) -> None:
        if event.id == first:
            began.set()
            assert may_end.wait(20)

    first, second = happened(engine, 10), happened(engine, 20)
    with another_process(dispatcher) as one, another_process(dispatcher) as two, ThreadPoolExecutor(1) as thread:
        ended = thread.submit(process, one, [first])
        assert began.wait(20)

        @hooks.listens_for(two.engine, "after_cursor_execute")
        def _(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if statement.startswith("UPDATE handler_runs SET ring_at"):
                may_end.set()
                ended.result(20)

        process(two, [second])

    assert may_end.is_set()
    assert [run.status for run in rows(engine, HandlerRun)] == ["succeeded", "succeeded"]


def test_however_many_processes_come_an_object_is_worked_on_by_one_and_in_order(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    busy: dict[str, threading.Lock] = defaultdict(threading.Lock)
    done: dict[str, list[str]] = defaultdict(list)
    overlaps: list[str] = []

    @registry.on("*", name="books", ordered=True)
    def _(event: Event, ctx: Context) -> None:
        about = str(event.object_id)
        if not busy[about].acquire(blocking=False):
            overlaps.append(event.id)
        assert not ctx.is_stale  # which also takes a moment, and lets the other threads go on
        done[about].append(event.id)
        busy[about].release()

    lines = {name: [happened(engine, minute, name) for minute in range(8)] for name in ("inv_1", "inv_2", "inv_3")}
    event_ids = [event_id for line in lines.values() for event_id in line]
    planned(dispatcher, *event_ids)
    ready = threading.Barrier(4)

    def work(turn: int) -> None:
        mine = random.Random(turn).sample(event_ids, len(event_ids))  # noqa: S311 - an order, no secret
        with another_process(dispatcher) as own:
            ready.wait(20)
            process(own, mine)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    process(dispatcher, event_ids)  # what a process had no time for is rung for

    assert overlaps == []
    assert done == lines
    assert {run.starts for run in rows(engine, HandlerRun)} == {1}
    assert audit(engine).holds


# Anything, in any order

EXAMPLES = 10
RETRIES = 2


@dataclass(frozen=True)
class Happening:
    """An event to come: what it is about, when it happened, and how the first starts of its run end."""

    about: int
    minute: int
    ends: tuple[str, ...]


happenings = st.builds(
    Happening,
    about=st.integers(0, 1),
    minute=st.integers(0, 5),
    ends=st.lists(st.sampled_from(("error", "retry", "pause", "killed", "discard")), max_size=3).map(tuple),
)


class Story:
    """Events that come and are worked on. Whenever a run starts it must be the one of its object whose turn it is."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock, limit: int | None) -> None:
        registry = Registry()
        registry.on("*", name="books", ordered=True, concurrency=limit, retries=RETRIES, backoff=30)(self.handle)
        self.dispatcher, self.clock = replace(dispatcher, registry=registry), clock
        self.events: dict[str, Happening] = {}
        self.starts: dict[str, int] = defaultdict(int)
        self.planned: set[str] = set()
        self.ended: set[str] = set()
        self.killed: set[str] = set()
        """Whose process was killed in or after their last start."""
        self.out_of_turn: list[str] = []
        self.number = next(_number)

    def receive(self, happening: Happening) -> None:
        event_id = happened(self.dispatcher.engine, happening.minute, f"inv_{self.number}_{happening.about}")
        self.events[event_id] = happening

    def work(self, event_ids: Sequence[str]) -> None:
        """One process works on these. What happened earlier to the same object stands in line with them."""
        for event_id in set(event_ids) - self.planned:
            line = [other for other in self.events if self.events[other].about == self.events[event_id].about]
            self.planned |= {other for other in line if self.moment(other) <= self.moment(event_id)}
        try:
            process(self.dispatcher, event_ids)
        except KeyboardInterrupt:
            # What it had done and not yet written is as if it had died in there.
            runs = rows(self.dispatcher.engine, HandlerRun)
            self.killed = {run.event_id for run in runs if run.event_id in self.events and run.status == "running"}
            self.ended -= self.killed

    def handle(self, event: Event, ctx: Context) -> None:
        if event.id != self.turn_of(self.events[event.id].about):
            self.out_of_turn.append(event.id)
        ends = self.events[event.id].ends
        start = self.starts[event.id]
        self.starts[event.id] += 1
        self.killed.discard(event.id)
        for _ in range(ends[: start + 1].count("pause")):
            ctx.sleep_until(self.clock() + timedelta(seconds=45))
        end = ends[start] if start < len(ends) else "success"
        if end == "killed":
            raise KeyboardInterrupt
        if end in ("error", "retry") and ctx.attempt <= RETRIES:
            raise Retry(after=20) if end == "retry" else ValueError(end)
        self.ended.add(event.id)
        if end == "discard":
            raise Discard(end)
        if end != "success":
            raise ValueError("and dead")

    def moment(self, event_id: str) -> tuple[int, str]:
        return self.events[event_id].minute, event_id

    def turn_of(self, about: int) -> str:
        """The run of the object that is next: one that already ran when its process died, else what happened first."""
        line = [event_id for event_id in self.planned - self.ended if self.events[event_id].about == about]
        return min(line, key=lambda event_id: (event_id not in self.killed, self.moment(event_id)))

    def end(self) -> None:
        """Work on what is there, from each moment that something is due to the next, until nothing is open."""
        for _ in range(60):
            self.work(list(self.events))
            runs = [run for run in rows(self.dispatcher.engine, HandlerRun) if run.event_id in self.events]
            moments = [run.next_attempt_at for run in runs if run.status in ("waiting", "running")]
            if not moments and len(runs) == len(self.events):
                return
            self.clock.now = min((moment for moment in moments if moment > self.clock.now), default=self.clock.now)
        raise AssertionError("it does not come to an end")


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=(Phase.reuse, Phase.generate),  # what fails is short as it is
)
@given(
    stories=st.lists(happenings, min_size=1, max_size=5),
    limit=st.sampled_from((None, 1, 2)),
    moves=st.lists(st.one_of(st.just("receive"), st.integers(1, 31), st.just("turn")), max_size=8),
)
def test_whatever_fails_in_whatever_order_each_run_starts_in_its_turn_and_every_event_ends(
    dispatcher: Dispatcher, clock: Clock, stories: list[Happening], limit: int | None, moves: list[str | int]
) -> None:
    story, coming = Story(dispatcher, clock, limit), list(stories)
    for move in moves:
        if move == "turn":
            clock.turn(25)
        elif move == "receive" and coming:
            story.receive(coming.pop())
        elif isinstance(move, int):
            story.work([event_id for bit, event_id in enumerate(story.events) if move & (1 << bit)])
    for happening in coming:
        story.receive(happening)
    story.end()

    assert story.out_of_turn == []
    mine = [row for row in rows(dispatcher.engine, EventRow) if row.id in story.events]
    assert {row.status for row in mine} <= {"processed", "dead"}
    assert audit(dispatcher.engine).holds
