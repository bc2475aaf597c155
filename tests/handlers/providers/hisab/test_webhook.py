from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import VerificationError
from handlers.providers.hisab.webhook import verify
from handlers.signing import Verified
from tests.samples import cases, recorded

SECRET = b"whsec_test_secret_key_123456"
NOW = 1_780_668_000
ID = (b"x-webhook-delivery-id", b"del_3f8c2a91")


def signature(body: bytes, timestamp: bytes = b"%d" % NOW, secret: bytes = SECRET) -> bytes:
    """As the Hisab documentation words it, and without our own code."""
    return b"v1=" + hmac.new(secret, timestamp + b"." + body, hashlib.sha256).hexdigest().encode()


def signed(body: bytes, timestamp: bytes = b"%d" % NOW, secret: bytes = SECRET) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-webhook-signature", signature(body, timestamp, secret)),
        (b"x-webhook-timestamp", timestamp),
        ID,
    ]


@pytest.mark.parametrize("case", cases("hisab"))
def test_a_recorded_delivery_is_verified(case: str) -> None:
    headers, body = recorded("hisab", case)
    timestamp = int(dict(headers)[b"x-webhook-timestamp"])

    verified = verify(headers, body, [SECRET], timestamp + 5)

    assert verified == Verified(dict(headers)[b"x-webhook-delivery-id"].decode(), timestamp)


@pytest.mark.parametrize("keys", [[SECRET, b"new"], [b"new", SECRET], [SECRET] * 3])
def test_any_secret_of_the_source_verifies(keys: list[bytes]) -> None:
    assert verify(signed(b"{}"), b"{}", keys, NOW).timestamp == NOW


@pytest.mark.parametrize("keys", [[], [b"another"], [SECRET + b"\n"], [SECRET.removeprefix(b"whsec_")]])
def test_no_other_secret_verifies(keys: list[bytes]) -> None:
    with pytest.raises(VerificationError) as refused:
        verify(signed(b"{}"), b"{}", keys, NOW)
    assert refused.value.reason == "bad_signature"


@pytest.mark.parametrize("now", [NOW - 300, NOW + 300])
def test_a_timestamp_300_seconds_away_is_accepted(now: int) -> None:
    assert verify(signed(b"{}"), b"{}", [SECRET], now).timestamp == NOW


@pytest.mark.parametrize("now", [NOW - 301, NOW - 300.001, NOW + 300.001, NOW + 301, 0, NOW + 10 * 365 * 86400])
def test_a_timestamp_further_away_is_stale(now: float) -> None:
    with pytest.raises(VerificationError) as refused:
        verify(signed(b"{}"), b"{}", [SECRET], now)
    assert refused.value.reason == "stale_timestamp"


def test_the_timestamp_is_signed_as_it_was_received() -> None:
    timestamp = b"000%d" % NOW

    assert verify(signed(b"{}", timestamp), b"{}", [SECRET], NOW).timestamp == NOW
    with pytest.raises(VerificationError):
        verify([*signed(b"{}")[:1], (b"x-webhook-timestamp", timestamp), ID], b"{}", [SECRET], NOW)


def test_milliseconds_are_not_seconds() -> None:
    with pytest.raises(VerificationError) as refused:
        verify(signed(b"{}", b"%d000" % NOW), b"{}", [SECRET], NOW)
    assert refused.value.reason == "stale_timestamp"


@pytest.mark.parametrize(
    "timestamp",
    [
        b"",
        b"NaN",
        b"-%d" % NOW,
        b"+%d" % NOW,
        b" %d" % NOW,
        b"%d " % NOW,
        b"%d\n" % NOW,
        b"%d.9" % NOW,
        b"1_780_668_000",
        b"1.780668e9",
        b"0x6a22d5a0",
        b"%dabc" % NOW,
        "١٧٨٠٦٦٨٠٠٠".encode(),
        b"1" * 14,
        b"9" * 100_000,
        b"%d,%d" % (NOW, NOW),
        b"\xff",
    ],
)
def test_a_timestamp_is_ascii_digits_only(timestamp: bytes) -> None:
    with pytest.raises(VerificationError) as refused:
        verify(signed(b"{}", timestamp), b"{}", [SECRET], NOW)
    assert refused.value.reason == "malformed_timestamp"


