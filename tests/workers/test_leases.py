from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, update

from tests.workers.given import NOW, change, only, received, rows, waiting_runs
from workers import database, leases
from workers.models import AnyRow, EventRow, HandlerRun

LEASE = timedelta(seconds=45)
SECOND = timedelta(seconds=1)


def claim(engine: Engine, ids: Sequence[str], now: datetime = NOW) -> Sequence[AnyRow]:
    with database.write(engine) as connection:
        return leases.claim(connection, HandlerRun, ids, now=now, lease=LEASE)


def finish(engine: Engine, row: AnyRow, **values: object) -> bool:
    with database.write(engine) as connection:
        return leases.finish(connection, HandlerRun, row, status="succeeded", **values)


def due(engine: Engine, now: datetime = NOW, limit: int = 1_000) -> list[str]:
    with database.write(engine) as connection:
        return leases.due(connection, HandlerRun, HandlerRun.id, now=now, limit=limit)


def test_a_claim_takes_the_row_for_the_length_of_its_lease(engine: Engine) -> None:
    ids = waiting_runs(engine, 1)

    (row,) = claim(engine, ids)

    assert (row.status, row.starts, row.fence, row.next_attempt_at) == ("running", 1, 1, NOW + LEASE)
    assert only(engine, HandlerRun) == row


def test_a_claim_takes_only_what_it_names_and_what_is_due(engine: Engine) -> None:
    early, named, other = waiting_runs(engine, 3)
    with database.write(engine) as connection:
        connection.execute(update(HandlerRun).where(HandlerRun.id == early).values(next_attempt_at=NOW + SECOND))

    taken = claim(engine, [named, early, "run_unknown"])

    assert [row.id for row in taken] == [named]
    assert [row.id for row in claim(engine, [early, other], NOW + SECOND)] == [early, other]


def test_a_claim_of_nothing_takes_nothing(engine: Engine) -> None:
    waiting_runs(engine, 1)

    assert claim(engine, []) == []


def test_what_has_ended_is_never_taken(engine: Engine) -> None:
    ids = waiting_runs(engine, 1)

    for status in ("succeeded", "discarded", "dead"):
        change(engine, HandlerRun, status=status)
        assert claim(engine, ids, NOW + timedelta(days=1)) == []


def test_leased_work_is_free_again_only_when_its_lease_is_over(engine: Engine) -> None:
    ids = waiting_runs(engine, 1)
    claim(engine, ids)

    assert claim(engine, ids, NOW + LEASE - SECOND) == []
    (row,) = claim(engine, ids, NOW + LEASE)
    assert (row.starts, row.fence) == (2, 2)


def test_a_result_ends_the_work(engine: Engine) -> None:
    (row,) = claim(engine, waiting_runs(engine, 1))

    assert finish(engine, row, error="none")

    ended = only(engine, HandlerRun)
    assert (ended.status, ended.ring_at, ended.error) == ("succeeded", None, "none")


def test_a_result_is_written_once(engine: Engine) -> None:
    (row,) = claim(engine, waiting_runs(engine, 1))
    finish(engine, row, error="first")

    assert not finish(engine, row, error="second")

    assert only(engine, HandlerRun).error == "first"


def test_who_lost_the_lease_writes_nothing(engine: Engine) -> None:
    ids = waiting_runs(engine, 1)
    (slow,) = claim(engine, ids)
    (other,) = claim(engine, ids, NOW + LEASE)

    assert not finish(engine, slow, error="slow")
    assert only(engine, HandlerRun) == other
    assert finish(engine, other, error="other")


def test_who_was_overtaken_and_the_work_is_waiting_again_writes_nothing(engine: Engine) -> None:
    ids = waiting_runs(engine, 1)
    (slow,) = claim(engine, ids)
    (other,) = claim(engine, ids, NOW + LEASE)
    with database.write(engine) as connection:
        assert leases.wait(connection, HandlerRun, other, until=NOW + 2 * LEASE)

    assert not finish(engine, slow)


