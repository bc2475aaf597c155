from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import standardwebhooks
import svix.webhooks
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from handlers import signing
from handlers.errors import VerificationError
from handlers.event import Headers
from handlers.signing import STANDARD, SVIX, Scheme, Verified, hmac_key, key_of, sign, template, verify, verify_token

SCHEMES = (STANDARD, SVIX)
SECRET = "whsec_plJ3nmyCDGBKInavdOK15jsl"
KEY = base64.b64decode(SECRET.removeprefix("whsec_"))
ID = "msg_loFOjxBNrRLzqYUf"
TIMESTAMP = 1_731_705_121
BODY = b'{"event_type":"ping","data":{"success":true}}'
SIGNATURE = "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key()


def wire(headers: dict[str, str]) -> Headers:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def headers(signature: str = SIGNATURE, *, delivery_id: str = ID, timestamp: int = TIMESTAMP) -> Headers:
    return wire({"webhook-id": delivery_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature})


def refusal(
    given_headers: Headers, body: bytes = BODY, keys: Sequence[bytes | Ed25519PublicKey] = (KEY,), now: int = TIMESTAMP
) -> str:
    with pytest.raises(VerificationError) as refused:
        verify(SCHEMES, given_headers, body, keys, now)
    return refused.value.reason


# --- against others -------------------------------------------------------------------------------


def test_the_published_example_of_svix_is_signed_alike() -> None:
    signed = sign(STANDARD, hmac_key(STANDARD, SECRET), delivery_id=ID, timestamp=TIMESTAMP, body=BODY)

    assert signed == {"webhook-id": ID, "webhook-timestamp": str(TIMESTAMP), "webhook-signature": SIGNATURE}


def test_the_published_example_of_svix_is_verified() -> None:
    assert verify(SCHEMES, headers(), BODY, [KEY], TIMESTAMP) == Verified(ID, TIMESTAMP)


LIBRARIES = pytest.mark.parametrize(
    ("library", "scheme"),
    [(standardwebhooks.Webhook, STANDARD), (svix.webhooks.Webhook, SVIX), (svix.webhooks.Webhook, STANDARD)],
    ids=["standardwebhooks", "svix", "svix, named as the standard"],
)
DOCUMENTS = st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers() | st.none(), max_size=3)


@LIBRARIES
@given(key=st.binary(min_size=1, max_size=64), document=DOCUMENTS)
def test_the_libraries_of_others_verify_what_we_sign(
    library: Any, scheme: Scheme, key: bytes, document: dict[str, Any]
) -> None:
    body = json.dumps(document).encode()

    signed = sign(scheme, key, delivery_id=ID, timestamp=int(time.time()), body=body)

    library(key).verify(body, signed)


@LIBRARIES
@given(key=st.binary(min_size=1, max_size=64), body=st.text(), name=st.from_regex(r"[!-~]{1,50}", fullmatch=True))
def test_we_verify_what_the_libraries_of_others_sign_and_nothing_near_it(
    library: Any, scheme: Scheme, key: bytes, body: str, name: str
) -> None:
    written = library(key).sign(name, datetime.fromtimestamp(TIMESTAMP, UTC), body)
    prefix = scheme.signature.decode().partition("-")[0]
    signed = wire({f"{prefix}-id": name, f"{prefix}-timestamp": str(TIMESTAMP), f"{prefix}-signature": written})

    assert verify(SCHEMES, signed, body.encode(), [b"another", key], TIMESTAMP) == Verified(name, TIMESTAMP)
    assert refusal(signed, body.encode() + b" ", [key]) == "bad_signature"
    assert refusal([(signed[0][0], b"x" + signed[0][1]), *signed[1:]], body.encode(), [key]) == "bad_signature"
    assert (
        refusal([signed[0], (signed[1][0], b"%d" % (TIMESTAMP + 1)), signed[2]], body.encode(), [key])
        == "bad_signature"
    )


