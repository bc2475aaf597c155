"""What every source must accept and refuse, whoever sends to it: one suite over all providers and schemes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import handlers
from handlers.errors import ParseError, VerificationError
from handlers.event import Event, Headers
from handlers.providers import PROVIDERS
from handlers.signing import MAX_SIGNATURE_HEADER, MAX_SIGNATURES, Verified
from tests.handlers.providers.senders import BODY, NOW, SENDERS, Sender
from workers.settings import Source

REASONS = {
    "bad_signature",
    "bad_token",
    "duplicate_header",
    "malformed_id",
    "malformed_signature",
    "malformed_timestamp",
    "mismatch",
    "missing_header",
    "stale_timestamp",
    "unknown_version",
}
"""Labels of a metric: dashboards and alerts know them by name."""
NO_SUCH = {"malformed_signature", "bad_signature"}


def each(senders: Iterable[Sender]) -> pytest.MarkDecorator:
    """For each of these senders, by name."""
    return pytest.mark.parametrize("sender", [pytest.param(sender, id=sender.name) for sender in senders])


every = each(SENDERS)
timed = each(sender for sender in SENDERS if sender.timed)
untimed = each(sender for sender in SENDERS if not sender.timed)
with_an_id = each(sender for sender in SENDERS if sender.id)
several = each(sender for sender in SENDERS if sender.separator)
single = each(sender for sender in SENDERS if not sender.separator)
hexadecimal = each(sender for sender in SENDERS if not sender.encoded)
encoded = each(sender for sender in SENDERS if sender.encoded)


def genuine(sender: Sender) -> Verified:
    """What its good delivery is verified as."""
    return sender.verify(sender.headers())


def refusal(sender: Sender, headers: Headers, body: bytes = BODY, **circumstances: Any) -> str:
    """Why this delivery is refused."""
    with pytest.raises(VerificationError) as refused:
        sender.verify(headers, body, **circumstances)
    assert refused.value.reason in REASONS
    assert sender.signed(body)[-20:].decode() not in str(refused.value)
    assert sender.secret not in str(refused.value)
    return refused.value.reason


def changed(headers: Headers, name: bytes | None, value: bytes) -> Headers:
    """The headers with another value of one."""
    return [(given, value if given == name else kept) for given, kept in headers]


def test_the_reasons_of_a_refusal_are_these() -> None:
    given = set()
    for path in Path(handlers.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "VerificationError":
                assert isinstance(node.args[0], ast.Constant), f"{path}:{node.lineno} has no literal reason"
                given.add(node.args[0].value)

    assert given == REASONS
    assert all(re.fullmatch(r"[a-z_]+", str(reason)) for reason in given)


# --- what is accepted -----------------------------------------------------------------------------


@every
def test_a_good_delivery_is_verified_and_read(sender: Sender) -> None:
    headers = sender.headers()

    assert sender.verify(headers) == Verified("del_1" if sender.id else None, NOW if sender.timed else None)
    event = sender.inbound.parse(headers, BODY)
    assert (event.type, event.provider, event.body) == ("invoice.paid", sender.provider, BODY)


@every
def test_the_order_of_the_headers_and_others_beside_them_do_not_matter(sender: Sender) -> None:
    headers = [(b"x-other", b"1"), *reversed(sender.headers()), (b"x-other", b"\xff")]

    assert sender.verify(headers) == genuine(sender)


@every
@pytest.mark.parametrize("body", [b"", b"\x00", b"\xff\xfe", b"{}\r\n", b"%(body)s {timestamp}", b"x" * 100_000])
def test_any_bytes_can_be_signed(body: bytes, sender: Sender) -> None:
    assert sender.verify(sender.headers(body), body) == genuine(sender)


@every
def test_a_replay_is_told_by_what_it_was_told_by_before(sender: Sender) -> None:
    headers = sender.headers()

    assert sender.verify(headers, now=NOW + 299) == sender.verify(headers)


# --- what is signed -------------------------------------------------------------------------------

ALTERED = {
    "a space behind": BODY + b" ",
    "a line end behind": BODY + b"\n",
    "a space within": BODY.replace(b":", b": ", 1),
    "an escape": BODY.replace(b"paid", rb"p\u0061id", 1),
    "another amount": BODY.replace(b"120.00", b"1200.0"),
    "a byte order mark": b"\xef\xbb\xbf" + BODY,
    "the first byte gone": BODY[1:],
    "nothing": b"",
}


@every
@pytest.mark.parametrize("altered", ALTERED.values(), ids=ALTERED)
def test_an_altered_body_is_refused(altered: bytes, sender: Sender) -> None:
    assert refusal(sender, sender.headers(), altered) == "bad_signature"


@timed
def test_an_altered_timestamp_is_refused(sender: Sender) -> None:
    other = sender.stamp(NOW + 1)

    headers = [(name, value.replace(sender.stamp(), other)) for name, value in sender.headers()]

    assert refusal(sender, headers) == "bad_signature"


@each(sender for sender in SENDERS if sender.timed and not sender.milliseconds)
def test_another_spelling_of_the_timestamp_is_an_altered_one(sender: Sender) -> None:
    headers = [(name, value.replace(sender.stamp(), b"0" + sender.stamp())) for name, value in sender.headers()]

    assert refusal(sender, headers) == "bad_signature"


@with_an_id
def test_an_altered_id_is_refused_where_it_is_signed(sender: Sender) -> None:
    headers = changed(sender.headers(), sender.id, b"del_2")

    if sender.signs_its_id:
        assert refusal(sender, headers) == "bad_signature"
    else:  # hence deduplication cannot rest on it alone
        assert sender.verify(headers).delivery_id == "del_2"


@every
def test_every_digit_of_the_signature_counts(sender: Sender) -> None:
    genuine = sender.signed()
    for position in range(len(sender.mark), len(genuine)):
        other = b"1" if genuine[position : position + 1] == b"0" else b"0"
        altered = genuine[:position] + other + genuine[position + 1 :]

        assert refusal(sender, sender.headers(offered=[altered])) == "bad_signature"


# --- secrets --------------------------------------------------------------------------------------


@every
def test_while_a_secret_is_rotated_the_old_and_the_new_one_serve(sender: Sender) -> None:
    for signing_secret in (sender.secret, sender.other):
        headers = sender.headers(secret=signing_secret)
        for secrets in ([sender.secret, sender.other], [sender.other, sender.secret], [signing_secret] * 3):
            assert sender.verify(headers, secrets=secrets) == genuine(sender)


@every
def test_after_a_rotation_the_old_secret_serves_no_more(sender: Sender) -> None:
    assert refusal(sender, sender.headers(), secrets=[sender.other]) == "bad_signature"
    assert refusal(sender, sender.headers(), secrets=[]) == "bad_signature"


@several
def test_a_sender_may_sign_with_the_old_and_the_new_secret_at_once(sender: Sender) -> None:
    both = [sender.signed(secret=secret) for secret in (sender.secret, sender.other)]
    for offered in (both, both[::-1]):
        for secret in (sender.secret, sender.other):
            assert sender.verify(sender.headers(offered=offered), secrets=[secret]) == genuine(sender)


@every
@pytest.mark.parametrize("secret", ["", "whsec_", "whpk_"])
def test_an_empty_secret_is_refused_when_it_is_configured(secret: str, sender: Sender) -> None:
    if secret and not sender.secret.startswith("wh"):
        return  # for others these are six letters like any
    with pytest.raises(ValueError, match=r"secret|public key"):
        Source(provider=sender.provider, options=dict(sender.options), secrets=[secret], api_key="key")
    with pytest.raises(ValueError, match=r"secret|public key"):
        sender.inbound.key(secret)


# --- time -----------------------------------------------------------------------------------------


@timed
@pytest.mark.parametrize("seconds", [-300, -299.5, 0, 299.5, 300])
def test_a_delivery_of_the_last_or_next_five_minutes_is_fresh(seconds: float, sender: Sender) -> None:
    assert sender.verify(sender.headers(), now=NOW - seconds).timestamp == NOW


@timed
@pytest.mark.parametrize("seconds", [-NOW, -86_400, -301, -300.01, 300.01, 301, 86_400, 10 * 365 * 86_400])
def test_an_older_or_newer_one_is_stale(seconds: float, sender: Sender) -> None:
    assert refusal(sender, sender.headers(), now=NOW - seconds) == "stale_timestamp"


@timed
def test_a_wrong_signature_is_told_before_a_stale_timestamp(sender: Sender) -> None:
    assert refusal(sender, sender.headers(secret=sender.other), now=0) == "bad_signature"


@untimed
def test_where_no_time_is_signed_a_delivery_never_grows_old(sender: Sender) -> None:
    assert sender.verify(sender.headers(), now=NOW + 10 * 365 * 86_400).timestamp is None


SPELLINGS = {
    "nothing": b"",
    "a plus": b"+%d",
    "a minus": b"-%d",
    "a space before": b" %d",
    "a space behind": b"%d ",
    "a tab behind": b"%d\t",
    "a line end": b"%d\n",
    "a NUL": b"%d\x00",
    "underscores": b"1_780_668_000",
    "Arabic-Indic digits": "١٧٨٠٦٦٨٠٠٠".encode(),
    "superscript": "1780668⁰00".encode(),
    "a fraction": b"%d.0",
    "scientific": b"1.780668e9",
    "hexadecimal": b"0x6a22d5a0",
    "an ISO date": b"2026-06-05T14:00:00Z",
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "14 digits": b"1" * 14,
    "4,000 digits": b"1" * 4_000,
    "letters behind": b"%dabc",
    "no UTF-8": b"\xff",
}


@timed
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_a_timestamp_is_ascii_digits_only_even_where_it_was_signed_so(spelling: bytes, sender: Sender) -> None:
    stamp = spelling.replace(b"%d", sender.stamp())

    assert refusal(sender, sender.headers(stamp=stamp)) == "malformed_timestamp"


@timed
def test_the_timestamp_is_signed_as_it_was_received(sender: Sender) -> None:
    stamp = sender.stamp().rjust(13, b"0")

    assert sender.verify(sender.headers(stamp=stamp)).timestamp == NOW


@timed
def test_seconds_are_not_milliseconds_nor_the_reverse(sender: Sender) -> None:
    other = b"%d" % (NOW if sender.milliseconds else NOW * 1000)

    assert refusal(sender, sender.headers(stamp=other)) == "stale_timestamp"


@each(sender for sender in SENDERS if sender.in_list)
def test_a_signature_header_has_its_timestamp_once(sender: Sender) -> None:
    good, stamp = sender.signed(), b"t=" + sender.stamp()
    for value in (b"%s,%s,%s" % (stamp, stamp, good), b"%s,t=0,%s" % (stamp, good), b"t=0,%s,%s" % (good, stamp), good):
        assert refusal(sender, changed(sender.headers(), sender.signature, value)) == "malformed_timestamp"


# --- signatures -----------------------------------------------------------------------------------


@each(sender for sender in SENDERS if sender.mark)
def test_a_signature_of_an_unknown_version_is_refused(sender: Sender) -> None:
    digest = sender.signed().removeprefix(sender.mark)
    for mark in (b"", b"v9" + sender.mark[-1:], b"v" + sender.mark, sender.mark[:-1], sender.mark.upper()):
        assert refusal(sender, sender.headers(offered=[mark + digest])) == "unknown_version"


@several
def test_signatures_of_unknown_versions_and_secrets_beside_a_good_one_are_passed_over(sender: Sender) -> None:
    digest = sender.signed().removeprefix(sender.mark)
    others = [b"v9" + sender.mark[-1:] + digest, b"garbage", b"\xff\xfe", b"", sender.signed(secret=sender.other)]

    assert sender.verify(sender.headers(offered=[*others, sender.signed()])) == genuine(sender)
    assert sender.verify(sender.headers(offered=[sender.signed(), *others])) == genuine(sender)
    assert refusal(sender, sender.headers(offered=others)) == "bad_signature"


@single
def test_two_signatures_are_refused_where_there_is_one(sender: Sender) -> None:
    for between in (b",", b" ", b", ", b";"):
        value = between.join([sender.signed()] * 2)

        assert refusal(sender, changed(sender.headers(), sender.signature, value)) in NO_SUCH


@several
def test_sixteen_signatures_are_read_and_not_one_more(sender: Sender) -> None:
    good, other = sender.signed(), sender.signed(secret=sender.other)

    assert sender.verify(sender.headers(offered=[other] * (MAX_SIGNATURES - 1) + [good])) == genuine(sender)
    assert refusal(sender, sender.headers(offered=[good] * (MAX_SIGNATURES + 1))) == "malformed_signature"


@every
def test_a_signature_header_has_an_end(sender: Sender) -> None:
    for value in (sender.signed() + b"0" * MAX_SIGNATURE_HEADER, b"v1=" * 2_000, b",t=" * 2_000, b" " * 5_000):
        headers = changed(sender.headers(), sender.signature, value)

        assert refusal(sender, headers) in {"malformed_signature", "unknown_version"}


@hexadecimal
def test_a_signature_is_64_lower_case_hexadecimal_digits(sender: Sender) -> None:
    digest = sender.signed().removeprefix(sender.mark)
    wrong = [b"", digest[:-1], digest + b"0", digest[:-2], digest * 2, digest[:-1] + b"g", digest.upper()]
    wrong += [b"0x" + digest[2:], digest + b"\n", b" " + digest[1:], digest[:32] + b" " + digest[33:], b"\xff" * 64]
    wrong += ["é".encode() * 32, "٣".encode() * 32, b"\x00" * 64, digest + b"=", sender.mark + digest]
    for written in wrong:
        if written != digest:  # a digest of nothing but digits has no upper case
            assert refusal(sender, sender.headers(offered=[sender.mark + written])) == "malformed_signature"


@encoded
def test_a_signature_in_base64_has_one_spelling(sender: Sender) -> None:
    digest = sender.signed().removeprefix(sender.mark)
    assert digest.endswith(b"=")
    last = digest.rstrip(b"=")[-1:]
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    spare = alphabet[alphabet.index(last) + 1 : alphabet.index(last) + 2]  # the same bytes, were spare bits ignored
    stem = digest.rstrip(b"=")
    wrong = [b"", stem, digest + b"=", b"=" + digest, stem[:-1] + spare + digest[len(stem) :], digest[:-4], digest * 2]
    wrong += [digest[:10] + junk + digest[10:] for junk in (b"!", b"\n", b"\r\n", b"\t", b"-", b"\x00", b"\xff", b".")]
    wrong += [digest.replace(b"/", b"_").replace(b"+", b"-").replace(b"=", b"."), b"AAAA", b"\xff" * 44, digest.lower()]
    for written in wrong:
        assert refusal(sender, sender.headers(offered=[sender.mark + written])) == "bad_signature"


# --- headers --------------------------------------------------------------------------------------


@every
def test_no_header_of_the_scheme_may_stand_twice(sender: Sender) -> None:
    headers = sender.headers()
    for name in sender.names:
        again = (name, dict(headers)[name])
        for doubled in ([*headers, again], [again, *headers], [*headers, (name, b"")]):
            assert refusal(sender, doubled) == "duplicate_header"


@every
def test_no_header_of_the_scheme_may_be_missing(sender: Sender) -> None:
    for name in sender.names:
        headers = [pair for pair in sender.headers() if pair[0] != name]

        assert refusal(sender, headers) == "missing_header"
    assert refusal(sender, []) == "missing_header"


@every
def test_a_name_with_underscores_is_another_name(sender: Sender) -> None:
    headers = sender.headers()
    for name in sender.names:
        underscored = name.replace(b"-", b"_")

        assert (
            refusal(sender, [(underscored if key == name else key, value) for key, value in headers])
            == "missing_header"
        )
        assert sender.verify([*headers, (underscored, b"another")]) == sender.verify(headers)


@every
def test_an_id_or_a_timestamp_that_a_proxy_joined_is_refused(sender: Sender) -> None:
    headers = sender.headers()
    for name in {sender.id, sender.timestamp} - {None}:
        for between in (b",", b", "):
            value = dict(headers)[name or b""]
            joined = changed(headers, name, value + between + value)

            if name == sender.id and between == b"," and not sender.signs_its_id:
                assert sender.verify(joined).delivery_id == "del_1,del_1"  # an id may have a comma
            else:
                assert refusal(sender, joined) in {"malformed_id", "malformed_timestamp", "bad_signature"}


@every
def test_signatures_that_a_proxy_joined_are_read_only_where_there_may_be_several(sender: Sender) -> None:
    headers = sender.headers()
    good = dict(headers)[sender.signature]
    bad = dict(sender.headers(secret=sender.other))[sender.signature]
    joined = changed(headers, sender.signature, bad + b", " + good)

    assert refusal(sender, changed(headers, sender.signature, bad + b", " + bad)) in NO_SUCH
    if sender.separator:
        assert sender.verify(joined) == sender.verify(headers)
    else:
        assert refusal(sender, joined) in NO_SUCH


@with_an_id
@pytest.mark.parametrize(
    "delivery_id", [b"", b" ", b"a b", b" a", b"a\t", b"a\x00", b"a\r\nb", "é".encode(), b"\xff", b"x" * 201]
)
def test_an_id_is_short_printable_ascii_even_where_it_was_signed(delivery_id: bytes, sender: Sender) -> None:
    assert refusal(sender, sender.headers(delivery_id=delivery_id)) == "malformed_id"


@with_an_id
@pytest.mark.parametrize("delivery_id", [b"0", b"!~", b"x" * 200, b"a.b", b'"<>&'])
def test_any_other_id_is_kept(delivery_id: bytes, sender: Sender) -> None:
    assert sender.verify(sender.headers(delivery_id=delivery_id)).delivery_id == delivery_id.decode()


# --- any input ------------------------------------------------------------------------------------


def test_every_provider_that_signs_is_in_this_suite() -> None:
    unsigned = {"hesabe"}

    assert {sender.provider for sender in SENDERS} == set(PROVIDERS) - unsigned


@st.composite
def deliveries(draw: st.DrawFn, sender: Sender) -> tuple[Headers, bytes]:
    """Headers and a body: signed as they should be, nearly so, or not at all."""
    body = draw(st.just(BODY) | st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
    stamp = draw(st.just(sender.stamp()) | st.binary(max_size=20) | st.integers(0).map(lambda number: b"%d" % number))
    delivery_id = draw(st.just(b"del_1") | st.binary(max_size=20))
    good = sender.headers(body, stamp=stamp, delivery_id=delivery_id)
    names = st.sampled_from([*sender.names, b"x-other"]) | st.binary(max_size=5)
    values = st.binary(max_size=100) | st.sampled_from([value for _, value in good])
    random = draw(st.lists(st.tuples(names, values), max_size=5))
    start = draw(st.integers(0, len(good)))
    return draw(st.sampled_from([good, random, [*good, *random], [*good[start:], *random]])), body


@every
@given(data=st.data(), now=st.just(float(NOW)) | st.floats(allow_nan=False))
def test_any_delivery_is_verified_and_an_event_or_refused(sender: Sender, data: st.DataObject, now: float) -> None:
    headers, body = data.draw(deliveries(sender))
    try:
        result: object = sender.verify(headers, body, now=now)
    except VerificationError as refused:
        result = refused.reason
    assert isinstance(result, Verified) or result in REASONS
    with suppress(ParseError):
        assert isinstance(sender.inbound.parse(headers, body), Event)


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=list(PROVIDERS))
@given(body=st.binary(max_size=300))
def test_any_stored_body_gives_data_or_the_one_exception(provider: Any, body: bytes) -> None:
    try:
        provider.data(body)
    except ParseError:
        return
    assert body.strip().startswith(b"{")
