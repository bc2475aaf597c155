from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import ParseError
from handlers.event import Event, valid_type
from handlers.providers.hesabe.webhook import EVENTS, confirm, data, inbound, parse, sample
from tests.handlers.providers.hesabe.server import TOKEN
from tests.samples import recorded

TRANSACTION = {
    "token": TOKEN,
    "amount": "49.000",
    "reference_number": "1695193758",
    "status": "SUCCESSFUL",
    "payment_type": "KNET",
    "service_type": "Payment Gateway",
    "datetime": "2023-09-20 10:09:36",
}


def document(**changes: Any) -> bytes:
    """A good body without blocks, with some members replaced; `...` leaves one out."""
    return orjson.dumps({name: value for name, value in {**TRANSACTION, **changes}.items() if value is not ...})


def test_the_documented_delivery_is_read() -> None:
    headers, body = recorded("hesabe", "transaction_successful")

    assert parse(headers, body) == Event(
        type="transaction.successful",
        data=TRANSACTION,
        occurred_at=datetime(2023, 9, 20, 7, 9, 36, tzinfo=UTC),
        object_kind="transaction",
        object_id=TOKEN,
        key=f"29:{TOKEN}10:successful",
        body=body,
        provider="hesabe",
    )


def test_its_layout_does_not_matter() -> None:
    compact = parse(*recorded("hesabe", "transaction_successful"))
    documented = parse(*recorded("hesabe", "transaction_successful_documented"))

    assert (documented.data, documented.key) == (compact.data, compact.key)


def test_what_is_missing_is_filled_in_from_the_message_for_slack() -> None:
    event = parse(*recorded("hesabe", "transaction_only_blocks"))

    assert event.data == {**TRANSACTION, "amount": "49", "datetime": "2023-09-20T10:09:36"}
    assert event.key == f"29:{TOKEN}10:successful"
    assert event.occurred_at == datetime(2023, 9, 20, 7, 9, 36, tzinfo=UTC)


def test_numbers_are_read_exactly_and_unknown_members_kept() -> None:
    event = parse(*recorded("hesabe", "transaction_failed_numbers"))

    assert event.type == "transaction.failed"
    assert event.object_id == TOKEN
    assert event.data["amount"] == "49.250"
    assert event.data["reference_number"] == "1695193758"
    assert event.data["status_code"] == 0
    assert event.data["fee"] == "0.150"
    assert event.data["batch"] == "123456789012345678901234567890"
    assert event.occurred_at == datetime(2023, 9, 19, 22, 30, tzinfo=UTC)


def test_data_is_what_parse_gives() -> None:
    for case in ("transaction_successful", "transaction_only_blocks", "transaction_failed_numbers"):
        headers, body = recorded("hesabe", case)
        assert data(body) == parse(headers, body).data
        assert orjson.loads(orjson.dumps(data(body))) == data(body)


@pytest.mark.parametrize("event_type", EVENTS)
def test_every_documented_status_is_a_type(event_type: str) -> None:
    event = parse([], orjson.dumps(sample(event_type)))

    assert event.type == event_type
    assert event.data["status"] == event_type.partition(".")[2].upper()
    assert (event.object_kind, event.object_id, event.organization) == ("transaction", TOKEN, None)


def test_the_sample_is_the_documented_body() -> None:
    assert orjson.dumps(sample("transaction.successful")) == orjson.dumps(
        orjson.loads(recorded("hesabe", "transaction_successful_documented")[1])
    )


@pytest.mark.parametrize("event_type", ["transaction.pending", "", "../webhook", "samples/transaction.failed"])
def test_there_is_no_sample_of_another_event(event_type: str) -> None:
    with pytest.raises(KeyError):
        sample(event_type)


@pytest.mark.parametrize(
    ("status", "event_type"),
    [
        ("PENDING", "transaction.pending"),
        ("captured", "transaction.captured"),
        ("Refund Failed", "transaction.refund_failed"),
        ("MV-success", "transaction.mv_success"),
        (" SUCCESSFUL ", "transaction.successful"),
    ],
)
def test_an_unknown_status_makes_a_type_of_its_own(status: str, event_type: str) -> None:
    event = parse([], document(status=status))

    assert event.type == event_type
    assert valid_type(event.type)


def test_one_event_is_one_status_of_one_transaction() -> None:
    def key(**changes: Any) -> str | None:
        return parse([], document(**changes)).key

    assert key() == key(status="Successful", amount=49, datetime="2023-09-20T10:09:37", extra=1)
    assert key() != key(status="REFUNDED")
    assert key() != key(token="1")
    assert key(token="1", status="a1") != key(token="11", status="a")


@pytest.mark.parametrize("amount", ["49", "49.0", "0", "0.000", "49.2500", 49, 10.25])
def test_an_amount_may_be_text_or_a_number(amount: Any) -> None:
    assert parse([], document(amount=amount)).data["amount"] == str(amount)


def test_a_member_wins_over_the_message_for_slack() -> None:
    body: dict[str, Any] = {**sample("transaction.successful"), "token": "1", "amount": "1.000", "status": "FAILED"}

    event = parse([], orjson.dumps(body))

    assert (event.object_id, event.data["amount"], event.type) == ("1", "1.000", "transaction.failed")


@pytest.mark.parametrize("absent", [..., None, ""])
def test_a_member_that_is_empty_is_filled_in(absent: Any) -> None:
    filled: Mapping[str, Any] = sample("transaction.successful")
    for name, value in TRANSACTION.items():
        body = {key: given for key, given in {**filled, name: absent}.items() if given is not ...}
        assert parse([], orjson.dumps(body)).data[name] in {value, "49", "2023-09-20T10:09:36"}


