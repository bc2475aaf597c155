from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from receiver import throttle
from receiver.throttle import Throttle, origin

MINUTE = 29_677_800 * 60.0


def test_so_many_a_minute_are_allowed_and_then_none() -> None:
    limited = Throttle(3)

    waits = [limited.wait("a", MINUTE + second) for second in range(5)]

    assert waits == [0, 0, 0, 57, 56]


def test_the_next_minute_begins_anew() -> None:
    limited = Throttle(1)
    limited.wait("a", MINUTE + 59.9)

    assert limited.wait("a", MINUTE + 59.9) == 1
    assert limited.wait("a", MINUTE + 60) == 0


def test_each_key_is_counted_for_itself() -> None:
    limited = Throttle(1)

    assert [limited.wait(key, MINUTE) for key in ("a", "b", ("a", 1), "a")] == [0, 0, 0, 60]


def test_a_clock_that_is_set_back_locks_nobody_out() -> None:
    limited = Throttle(1)
    limited.wait("a", MINUTE)

    assert limited.wait("a", MINUTE - 3600) == 0


def test_a_flood_under_many_keys_does_not_fill_the_memory() -> None:
    limited = Throttle(1)

    for number in range(3 * throttle.LARGEST):
        limited.wait(number, MINUTE)

    assert len(limited._counts) <= throttle.LARGEST + 1


def test_who_may_choose_among_addresses_is_one() -> None:
    def one(address: str) -> str:
        return origin((address, 4711))

    assert one("2001:db8:1:2::1") == one("2001:DB8:1:2:ffff:ffff:ffff:ffff") == "2001:db8:1:2::/64"
    assert one("2001:db8:1:3::1") != one("2001:db8:1:2::1")
    assert one("fe80::1%eth0") == one("fe80::2%eth0")
    assert one("::ffff:192.0.2.1") == one("64:ff9b::192.0.2.1") == one("192.0.2.1") == "192.0.2.1"
    assert one("2002:c000:201::1") == one("2002:c000:201:ffff::1") == "192.0.2.1"
    assert one("192.0.2.2") != one("192.0.2.1")
    assert (one("testclient"), origin(None)) == ("testclient", "")


@given(st.floats(min_value=0, max_value=1e12), st.integers(min_value=1, max_value=5))
def test_who_waits_as_told_is_allowed(now: float, per_minute: int) -> None:
    limited = Throttle(per_minute)
    while not (wait := limited.wait("a", now)):
        pass

    assert 1 <= wait <= 60
    assert limited.wait("a", now + wait) == 0


def test_who_did_not_fail_after_all_is_not_counted() -> None:
    throttle = Throttle(1)
    for _ in range(5):
        assert throttle.wait("a", 600.0) == 0
        throttle.forgive("a", 600.0)

    throttle.forgive("a", 600.0)  # nothing is there to be taken back
    assert throttle.wait("a", 610.0) == 0
    assert throttle.wait("a", 620.0) == 40