def test_a_late_result_counts_while_nobody_else_has_taken_the_work(engine: Engine) -> None:
    (row,) = claim(engine, waiting_runs(engine, 1))

    assert finish(engine, row)


def test_work_given_back_waits_and_is_then_taken_under_a_new_fence(engine: Engine) -> None:
    ids = waiting_runs(engine, 1)
    (row,) = claim(engine, ids)
    with database.write(engine) as connection:
        assert leases.wait(connection, HandlerRun, row, until=NOW + SECOND, attempts=1)

    assert claim(engine, ids) == []
    (again,) = claim(engine, ids, NOW + SECOND)
    assert (again.attempts, again.starts, again.fence) == (1, 2, 2)


def test_many_claims_of_the_same_work_at_once_take_each_row_once(engine: Engine) -> None:
    ids = waiting_runs(engine, 60)

    with ThreadPoolExecutor(8) as threads:
        claims = list(threads.map(lambda turn: claim(engine, ids[turn:] + ids[:turn]), range(0, 60, 7)))

    taken = sorted(row.id for claimed in claims for row in claimed)
    assert taken == ids
    assert {row.starts for row in rows(engine, HandlerRun)} == {1}


@pytest.mark.parametrize("backend", ["servers"], indirect=True)
def test_a_claim_waits_for_no_other_and_takes_what_is_left(engine: Engine) -> None:
    ids = waiting_runs(engine, 3)

    with database.write(engine) as connection:
        leases.claim(connection, HandlerRun, ids[:2], now=NOW, lease=LEASE)
        with ThreadPoolExecutor(1) as other:
            taken = other.submit(claim, engine, ids).result(timeout=5)

    assert [row.id for row in taken] == ids[2:]


def test_due_work_is_announced_once_in_half_a_minute(engine: Engine) -> None:
    ids = waiting_runs(engine, 2)

    assert due(engine, NOW - SECOND) == []
    assert due(engine) == ids
    assert due(engine, NOW + timedelta(seconds=29.9)) == []
    assert due(engine, NOW + timedelta(seconds=30)) == ids


def test_a_lapsed_lease_is_announced_and_a_running_one_is_not(engine: Engine) -> None:
    ids = waiting_runs(engine, 1)
    claim(engine, ids)

    assert due(engine, NOW + LEASE - SECOND) == []
    assert due(engine, NOW + LEASE) == ids


def test_what_has_ended_is_not_announced(engine: Engine) -> None:
    (row,) = claim(engine, waiting_runs(engine, 1))
    finish(engine, row)

    assert due(engine, NOW + timedelta(days=1)) == []


def test_what_is_due_for_longest_is_announced_first(engine: Engine) -> None:
    ids = waiting_runs(engine, 5)
    with database.write(engine) as connection:
        for age, run_id in enumerate(ids):
            moment = NOW - timedelta(seconds=age)
            connection.execute(update(HandlerRun).where(HandlerRun.id == run_id).values(ring_at=moment))

    assert due(engine, limit=2) == ids[3:]
    assert due(engine, limit=2) == ids[1:3]
    assert due(engine, limit=2) == ids[:1]


def test_an_owner_of_many_due_rows_is_announced_once(engine: Engine) -> None:
    waiting_runs(engine, 3)

    with database.write(engine) as connection:
        owners = leases.due(connection, HandlerRun, HandlerRun.event_id, now=NOW)

    assert owners == [only(engine, EventRow).id]


def test_two_sweeps_at_once_announce_each_row_once(engine: Engine) -> None:
    ids = [received(engine) for _ in range(40)]

    def sweep(_: int) -> list[str]:
        with database.write(engine) as connection:
            return leases.due(connection, EventRow, EventRow.id, now=NOW + timedelta(minutes=1), limit=15)

    with ThreadPoolExecutor(4) as threads:
        announced = [event_id for found in threads.map(sweep, range(4)) for event_id in found]

    announced += sweep(0)
    assert sorted(announced) == sorted(ids)
