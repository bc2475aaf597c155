from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import ParseError
from handlers.providers.json_body import MAX_DEPTH, event_type, identifier, moment, optional_text, read_object, text


def refusal(body: bytes) -> str:
    with pytest.raises(ParseError) as refused:
        read_object(body)
    return str(refused.value)


# --- what is no object ----------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b" ", b"\n\n", b"{", b"}", b'{"a"', b'{"a":', b'{"a":1', b'{"a":1}}', b"{}{}"])
def test_what_is_cut_or_too_long_is_refused(body: bytes) -> None:
    assert refusal(body).startswith("the body is not JSON: ")


@pytest.mark.parametrize("body", [b"null", b"true", b"0", b'"{}"', b"[]", b"[{}]", b" [1] "])
def test_what_is_not_an_object_is_refused(body: bytes) -> None:
    assert refusal(body) == "the body must be an object"


@pytest.mark.parametrize(
    "body",
    [
        b"{'a':1}",
        b"{a:1}",
        b'{"a":1,}',
        b'{"a":[1,]}',
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":.5}',
        b'{"a":1.}',
        b'{"a":0x1}',
        b'{"a":1_000}',
        b'{"a":NaN}',
        b'{"a":nan}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":undefined}',
        b'{"a":1}//',
        b'/**/{"a":1}',
        b'{"a":"\n"}',
        b'{"a":"\x00"}',
        b'{"a":"\\x41"}',
        b'{"a":"\\u12"}',
        b'{"a":1}\x00',
        b"\x00{}",
        b"\x0b{}",
        b"\xa0{}",
        b"\x1e{}",
    ],
)
def test_what_only_some_parsers_read_is_refused(body: bytes) -> None:
    assert refusal(body).startswith("the body is not JSON: ")


def test_a_byte_order_mark_is_refused() -> None:
    for mark in (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"):
        refusal(mark + b"{}")
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"):
        refusal('{"a":"é"}'.encode(encoding))


@pytest.mark.parametrize(
    "text",
    [
        b"\xff",
        b"\xc3",  # a letter cut in half
        b"\xc0\xaf",  # an overlong spelling
        b"\xed\xa0\x80",  # a surrogate
        b"\xf4\x90\x80\x80",  # beyond the last character
        b"\xe9",  # é in Latin-1
    ],
)
def test_invalid_utf_8_is_refused(text: bytes) -> None:
    refusal(b'{"a":"%s"}' % text)
    refusal(b'{"%s":1}' % text)


@pytest.mark.parametrize(
    "escape", [rb"\ud800", rb"\udc00", rb"\ud800\ud800", rb"\udc00\ud800", rb"\ud800x", rb"\ud800\n"]
)
def test_a_lone_surrogate_is_refused(escape: bytes) -> None:
    refusal(b'{"a":"%s"}' % escape)
    refusal(b'{"%s":1}' % escape)


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert read_object(rb'{"\ud834\udd1e":"\ud834\udd1e"}') == {"𝄞": "𝄞"}


# --- a name that stands twice ---------------------------------------------------------------------

TWICE = {
    "side by side": b'{"a":1,"a":1}',
    "another value": b'{"a":1,"a":2}',
    "with others between": b'{"a":1,"b":2,"c":3,"a":4}',
    "three times": b'{"a":1,"a":2,"a":3}',
    "spaces before the colon": b'{"a" :1,"a"\t\r\n :2}',
    "an escape": rb'{"a":1,"\u0061":2}',
    "an escape of another spelling": rb'{"\u00e9":1,"\u00E9":2}',
    "an escape of a letter": '{"é":1,"\\u00e9":2}'.encode(),
    "an escaped quote": rb'{"\"":1,"\u0022":2}',
    "an escaped solidus": rb'{"a/b":1,"a\/b":2}',
    "no letters": b'{"":1,"":2}',
    "in an object within": b'{"data":{"a":1,"a":2}}',
    "in a list within": b'{"data":[1,{"a":1,"a":2}]}',
    "far down": b'{"a":' * (MAX_DEPTH - 1) + b'{"b":1,"b":2}' + b"}" * (MAX_DEPTH - 1),
    "within what is dropped": b'{"a":{"b":1,"b":2},"a":1}',
    "dropped within": b'{"a":{"b":1},"a":{}}',
    "after many": b"{%s" % b"".join(b'"n%d":0,' % n for n in range(1000)) + b'"n999":1}',
    "beside what looks like a name": rb'{"s":"x\":","a":1,"a":2}',
}


@pytest.mark.parametrize("body", TWICE.values(), ids=TWICE)
def test_a_name_that_stands_twice_in_an_object_is_refused(body: bytes) -> None:
    assert refusal(body) == "a name stands twice in one object of the body"


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":{"a":{"a":1}}}',
        b'{"list":[{"a":1},{"a":2},{"a":3}]}',
        b'{"a":1,"A":2," a":3,"a ":4}',
        rb'{"a":"\"a\":","b":"\"a\": \"a\":"}',
        rb'{"a":"{\"b\":1,\"b\":2}"}',
        rb'{"\"a\":":1,"\"a\" :":2}',
        b'{"a":"a","b":"a"}',
        '{"\u00e9":1,"e\u0301":2}'.encode(),  # composed and decomposed
    ],
)
def test_what_only_looks_like_the_same_name_is_read(body: bytes) -> None:
    assert read_object(body) == json.loads(body)


