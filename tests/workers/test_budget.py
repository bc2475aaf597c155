"""The budget of an API key against a real Redis, whose clock is turned by setting the bucket's own back."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.services import free_port
from workers.budget import Budget, Left, Limit
from workers.settings import Settings

KEY = "hisab:hisab_live_3fa9c2d1e7b84650"
MINUTE = 60.0
TICK = 0.001
"""Seconds that Redis counts in."""


@dataclass
class Bucket:
    """A budget, and the time that has passed for it."""

    redis: Redis
    settings: Settings
    limit: Limit
    turned: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.budget = Budget(self.redis, self.settings.redis_prefix, KEY, self.limit)

    def name(self) -> str:
        (found,) = self.redis.scan_iter(f"{self.settings.redis_prefix}budget:*")
        assert isinstance(found, bytes)
        return found.decode()

    def seconds(self) -> float:
        """Since it began, and a moment more than that."""
        return self.turned + time.monotonic() - self.began

    def turn(self, seconds: float) -> None:
        """Let time pass: what the bucket remembers was so much earlier."""
        for moment in ("at", "held"):
            known = self.redis.hget(self.name(), moment)
            if known is not None:
                self.redis.hset(self.name(), moment, round(float(known) - seconds * 1000))
        self.turned += seconds

    def spend(self, calls: int = 1) -> int:
        """Take as often as it may be taken now; how many calls."""
        spent = 0
        while self.budget.take(calls) == 0:
            spent += calls
        return spent


def bucket(redis: Redis, settings: Settings, fixed: int | None = None, assumed: int = 120) -> Bucket:
    return Bucket(redis, settings, Limit(fixed=fixed, assumed=assumed))


def most_in_a_minute(taken: list[tuple[float, int]]) -> int:
    """The most calls in any minute, wherever it begins."""
    # A little less than a minute: Redis's clock and ours are not read in the same moment.
    window = MINUTE - 0.5
    return max(sum(calls for then, calls in taken if start <= then < start + window) for start, _ in taken)


def test_a_tenth_of_the_limit_may_be_taken_at_once_and_then_one_waits(redis: Redis, settings: Settings) -> None:
    given = bucket(redis, settings, fixed=100)

    assert [given.budget.take(4), given.budget.take(4), given.budget.take(2)] == [0.0, 0.0, 0.0]
    wait = given.budget.take(4)

    # 90 calls a minute come back, four of them in 2.67 s.
    assert 2.0 < wait <= 4 / 90 * MINUTE + TICK


@pytest.mark.parametrize(("limit", "calls"), [(1000, 4), (120, 4), (120, 2), (60, 3), (7, 1), (10, 4), (3, 4)])
def test_who_waits_as_long_as_was_said_may_take(redis: Redis, settings: Settings, limit: int, calls: int) -> None:
    given = bucket(redis, settings, fixed=limit)
    given.spend(calls)

    for _ in range(5):
        wait = given.budget.take(calls)
        assert 0 < wait < 10 * MINUTE
        given.turn(wait / 2)
        assert 0 < given.budget.take(calls) <= wait / 2 + 2 * TICK  # each is rounded up
        given.turn(wait / 2 + TICK)
        assert given.budget.take(calls) == 0


def test_who_is_refused_takes_nothing(redis: Redis, settings: Settings) -> None:
    given = bucket(redis, settings, fixed=100)
    given.spend(4)

    wait = given.budget.take(4)
    for _ in range(50):
        assert given.budget.take(4) <= wait
    given.turn(wait + TICK)

    assert given.budget.take(4) == 0


@pytest.mark.parametrize("limit", [300, 120, 40, 30, 20, 15, 10, 5, 4])
def test_no_minute_has_more_calls_than_the_limit(redis: Redis, settings: Settings, limit: int) -> None:
    """Whoever takes whatever can be had, after an hour in which nobody did."""
    most = {}
    for calls in (1, 2, 3, 4):  # as many as one invoice needs
        given = bucket(redis, settings, fixed=limit)
        given.budget.take(calls)
        given.turn(3600)
        taken: list[tuple[float, int]] = []
        while given.turned < 3600 + 2.5 * MINUTE:
            wait = given.budget.take(calls)
            if wait == 0:
                taken.append((given.seconds(), calls))
            else:
                given.turn(wait)
        most[calls] = most_in_a_minute(taken)
        redis.delete(given.name())

    assert {calls: found for calls, found in most.items() if found > limit} == {}


@pytest.mark.parametrize("limit", [1, 3])
def test_a_limit_that_is_below_the_calls_of_one_invoice_is_kept_on_average(
    redis: Redis, settings: Settings, limit: int
) -> None:
    given = bucket(redis, settings, fixed=limit)
    spent = 0
    while given.turned < 20 * MINUTE:
        wait = given.budget.take(4)
        spent += 4 if wait == 0 else 0
        given.turn(wait)

    assert 0.5 * 20 * limit <= spent <= 20 * limit + 4


@pytest.mark.parametrize("seed", range(6))
def test_nor_has_one_in_which_many_take_what_they_need(redis: Redis, settings: Settings, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret is made of it
    limit = chance.choice([40, 60, 120, 300])
    given = bucket(redis, settings, fixed=limit)
    taken: list[tuple[float, int]] = []

    while given.turned < 4 * MINUTE:
        calls = chance.choice([1, 2, 3, 4])
        if given.budget.take(calls) == 0:
            taken.append((given.seconds(), calls))
        elif chance.random() < 0.5:
            given.turn(chance.choice([0.05, 0.5, 2.0, 20.0]))

    assert most_in_a_minute(taken) <= limit
    assert sum(calls for _, calls in taken) > limit


def test_the_limit_is_what_is_set_else_what_the_api_said_else_what_is_assumed(redis: Redis, settings: Settings) -> None:
    assumed = bucket(redis, settings, assumed=50)
    assert assumed.spend() == 5

    assumed.budget.told(limit=600)
    assumed.turn(MINUTE)
    assert assumed.spend() == 60

    fixed = bucket(redis, settings, fixed=200)
    fixed.budget.told(limit=600)
    fixed.turn(MINUTE)
    assert fixed.spend() == 20


def test_a_limit_that_is_lowered_holds_at_once(redis: Redis, settings: Settings) -> None:
    given = bucket(redis, settings, assumed=600)
    given.budget.take(1)

    given.budget.told(limit=30)

    assert given.spend() == 3


def test_what_others_spent_of_the_key_is_spent(redis: Redis, settings: Settings) -> None:
    given = bucket(redis, settings, fixed=600)
    given.budget.take(1)

    given.budget.told(limit=600, left=7)
    assert given.spend() == 7


def test_what_was_saved_up_until_the_api_said_that_nothing_is_left_is_spent_too(
    redis: Redis, settings: Settings
) -> None:
    given = bucket(redis, settings, fixed=600)
    given.spend(4)
    given.turn(10.0)  # the calls take their time

    given.budget.told(limit=600, left=0)

    assert given.budget.take(4) > 0


def test_what_the_api_has_left_is_never_more_than_what_there_is(redis: Redis, settings: Settings) -> None:
    given = bucket(redis, settings, fixed=100)
    given.spend()

    given.budget.told(limit=100, left=99)

    assert given.budget.take(1) > 0


def test_what_wants_to_be_left_alone_is_by_everybody(redis: Redis, settings: Settings) -> None:
    given, other = bucket(redis, settings, fixed=600), bucket(redis, settings, fixed=600)

    given.budget.told(leave_alone=30.0)

    for one in (given, other):
        assert 29.0 < one.budget.take(1) <= 30.0
    given.turn(29.0)
    assert 0 < other.budget.take(1) <= 1.0
    given.turn(1.0)
    assert other.budget.take(1) == 0


def test_a_shorter_wish_does_not_end_a_longer_one(redis: Redis, settings: Settings) -> None:
    given = bucket(redis, settings, fixed=600)

    given.budget.told(leave_alone=30.0)
    given.budget.told(leave_alone=1.0)
    given.budget.told(limit=600, left=500)

    assert given.budget.take(1) > 29.0


@pytest.mark.parametrize(("asked", "granted"), [(1e9, 24 * 3600.0), (0.0, 0.0)])
def test_nobody_is_left_alone_for_longer_than_a_day(
    redis: Redis, settings: Settings, asked: float, granted: float
) -> None:
    given = bucket(redis, settings, fixed=600)

    given.budget.told(leave_alone=asked)

    assert given.budget.take(1) == pytest.approx(granted, abs=1.0)


def test_one_key_has_one_budget_and_another_its_own(redis: Redis, settings: Settings) -> None:
    limit = Limit(fixed=100, assumed=1)
    one, same, other = (Budget(redis, settings.redis_prefix, key, limit) for key in (KEY, KEY, KEY + "x"))

    assert [one.take(4), same.take(4), one.take(2)] == [0.0, 0.0, 0.0]

    assert same.take(1) > 0
    assert other.take(10) == 0
    assert Budget(redis, f"{settings.redis_prefix}elsewhere:", KEY, limit).take(10) == 0


def test_no_key_is_found_in_redis(redis: Redis, settings: Settings) -> None:
    given = bucket(redis, settings)
    given.budget.take(1)
    given.budget.told(limit=600, left=3, leave_alone=1.0)

    held = f"{given.name()} {redis.hgetall(given.name())}"

    assert "3fa9c2d1e7b84650" not in held
    assert "hisab_live" not in held


def test_a_key_that_nobody_uses_is_forgotten(redis: Redis, settings: Settings) -> None:
    given = bucket(redis, settings)
    given.budget.told(limit=600)
    assert 23 * 3600 < redis.ttl(given.name()) <= 24 * 3600

    redis.persist(given.name())
    given.budget.take(1)
    assert 23 * 3600 < redis.ttl(given.name()) <= 24 * 3600


def test_without_redis_nothing_is_counted_and_nothing_waits(settings: Settings) -> None:
    nowhere = Redis(port=free_port(), retry=Retry(NoBackoff(), 0))
    given = bucket(nowhere, settings, fixed=1)

    given.budget.told(limit=1, left=0, leave_alone=600.0)

    assert [given.budget.take(4) for _ in range(5)] == [0.0] * 5
    nowhere.close()


def test_to_look_at_a_budget_takes_nothing_of_it(redis: Redis, settings: Settings) -> None:
    given = bucket(redis, settings, assumed=1200)

    assert given.budget.look() == Left(1200, 120)  # of a key that was never used
    given.budget.take(40)

    for seconds in (0.0, 1.0):  # nine tenths of the limit come in a minute, 18 calls a second
        given.turn(seconds)
        for _ in range(2):
            left = given.budget.look()
            assert left is not None
            assert 80 + 18 * int(seconds) <= left.calls <= 80 + 18 * given.seconds()


def test_nothing_is_left_while_the_api_is_to_be_left_alone(redis: Redis, settings: Settings) -> None:
    given = bucket(redis, settings)

    given.budget.told(leave_alone=30.0)
    assert given.budget.look() == Left(120, 0)

    given.turn(seconds=30.0)
    assert given.budget.look() == Left(120, 12)


def test_a_small_budget_shows_the_calls_of_one_invoice(redis: Redis, settings: Settings) -> None:
    small = Budget(redis, settings.redis_prefix, KEY, Limit(fixed=10, assumed=120), of_an_invoice=4)

    assert small.look() == Left(10, 4)
