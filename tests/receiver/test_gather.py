from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, IntegrityError, InterfaceError, OperationalError
from structlog.testing import capture_logs

from receiver import gather
from receiver.gather import Gatherer, Overloaded, Result, Unavailable
from tests.receiver.edge import stored
from tests.workers.test_inbox import arrival
from workers import inbox
from workers.inbox import Arrival, Outcome


@dataclass
class Store:
    """Stands for the database and the workers: keeps what it is given, and is as slow as the test wants."""

    open: threading.Event = field(default_factory=threading.Event)
    """Commits end while it is set."""
    heard: threading.Event = field(default_factory=threading.Event)
    """Announcements end while it is set."""
    batches: list[list[str]] = field(default_factory=list)
    announced: list[list[str]] = field(default_factory=list)
    duplicates: set[str] = field(default_factory=set)
    refuses: dict[str, Exception] = field(default_factory=dict)

    def accept(self, arrivals: Sequence[Arrival]) -> list[Outcome]:
        self.batches.append([one.delivery_id for one in arrivals])
        assert self.open.wait(10)
        for one in arrivals:
            if one.delivery_id in self.refuses:
                raise self.refuses[one.delivery_id]
        return [Outcome("duplicate" if one.delivery_id in self.duplicates else "accepted", "evt") for one in arrivals]

    def announce(self, arrivals: Sequence[Arrival]) -> None:
        self.announced.append([one.delivery_id for one in arrivals])
        assert self.heard.wait(10)


@asynccontextmanager
async def gathering(store: Store, max_waiting: int = 5000) -> AsyncIterator[Gatherer]:
    """A gatherer over the store; at the end of the block nothing holds it up any more."""
    gatherer = Gatherer(store.accept, store.announce, max_waiting=max_waiting)
    try:
        yield gatherer
    finally:
        store.open.set()
        store.heard.set()
        await gatherer.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def submitted(gatherer: Gatherer, *ids: str) -> list[asyncio.Task[Result]]:
    return [asyncio.create_task(gatherer.submit(arrival(one, one.encode()))) for one in ids]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(whole())


def test_a_lone_arrival_is_committed_at_once() -> None:
    store = Store()
    store.open.set()

    async def test() -> None:
        async with gathering(store) as gatherer:
            assert await gatherer.submit(arrival("a")) == Outcome("accepted", "evt")

    run(test)
    assert store.batches == [["a"]]


def test_those_that_come_during_a_commit_share_the_next() -> None:
    store = Store()

    async def test() -> None:
        async with gathering(store) as gatherer:
            tasks = submitted(gatherer, "a")
            await until(lambda: store.batches == [["a"]])
            tasks += submitted(gatherer, "b", "c", "d")
            await asyncio.sleep(0.01)
            assert store.batches == [["a"]]
            store.open.set()
            assert set(await asyncio.gather(*tasks)) == {Outcome("accepted", "evt")}

    run(test)
    assert store.batches == [["a"], ["b", "c", "d"]]


def test_an_answer_waits_for_its_commit_and_not_for_the_announcement() -> None:
    store = Store()

    async def test() -> None:
        async with gathering(store) as gatherer:
            (task,) = submitted(gatherer, "a")
            await until(lambda: store.batches == [["a"]])
            assert not task.done()
            store.open.set()
            await task
            await until(lambda: store.announced == [["a"]])  # and it has not ended

    run(test)


def test_what_is_committed_during_an_announcement_shares_the_next() -> None:
    store = Store()
    store.open.set()

    async def test() -> None:
        async with gathering(store) as gatherer:
            await gatherer.submit(arrival("a"))
            await until(lambda: store.announced == [["a"]])
            for one in "bcd":
                await gatherer.submit(arrival(one))
            assert store.announced == [["a"]]
            store.heard.set()
            await until(lambda: len(store.announced) == 2)

    run(test)
    assert store.batches == [["a"], ["b"], ["c"], ["d"]]
    assert store.announced == [["a"], ["b", "c", "d"]]


def test_only_what_is_new_is_announced() -> None:
    store = Store(duplicates={"b"}, refuses={"c": _refused()})

    async def test() -> None:
        async with gathering(store) as gatherer:
            tasks = submitted(gatherer, "a")
            await until(lambda: store.batches == [["a"]])
            tasks += submitted(gatherer, "b", "c", "d")
            await asyncio.sleep(0.01)
            store.open.set()
            store.heard.set()
            await asyncio.gather(*tasks, return_exceptions=True)

    run(test)
    assert [one for batch in store.announced for one in batch] == ["a", "d"]