# --- sizes ----------------------------------------------------------------------------------------


def nested(levels: int, opened: bytes = b"[", closed: bytes = b"]") -> bytes:
    """An object of that many levels, itself included."""
    return b'{"a":' + opened * (levels - 1) + (b"0" if opened != b"[" else b"") + closed * (levels - 1) + b"}"


def test_a_body_may_nest_a_little() -> None:
    for body in (nested(MAX_DEPTH), nested(MAX_DEPTH, b'{"a":', b"}")):
        assert read_object(body) == json.loads(body)


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 1_000, 1_023, 1_024, 1_025, 10_000, 100_000])
def test_a_body_may_not_nest_without_end(levels: int) -> None:
    refusal(nested(levels))
    refusal(nested(levels, b'{"a":', b"}"))
    refusal(b"[" * levels)
    refusal(b'{"a":' * levels)


@pytest.mark.parametrize("levels", [64, 500, 900, 990, 1_000, 1_010, 1_020, 10_000])
def test_depth_in_what_a_second_name_drops_is_no_way_around(levels: int) -> None:
    refusal(b'{"a":%s,"a":1}' % (b"[" * levels + b"]" * levels))


def test_a_body_may_be_wide() -> None:
    document: dict[str, Any] = {f"n{number}": [{"taxes": []}] for number in range(10_000)}

    assert read_object(orjson.dumps(document)) == document


@pytest.mark.parametrize("number", [0, -1, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1, 10**18])
def test_an_integer_of_64_bits_is_exact(number: int) -> None:
    found = read_object(b'{"a":%d}' % number)["a"]

    assert (found, type(found)) == (number, int)


@pytest.mark.parametrize("digits", [b"18446744073709551616", b"-9223372036854775809", b"9" * 25, b"1" + b"0" * 300])
def test_a_larger_integer_is_never_rounded(digits: bytes) -> None:
    for body in (b'{"a":%s}', b'{"a": %s }', b'{"a":[%s]}', b'{"a":[1,%s,2]}', b'{"a":\n{"b":\t%s}}'):
        with suppress(ParseError):
            assert digits.decode() in repr(read_object(body % digits))


@pytest.mark.parametrize("count", [400, 4_301, 1_000_000])
def test_an_integer_of_many_digits_is_refused(count: int) -> None:
    refusal(b'{"a":%s}' % (b"9" * count))
    refusal(b'{"a":%s,"a":1}' % (b"9" * count))


def test_digits_in_text_may_be_many() -> None:
    assert read_object(b'{"a":"%s","b":[", 18446744073709551616"]}' % (b"9" * 5_000))["a"] == "9" * 5_000


def test_a_number_with_a_fraction_is_a_float() -> None:
    assert read_object(b'{"a":5250.00,"b":1e3,"c":1.8446744073709551616e19}') == {"a": 5250.0, "b": 1e3, "c": 2.0**64}


def test_a_refusal_quotes_nothing_of_the_body() -> None:
    for body in (b"secret", b'{"secret":secret}', b'{"secret":1,"secret":2}', b'["secret"]', b'{"a":"secret\n"}'):
        assert "secret" not in refusal(body)


# --- any bytes ------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=8), VALUES, max_size=5)
WRITERS = st.sampled_from(
    [
        orjson.dumps,
        lambda document: orjson.dumps(document, option=orjson.OPT_INDENT_2),
        lambda document: json.dumps(document).encode(),
        lambda document: json.dumps(document, separators=(" ,\t", " :\n")).encode(),
    ]
)


@given(document=OBJECTS, write=WRITERS)
def test_a_document_without_fractions_is_read_as_json_reads_it(
    document: dict[str, Any], write: Callable[[Any], bytes]
) -> None:
    body = write(document)

    assert read_object(body) == json.loads(body) == document


@given(document=OBJECTS, write=WRITERS, name=st.text(max_size=8), data=st.data())
def test_a_second_name_is_found_wherever_it_stands(
    document: dict[str, Any], write: Callable[[Any], bytes], name: str, data: st.DataObject
) -> None:
    body = write({**document, "here": None})
    place = body.rindex(b"null")
    twice = b"{%s:1,%s:2}" % (orjson.dumps(name), json.dumps(name).encode())

    refusal(body[:place] + twice + body[place + 4 :])


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    with suppress(ParseError):
        assert isinstance(read_object(body), dict)


