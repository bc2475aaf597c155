from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, func, select

from handlers.event import Event
from workers import database, ids, inbox
from workers.app import Runtime
from workers.inbox import Arrival, Window
from workers.models import EventRow

NOW = datetime(2026, 6, 5, 14, 0, tzinfo=UTC)


def arrival(delivery_id: str = "del_1", body: bytes = b'{"n": 1}', source: str = "shop") -> Arrival:
    event = Event(
        type="invoice.paid",
        data={},
        occurred_at=NOW,
        provider="hisab",
        object_kind="invoice",
        object_id="inv_1",
        body=body,
    )
    digest = hashlib.sha256(body)
    return Arrival(
        id=ids.new("evt"),
        source=source,
        received_at=NOW,
        event=event,
        delivery_id=delivery_id,
        event_key=digest.hexdigest(),
        body_hash=digest.digest(),
        headers={"x-webhook-event": "invoice.paid"},
    )


def stored(engine: Engine) -> int:
    with database.read(engine) as connection:
        return connection.execute(select(func.count()).select_from(EventRow)).scalar_one()


def conflicts(engine: Engine) -> int:
    with database.read(engine) as connection:
        return connection.execute(select(func.sum(EventRow.conflicts))).scalar_one()


def test_a_new_delivery_is_accepted_and_stored_as_it_came(engine: Engine) -> None:
    one = arrival(body=b'{ "n":\t1 }')

    (outcome,) = inbox.accept(engine, [one])

    assert outcome.kind == "accepted"
    with database.read(engine) as connection:
        row = connection.execute(select(*EventRow.__table__.columns)).one()
    assert row.id == outcome.event_id == one.id
    assert row.body == b'{ "n":\t1 }'
    assert row.received_at == NOW
    assert row.status == "waiting"


def test_the_same_delivery_again_is_a_duplicate_of_the_same_event(engine: Engine) -> None:
    first, again = arrival(), arrival()
    inbox.accept(engine, [first])

    (outcome,) = inbox.accept(engine, [again])

    assert outcome == inbox.Outcome("duplicate", first.id)
    assert stored(engine) == 1


def test_the_same_body_under_another_delivery_id_is_a_duplicate(engine: Engine) -> None:
    first = arrival("del_1")
    inbox.accept(engine, [first])

    (outcome,) = inbox.accept(engine, [arrival("del_2")])

    assert outcome == inbox.Outcome("duplicate", first.id)


def test_a_known_delivery_id_with_another_body_is_a_conflict_and_is_counted(engine: Engine) -> None:
    first = arrival("del_1", b'{"n": 1}')
    inbox.accept(engine, [first])

    outcomes = inbox.accept(engine, [arrival("del_1", b'{"n": 2}'), arrival("del_1", b'{"n": 3}')])

    assert outcomes == [inbox.Outcome("conflict", first.id)] * 2
    assert conflicts(engine) == 2
    assert stored(engine) == 1


def test_the_body_of_one_event_under_the_id_of_another_is_a_conflict(engine: Engine) -> None:
    one, two = arrival("del_1", b'{"n": 1}'), arrival("del_2", b'{"n": 2}')
    inbox.accept(engine, [one, two])

    (outcome,) = inbox.accept(engine, [arrival("del_1", b'{"n": 2}')])

    assert outcome == inbox.Outcome("conflict", one.id)


def test_two_sources_may_use_the_same_delivery_id(engine: Engine) -> None:
    outcomes = inbox.accept(engine, [arrival(source="shop"), arrival(source="other")])

    assert [outcome.kind for outcome in outcomes] == ["accepted", "accepted"]


def test_repeats_within_one_batch_are_one_event(engine: Engine) -> None:
    batch = [arrival() for _ in range(50)]

    outcomes = inbox.accept(engine, batch)

    assert sorted(outcome.kind for outcome in outcomes) == ["accepted"] + ["duplicate"] * 49
    assert len({outcome.event_id for outcome in outcomes}) == 1


def test_batches_of_the_same_deliveries_in_any_order_at_once_store_each_once(engine: Engine) -> None:
    def batch(turn: int) -> list[Arrival]:
        arrivals = [arrival(f"del_{n}", b'{"n": %d}' % n) for n in range(40)]
        return arrivals if turn % 2 else arrivals[::-1]

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda turn: inbox.accept(engine, batch(turn)), range(16)))

    assert stored(engine) == 40
    assert sum(outcome.kind == "accepted" for outcomes in results for outcome in outcomes) == 40


def test_a_batch_that_fails_stores_nothing(engine: Engine) -> None:
    good, bad = arrival("del_1"), arrival("del_2", b"{}")
    bad = replace(bad, event=replace(bad.event, type=None))  # type: ignore[arg-type]

    with pytest.raises(Exception, match=r"(?i)null"):
        inbox.accept(engine, [good, bad])

    assert stored(engine) == 0


def test_a_commit_that_was_cut_off_from_its_answer_is_recognised_as_our_own(engine: Engine) -> None:
    one = arrival()
    inbox.accept(engine, [one])

    assert inbox.accept(engine, [one]) == [inbox.Outcome("accepted", one.id)]


def test_the_window_answers_a_known_duplicate_without_the_database(runtime: Runtime, engine: Engine) -> None:
    window = Window(runtime.redis, runtime.settings.redis_prefix)
    first = arrival("del_1")
    inbox.accept(engine, [first], window)
    inbox.announce(window, [first])
    engine.dispose()

    (outcome,) = window.known([arrival("del_1")])

    assert outcome == inbox.Outcome("duplicate", first.id)


def test_the_window_leaves_it_to_the_database_when_delivery_id_or_body_differs(runtime: Runtime) -> None:
    window = Window(runtime.redis, runtime.settings.redis_prefix)
    window.remember([arrival("del_1")])

    assert window.known([arrival("del_9"), arrival("del_1", b"other")]) == [None, None]


def test_what_only_the_window_knows_is_stored_all_the_same(runtime: Runtime, engine: Engine) -> None:
    # Given a Redis that remembers a delivery which this database does not have
    window = Window(runtime.redis, runtime.settings.redis_prefix)
    window.remember([arrival("del_1")])
    here = arrival("del_1")

    (outcome,) = inbox.accept(engine, [here], window)

    assert outcome == inbox.Outcome("accepted", here.id)
    assert stored(engine) == 1


def test_the_window_forgets_after_three_days(runtime: Runtime) -> None:
    window = Window(runtime.redis, runtime.settings.redis_prefix)

    window.remember([arrival()])

    lifetimes = [runtime.redis.ttl(key) for key in runtime.redis.scan_iter(f"{runtime.settings.redis_prefix}seen:*")]
    assert len(lifetimes) == 1
    assert all(0 < lifetime <= 3 * 24 * 3600 for lifetime in lifetimes)


def test_nothing_is_remembered_before_it_is_stored(runtime: Runtime, engine: Engine) -> None:
    window = Window(runtime.redis, runtime.settings.redis_prefix)

    inbox.accept(engine, [arrival()], window)

    assert window.known([arrival()]) == [None]


def test_new_deliveries_ring_the_workers_once_a_batch(runtime: Runtime) -> None:
    window = Window(runtime.redis, runtime.settings.redis_prefix)

    inbox.announce(window, [arrival(f"del_{n}") for n in range(30)])

    assert runtime.redis.llen(f"{runtime.settings.redis_prefix}events") == 1