def _refused() -> IntegrityError:
    return IntegrityError("INSERT", {}, Exception("check"))


def test_a_batch_has_its_largest_size() -> None:
    store = Store()
    ids = [f"d{number}" for number in range(2 * gather.MAX_BATCH + 10)]

    async def test() -> None:
        async with gathering(store) as gatherer:
            tasks = submitted(gatherer, *ids)
            await until(lambda: len(store.batches) == 1)
            store.open.set()
            await asyncio.gather(*tasks)

    run(test)
    assert [len(batch) for batch in store.batches] == [1, gather.MAX_BATCH, gather.MAX_BATCH, 9]
    assert [one for batch in store.batches for one in batch] == ids


def test_more_than_may_wait_are_turned_away_until_there_is_room() -> None:
    store = Store()

    async def test() -> None:
        async with gathering(store, max_waiting=2) as gatherer:
            tasks = submitted(gatherer, "a", "b", "c", "d", "e")
            await until(lambda: sum(task.done() for task in tasks) == 2)
            store.open.set()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [Outcome] * 3 + [Overloaded] * 2
            assert await gatherer.submit(arrival("f")) == Outcome("accepted", "evt")

    run(test)


def test_large_bodies_are_turned_away_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "MAX_WAITING_BYTES", 3000)
    store = Store()

    async def test() -> None:
        async with gathering(store) as gatherer:
            bodies = [b"%d" % number * 1000 for number in range(7)]
            tasks = [asyncio.create_task(gatherer.submit(arrival(str(body[:1]), body))) for body in bodies]
            await until(lambda: sum(task.done() for task in tasks) == 2)
            store.open.set()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            # One commits, and of what waits the last that fits may exceed the limit.
            assert [type(outcome) for outcome in outcomes] == [Outcome] * 5 + [Overloaded] * 2

    run(test)


def test_large_bodies_make_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "MAX_BATCH_BYTES", 2000)
    store = Store()

    async def test() -> None:
        async with gathering(store) as gatherer:
            tasks = submitted(gatherer, "a")
            await until(lambda: len(store.batches) == 1)
            for name in "bcdef":
                tasks.append(asyncio.create_task(gatherer.submit(arrival(name, name.encode() * 1000))))
            await asyncio.sleep(0.01)
            store.open.set()
            await asyncio.gather(*tasks)

    run(test)
    assert store.batches == [["a"], ["b", "c"], ["d", "e"], ["f"]]


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("INSERT", {}, Exception("gone")),
        InterfaceError("INSERT", {}, Exception("gone")),
        DataError("INSERT", {}, Exception("gone"), connection_invalidated=True),
    ],
)
def test_an_outage_fails_a_batch_as_a_whole_without_trying_each(error: Exception) -> None:
    store = Store(refuses={"c": error})

    async def test() -> None:
        async with gathering(store) as gatherer:
            tasks = submitted(gatherer, "a")
            await until(lambda: store.batches == [["a"]])
            tasks += submitted(gatherer, "b", "c", "d")
            await asyncio.sleep(0.01)
            store.open.set()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [Outcome] + [Unavailable] * 3

    with capture_logs() as lines:
        run(test)
    assert store.batches == [["a"], ["b", "c", "d"]]
    assert [line["count"] for line in lines if line["action"] == "accept_failed"] == [3]


@pytest.mark.parametrize("error", [_refused(), ValueError("a bug"), RuntimeError()])
def test_one_that_is_refused_does_not_fail_the_others(error: Exception) -> None:
    store = Store(refuses={"c": error})

    async def test() -> None:
        async with gathering(store) as gatherer:
            tasks = submitted(gatherer, "a")
            await until(lambda: store.batches == [["a"]])
            tasks += submitted(gatherer, "b", "c", "d")
            await asyncio.sleep(0.01)
            store.open.set()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [Outcome, Outcome, Unavailable, Outcome]
            assert await gatherer.submit(arrival("e")) == Outcome("accepted", "evt")

    run(test)


def test_one_that_the_database_refuses_does_not_fail_the_others(engine: Engine) -> None:
    arrivals = [arrival(f"del_{number}", b"%d" % number) for number in range(5)]
    arrivals[2] = replace(arrivals[2], event=replace(arrivals[2].event, type=None))  # type: ignore[arg-type]

    async def test() -> None:
        gatherer = Gatherer(lambda batch: inbox.accept(engine, batch), lambda _: None, max_waiting=10)
        outcomes = await asyncio.gather(*map(gatherer.submit, arrivals), return_exceptions=True)
        await gatherer.close()
        assert [type(outcome) for outcome in outcomes] == [Outcome, Outcome, Unavailable, Outcome, Outcome]

    run(test)
    assert stored(engine) == 4


