from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection, Engine, select, text, update
from sqlalchemy.exc import DBAPIError, OperationalError
from structlog.testing import capture_logs

from handlers import Context, Discard, Event
from handlers.registry import Handler, Registry
from tests.workers.given import NOW, Clock, change, only, received, rows
from tests.workers.history import ended
from workers import database, errands, leases
from workers.acknowledgement import acknowledge, unacknowledged
from workers.app import Runtime
from workers.audit import audit
from workers.clients import Clients
from workers.dispatch import Dispatcher, process, sweep
from workers.errands import Count
from workers.models import AuditEntry, EventRow, HandlerRun, Message, OnceKey, Step
from workers.replay import Wish, preview, replay, waiting
from workers.selection import Selection, unknown

DEAD = Wish(selection=Selection(status="dead"))
ALL = Wish(selection=Selection(type="*"))
MINUTE = 60.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def dispatcher(runtime: Runtime, registry: Registry, clock: Clock) -> Dispatcher:
    return Dispatcher(
        engine=runtime.engine,
        settings=runtime.settings,
        registry=registry,
        clients=Clients(runtime.settings),
        clock=clock,
        chance=lambda: 0.0,
    )


def again(engine: Engine, wish: Wish, clock: Clock) -> Count:
    """Replay as somebody does, and find the books in balance."""
    count = replay(engine, wish, actor="amal@till", now=clock())
    assert audit(engine, clock).holds
    return count


def worked(dispatcher: Dispatcher, clock: Clock, *event_ids: str) -> None:
    """A minute later the workers have seen to these events; the books are in balance."""
    clock.turn(MINUTE)
    process(dispatcher, event_ids or [row.id for row in rows(dispatcher.engine, EventRow)])
    assert audit(dispatcher.engine, clock).holds


def by_handler(engine: Engine) -> dict[str, Any]:
    return {run.handler: run for run in rows(engine, HandlerRun)}


def statuses(engine: Engine) -> list[str]:
    return [row.status for row in rows(engine, EventRow)]


def replayed(engine: Engine) -> list[str]:
    """The ids of the events that have a run which was replayed."""
    return sorted(run.event_id for run in rows(engine, HandlerRun) if run.replays)


def handler(registry: Registry, *patterns: str, name: str = "late", **options: Any) -> Handler:
    """A handler that does nothing."""
    registry.on(*patterns, name=name, **options)(lambda event, ctx: None)
    found = registry.get(name)
    assert found is not None
    return found


# --- what becomes of a run ------------------------------------------------------------------------


def test_a_dead_run_waits_as_if_it_were_new_and_says_that_it_was_replayed(engine: Engine, clock: Clock) -> None:
    ended(engine, acknowledged_at=NOW)
    before = only(engine, HandlerRun)

    assert again(engine, DEAD, clock) == Count(events=1, runs=1)

    run, event = only(engine, HandlerRun), only(engine, EventRow)
    assert (run.status, run.starts, run.attempts, run.pauses, run.slot, run.ended_at) == (
        "waiting",
        0,
        0,
        0,
        None,
        None,
    )
    assert (run.replays, run.fence) == (1, before.fence + 1)
    assert run.next_attempt_at == run.ring_at == event.ring_at == clock()
    assert run.error == "ValueError: no such customer"
    assert (event.status, event.acknowledged_at) == ("waiting", None)


def test_a_handler_that_was_mended_ends_what_was_dead(dispatcher: Dispatcher, registry: Registry, clock: Clock) -> None:
    broken, replays = [True], []

    @registry.on("invoice.paid", name="receipt", retries=0)
    def _(event: Event, ctx: Context) -> None:
        replays.append(ctx.replay)
        assert not broken

    received(dispatcher.engine)
    worked(dispatcher, clock)
    assert statuses(dispatcher.engine) == ["dead"]
    broken.clear()

    again(dispatcher.engine, DEAD, clock)
    worked(dispatcher, clock)

    assert statuses(dispatcher.engine) == ["processed"]
    assert only(dispatcher.engine, HandlerRun).error is None
    assert replays == [False, True]