GOOD = signature(b"{}")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "unknown_version"),
        (b"v1=", "malformed_signature"),
        (b"v1", "unknown_version"),
        (GOOD.removeprefix(b"v1="), "unknown_version"),
        (b"v2=" + GOOD[3:], "unknown_version"),
        (b"v1a=" + GOOD[3:], "unknown_version"),
        (b"V1=" + GOOD[3:], "unknown_version"),
        (b" " + GOOD, "unknown_version"),
        (GOOD + b" ", "malformed_signature"),
        (GOOD + b"\n", "malformed_signature"),
        (GOOD[:-1], "malformed_signature"),
        (GOOD + b"0", "malformed_signature"),
        (b"v1=" + GOOD[3:].upper(), "malformed_signature"),
        (b"v1=" + b"g" * 64, "malformed_signature"),
        (b"v1=" + b"\xc3\xa9" * 32, "malformed_signature"),
        (b"v1=v1=" + GOOD[3:], "malformed_signature"),
        (GOOD + b"," + GOOD, "malformed_signature"),
        (b", ".join([GOOD, GOOD]), "malformed_signature"),
        (b"v1=" + b"0" * 64, "bad_signature"),
        (b"v1=" + GOOD[:2:-1], "bad_signature"),
        (b"v1=" + b"0" * 100_000, "malformed_signature"),
    ],
)
def test_a_signature_has_one_spelling(value: bytes, reason: str) -> None:
    headers = [(b"x-webhook-signature", value), (b"x-webhook-timestamp", b"%d" % NOW), ID]

    with pytest.raises(VerificationError) as refused:
        verify(headers, b"{}", [SECRET], NOW)

    assert refused.value.reason == reason
    assert GOOD[3:].decode() not in str(refused.value)


@pytest.mark.parametrize(
    "altered",
    [
        b'{"event":"invoice.paid","total":"1"} ',
        b'{"event": "invoice.paid","total":"1"}',
        b'{"total":"1","event":"invoice.paid"}',
        rb'{"event":"invoice.p\u0061id","total":"1"}',
        b'{"event":"invoice.paid","total":"10"}',
        b'\xef\xbb\xbf{"event":"invoice.paid","total":"1"}',
        b"",
    ],
)
def test_any_other_spelling_of_the_body_is_refused(altered: bytes) -> None:
    headers = signed(b'{"event":"invoice.paid","total":"1"}')

    with pytest.raises(VerificationError) as refused:
        verify(headers, altered, [SECRET], NOW)

    assert refused.value.reason == "bad_signature"


@pytest.mark.parametrize("missing", range(3))
def test_each_header_is_needed(missing: int) -> None:
    headers = signed(b"{}")
    # A proxy that turns underscores into dashes must not have the last word.
    headers[missing] = (headers[missing][0].replace(b"-", b"_"), headers[missing][1])

    with pytest.raises(VerificationError) as refused:
        verify(headers, b"{}", [SECRET], NOW)

    assert refused.value.reason == "missing_header"


@pytest.mark.parametrize("doubled", range(3))
def test_no_header_may_stand_twice(doubled: int) -> None:
    headers = signed(b"{}")

    with pytest.raises(VerificationError) as refused:
        verify([*headers, headers[doubled]], b"{}", [SECRET], NOW)

    assert refused.value.reason == "duplicate_header"


@pytest.mark.parametrize("delivery_id", [b"", b" ", b"a b", b"a\x00", b"a\r\nb", "é".encode(), b"x" * 201])
def test_a_delivery_id_is_printable_ascii(delivery_id: bytes) -> None:
    with pytest.raises(VerificationError) as refused:
        verify([*signed(b"{}")[:2], (b"x-webhook-delivery-id", delivery_id)], b"{}", [SECRET], NOW)
    assert refused.value.reason == "malformed_id"


def test_the_delivery_id_is_not_signed() -> None:
    # Hence deduplication cannot rest on it alone.
    headers = [*signed(b"{}")[:2], (b"x-webhook-delivery-id", b"del_other")]

    assert verify(headers, b"{}", [SECRET], NOW).delivery_id == "del_other"


NAMES = st.sampled_from([b"x-webhook-signature", b"x-webhook-timestamp", b"x-webhook-delivery-id", b"x"])
VALUES = st.binary() | st.just(GOOD) | st.just(b"%d" % NOW) | st.just(ID[1])


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6), st.binary() | st.just(b"{}"), st.floats(allow_nan=False))
def test_any_delivery_is_verified_or_refused(headers: list[tuple[bytes, bytes]], body: bytes, now: float) -> None:
    try:
        verified = verify(headers, body, [SECRET, b"other"], now)
    except VerificationError:
        return
    assert isinstance(verified, Verified)
