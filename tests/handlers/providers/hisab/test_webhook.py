from __future__ import annotations

import hashlib
import hmac

import pytest

from handlers.errors import VerificationError
from handlers.event import Headers
from handlers.providers.hisab.webhook import inbound
from handlers.signing import Verified
from tests.samples import cases, recorded

SECRET = "whsec_test_secret_key_123456"
NOW = 1_780_668_000
BODY = b'{"event":"invoice.paid"}'
CURRENT = inbound({})
OLDER = inbound({"format": "older"})


def digest(timestamp: bytes, secret: bytes = SECRET.encode()) -> bytes:
    """As the Hisab documentation words it, and without our own code."""
    return hmac.new(secret, timestamp + b"." + BODY, hashlib.sha256).hexdigest().encode()


def current(secret: bytes = SECRET.encode()) -> Headers:
    return [
        (b"x-webhook-signature", b"v1=" + digest(b"%d" % NOW, secret)),
        (b"x-webhook-timestamp", b"%d" % NOW),
        (b"x-webhook-delivery-id", b"del_3f8c2a91"),
    ]


def older(timestamp: bytes = b"%d123" % NOW) -> Headers:
    return [
        (b"x-hisab-signature", digest(timestamp)),
        (b"x-hisab-timestamp", timestamp),
        (b"x-hisab-delivery-id", b"del_abc123"),
    ]


KEYS = [SECRET.encode()]


@pytest.mark.parametrize("case", cases("hisab"))
def test_a_recorded_delivery_is_verified(case: str) -> None:
    headers, body = recorded("hisab", case)
    timestamp = int(dict(headers)[b"x-webhook-timestamp"])

    verified = CURRENT.verify(headers, body, KEYS, timestamp + 5)

    assert verified == Verified(dict(headers)[b"x-webhook-delivery-id"].decode(), timestamp)


@pytest.mark.parametrize("secret", ["whsec_test_secret_key_123456", "whsec_AAAA", "sécret", " ", "x"])
def test_the_secret_is_used_as_it_stands(secret: str) -> None:
    key = CURRENT.key(secret)

    assert key == secret.encode()
    assert CURRENT.verify(current(secret.encode()), BODY, [key], NOW).timestamp == NOW


@pytest.mark.parametrize("secret", [SECRET.removeprefix("whsec_"), f"{SECRET}\n", SECRET.upper(), SECRET[:-1]])
def test_no_other_spelling_of_the_secret_serves(secret: str) -> None:
    with pytest.raises(VerificationError) as refused:
        CURRENT.verify(current(), BODY, [secret.encode()], NOW)
    assert refused.value.reason == "bad_signature"


def test_the_older_format_is_an_option() -> None:
    assert OLDER.verify(older(), BODY, KEYS, NOW) == Verified("del_abc123", NOW)


@pytest.mark.parametrize(("seconds", "fresh"), [(300.123, True), (300.2, False), (-299.877, True), (-300, False)])
def test_milliseconds_of_the_older_format_count(seconds: float, fresh: bool) -> None:
    if fresh:
        assert OLDER.verify(older(), BODY, KEYS, NOW + seconds).timestamp == NOW
        return
    with pytest.raises(VerificationError) as refused:
        OLDER.verify(older(), BODY, KEYS, NOW + seconds)
    assert refused.value.reason == "stale_timestamp"


def test_a_source_takes_one_of_the_formats() -> None:
    for chosen, headers in ((CURRENT, older()), (OLDER, current())):
        with pytest.raises(VerificationError) as refused:
            chosen.verify(headers, BODY, KEYS, NOW)
        assert refused.value.reason == "missing_header"


def test_the_digest_of_48_digits_that_the_older_page_shows_is_none() -> None:
    headers = [(b"x-hisab-signature", digest(b"%d123" % NOW)[:48]), *older()[1:]]

    with pytest.raises(VerificationError) as refused:
        OLDER.verify(headers, BODY, KEYS, NOW)
    assert refused.value.reason == "malformed_signature"


def test_the_signature_is_not_among_the_headers_that_are_kept() -> None:
    assert CURRENT.kept == {b"x-webhook-timestamp", b"x-webhook-delivery-id"}
    assert OLDER.kept == {b"x-hisab-timestamp", b"x-hisab-delivery-id"}
    assert CURRENT.once == CURRENT.kept | {b"x-webhook-signature"}
