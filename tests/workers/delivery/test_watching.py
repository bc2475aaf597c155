"""What happens is seen once, in its order, whoever commits late, and for no more than what is new and open."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.exc import OperationalError

from handlers import Context, Discard, Event
from handlers.registry import Registry
from tests.workers.delivery.given import Subscriber, add, answering, publish_some
from tests.workers.given import NOW, Clock, change, received, rows, statements
from workers import database, ids, watching
from workers.app import Runtime
from workers.delivery.deliver import Courier
from workers.delivery.flight import deliver
from workers.dispatch import Dispatcher, process
from workers.models import EventRow
from workers.replay import Wish, replay
from workers.selection import Selection
from workers.watching import Watch

once = pytest.mark.parametrize("backend", ["embedded"], indirect=True)


def from_now(engine: Engine, wants: Callable[[str, str | None], bool] = lambda *_: True) -> Watch:
    return Watch(engine, NOW, wants)


def seen(watch: Watch) -> list[tuple[str, str]]:
    return [(one.what, one.id) for one in watch.look(NOW)]


def test_an_event_is_told_when_it_comes_and_when_it_ends(
    engine: Engine,
    dispatcher: Dispatcher,
    registry: Registry,
) -> None:
    registry.on("invoice.paid")(lambda event, ctx: None)
    received(engine, at=NOW - timedelta(seconds=1))
    watch = from_now(engine)

    paid, other = received(engine), received(engine, "customer.created")
    assert seen(watch) == [("received", paid), ("received", other)]
    assert seen(watch) == []

    process(dispatcher, [paid, other])
    assert sorted(seen(watch)) == [("ignored", other), ("processed", paid)]
    assert seen(watch) == []


def test_a_run_that_fails_is_told_each_time_and_its_end_with_the_last_line_of_its_error(
    engine: Engine,
    dispatcher: Dispatcher,
    registry: Registry,
    clock: Clock,
) -> None:
    @registry.on("invoice.paid", retries=1)
    def failing(event: Event, ctx: Context) -> None:
        raise ValueError(f"attempt {ctx.attempt}")

    event, watch = received(engine), from_now(engine)
    watch.look(NOW)
    process(dispatcher, [event])
    (failed,) = watch.look(clock.now)
    assert (failed.what, failed.id, failed.attempt, failed.error) == ("failed", event, 1, "ValueError: attempt 1")
    assert failed.next_attempt_at is not None
    assert seen(watch) == []

    clock.now = failed.next_attempt_at
    process(dispatcher, [event])
    (dead,) = watch.look(clock.now)
    assert (dead.what, dead.attempt, dead.error, dead.runs) == ("dead", 2, "ValueError: attempt 2", 1)


def test_what_was_waiting_before_is_told_when_it_ends_and_so_is_a_replay(
    engine: Engine,
    dispatcher: Dispatcher,
    registry: Registry,
) -> None:
    outcome: list[Exception] = [ValueError("broken")]

    @registry.on("invoice.paid", retries=0)
    def sometimes(event: Event, ctx: Context) -> None:
        raise outcome[0]

    change(engine, EventRow, id=(early := ids.derived("evt", NOW - timedelta(days=1), received(engine))))
    watch = from_now(engine)
    assert seen(watch) == []
    process(dispatcher, [early])
    assert seen(watch) == [("dead", early)]

    outcome[0] = Discard("not ours")
    wish = Wish(selection=Selection(status="dead"))
    replay(engine, wish, actor="tester", now=NOW)
    assert seen(watch) == []
    process(dispatcher, [early])
    assert seen(watch) == [("processed", early)]


def test_what_is_committed_late_is_seen_and_nothing_twice(engine: Engine) -> None:
    watch = from_now(engine)
    first = received(engine)
    assert seen(watch) == [("received", first)]

    late = received(engine)
    with database.write(engine) as connection:
        earlier = ids.derived("evt", ids.moment(first) - timedelta(seconds=1), "late")
        watch._events._low = min(watch._events._low, ids.derived("evt", ids.moment(first) - watching.LATE))
        connection.execute(update(EventRow).where(EventRow.id == late).values(id=earlier))

    assert seen(watch) == [("received", earlier)]
    assert seen(watch) == []


@once
def test_only_what_is_wanted_is_told_and_the_rest_is_passed_over(engine: Engine) -> None:
    watch = from_now(engine, lambda of_type, source: of_type == "invoice.paid" and source == "shop")
    received(engine, "customer.created")
    low = watch._events._low

    assert seen(watch) == []
    assert watch._events._seen
    assert watch._events._low >= low
    assert seen(watch) == []
    wanted = received(engine)
    assert seen(watch) == [("received", wanted)]


@once
def test_a_look_reads_a_page_and_says_that_there_is_more(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PAGE", 3)
    watch = Watch(engine, NOW - timedelta(days=1))
    events = [received(engine) for _ in range(7)]

    found: list[Any] = []
    for behind in (True, True, False):
        found += [event for what, event in seen(watch) if what == "received"]
        assert watch.behind is behind

    assert sorted(found) == sorted(events)


@once
def test_who_waits_for_too_many_lets_the_oldest_go(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "OPEN", 2)
    watch = from_now(engine)
    events = sorted(received(engine) for _ in range(4))

    watch.look(NOW)

    assert sorted(watch._open) == events[2:]


def test_a_look_asks_the_same_few_questions_however_much_is_stored(engine: Engine) -> None:
    for _ in range(5):
        received(engine)
    watch = from_now(engine)
    watch.look(NOW)
    with statements(engine) as few:
        watch.look(NOW)
    for _ in range(50):
        received(engine)
    with statements(engine) as many:
        watch.look(NOW)

    assert len([one for one in many if "SELECT" in one]) == len([one for one in few if "SELECT" in one]) <= 7


def test_attempts_are_told_with_what_the_endpoint_answered(courier: Courier, subscriber: Subscriber) -> None:
    endpoint, _ = add(courier, subscriber.url)
    watch = from_now(courier.engine)
    subscriber.reply = answering(500, b"no")
    (delivery,) = publish_some(courier)
    deliver(courier, [delivery])

    (failed,) = watch.look(NOW)
    assert (failed.what, failed.id, failed.endpoint, failed.status) == ("undelivered", delivery, endpoint, 500)

    subscriber.reply = answering(204)
    (other,) = publish_some(courier)
    deliver(courier, [other])
    assert seen(watch) == [("delivered", other)]


@once
def test_a_look_that_failed_is_made_again(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = from_now(runtime.engine)
    event = received(runtime.engine)

    def breaks(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("gone"))

    with monkeypatch.context() as broken:
        broken.setattr(watching, "_errors", breaks)
        with pytest.raises(OperationalError):
            watch.look(NOW)

    assert seen(watch) == [("received", event)]
    assert len(rows(runtime.engine, EventRow)) == 1