# --- Ed25519 --------------------------------------------------------------------------------------


def test_what_another_library_signed_with_ed25519_is_verified() -> None:
    written = base64.b64encode(PRIVATE.sign(b"%s.%d.%s" % (ID.encode(), TIMESTAMP, BODY))).decode()

    assert verify(SCHEMES, headers(f"v1a,{written}"), BODY, [PUBLIC], TIMESTAMP) == Verified(ID, TIMESTAMP)
    assert refusal(headers(f"v1a,{written}"), BODY + b" ", [PUBLIC]) == "bad_signature"
    assert refusal(headers(f"v1a,{written}", delivery_id="msg_2"), BODY, [PUBLIC]) == "bad_signature"
    assert refusal(headers(f"v1,{written}"), BODY, [PUBLIC]) == "bad_signature"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_we_sign_with_ed25519_is_verified(scheme: Scheme) -> None:
    signed = sign(scheme, PRIVATE, delivery_id=ID, timestamp=TIMESTAMP, body=BODY)

    assert signed[scheme.signature.decode()].startswith("v1a,")
    assert verify(SCHEMES, wire(signed), BODY, [PUBLIC], TIMESTAMP) == Verified(ID, TIMESTAMP)


def test_a_source_may_have_secrets_of_both_kinds_and_a_delivery_signatures_of_both() -> None:
    ours = sign(STANDARD, PRIVATE, delivery_id=ID, timestamp=TIMESTAMP, body=BODY)["webhook-signature"]
    for offered in (SIGNATURE, ours, f"{SIGNATURE} {ours}", f"{ours} {SIGNATURE}"):
        assert verify(SCHEMES, headers(offered), BODY, [PUBLIC, KEY], TIMESTAMP) == Verified(ID, TIMESTAMP)


def test_a_signature_of_one_kind_is_not_tried_on_a_secret_of_the_other() -> None:
    ours = sign(STANDARD, PRIVATE, delivery_id=ID, timestamp=TIMESTAMP, body=BODY)["webhook-signature"]
    public = PUBLIC.public_bytes(Encoding.Raw, PublicFormat.Raw)
    confused = sign(STANDARD, public, delivery_id=ID, timestamp=TIMESTAMP, body=BODY)["webhook-signature"]

    assert refusal(headers(ours)) == "bad_signature"
    assert refusal(headers(SIGNATURE), keys=[PUBLIC]) == "bad_signature"
    assert refusal(headers(confused), keys=[PUBLIC]) == "bad_signature"  # signed with what everybody knows


def test_a_public_key_is_a_secret_of_its_own_form() -> None:
    raw = PUBLIC.public_bytes(Encoding.Raw, PublicFormat.Raw)

    key = key_of(STANDARD, "whpk_" + base64.b64encode(raw).decode())

    assert isinstance(key, Ed25519PublicKey)
    assert key.public_bytes(Encoding.Raw, PublicFormat.Raw) == raw


def test_a_public_key_cannot_sign() -> None:
    with pytest.raises(ValueError, match="cannot sign"):
        hmac_key(STANDARD, "whpk_" + base64.b64encode(bytes(range(32))).decode())


P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
Y = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
"""Of a point of order 8: its double has y = 0, hence y² = -x², and the curve is -x² + y² = 1 + d·x²·y²."""
SMALL_ORDER = [
    (y | sign_of_x << 255).to_bytes(32, "little") for y in (0, 1, P - 1, P, P + 1, Y, P - Y) for sign_of_x in (0, 1)
]


def test_the_points_of_order_8_are_not_mistyped() -> None:
    assert (D * Y**4 + 2 * Y**2 - 1) % P == 0


@pytest.mark.parametrize("raw", SMALL_ORDER, ids=bytes.hex)
def test_a_public_key_of_small_order_is_refused(raw: bytes) -> None:
    # Under some of these a signature of zeros verifies any message.
    with pytest.raises(ValueError, match="public key"):
        key_of(STANDARD, "whpk_" + base64.b64encode(raw).decode())


