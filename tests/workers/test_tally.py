"""The tally: it says what counting says, whenever it comes and whatever happens late, twice or midway."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, delete, select, update

from handlers.registry import Registry
from tests.workers.given import NOW, Clock, change, received, rows
from workers import database, ids, retention, seeks, stats
from workers.app import Runtime
from workers.dispatch import Dispatcher, process
from workers.models import EventRow, StaleHour, Tally
from workers.replay import Wish, replay
from workers.selection import Selection
from workers.tally import KEPT, Step, tallied_to, tally

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
SINCE = NOW - timedelta(days=2)
BY = ("name", "kind", "outcome")


def stored(engine: Engine) -> Counter[Any]:
    """What the events themselves say."""
    with database.read(engine) as connection:
        found = connection.execute(select(EventRow.source, EventRow.type, EventRow.status))
        return Counter(tuple(row) for row in found)


def told(engine: Engine, step: Step = "hour", *, until: datetime = NOW + timedelta(days=1)) -> Counter[Any]:
    """What statistics say."""
    return stats.counts(engine, "events", step, SINCE, until, BY)


def tallied(engine: Engine, step: Step) -> int:
    """How many events stand in the tally."""
    with database.read(engine) as connection:
        found = connection.execute(select(Tally.amount).where(Tally.what == "events", Tally.step == step))
        return sum(found.scalars())


@pytest.fixture(params=["minute", "hour"])
def step(request: pytest.FixtureRequest) -> Step:
    return "minute" if request.param == "minute" else "hour"


def test_statistics_say_the_same_before_and_after_each_tally(runtime: Runtime, step: Step) -> None:
    engine = runtime.engine
    for number in range(40):
        received(engine, ("invoice.paid", "invoice.sent")[number % 2], at=NOW - number * 7 * MINUTE)
    change(engine, EventRow, status="processed")
    received(engine, at=NOW)

    said = [told(engine, step)]
    for late in (0, 2, 4, 10, 30, 70, 300):
        tally(engine, NOW + late * MINUTE, runtime.settings)
        said.append(told(engine, step))

    assert said == [stored(engine)] * len(said)
    assert tallied(engine, "hour") == tallied(engine, "minute") == 41


def test_a_step_is_where_its_events_were_received(runtime: Runtime) -> None:
    for seconds in (0, 59.999, 60, 3599, 3600):
        received(runtime.engine, at=NOW + timedelta(seconds=seconds))
    tally(runtime.engine, NOW + timedelta(hours=3), runtime.settings)

    def by(step: Step) -> dict[Any, int]:
        found = stats.counts(runtime.engine, "events", step, NOW, NOW + 2 * HOUR, ("at",))
        return {(at - NOW) / MINUTE: amount for (at,), amount in found.items()}

    assert by("minute") == {0: 2, 1: 1, 59: 1, 60: 1}
    assert by("hour") == {0: 4, 60: 1}


def test_a_sum_takes_whole_hours_at_once_and_minutes_at_its_ends(runtime: Runtime) -> None:
    engine = runtime.engine
    for number in range(60):
        received(engine, at=NOW + number * 5 * MINUTE)

    def between(first: int, last: int) -> int:
        found = stats.counts(engine, "events", "minute", NOW + first * MINUTE, NOW + last * MINUTE, ("outcome",))
        return sum(found.values())

    times = [(0, 300), (5, 300), (10, 295), (60, 120), (61, 119), (61, 121), (130, 140), (299, 300)]
    before = [between(*time) for time in times]
    tally(engine, NOW + 4 * HOUR, runtime.settings)  # the last of it is counted where it stands

    assert before == [60, 59, 57, 12, 11, 12, 2, 0]
    assert [between(*time) for time in times] == before


def test_what_came_and_ended_soon_leaves_no_note(dispatcher: Dispatcher, clock: Clock) -> None:
    event = received(dispatcher.engine)
    clock.turn(20)
    process(dispatcher, [event])

    assert rows(dispatcher.engine, StaleHour) == []


def test_what_ends_late_is_tallied_again(dispatcher: Dispatcher, registry: Registry, clock: Clock) -> None:
    engine, settings = dispatcher.engine, dispatcher.settings

    @registry.on("invoice.paid", name="receipts")
    def _(event: Any, ctx: Any) -> None:
        pass

    event, other = received(engine), received(engine, "invoice.sent")
    clock.turn(3 * 3600)
    tally(engine, clock.now, settings)
    assert told(engine)["shop", "invoice.paid", "waiting"] == 1

    process(dispatcher, [event, other])
    tally(engine, clock.now, settings)

    assert told(engine) == stored(engine)
    runs = stats.counts(engine, "runs", "hour", SINCE, NOW + HOUR, ("name", "outcome"))
    assert runs == {("receipts", "succeeded"): 1}
    assert rows(engine, StaleHour) == []


def test_what_is_replayed_is_tallied_again(dispatcher: Dispatcher, clock: Clock) -> None:
    engine = dispatcher.engine
    process(dispatcher, [received(engine)])
    clock.turn(600)  # its minute is tallied, its hour is not over
    tally(engine, clock.now, dispatcher.settings)
    assert told(engine, "minute")["shop", "invoice.paid", "ignored"] == 1

    replay(engine, Wish(selection=Selection(status="ignored")), actor="ada", now=clock.now)
    tally(engine, clock.now, dispatcher.settings)

    assert told(engine, "minute") == {("shop", "invoice.paid", "waiting"): 1}


def test_what_was_committed_late_is_in_the_hour(runtime: Runtime) -> None:
    received(runtime.engine, at=NOW - 90 * MINUTE)
    tally(runtime.engine, NOW - 70 * MINUTE, runtime.settings)
    received(runtime.engine, at=NOW - 80 * MINUTE)  # its minute is tallied already
    tally(runtime.engine, NOW + HOUR, runtime.settings)

    assert tallied(runtime.engine, "hour") == tallied(runtime.engine, "minute") == 2


def test_a_tally_that_is_stopped_goes_on_where_it_was(runtime: Runtime) -> None:
    engine = runtime.engine
    for hour in range(30):
        received(engine, at=NOW - hour * HOUR)

    starts = 1
    while not tally(engine, NOW + HOUR, runtime.settings, stopping=lambda: True):
        starts += 1
        assert told(engine) == stored(engine)

    assert starts > 5
    assert told(engine) == stored(engine)


def test_a_tally_that_fails_has_done_nothing(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = runtime.engine
    received(engine, at=NOW - 5 * HOUR)

    def fails(*_: object) -> None:
        raise OSError

    with monkeypatch.context() as broken:
        broken.setattr("workers.tally._reach", fails)
        with pytest.raises(OSError):  # noqa: PT011
            tally(engine, NOW, runtime.settings)
    with database.read(engine) as connection:
        assert tallied_to(connection) is None
    assert told(engine) == stored(engine)


def test_of_two_tallies_at_once_one_leaves(runtime: Runtime) -> None:
    if runtime.settings.embedded_database:
        pytest.skip("SQLite lets one write at a time")
    received(runtime.engine, at=NOW - 5 * HOUR)

    with database.write(runtime.engine) as connection:
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('billhook.tally'))")
        assert not tally(runtime.engine, NOW, runtime.settings)
    assert tally(runtime.engine, NOW, runtime.settings)


def test_the_tally_outlives_what_it_counted(runtime: Runtime) -> None:
    engine = runtime.engine
    old = NOW - timedelta(days=40)
    received(engine, at=old)
    change(engine, EventRow, status="processed", ring_at=None)
    tally(engine, NOW, runtime.settings)
    retention.prune(engine, NOW, runtime.settings)
    with database.write(engine) as connection:  # a note that somebody left on the last day
        connection.execute(database.insert(connection, StaleHour), [{"id": ids.new("sth"), "at": old}])
    tally(engine, NOW, runtime.settings)

    found = stats.counts(engine, "events", "hour", old, NOW, BY)
    assert found == {("shop", "invoice.paid", "processed"): 1}
    tally(engine, old + KEPT + 2 * HOUR, runtime.settings)
    assert tallied(engine, "hour") == tallied(engine, "minute") == 0


def test_nothing_is_tallied_where_there_is_nothing(runtime: Runtime) -> None:
    assert tally(runtime.engine, NOW, runtime.settings)
    assert told(runtime.engine) == {}
    received(runtime.engine, at=NOW + MINUTE)
    assert told(runtime.engine) == stored(runtime.engine)


def test_percentiles_lie_in_their_class() -> None:
    assert stats.percentile({}, 0.5) is None
    assert stats.percentile({"10": 100}, 0.5) == 7.5
    assert stats.percentile({"10": 90, "500": 10}, 0.95) == 450.0
    assert stats.percentile({"30000": 1}, 0.95) == 29_500.0
    assert stats.percentile({"": 1_000}, 0.5) is None
    assert stats.percentile({"": 1_000, "10": 100}, 0.5) == 7.5


def test_what_there_is_in_the_columns_of_an_index(engine: Engine) -> None:
    for source in ("shop", "outlet"):
        for event_type in ("invoice.paid", "invoice.sent", "invoice.paid"):
            received(engine, event_type, source=source)
    with database.write(engine) as connection:
        connection.execute(update(EventRow).where(EventRow.source == "shop").values(status="dead"))

    with database.read(engine) as connection:
        assert sorted(seeks.combinations(connection, (EventRow.status, EventRow.source, EventRow.type)) or []) == [
            ("dead", "shop", "invoice.paid"),
            ("dead", "shop", "invoice.sent"),
            ("waiting", "outlet", "invoice.paid"),
            ("waiting", "outlet", "invoice.sent"),
        ]
    with database.write(engine) as connection:
        connection.execute(delete(EventRow))
    with database.read(engine) as connection:
        assert seeks.combinations(connection, (EventRow.status, EventRow.source, EventRow.type)) == []
