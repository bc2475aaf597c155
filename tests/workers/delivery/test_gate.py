"""The gate, on a real server."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.services import free_port
from workers.app import Runtime
from workers.delivery.gate import Gate, Queue

LEASE = timedelta(seconds=30)


def gate(runtime: Runtime, lease: timedelta = LEASE) -> Gate:
    """The gate as another process sees it."""
    return Gate(runtime.redis, runtime.settings.redis_prefix, lease)


def queue(first: Sequence[str] = (), again: Sequence[str] = (), *, places: int = 4, rate: int = 0) -> Queue:
    return Queue("ep_1", first, again, places, rate)


def named(letter: str, count: int) -> list[str]:
    return [f"{letter}{number}" for number in range(count)]


def let(of: Gate, asked: Queue) -> list[str]:
    return list(of.enter([asked])["ep_1"].ids)


def test_an_endpoint_has_so_many_places_over_all_processes(runtime: Runtime) -> None:
    one, other = gate(runtime), gate(runtime)

    assert let(one, queue(named("a", 3))) == ["a0", "a1", "a2"]
    assert let(other, queue(named("b", 3))) == ["b0"]
    one.leave([("ep_1", "a1")])
    assert let(other, queue(named("c", 3))) == ["c0"]
    assert let(one, queue(named("d", 3))) == []


def test_who_gives_back_what_another_got_frees_nothing_of_that(runtime: Runtime) -> None:
    one, other = gate(runtime), gate(runtime)

    assert let(one, queue(named("a", 2))) == let(other, queue(named("a", 2))) == ["a0", "a1"]
    other.leave([("ep_1", "a0"), ("ep_1", "a1")])

    assert let(other, queue(named("b", 9))) == ["b0", "b1"]


def test_what_failed_before_has_half_of_the_places(runtime: Runtime) -> None:
    mine = gate(runtime)

    assert let(mine, queue(again=named("r", 9))) == ["r0", "r1"]
    assert let(mine, queue(named("f", 9), named("s", 9))) == ["f0", "f1"]


def test_among_many_first_attempts_one_that_failed_before_gets_through(runtime: Runtime) -> None:
    assert let(gate(runtime), queue(named("f", 9), named("r", 9))) == ["f0", "f1", "f2", "r0"]


def test_a_single_place_serves_both_kinds(runtime: Runtime) -> None:
    assert let(gate(runtime), queue([], named("r", 2), places=1)) == ["r0"]


def test_a_process_that_died_has_its_places_until_its_leases_end(runtime: Runtime) -> None:
    dead = gate(runtime, timedelta(milliseconds=1))
    assert len(let(dead, queue(named("a", 9)))) == 4

    alive = gate(runtime)
    while not (found := let(alive, queue(named("b", 9)))):  # a millisecond
        pass

    assert found == named("b", 4)


def test_a_rate_lets_a_tenth_of_a_second_begin_at_once_and_says_when_to_ask_again(runtime: Runtime) -> None:
    mine = gate(runtime)

    now = mine.enter([queue(named("a", 9), places=100, rate=50)])["ep_1"]
    then = mine.enter([queue(named("b", 9), places=100, rate=50)])["ep_1"]

    assert len(now.ids) == 5
    assert len(then.ids) < 5  # one where a fiftieth of a second went by
    assert 0 < now.wait <= 0.02


def test_under_a_rate_what_failed_before_is_not_starved_by_first_attempts(runtime: Runtime) -> None:
    mine, begun = gate(runtime), ""
    while not {"f", "r"} <= set(begun):
        begun += "".join(one[0] for one in let(mine, queue(["f"], ["r"], places=9_999, rate=500)))
        mine.leave([("ep_1", "f"), ("ep_1", "r")])

    assert begun[0] in "fr"


def test_without_redis_each_process_counts_its_own() -> None:
    nobody = Redis(port=free_port(), retry=Retry(NoBackoff(), 0))
    mine, other = Gate(nobody, "x:", LEASE), Gate(nobody, "x:", LEASE)

    assert let(mine, queue(named("a", 9))) == named("a", 4)
    assert let(mine, queue(named("b", 9))) == []
    assert let(other, queue(named("b", 9))) == named("b", 4)
    mine.leave([("ep_1", "a0")])
    assert let(mine, queue(named("b", 9))) == ["b0"]


@pytest.mark.parametrize("places", [1, 2, 1000])
def test_nothing_asked_is_nothing_let(runtime: Runtime, places: int) -> None:
    assert gate(runtime).enter([]) == {}
    assert let(gate(runtime), queue(places=places)) == []