PIECES = st.sampled_from(
    [b'"', b":", b",", b"{", b"}", b"[", b"]", b"\\", b'"a":', b"1", b"-", b".", b"e9", b"\\u0061", b" "]
)


@given(document=OBJECTS, write=WRITERS, data=st.data())
def test_a_mutated_document_is_read_as_json_reads_it_or_refused(
    document: dict[str, Any], write: Callable[[Any], bytes], data: st.DataObject
) -> None:
    body = bytearray(write(document))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(len(body), start + 5)))
        body[start:end] = data.draw(PIECES | st.binary(max_size=3))

    try:
        found = read_object(bytes(body))
    except ParseError:
        return
    assert found == json.loads(body)


@given(st.lists(PIECES, max_size=20).map(b"".join))
def test_what_is_read_has_no_name_twice(pieces: bytes) -> None:
    body = b'{"a":1,' + pieces + b'"b":2}'
    try:
        found = read_object(body)
    except ParseError:
        return

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    assert json.loads(body, object_pairs_hook=keep) == found


# --- members --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["x", "a b", "é—شركة𝄞", "x" * 200])
def test_a_text_is_printable_and_short(value: str) -> None:
    assert text("id", value) == optional_text("id", value) == value


@pytest.mark.parametrize("value", ["", "x" * 201, "a\n", "\x00", "\x7f", "\u202e", "\u2028", 1, True, [], {}, 1.5])
def test_another_text_is_refused_by_name_and_not_quoted(value: object) -> None:
    for read in (text, optional_text):
        with pytest.raises(ParseError, match=r"^data\.id must be 1 to 200 printable characters$"):
            read("data.id", value)


def test_a_text_may_be_optional() -> None:
    assert optional_text("id", None) is None
    with pytest.raises(ParseError):
        text("id", None)


@pytest.mark.parametrize("value", ["x", "invoice.paid", "[plan]/changed!", "Invoice-Paid", "x" * 128])
def test_a_type_is_printable_ascii(value: str) -> None:
    assert event_type("type", value) == value


@pytest.mark.parametrize("value", [None, "", "a b", " a", "a\n", "x" * 129, "é", "\x7f", "\x00", 1, True, [], {}])
def test_another_type_is_refused(value: object) -> None:
    with pytest.raises(ParseError, match=r"^type must be"):
        event_type("type", value)


@pytest.mark.parametrize(
    ("value", "kept"), [("inv_1", "inv_1"), (7, "7"), (-1, "-1"), (2**64 - 1, "18446744073709551615")]
)
def test_an_identifier_is_text_or_a_number(value: object, kept: str) -> None:
    assert identifier(value) == kept


@pytest.mark.parametrize("value", [None, "", True, False, 1.0, [], {}, "a\x00", "x" * 201])
def test_what_is_no_identifier_is_none(value: object) -> None:
    assert identifier(value) is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-06-05T14:00:00Z", datetime(2026, 6, 5, 14, tzinfo=UTC)),
        ("2026-06-05T14:00:00.25+02:00", datetime(2026, 6, 5, 12, 0, 0, 250_000, tzinfo=UTC)),
        ("2026-06-05 14:00:00-05:30", datetime(2026, 6, 5, 19, 30, tzinfo=UTC)),
        ("2026-06-05T14:00:00.123456789Z", datetime(2026, 6, 5, 14, 0, 0, 123_456, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_moment_is_told_in_utc(written: str, expected: datetime) -> None:
    found = moment("created", written)

    assert found == expected
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "written",
    [
        *(None, "", 0, 1_780_668_000, 1.5, True, [], {}, "now", "2026-06-05", "2026-06-05T14:00:00", "14:00:00Z"),
        *("2026-06-05T14:00:00 CET", "2026-13-05T14:00:00Z", "2026-06-05T24:00:01Z", "2026-06-05T14:00:00+99:00"),
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "10000-01-01T00:00:00Z", "٢٠٢٦-06-05T14:00Z"),
        *("2026-06-05T14:00:00Z\x00", "2026-06-05\n14:00:00Z", "2026-06-05T14:00:00Z ", "Z", "T", "x" * 10_000),
    ],
)
def test_another_moment_is_refused(written: object) -> None:
    with pytest.raises(ParseError, match=r"^created must be"):
        moment("created", written)


@given(
    st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.timezones() | st.just(UTC))  # noqa: DTZ001 - bounds
)
def test_any_moment_that_isoformat_writes_is_read(written: datetime) -> None:
    assert moment("created", written.isoformat()) == written.astimezone(UTC)


@given(st.text() | st.from_regex(r"[0-9T:.Z+ -]{5,40}", fullmatch=True))
def test_any_text_is_a_moment_or_refused(written: str) -> None:
    with suppress(ParseError):
        assert moment("created", written).tzinfo is UTC