@pytest.mark.parametrize("raw", [b"", b"x" * 31, b"x" * 33, b"x" * 64])
def test_a_public_key_has_32_bytes(raw: bytes) -> None:
    with pytest.raises(ValueError, match="public key"):
        key_of(STANDARD, "whpk_" + base64.b64encode(raw).decode())


@given(st.binary(max_size=70).map(base64.b64encode) | st.binary(max_size=100))
def test_no_other_signature_verifies_under_a_public_key(written: bytes) -> None:
    offered = [*headers()[:2], (b"webhook-signature", b"v1a," + written.replace(b" ", b""))]

    assert refusal(offered, keys=[PUBLIC]) == "bad_signature"


# --- secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "whsec_a", "whsec_AAAA AAAA", "whsec_é", "AA=A", "whsec_whsec_AAAA", "whpk_", "whpk_a", "whsk_AAAA"],
)
def test_an_unusable_secret_is_refused_without_quoting_it(secret: str) -> None:
    with pytest.raises(ValueError, match=r"secret|public key") as refused:
        key_of(STANDARD, secret)
    assert len(secret) < 7 or secret not in str(refused.value)


@pytest.mark.parametrize("secret", [SECRET, SECRET.removeprefix("whsec_")])
def test_the_prefix_of_a_secret_may_be_left_out(secret: str) -> None:
    assert key_of(STANDARD, secret) == hmac_key(STANDARD, secret) == KEY


@given(st.binary(min_size=1, max_size=64))
def test_the_padding_of_a_secret_may_be_left_out(key: bytes) -> None:
    written = base64.b64encode(key).decode()

    assert key_of(STANDARD, f"whsec_{written}") == key_of(STANDARD, written.rstrip("=")) == key


PLAIN = Scheme(signature=b"x-signature", content=(signing.BODY,))


@given(st.text(min_size=1))
def test_a_plain_secret_is_its_own_bytes(secret: str) -> None:
    assert key_of(PLAIN, secret) == secret.encode()


# --- schemes as data ------------------------------------------------------------------------------


def test_what_is_signed_is_written_as_a_template() -> None:
    assert template("{body}") == (signing.BODY,)
    assert template("v0:{timestamp}:{body}") == (b"v0:", signing.TIMESTAMP, b":", signing.BODY)
    assert template("{id}.{timestamp}.{body}") == (signing.ID, b".", signing.TIMESTAMP, b".", signing.BODY)
    assert template("é{body}") == ("é".encode(), signing.BODY)


def test_a_public_key_is_no_secret_of_an_hmac() -> None:
    with pytest.raises(ValueError, match="public key"):
        key_of(replace(STANDARD, key="raw"), "whpk_" + base64.b64encode(bytes(range(32))).decode())


@pytest.mark.parametrize("written", ["", "{timestamp}", "body", "{ body }", "{Body}"])
def test_a_template_without_the_body_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"\{body\}"):
        template(written)


@pytest.mark.parametrize(
    "written", ["{time}.{body}", "{{body}", "{url}{body}", "{body}.{secret}", "{body}}", "{timestamp.{body}"]
)
def test_a_template_with_an_unknown_part_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"\{timestamp\}"):
        template(written)