@pytest.mark.parametrize(
    "blocks",
    [
        *(None, [], {}, "x", 1, [None], ["x"], [[]], [{}], [{"type": "header"}], [{"type": "header", "text": "x"}]),
        [{"type": "header", "text": {"text": 1}}],
        [{"type": "header", "text": {"text": "SOMETHING ELSE"}}],
        [{"type": "section", "text": {"text": "TRANSACTION FAILED"}}],
        [
            {"fields": None},
            {"fields": [None, "x", {}, {"text": None}, {"text": "*Amount*\n1"}, {"text": "*Other:*\n1"}]},
        ],
    ],
)
def test_a_message_for_slack_of_any_shape_does_no_harm(blocks: Any) -> None:
    assert parse([], document(blocks=blocks)).data == TRANSACTION
    with pytest.raises(ParseError, match="status: neither there nor in blocks"):
        parse([], document(blocks=blocks, status=...))


@pytest.mark.parametrize(
    ("moment", "hour"),
    [
        ("2023-09-20 10:09:36", 7),
        ("2023-09-20T10:09:36", 7),
        ("2023-09-20T10:09:36.000000", 7),
        ("2023-09-20T10:09:36.000000Z", 10),
        ("2023-09-20T10:09:36+03:00", 7),
        ("2023-01-20 10:09:36", 7),  # no summer time
    ],
)
def test_the_time_of_kuwait_is_told_in_utc(moment: str, hour: int) -> None:
    occurred_at = parse([], document(datetime=moment)).occurred_at

    assert (occurred_at.hour, occurred_at.tzinfo) == (hour, UTC)


@pytest.mark.parametrize(
    ("member", "values"),
    [
        ("token", [..., None, "", " ", ".", "..", "a/b", "a b", "x" * 101, "é", "1\n2", True, 1.5, [], {}]),
        (
            "amount",
            [
                *(..., None, "", "x", "-49.000", "4 9", "49,000", "KWD 49", "1e3", "NaN", "49.", ".5", "٤٩", True, []),
                *(-49, 1e300, "1" * 13, "1.0000001", {}),
            ],
        ),
        ("reference_number", [..., None, "", " ", "x" * 201, "a\nb", "a\x00", True, [], {}]),
        ("status", [..., None, "", " ", "1", "É", "a.b", "a\nb", "x" * 65, 1, True, [], {}]),
        (
            "datetime",
            [
                *(..., None, "", "now", "2023-09-20", "10:09:36", "2023-13-20 10:09:36", "2023-09-20 25:09:36"),
                *("20230920T100936", "2023-W38-3 10:09:36", "2023-09-20 10:09:36 AST", "2023-09-20 10:09:36\x00"),
                *("0001-01-01 00:00:00", "9999-12-31 23:59:59-14:00", 1695193776, True, [], "٢٠٢٣-09-20 10:09:36"),
            ],
        ),
    ],
)
def test_a_member_out_of_shape_is_refused(member: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ParseError, match=member):
            parse([], document(**{member: value}))


@pytest.mark.parametrize("member", ["payment_type", "service_type"])
def test_a_member_that_nothing_hangs_on_may_have_any_shape(member: str) -> None:
    values: list[Any] = [None, "", 1, [], "x" * 300]
    for value in values:
        assert parse([], document(**{member: value})).data[member] == value
    assert member not in parse([], document(**{member: ...})).data


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"null", b"[]", b'"x"', b"1", b"{", b"{}", b"\xff", b"data=0e7898bd", b"<html>"),
        b"\xef\xbb\xbf" + document(),
        document() + b"\x00",
        document()[:-1] + b',"token":"1"}',
        document()[:-1] + b',"n":NaN}',
        document()[:-1] + b',"n":' + b"9" * 100_000 + b"}",
        document()[:-1] + b',"n":' + b"[" * 65 + b"]" * 65 + b"}",
        document().replace(b"KNET", rb"\ud800"),
        b"[" * 100_000,
    ],
)
def test_what_is_not_a_strict_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(ParseError):
        parse([], body)
    with pytest.raises(ParseError):
        data(body)


def test_a_refusal_quotes_nothing_of_the_body() -> None:
    for name in TRANSACTION:
        if name.endswith("_type"):
            continue
        with pytest.raises(ParseError) as refused:
            parse([], document(**{name: "sec/ret\n."}))
        assert "sec" not in str(refused.value).replace("seconds", "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
TEXTS = st.sampled_from(["TRANSACTION SUCCESSFUL", "*Amount:*\nKWD 49", "*Transaction Token:*\n1", "*Date & Time:*\n"])
BLOCKS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["header", "section"]),
            "text": st.fixed_dictionaries({"text": TEXTS | JSON}) | JSON,
            "fields": st.lists(st.fixed_dictionaries({"text": TEXTS | st.text()}) | JSON, max_size=3) | JSON,
        },
    ),
    max_size=4,
)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_refused(body: bytes) -> None:
    try:
        parse([], body)
    except ParseError:
        return
    raise AssertionError("not even an object")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys((*TRANSACTION, "more"), JSON)), BLOCKS | JSON)
def test_any_members_are_an_event_or_refused(changes: dict[str, Any], blocks: Any) -> None:
    body = document(**changes, blocks=blocks)
    try:
        event = parse([], body)
    except ParseError:
        return
    assert valid_type(event.type)
    assert event.occurred_at.tzinfo is UTC
    assert data(body) == event.data
    orjson.dumps(dict(event.data))


def test_a_source_has_no_options_and_its_events_are_confirmed() -> None:
    source = inbound({})

    assert (source.schemes, source.parse, source.confirm) == ((), parse, confirm)
    with pytest.raises(ValueError, match="there is no option livemode"):
        inbound({"livemode": True})
