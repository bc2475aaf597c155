"""The health of endpoints, from answer to answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.given import NOW
from workers.delivery.exchange import Answer
from workers.delivery.health import (
    LONGEST_HOLD,
    LONGEST_WISH,
    OPENS_AFTER,
    SHORTEST_HOLD,
    Health,
    Notice,
    after,
    turned,
)

OK, DOWN, BROKEN, WRONG = Answer(204, 1), Answer(None, 1, error="connect"), Answer(500, 1), Answer(400, 1)


def then(health: Health, *answers: Answer, at: datetime = NOW) -> Health:
    return after(health, answers, now=at, chance=0.0)[0]


def told(health: Health, *answers: Answer, at: datetime = NOW) -> tuple[Notice, ...]:
    return after(health, answers, now=at, chance=0.0)[1]


def failing(since: timedelta, failures: int, *, warned: bool = False) -> Health:
    return Health(failures=failures, failing_since=NOW - since, warned_at=NOW if warned else None)


def test_an_endpoint_that_answers_stays_as_it_is() -> None:
    assert then(Health(), OK, OK) == Health()
    assert Health().sound


def test_a_few_failures_hold_nothing_off() -> None:
    health = then(Health(), *[DOWN] * (OPENS_AFTER - 1))

    assert (health.failures, health.failing_since, health.held_until) == (OPENS_AFTER - 1, NOW, None)


def test_an_endpoint_is_held_off_for_as_long_as_it_has_been_failing() -> None:
    health, at = then(Health(), *[DOWN] * OPENS_AFTER), NOW
    holds: list[timedelta] = []
    while len(holds) < 7:
        assert health.held_until is not None
        assert health.probing
        holds.append(health.held_until - at)
        at = health.held_until
        health = then(health, BROKEN, at=at)

    assert [hold.total_seconds() for hold in holds] == [30, 30, 60, 120, 240, 300, 300]


def test_after_days_of_refused_messages_one_failure_holds_it_off_for_a_moment_only() -> None:
    refusing = then(failing(timedelta(days=3), 60), WRONG)

    assert refusing.held_until is None
    assert then(refusing, BROKEN).held_until == NOW + SHORTEST_HOLD


def test_one_success_lets_everything_through_again() -> None:
    assert then(then(Health(), *[DOWN] * 50), OK) == Health()


def test_who_refuses_a_message_lives() -> None:
    held = then(Health(), *[DOWN] * OPENS_AFTER)

    refused = then(held, WRONG)

    assert (refused.failures, refused.held_until) == (OPENS_AFTER + 1, None)
    assert then(Health(), *[WRONG] * 50).held_until is None


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (Answer(429, 1, retry_after=20), 20),
        (Answer(503, 1, retry_after=20), 20),
        (Answer(500, 1, retry_after=20), 20),
        (Answer(503, 1, retry_after=86_400), LONGEST_WISH.total_seconds()),
        (Answer(429, 1), 5),
        (Answer(502, 1), 5),
        (Answer(504, 1), 5),
        (Answer(503, 1, retry_after=0), None),
        (Answer(500, 1), None),
        (Answer(400, 1, retry_after=20), None),
    ],
)
def test_an_endpoint_that_asks_for_patience_gets_it(answer: Answer, seconds: float | None) -> None:
    held_until = then(Health(), answer).held_until

    assert held_until == (None if seconds is None else NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("since", "failures", "notice"),
    [
        (timedelta(hours=12), 9, ("warned",)),
        (timedelta(hours=12), 8, ()),
        (timedelta(hours=11), 90, ()),
        (timedelta(days=5), 9, ("disabled",)),
        (timedelta(days=5), 5, ()),
        (timedelta(days=1), 99, ("disabled",)),
        (timedelta(days=1), 98, ("warned",)),
        (timedelta(hours=23), 500, ("warned",)),
    ],
)
def test_a_long_failure_is_told_and_a_longer_one_ends_it(
    since: timedelta, failures: int, notice: tuple[Notice, ...]
) -> None:
    assert told(failing(since, failures), DOWN) == notice
    assert then(failing(since, failures), DOWN).enabled == ("disabled" not in notice)


def test_a_warning_is_told_once_and_so_is_the_recovery() -> None:
    warned = then(failing(timedelta(hours=12), 20), DOWN)

    assert told(warned, DOWN) == ()
    assert told(warned, OK, OK) == ("recovered",)
    assert told(failing(timedelta(hours=1), 20), OK) == ()


def test_gone_and_our_own_rules_disable_at_once_and_say_why() -> None:
    gone = then(Health(), Answer(410, 1))
    refused = then(Health(), Answer(None, 1, error="refused", detail="deliveries to private addresses are refused"))

    assert (gone.enabled, gone.disabled_reason) == (False, "it answered 410 Gone")
    assert (refused.enabled, refused.disabled_reason) == (False, "deliveries to private addresses are refused")
    assert told(gone, Answer(410, 1)) == ()


def test_a_late_success_recovers_no_endpoint_that_was_disabled() -> None:
    failed_for_days = failing(timedelta(days=5), 50, warned=True)

    assert told(failed_for_days, DOWN, OK) == ("disabled",)
    assert not then(failed_for_days, DOWN, OK).enabled


ANSWERS = st.lists(
    st.sampled_from([OK, DOWN, BROKEN, WRONG, Answer(429, 1, retry_after=7), Answer(410, 1)]), max_size=30
)


@given(ANSWERS, st.floats(0, 0.999))
def test_whatever_is_answered_the_state_is_one_that_makes_sense(answers: list[Answer], chance: float) -> None:
    health, at = Health(), NOW
    for answer in answers:
        at += timedelta(minutes=1)
        health, _ = after(health, [answer], now=at, chance=chance)
        assert (health.failures == 0) == (health.failing_since is None)
        assert health.enabled == (health.disabled_reason is None)
        if health.held_until is not None:
            assert health.failures > 0
            assert health.held_until <= at + max(LONGEST_HOLD * 1.2, SHORTEST_HOLD)


def test_a_breaker_turns_when_it_opens_and_when_it_closes_and_not_in_between() -> None:
    well, held = Health(), Health(failures=5, failing_since=NOW, held_until=NOW)
    still, gone = replace(held, held_until=NOW + SHORTEST_HOLD), replace(held, held_until=None, enabled=False)

    assert turned(well, held) == ("held",)
    assert turned(held, well) == ("released",)
    assert turned(held, still) == turned(well, well) == turned(held, gone) == ()