def test_a_run_that_fails_again_is_tried_as_often_as_the_first_time_and_is_dead_again(
    dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    attempts = []

    @registry.on("invoice.paid", name="receipt", retries=2, backoff=1)
    def _(event: Event, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise ValueError

    received(dispatcher.engine)
    for _attempt in range(3):
        worked(dispatcher, clock)
    again(dispatcher.engine, DEAD, clock)
    for _attempt in range(3):
        worked(dispatcher, clock)

    assert attempts == [1, 2, 3, 1, 2, 3]
    assert statuses(dispatcher.engine) == ["dead"]


@pytest.mark.parametrize(("wish", "repeated"), [(DEAD, {"bad"}), (ALL, {"good", "bad", "picky"})], ids=["dead", "all"])
def test_of_a_dead_event_only_the_dead_runs_or_all(
    wish: Wish, repeated: set[str], dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    called: list[str] = []

    def calls(name: str, error: Exception | None = None) -> None:
        @registry.on("invoice.paid", name=name, retries=0)
        def _(event: Event, ctx: Context) -> None:
            called.append(name)
            if error:
                raise error

    calls("good")
    calls("bad", ValueError("x"))
    calls("picky", Discard("not ours"))
    received(dispatcher.engine)
    worked(dispatcher, clock)
    called.clear()

    assert again(dispatcher.engine, wish, clock).runs == len(repeated)
    worked(dispatcher, clock)

    assert set(called) == repeated
    assert statuses(dispatcher.engine) == ["dead"]


def test_a_dead_run_goes_on_behind_its_last_step_and_a_succeeded_one_runs_anew(
    dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    fails, called = [True], list[str]()

    @registry.on("invoice.paid", name="receipt", retries=0)
    def _(event: Event, ctx: Context) -> None:
        ctx.step("pdf", lambda: called.append("pdf"))
        assert not fails
        ctx.step("mail", lambda: called.append("mail"))

    received(dispatcher.engine)
    worked(dispatcher, clock)
    fails.clear()

    again(dispatcher.engine, DEAD, clock)
    worked(dispatcher, clock)
    assert called == ["pdf", "mail"]

    again(dispatcher.engine, ALL, clock)
    with database.read(dispatcher.engine) as connection:
        assert connection.execute(select(Step.name)).all() == []
    worked(dispatcher, clock)
    assert called == ["pdf", "mail", "pdf", "mail"]


def test_what_once_guards_is_not_repeated(dispatcher: Dispatcher, registry: Registry, clock: Clock) -> None:
    charged: list[str] = []

    @registry.on("invoice.paid", name="receipt")
    def _(event: Event, ctx: Context) -> None:
        if ctx.once("charge"):
            charged.append(event.id)

    event_id = received(dispatcher.engine)
    worked(dispatcher, clock)
    again(dispatcher.engine, ALL, clock)
    worked(dispatcher, clock)

    assert charged == [event_id]
    with database.read(dispatcher.engine) as connection:
        assert connection.execute(select(OnceKey.key, OnceKey.done)).all() == [("charge", True)]


def test_what_was_emitted_is_not_sent_twice_however_the_replay_ends(
    dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    error: list[Exception] = []

    @registry.on("invoice.paid", name="receipt", retries=0)
    def _(event: Event, ctx: Context) -> None:
        ctx.emit("receipt.issued", {})
        if error:
            raise error[0]

    received(dispatcher.engine)
    worked(dispatcher, clock)
    message = only(dispatcher.engine, Message)

    for ends in (None, ValueError("x"), Discard("x")):
        error[:] = [ends] if ends else []
        again(dispatcher.engine, ALL, clock)
        worked(dispatcher, clock)

        assert only(dispatcher.engine, Message) == message


def test_a_process_that_was_given_up_writes_nothing_over_a_replay(engine: Engine, clock: Clock) -> None:
    ended(engine)
    change(engine, HandlerRun, status="running")
    lost = only(engine, HandlerRun)
    change(engine, HandlerRun, status="dead")
    again(engine, DEAD, clock)

    with database.write(engine) as connection:
        assert not leases.finish(connection, HandlerRun, lost, status="succeeded")
    assert only(engine, HandlerRun).status == "waiting"


def test_runs_that_have_not_ended_are_left_alone_and_counted(
    dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    handler(registry, "invoice.paid", name="quick")

    @registry.on("invoice.paid", name="slow", backoff=3600)
    def _(event: Event, ctx: Context) -> None:
        raise ValueError

    engine = dispatcher.engine
    received(engine)
    worked(dispatcher, clock)
    before = by_handler(engine)["slow"]

    assert waiting(engine, ALL) == 1
    assert preview(engine, ALL) == again(engine, ALL, clock) == Count(events=1, runs=1)
    assert by_handler(engine)["slow"] == before
    assert by_handler(engine)["quick"].status == "waiting"


def test_an_event_that_was_not_planned_yet_is_left_alone(engine: Engine, clock: Clock) -> None:
    received(engine)
    before = only(engine, EventRow)

    assert again(engine, ALL, clock) == preview(engine, ALL) == Count()
    assert only(engine, EventRow) == before


# --- new handlers ---------------------------------------------------------------------------------


def test_handlers_that_are_new_get_the_event_too(dispatcher: Dispatcher, registry: Registry, clock: Clock) -> None:
    handler(registry, "invoice.paid", name="first")
    received(dispatcher.engine)
    received(dispatcher.engine, "invoice.voided")
    worked(dispatcher, clock)
    assert statuses(dispatcher.engine) == ["processed", "ignored"]
    handler(registry, "invoice.*", name="second")

    assert again(dispatcher.engine, ALL, clock) == Count(events=2, runs=1)
    worked(dispatcher, clock)

    assert statuses(dispatcher.engine) == ["processed", "processed"]
    runs = rows(dispatcher.engine, HandlerRun)
    assert sorted((run.handler, run.replays) for run in runs) == [("first", 1), ("second", 0), ("second", 0)]


def test_a_new_handler_gets_the_event_too_when_its_object_is_reached_by_another_event(
    dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    calls: list[str] = []
    handler(registry, "*", name="line", ordered=True)
    first, second = (received(dispatcher.engine, at=clock.now + timedelta(seconds=n)) for n in (0, 1))
    change(dispatcher.engine, EventRow, object_id="inv_1")
    process(dispatcher, [first, second])
    again(dispatcher.engine, ALL, clock)
    registry.on("*", name="new")(lambda event, ctx: calls.append(event.id))

    # The first of the line is rung for alone, and the second, which comes with it, is not planned anew yet.
    worked(dispatcher, clock, first)

    assert sorted(calls) == sorted([first, second])
    assert statuses(dispatcher.engine) == ["processed", "processed"]


def test_an_event_that_still_nobody_wants_is_ignored_again(
    dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    ended(dispatcher.engine, run=None)

    assert again(dispatcher.engine, ALL, clock) == Count(events=1)
    assert statuses(dispatcher.engine) == ["waiting"]
    worked(dispatcher, clock)

    assert statuses(dispatcher.engine) == ["ignored"]


def test_with_a_handler_named_only_its_runs_are_replayed(
    dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    called: list[str] = []
    registry.on("*", name="one")(lambda event, ctx: called.append("one"))
    registry.on("*", name="other")(lambda event, ctx: called.append("other"))
    received(dispatcher.engine)
    worked(dispatcher, clock)
    called.clear()
    handler(registry, "*", name="new")

    count = again(dispatcher.engine, replace(ALL, handler="one"), clock)
    assert only(dispatcher.engine, EventRow).ring_at is None
    worked(dispatcher, clock)

    assert count == Count(events=1, runs=1)
    assert called == ["one"]
    assert by_handler(dispatcher.engine).keys() == {"one", "other"}


def test_a_new_handler_gets_what_it_wants_of_what_was_there_before_it(
    dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    engine = dispatcher.engine
    seen: list[str] = []
    handler(registry, "invoice.paid", name="old")
    paid = [received(engine) for _ in range(3)]
    received(engine, "invoice.voided")
    unpaid = received(engine, "customer.created")
    worked(dispatcher, clock)
    registry.on("invoice.paid", "customer.*", name="late", source="shop", provider="hisab")(
        lambda event, ctx: seen.append(event.id)
    )
    handler(registry, "*", name="unasked")
    wish = replace(ALL, handler="late", loaded=registry.get("late"))

    assert preview(engine, wish) == again(engine, wish, clock) == Count(events=4, new=4)
    run = by_handler(engine)["late"]
    event = next(row for row in rows(engine, EventRow) if row.id == run.event_id)
    assert run.lane == f"shop/{event.object_kind}/{event.object_id}"
    assert (run.replays, run.occurred_at) == (0, event.occurred_at)
    assert run.created_at == clock()
    worked(dispatcher, clock)

    assert sorted(seen) == sorted([*paid, unpaid])
    assert again(engine, wish, clock) == Count(events=4, runs=4)


@pytest.mark.parametrize("options", [{"source": "till"}, {"provider": "hibr"}, {"when": lambda event: False}])
def test_a_new_handler_gets_nothing_that_it_does_not_want(
    options: dict[str, Any], engine: Engine, registry: Registry, clock: Clock
) -> None:
    ended(engine, run=None)
    ended(engine, run="succeeded")
    before = rows(engine, EventRow)

    count = again(engine, replace(ALL, handler="late", loaded=handler(registry, "*", **options)), clock)

    assert count == Count()
    assert rows(engine, EventRow) == before


def test_when_sees_the_whole_event(dispatcher: Dispatcher, registry: Registry, clock: Clock) -> None:
    _, second = ended(dispatcher.engine, 2, run=None)
    objects = {row.id: row.object_id for row in rows(dispatcher.engine, EventRow)}
    late = handler(registry, "*", when=lambda event: bool(event.data["id"] == objects[second]))
    wish = replace(ALL, handler="late", loaded=late, limit=1)

    assert again(dispatcher.engine, wish, clock) == Count(events=1, new=1)
    assert only(dispatcher.engine, HandlerRun).event_id == second
    assert statuses(dispatcher.engine) == ["ignored", "waiting"]


def test_a_new_handlers_runs_keep_its_order_and_its_limit(
    dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    ended(dispatcher.engine, 3, run=None, object_id="inv_1")
    seen: list[datetime] = []

    def note(event: Event, ctx: Context) -> None:
        seen.append(event.occurred_at)

    registry.on("*", name="late", ordered=True, concurrency=1)(note)

    again(dispatcher.engine, replace(ALL, handler="late", loaded=registry.get("late")), clock)
    assert all(run.ordered and run.lane == "shop/invoice/inv_1" for run in rows(dispatcher.engine, HandlerRun))
    worked(dispatcher, clock)

    assert len(seen) == 3
    assert seen == sorted(seen)


def test_an_event_of_which_nobody_knows_the_object_has_no_line(
    engine: Engine, registry: Registry, clock: Clock
) -> None:
    ended(engine, run=None, object_id=None)

    again(engine, replace(ALL, handler="late", loaded=handler(registry, "*", ordered=True)), clock)

    run = only(engine, HandlerRun)
    assert (run.lane, run.ordered) == (None, False)


def test_only_dead_runs_are_meant_with_the_status_dead(engine: Engine, registry: Registry, clock: Clock) -> None:
    ended(engine)
    late = handler(registry, "*")

    assert again(engine, replace(DEAD, handler="late", loaded=late), clock) == Count()
    assert statuses(engine) == ["dead"]


@pytest.mark.parametrize("status", ["waiting", "running"])
def test_an_event_at_work_gets_a_new_handlers_run_once_it_is_planned(
    status: str, engine: Engine, registry: Registry, clock: Clock
) -> None:
    ended(engine, status="waiting", ring_at=NOW)
    change(engine, HandlerRun, status=status, ring_at=NOW)
    wish = replace(ALL, handler="late", loaded=handler(registry, "*"))

    assert again(engine, wish, clock) == preview(engine, wish) == Count()
    change(engine, EventRow, ring_at=None)

    assert preview(engine, wish) == again(engine, wish, clock) == Count(events=1, new=1)


def test_runs_of_a_handler_that_is_loaded_nowhere_can_be_replayed(engine: Engine, clock: Clock) -> None:
    ended(engine, handler="gone")
    ended(engine, run=None)

    assert again(engine, replace(ALL, handler="gone"), clock) == Count(events=1, runs=1)


# --- which events ---------------------------------------------------------------------------------

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("selection", "meant"),
    [
        (Selection(type="invoice.paid"), "a"),
        (Selection(type="invoice.*"), "abd"),
        (Selection(type="*"), "abcde"),
        (Selection(type="Invoice.*"), ""),
        (Selection(type="invoice_*"), ""),
        (Selection(source="till"), "e"),
        (Selection(since=NOW - 2 * DAY), "bcde"),
        (Selection(until=NOW - 2 * DAY), "a"),
        (Selection(since=NOW - 2 * DAY, until=NOW), "b"),
        (Selection(status="dead"), "ab"),
        (Selection(status="processed"), "ce"),
        (Selection(status="ignored"), "d"),
        (Selection(status="dead", type="invoice.voided"), "b"),
        (Selection(status="ignored", source="till"), ""),
    ],
)
def test_events_are_chosen_by_what_is_said_of_them(
    selection: Selection, meant: str, engine: Engine, clock: Clock
) -> None:
    there = {
        "a": ended(engine, at=NOW - 3 * DAY),
        "b": ended(engine, type="invoice.voided", at=NOW - 2 * DAY),
        "c": ended(engine, type="customer.created", run="succeeded"),
        "d": ended(engine, type="invoice.sent", run=None),
        "e": ended(engine, type="invoices.exported", run="discarded", source="till"),
    }
    expected = sorted(event_id for name in meant for event_id in there[name])
    wish = Wish(selection=selection)

    assert preview(engine, wish).events == len(expected)
    assert again(engine, wish, clock).events == len(expected)

    assert [row.id for row in rows(engine, EventRow) if row.status == "waiting"] == expected


def test_events_are_chosen_by_their_ids(engine: Engine, clock: Clock) -> None:
    first, _, third = ended(engine, 3)

    assert again(engine, Wish(selection=Selection(events=(third, first))), clock).events == 2

    assert replayed(engine) == [first, third]
    assert unknown(engine, [third, "evt_1", first, "evt_0"]) == ["evt_1", "evt_0"]


def test_a_limit_takes_the_oldest(engine: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "BATCH", 3)
    event_ids = ended(engine, 10)
    wish = replace(ALL, limit=4)

    assert preview(engine, wish) == again(engine, wish, clock) == Count(events=4, runs=4)
    assert replayed(engine) == event_ids[:4]
    assert again(engine, wish, clock).events == 4
    assert preview(engine, wish) == again(engine, wish, clock) == Count(events=2, runs=2)
    assert {run.replays for run in rows(engine, HandlerRun)} == {1}


def test_events_that_come_in_meanwhile_are_not_meant(
    engine: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "BATCH", 2)
    ended(engine, 3)

    count = replay(engine, ALL, actor="a", now=NOW, done=lambda _: ended(engine, at=clock() + DAY))

    assert count.events == 3


def test_a_selection_of_nothing_is_none() -> None:
    assert not Selection()
    assert Selection(source="shop")
    assert Selection(since=NOW).described() == {"since": "2026-06-05T14:00:00+00:00"}


# --- how fast, and beside whom --------------------------------------------------------------------


def test_one_event_is_due_after_the_other_at_the_rate_asked_for(
    engine: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "BATCH", 3)
    event_ids = ended(engine, 7)

    again(engine, replace(ALL, rate=2.0), clock)

    due = {run.event_id: run for run in rows(engine, HandlerRun)}
    for place, event_id in enumerate(event_ids):
        moment = NOW + timedelta(seconds=place / 2)
        assert due[event_id].next_attempt_at == due[event_id].ring_at == moment
    assert [row.ring_at for row in rows(engine, EventRow)] == [NOW + timedelta(seconds=n / 2) for n in range(7)]


def test_the_sweep_rings_for_what_is_due(runtime: Runtime, clock: Clock) -> None:
    ended(runtime.engine, 10)
    again(runtime.engine, replace(DEAD, rate=1.0), clock)

    clock.turn(3.5)

    assert sweep(runtime, clock) == 4


def test_a_second_replay_finds_nothing_to_do(engine: Engine, clock: Clock) -> None:
    ended(engine, 3)
    again(engine, ALL, clock)
    before = rows(engine, HandlerRun), rows(engine, EventRow)

    assert again(engine, ALL, clock) == Count()
    assert (rows(engine, HandlerRun), rows(engine, EventRow)) == before


def together(*works: Callable[[], object]) -> list[object]:
    """Do these at the same time; what each returned."""
    results: list[object] = [None] * len(works)
    begin = threading.Barrier(len(works))

    def do(place: int, work: Callable[[], object]) -> None:
        begin.wait()
        try:
            results[place] = work()
        except Exception as error:
            results[place] = error

    threads = [threading.Thread(target=do, args=numbered) for numbered in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_two_replays_at_once_do_what_one_does(
    engine: Engine, registry: Registry, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "BATCH", 10)
    ended(engine, 60)
    ended(engine, 40, run=None)
    wish = replace(ALL, handler="shop.receipt", loaded=handler(registry, "*", name="shop.receipt"))

    counts = together(*[lambda: replay(engine, wish, actor="a", now=NOW)] * 3)

    assert all(isinstance(count, Count) for count in counts), counts
    assert sum((count for count in counts if isinstance(count, Count)), Count()) == Count(events=100, runs=60, new=40)
    assert sorted(run.replays for run in rows(engine, HandlerRun)) == [0] * 40 + [1] * 60
    assert audit(engine, clock).holds


def test_replays_beside_workers_lose_nothing_and_double_nothing(
    dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    engine, calls, over = dispatcher.engine, list[str](), threading.Event()

    @registry.on("*", name="shop.receipt", retries=0)
    def _(event: Event, ctx: Context) -> None:
        calls.append(event.id)
        ctx.emit("receipt.issued", {})

    event_ids = sorted(ended(engine, 30, run="succeeded") + ended(engine, 30))
    clock.turn(MINUTE)

    def replay_often() -> int:
        runs = sum(replay(engine, replace(ALL, rate=1e6), actor="a", now=NOW).runs for _ in range(10))
        over.set()
        return runs

    def work() -> None:
        while not over.is_set():
            process(dispatcher, event_ids)

    runs, *others = together(replay_often, work, work)
    process(dispatcher, event_ids)

    assert others == [None, None]
    assert audit(engine, clock).holds
    assert statuses(engine) == ["processed"] * 60
    assert len(calls) == runs
    assert sorted(message.event_id for message in rows(engine, Message)) == event_ids


def waits_for_a_lock(engine: Engine) -> bool:
    """Whether some session of this PostgreSQL database is blocked by another."""
    blocked = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with database.read(engine) as connection:
        return connection.execute(text(blocked)).first() is not None


@pytest.mark.parametrize("backend", ["servers"], indirect=True)
def test_who_is_undone_because_of_a_deadlock_tries_again(engine: Engine) -> None:
    (event_id,) = ended(engine)
    thread = threading.Thread(target=replay, args=(engine, DEAD), kwargs={"actor": "a", "now": NOW})

    with database.write(engine) as other:
        other.execute(text("SET LOCAL deadlock_timeout = '60s'"))  # so that it is the replay who is undone
        other.execute(select(HandlerRun.id).with_for_update())
        thread.start()
        while not waits_for_a_lock(engine):
            assert thread.is_alive()
        other.execute(update(EventRow).values(conflicts=1))
    thread.join()

    assert replayed(engine) == [event_id]
    assert only(engine, EventRow).conflicts == 1


@pytest.mark.parametrize("backend", ["servers"], indirect=True)
def test_who_is_undone_again_and_again_says_so(engine: Engine) -> None:
    tries: list[int] = []

    def change_nothing(connection: Connection, event_ids: Sequence[str], before: Count) -> Count:
        tries.append(len(event_ids))
        connection.execute(text("DO $$ BEGIN RAISE deadlock_detected; END $$"))
        return Count()

    errand = errands.Errand(actor="a", action="replay", asked={}, now=NOW)
    with pytest.raises(OperationalError):
        errands.carry_out(engine, errand, iter([["evt_1"]]), change_nothing, errands.nobody, Count())

    assert tries == [1] * 5


def test_what_is_simply_wrong_is_not_tried_again(engine: Engine) -> None:
    tries: list[int] = []

    def change_nothing(connection: Connection, event_ids: Sequence[str], before: Count) -> Count:
        tries.append(len(event_ids))
        connection.execute(text("SELECT no_such_column FROM events"))
        return Count()

    errand = errands.Errand(actor="a", action="replay", asked={}, now=NOW)
    with pytest.raises(DBAPIError):
        errands.carry_out(engine, errand, iter([["evt_1"]]), change_nothing, errands.nobody, Count())

    assert tries == [1]
    assert only(engine, AuditEntry).detail["finished"] is False


# --- what is written down -------------------------------------------------------------------------


def test_every_replay_is_in_the_audit_log_the_log_and_the_metrics(engine: Engine, registry: Registry) -> None:
    metric = REGISTRY.get_sample_value("billhook_replayed_total") or 0.0
    ended(engine, 3)
    ended(engine, 2, run=None)
    late = handler(registry, "*", name="shop.receipt")
    wish = Wish(selection=Selection(since=NOW - DAY), handler="shop.receipt", loaded=late, rate=9.5, limit=100)

    with capture_logs() as logs:
        replay(engine, wish, actor="amal@till", now=NOW)

    entry = only(engine, AuditEntry)
    assert (entry.actor, entry.action, entry.at) == ("amal@till", "replay", NOW)
    asked = {"since": "2026-06-04T14:00:00+00:00", "handler": "shop.receipt", "rate": 9.5, "limit": 100}
    assert entry.detail == {"asked": asked, "events": 5, "runs": 3, "new": 2, "finished": True}
    told = {"action": "replay", "actor": "amal@till", "events": 5, "runs": 3, "new": 2}
    assert any(told.items() <= line.items() for line in logs)
    assert REGISTRY.get_sample_value("billhook_replayed_total") == metric + 5


def test_the_audit_log_says_how_far_a_replay_came_that_was_broken_off(
    engine: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "BATCH", 2)
    ended(engine, 5)

    def interrupt(_count: Count) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(engine, DEAD, actor="a", now=NOW, done=interrupt)

    assert only(engine, AuditEntry).detail == {
        "asked": {"status": "dead", "rate": 50.0}, "events": 2, "runs": 2, "new": 0, "finished": False
    }  # fmt: skip
    assert audit(engine, clock).holds
    assert again(engine, DEAD, clock) == Count(events=3, runs=3)
    assert {run.replays for run in rows(engine, HandlerRun)} == {1}


def test_each_batch_is_told_of_after_its_commit(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "BATCH", 2)
    ended(engine, 5)
    told: list[tuple[int, int]] = []

    replay(engine, DEAD, actor="a", now=NOW, done=lambda count: told.append((count.events, len(replayed(engine)))))

    assert told == [(2, 2), (2, 4), (1, 5)]


# --- acknowledging --------------------------------------------------------------------------------


def acknowledged(engine: Engine) -> list[str]:
    return [row.id for row in rows(engine, EventRow) if row.acknowledged_at is not None]


def test_dead_events_are_acknowledged_and_nothing_else(
    engine: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "BATCH", 2)
    dead = ended(engine, 5)
    ended(engine, run="succeeded")
    ended(engine, run=None)
    received(engine)

    assert unacknowledged(engine, Selection(type="*")) == 5
    assert acknowledge(engine, Selection(type="*"), actor="amal@till", now=NOW) == 5

    assert acknowledged(engine) == dead
    assert {row.acknowledged_at for row in rows(engine, EventRow)} == {NOW, None}
    assert only(engine, AuditEntry).detail == {
        "asked": {"type": "*"}, "events": 5, "runs": 0, "new": 0, "finished": True
    }  # fmt: skip
    assert only(engine, AuditEntry).action == "acknowledge"
    assert audit(engine, clock).holds


def test_what_was_acknowledged_is_not_again(engine: Engine) -> None:
    ended(engine)
    acknowledge(engine, Selection(type="*"), actor="a", now=NOW)

    assert unacknowledged(engine, Selection(type="*")) == 0
    assert acknowledge(engine, Selection(type="*"), actor="a", now=NOW + DAY) == 0
    assert only(engine, EventRow).acknowledged_at == NOW


def test_of_dead_events_those_are_acknowledged_that_were_chosen(engine: Engine) -> None:
    _, second = ended(engine, 2)

    assert acknowledge(engine, Selection(events=(second,)), actor="a", now=NOW) == 1
    assert acknowledged(engine) == [second]