def test_who_no_longer_waits_does_not_break_the_batch() -> None:
    store = Store()
    store.heard.set()

    async def test() -> None:
        async with gathering(store) as gatherer:
            first, *rest = submitted(gatherer, "a")
            await until(lambda: store.batches == [["a"]])
            rest += submitted(gatherer, "b", "c", "d")
            await asyncio.sleep(0.01)
            first.cancel()
            rest[1].cancel()
            store.open.set()
            outcomes = await asyncio.gather(first, *rest, return_exceptions=True)
            assert [type(one) for one in outcomes] == [asyncio.CancelledError, Outcome, asyncio.CancelledError, Outcome]
            await until(lambda: sum(map(len, store.announced)) == 4)

    run(test)
    # What was committed is announced, whether or not its sender has gone.
    assert [one for batch in store.announced for one in batch] == ["a", "b", "c", "d"]


def test_one_that_cannot_be_answered_does_not_keep_the_others_waiting() -> None:
    store = Store()
    answered: list[Result] = []

    def fail(_: Result) -> None:
        raise RuntimeError

    async def test() -> None:
        async with gathering(store) as gatherer:
            gatherer.put(arrival("a"), answered.append)
            gatherer.put(arrival("b"), fail)
            gatherer.put(arrival("c"), answered.append)
            store.open.set()
            await until(lambda: len(answered) == 2)

    with capture_logs() as lines:
        run(test)
    assert [line["error"] for line in lines if line["action"] == "answer_failed"] == ["RuntimeError"]
    assert [one for batch in store.announced for one in batch] == ["a", "b", "c"]


def test_closing_waits_for_the_commit_and_the_announcement_under_way() -> None:
    store = Store()

    async def test() -> None:
        gatherer = Gatherer(store.accept, store.announce, max_waiting=10)
        (task,) = submitted(gatherer, "a")
        await until(lambda: store.batches == [["a"]])
        closing = asyncio.create_task(gatherer.close())
        await asyncio.sleep(0.02)
        assert not closing.done()
        store.open.set()
        assert await task == Outcome("accepted", "evt")
        store.heard.set()
        await closing

    run(test)


def test_closing_waits_for_those_who_wait_for_the_next_commit() -> None:
    store = Store()
    store.heard.set()

    async def test() -> None:
        gatherer = Gatherer(store.accept, store.announce, max_waiting=10)
        tasks = submitted(gatherer, "a")
        await until(lambda: store.batches == [["a"]])
        tasks += submitted(gatherer, "b")
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(gatherer.close())
        await asyncio.sleep(0.01)
        store.open.set()
        async with asyncio.timeout(2):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await closing
        # Stored, or told to send again; but never left without an answer.
        assert isinstance(outcomes[0], Outcome)
        assert isinstance(outcomes[1], Outcome | Unavailable)

    run(test)


def test_what_was_committed_by_the_close_is_announced() -> None:
    store = Store()
    store.open.set()

    async def test() -> None:
        gatherer = Gatherer(store.accept, store.announce, max_waiting=10)
        await gatherer.submit(arrival("a"))
        await until(lambda: store.announced == [["a"]])
        await gatherer.submit(arrival("b"))
        closing = asyncio.create_task(gatherer.close())
        await asyncio.sleep(0.02)
        store.heard.set()
        await closing

    run(test)
    assert store.announced == [["a"], ["b"]]


def test_an_announcement_that_fails_does_not_silence_the_next() -> None:
    announced = []

    def announce(arrivals: Sequence[Arrival]) -> None:
        announced.append([one.delivery_id for one in arrivals])
        if len(announced) == 1:
            raise ValueError("a bug")

    store = Store()
    store.open.set()

    async def test() -> None:
        gatherer = Gatherer(store.accept, announce, max_waiting=10)
        await gatherer.submit(arrival("a"))
        await until(lambda: announced == [["a"]])
        await gatherer.submit(arrival("b"))
        async with asyncio.timeout(1):
            await until(lambda: announced[-1] == ["b"])
        await gatherer.close()

    with capture_logs() as lines:
        run(test)
    assert "ValueError" in repr(lines)
