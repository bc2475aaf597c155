from __future__ import annotations

import base64
import time
from datetime import UTC, datetime

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import VerificationError
from handlers.signing import MAX_SIGNATURE_HEADER, MAX_SIGNATURES, STANDARD, Verified, key_bytes, sign, verify

SECRET = "whsec_plJ3nmyCDGBKInavdOK15jsl"
KEY = base64.b64decode(SECRET.removeprefix("whsec_"))
ID = "msg_loFOjxBNrRLzqYUf"
TIMESTAMP = 1_731_705_121
BODY = b'{"event_type":"ping","data":{"success":true}}'
SIGNATURE = b"v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="


def headers(signature: bytes = SIGNATURE, delivery_id: bytes = ID.encode()) -> list[tuple[bytes, bytes]]:
    return [
        (b"webhook-id", delivery_id),
        (b"webhook-timestamp", b"%d" % TIMESTAMP),
        (b"webhook-signature", signature),
    ]


def refusal(signature: bytes, keys: list[bytes] | None = None) -> str:
    with pytest.raises(VerificationError) as refused:
        verify(STANDARD, headers(signature), BODY, [KEY] if keys is None else keys, TIMESTAMP)
    return refused.value.reason


def test_the_published_example_of_svix_is_signed_alike() -> None:
    key = key_bytes(STANDARD, SECRET)

    assert sign(STANDARD, key, delivery_id=ID, timestamp=TIMESTAMP, body=BODY) == SIGNATURE


def test_the_published_example_of_svix_is_verified() -> None:
    assert verify(STANDARD, headers(), BODY, [KEY], TIMESTAMP) == Verified(ID, TIMESTAMP)


@given(key=st.binary(min_size=1, max_size=64), body=st.text())
def test_the_reference_library_verifies_what_we_sign(key: bytes, body: str) -> None:
    now = int(time.time())
    signature = sign(STANDARD, key, delivery_id=ID, timestamp=now, body=body.encode())

    standardwebhooks.Webhook(key).verify(
        body.encode(),
        {"webhook-id": ID, "webhook-timestamp": str(now), "webhook-signature": signature.decode()},
        json_parse=False,
    )


@given(key=st.binary(min_size=1, max_size=64), body=st.text())
def test_we_verify_what_the_reference_library_signs(key: bytes, body: str) -> None:
    moment = datetime.fromtimestamp(TIMESTAMP, UTC)
    signature = standardwebhooks.Webhook(key).sign(ID, moment, body)

    assert verify(STANDARD, headers(signature.encode()), body.encode(), [KEY, key], TIMESTAMP).delivery_id == ID


def test_signatures_of_other_versions_and_other_keys_are_passed_over() -> None:
    other = sign(STANDARD, b"other", delivery_id=ID, timestamp=TIMESTAMP, body=BODY)

    offered = b" ".join([b"v1a,AAAA", b"v2,x", other, b"", SIGNATURE])

    assert verify(STANDARD, headers(offered), BODY, [b"new", KEY], TIMESTAMP).delivery_id == ID


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (b"", "unknown_version"),
        (b"v1", "unknown_version"),
        (b"v1a," + SIGNATURE[3:], "unknown_version"),
        (b"V1," + SIGNATURE[3:], "unknown_version"),
        (b"v1,", "bad_signature"),
        (SIGNATURE[:-1], "bad_signature"),
        (SIGNATURE[:-2] + b"1=", "bad_signature"),  # the same bytes, were the spare bits ignored
        (SIGNATURE[:10] + b"\n" + SIGNATURE[10:], "bad_signature"),
        (SIGNATURE[:10] + b"!" + SIGNATURE[10:], "bad_signature"),
        (SIGNATURE.replace(b"/", b"_"), "bad_signature"),
        (SIGNATURE + b"," + SIGNATURE, "bad_signature"),
        (b"v1,\xff\xfe", "bad_signature"),
        (b"v1,\xc3\xa9", "bad_signature"),
        (b" ".join([SIGNATURE] * (MAX_SIGNATURES + 1)), "malformed_signature"),
        (SIGNATURE + b" " + b"x" * MAX_SIGNATURE_HEADER, "malformed_signature"),
    ],
)
def test_a_signature_has_one_spelling(signature: bytes, reason: str) -> None:
    assert refusal(signature) == reason


def test_as_many_signatures_as_allowed_are_read() -> None:
    offered = b" ".join([b"v1,x"] * (MAX_SIGNATURES - 1) + [SIGNATURE])

    assert verify(STANDARD, headers(offered), BODY, [KEY], TIMESTAMP).delivery_id == ID


def test_id_timestamp_and_body_are_all_signed() -> None:
    assert refusal(SIGNATURE, [b"another"]) == "bad_signature"
    for changed, body in ((headers(delivery_id=b"msg_2"), BODY), (headers(), BODY + b" ")):
        with pytest.raises(VerificationError, match="no signature matches"):
            verify(STANDARD, changed, body, [KEY], TIMESTAMP)


@pytest.mark.parametrize("distance", [-300, 300])
def test_300_seconds_are_within_tolerance(distance: int) -> None:
    assert verify(STANDARD, headers(), BODY, [KEY], TIMESTAMP + distance).timestamp == TIMESTAMP


@pytest.mark.parametrize("distance", [-301, -300.5, 300.5, 301])
def test_more_than_300_seconds_are_not(distance: float) -> None:
    with pytest.raises(VerificationError) as refused:
        verify(STANDARD, headers(), BODY, [KEY], TIMESTAMP + distance)
    assert refused.value.reason == "stale_timestamp"


def test_a_wrong_signature_is_told_before_a_stale_timestamp() -> None:
    with pytest.raises(VerificationError) as refused:
        verify(STANDARD, headers(), BODY, [b"another"], 0)
    assert refused.value.reason == "bad_signature"


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_a", "whsec_AAAA AAAA", "whsec_é", "AA=A", "whsec_whsec_AAAA"])
def test_an_unusable_secret_is_refused_without_quoting_it(secret: str) -> None:
    with pytest.raises(ValueError, match=r"secret|ASCII") as refused:
        key_bytes(STANDARD, secret)
    assert len(secret) < 7 or secret not in str(refused.value)


def test_the_prefix_of_a_secret_may_be_left_out() -> None:
    assert key_bytes(STANDARD, SECRET.removeprefix("whsec_")) == key_bytes(STANDARD, SECRET) == KEY


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"webhook-id", b"webhook-timestamp", b"webhook-signature"]),
            st.binary() | st.just(SIGNATURE) | st.just(b"%d" % TIMESTAMP) | st.just(ID.encode()),
        ),
        max_size=5,
    ),
    st.binary(),
    st.lists(st.binary(), max_size=3),
    st.floats(allow_nan=False),
)
def test_any_input_is_verified_or_refused(
    given_headers: list[tuple[bytes, bytes]], body: bytes, keys: list[bytes], now: float
) -> None:
    try:
        verified = verify(STANDARD, given_headers, body, keys, now)
    except VerificationError:
        return
    assert isinstance(verified, Verified)