@given(
    body=st.binary(),
    delivery_id=st.from_regex(r"[!-~]{1,50}", fullmatch=True),
    timestamp=st.integers(0, 9_999_999_999),
    key=st.binary(min_size=1),
    encoding=st.sampled_from(["hex", "base64"]),
    unit=st.sampled_from(["seconds", "milliseconds"]),
    where=st.sampled_from(["nowhere", "a header", "the list"]),
    content=st.permutations([signing.BODY, signing.ID, signing.TIMESTAMP, b"|", b"."]),
    mark=st.sampled_from([b"", b"v1=", b"sha256=", b"v0,"]),
)
def test_what_any_scheme_signs_it_verifies(
    body: bytes,
    delivery_id: str,
    timestamp: int,
    key: bytes,
    where: str,
    content: list[bytes],
    mark: bytes,
    **more: Any,
) -> None:
    scheme = Scheme(
        signature=b"x-signature",
        content=tuple(part for part in content if part != signing.TIMESTAMP or where != "nowhere"),
        id=b"x-id",
        timestamp=b"x-timestamp" if where == "a header" else None,
        stamp=b"t=" if where == "the list" else b"",
        separator=b";" if where == "the list" else b"",
        mark=mark,
        **more,
    )

    signed = sign(scheme, key, delivery_id=delivery_id, timestamp=timestamp, body=body)

    verified = verify([scheme], wire(signed), body, [key], timestamp)
    assert verified == Verified(delivery_id, None if where == "nowhere" else timestamp)
    with pytest.raises(VerificationError):
        verify([scheme], wire(signed), body + b"x", [key], timestamp)


def test_headers_that_a_scheme_has_not_are_not_written() -> None:
    assert list(sign(PLAIN, b"key", delivery_id="del_1", timestamp=0, body=b"")) == ["x-signature"]


# --- of several schemes ---------------------------------------------------------------------------


def test_the_scheme_whose_signature_is_there_counts() -> None:
    older = wire(sign(SVIX, KEY, delivery_id="old", timestamp=TIMESTAMP, body=BODY))

    assert verify(SCHEMES, older, BODY, [KEY], TIMESTAMP).delivery_id == "old"
    assert verify(SCHEMES, [*older, *headers()], BODY, [KEY], TIMESTAMP).delivery_id == ID


def test_names_of_two_schemes_do_not_make_one_delivery() -> None:
    older = wire(sign(SVIX, KEY, delivery_id=ID, timestamp=TIMESTAMP, body=BODY))
    for mixed in ([*older[:1], *headers()[1:]], [*older[:2], headers()[2]], [older[2], *headers()[:2]]):
        assert refusal(mixed) == "missing_header"


# --- a secret in the path -------------------------------------------------------------------------

TOKEN = b"abcdefghijklmnopqrstuvwxyz012345"


@pytest.mark.parametrize("keys", [[TOKEN], [b"x" * 32, TOKEN], [TOKEN, PUBLIC]])
def test_the_secret_in_the_path_is_one_of_the_sources(keys: list[bytes | Ed25519PublicKey]) -> None:
    assert verify_token(TOKEN, keys) == Verified(None, None)


@pytest.mark.parametrize("token", [b"", TOKEN[:-1], TOKEN + b"x", TOKEN.upper(), TOKEN + b"/", b"\xff", "é".encode()])
def test_no_other_token_serves(token: bytes) -> None:
    with pytest.raises(VerificationError, match="path") as refused:
        verify_token(token, [TOKEN, b"x" * 32])
    assert refused.value.reason == "bad_token"
    assert TOKEN.decode() not in str(refused.value)


def test_without_secrets_no_token_serves() -> None:
    for keys in ([], [PUBLIC]):
        with pytest.raises(VerificationError):
            verify_token(b"", keys)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*STANDARD.headers, *SVIX.headers]),
            st.binary() | st.sampled_from([SIGNATURE.encode(), b"%d" % TIMESTAMP, ID.encode()]),
        ),
        max_size=6,
    ),
    st.binary(),
    st.lists(st.binary() | st.just(PUBLIC), max_size=3),
    st.floats(allow_nan=False),
)
def test_any_input_is_verified_or_refused(
    given_headers: Headers, body: bytes, keys: list[bytes | Ed25519PublicKey], now: float
) -> None:
    try:
        verified = verify(SCHEMES, given_headers, body, keys, now)
    except VerificationError:
        return
    assert isinstance(verified, Verified)
