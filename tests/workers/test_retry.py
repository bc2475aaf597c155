from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.retry import DELIVERY_SCHEDULE, JITTER, MAX_BACKOFF, MAX_RETRY_AFTER, backoff, next_delivery

ATTEMPTS = st.integers(1, 10_000)
FIRSTS = st.floats(0.001, 86_400)
CHANCES = st.floats(0, 1, exclude_max=True)
WISHES = st.none() | st.floats(0, 1e10)


def test_the_backoff_doubles_from_its_first_wait() -> None:
    waits = [backoff(attempt, first=2.0, chance=0.0).total_seconds() for attempt in (1, 2, 3, 4, 8)]

    assert waits == [2, 4, 8, 16, 256]


def test_a_delivery_is_tried_ten_times_over_three_days() -> None:
    waits = [next_delivery(attempt, chance=0.0) for attempt in range(1, 11)]

    assert waits[:-1] == list(DELIVERY_SCHEDULE[1:])
    assert waits[-1] is None
    assert timedelta(hours=75) < sum(DELIVERY_SCHEDULE, timedelta()) < timedelta(hours=76)


@given(ATTEMPTS, FIRSTS, CHANCES)
def test_jitter_of_the_backoff_only_lengthens_it(attempt: int, first: float, chance: float) -> None:
    plain = backoff(attempt, first=first, chance=0.0)

    assert plain <= backoff(attempt, first=first, chance=chance) <= plain * (1 + JITTER) + timedelta(microseconds=1)


@given(ATTEMPTS, FIRSTS, CHANCES)
def test_the_backoff_never_shrinks_and_ends_at_its_cap(attempt: int, first: float, chance: float) -> None:
    wait = backoff(attempt, first=first, chance=0.0)

    assert wait <= backoff(attempt + 1, first=first, chance=0.0)
    assert min(timedelta(seconds=first), timedelta(seconds=MAX_BACKOFF)) <= wait
    assert backoff(attempt, first=first, chance=chance) <= timedelta(seconds=MAX_BACKOFF) * (1 + JITTER)


@given(st.integers(1, len(DELIVERY_SCHEDULE) - 1), CHANCES, WISHES)
def test_a_delivery_waits_at_least_its_schedule_and_what_the_endpoint_wishes(
    attempt: int, chance: float, wish: float | None
) -> None:
    wait = next_delivery(attempt, chance=chance, retry_after=wish)

    assert wait is not None
    assert wait >= DELIVERY_SCHEDULE[attempt]
    assert wait >= timedelta(seconds=min(wish or 0.0, MAX_RETRY_AFTER))


@given(st.integers(1, len(DELIVERY_SCHEDULE) - 1), CHANCES, WISHES)
def test_no_endpoint_can_put_a_delivery_off_for_longer_than_a_day(
    attempt: int, chance: float, wish: float | None
) -> None:
    wait = next_delivery(attempt, chance=chance, retry_after=wish)

    longest = max(DELIVERY_SCHEDULE[attempt] * (1 + JITTER), timedelta(seconds=MAX_RETRY_AFTER))
    assert wait is not None
    assert wait <= longest + timedelta(microseconds=1)


@pytest.mark.parametrize("wish", [None, 0.0, 1e9])
def test_after_the_last_attempt_no_wish_helps(wish: float | None) -> None:
    assert next_delivery(len(DELIVERY_SCHEDULE), chance=0.0, retry_after=wish) is None
