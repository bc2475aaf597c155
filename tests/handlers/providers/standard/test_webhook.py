from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import ParseError, VerificationError
from handlers.event import AT_RECEIPT
from handlers.providers.standard.webhook import data, inbound, parse, sample
from handlers.signing import Verified
from tests.handlers.providers.senders import ASYMMETRIC, NOW, STANDARD, SVIX, SVIX_ASYMMETRIC, Sender
from tests.handlers.providers.senders import BODY as SENT
from tests.samples import cases, recorded

SOURCE = inbound({})
KEYS = [SOURCE.key(STANDARD.secret), SOURCE.key(ASYMMETRIC.secret)]
RECEIVED = 1_780_668_005


def document(**changes: Any) -> bytes:
    """A good body with some members replaced; `...` leaves one out."""
    members = {
        "type": "invoice.paid",
        "timestamp": "2026-06-05T14:00:00Z",
        "data": {"id": "inv_1", "total": "120.00"},
    } | changes
    return orjson.dumps({name: value for name, value in members.items() if value is not ...})


@pytest.mark.parametrize("case", cases("standard"))
def test_a_recorded_delivery_is_verified_and_read(case: str) -> None:
    headers, body = recorded("standard", case)

    verified = SOURCE.verify(headers, body, KEYS, RECEIVED)
    event = SOURCE.parse(headers, body)

    assert verified == Verified(f"msg_{case}", 1_780_668_002)
    assert (event.type, event.object_kind, event.object_id) == ("invoice.paid", "invoice", "inv_1")
    assert event.data["total"] == "120.00"
    assert event.data == data(body)


@pytest.mark.parametrize(("ours", "older"), [(STANDARD, SVIX), (ASYMMETRIC, SVIX_ASYMMETRIC)])
def test_one_source_takes_either_name_and_of_both_that_of_the_standard(ours: Sender, older: Sender) -> None:
    named = ours.headers(delivery_id=b"msg_1")
    both = [*older.headers(delivery_id=b"msg_2"), *named]

    for headers, delivery_id in ((named, "msg_1"), (both[:3], "msg_2"), (both, "msg_1")):
        assert SOURCE.verify(headers, SENT, KEYS, NOW).delivery_id == delivery_id


def test_a_bad_signature_is_not_saved_by_a_good_one_under_the_other_name() -> None:
    both = [*STANDARD.headers(secret=STANDARD.other), *SVIX.headers()]

    with pytest.raises(VerificationError) as refused:
        STANDARD.verify(both)
    assert refused.value.reason == "bad_signature"


# --- what a body says -----------------------------------------------------------------------------


def test_the_recommended_body_is_read() -> None:
    event = parse([], document())

    assert (event.type, event.provider, event.key, event.organization) == ("invoice.paid", "standard", None, None)
    assert (event.object_kind, event.object_id) == ("invoice", "inv_1")
    assert event.occurred_at == datetime(2026, 6, 5, 14, tzinfo=UTC)
    assert event.data == {"id": "inv_1", "total": "120.00"}


@pytest.mark.parametrize("found", [..., None, "text", 1, [], [{"id": "inv_0"}]])
def test_a_flat_body_is_its_own_data(found: Any) -> None:
    body = document(id="inv_1", data=found)

    event = parse([], body)

    assert event.data == orjson.loads(body) == data(body)
    assert event.object_id == "inv_1"


def test_only_the_type_is_required() -> None:
    event = parse([], b'{"type":"ping"}')

    assert (event.type, event.object_kind, event.object_id) == ("ping", "ping", None)
    assert event.occurred_at is AT_RECEIPT


@pytest.mark.parametrize("timestamp", [..., None])
def test_without_a_time_of_its_own_an_event_happened_when_it_came(timestamp: Any) -> None:
    assert parse([], document(timestamp=timestamp)).occurred_at is AT_RECEIPT


@pytest.mark.parametrize(
    "timestamp", ["", "now", "2026-06-05", "2026-06-05T14:00:00", 1_780_668_000, 1.5, True, [], {}]
)
def test_a_time_that_cannot_be_read_is_no_reason_to_refuse_an_event(timestamp: Any) -> None:
    event = parse([], document(timestamp=timestamp))

    assert event.type == "invoice.paid"
    assert event.occurred_at is AT_RECEIPT or event.occurred_at == datetime(2026, 6, 5, 14, tzinfo=UTC)


@pytest.mark.parametrize("event_type", ["ping", "user.created.v2", "Order/Paid", "[any]!", "x" * 128])
def test_any_type_passes(event_type: str) -> None:
    assert parse([], document(type=event_type)).type == event_type


@pytest.mark.parametrize("event_type", [..., None, "", "a b", "a\n", "x" * 129, "é", 1, True, [], {}])
def test_a_type_out_of_shape_is_refused(event_type: Any) -> None:
    with pytest.raises(ParseError, match=r"^type must be"):
        parse([], document(type=event_type))


@pytest.mark.parametrize(
    ("given_id", "kept"), [("inv_1", "inv_1"), (7, "7"), ("", None), (True, None), ([], None), ("a\n", None)]
)
def test_an_id_is_kept_where_it_is_one(given_id: Any, kept: str | None) -> None:
    assert parse([], document(data={"id": given_id})).object_id == kept


def test_a_type_that_begins_with_a_dot_is_about_nothing() -> None:
    assert parse([], document(type=".paid")).object_kind in {"", None}


def test_the_sample_is_read_and_there_is_no_other() -> None:
    assert parse([], orjson.dumps(sample("invoice.paid"))).type == "invoice.paid"
    with pytest.raises(KeyError):
        sample("invoice.sent")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["type", "timestamp", "data", "id"]), JSON))
def test_any_document_is_an_event_or_refused(changes: dict[str, Any]) -> None:
    body = document(**changes)
    try:
        event = parse([], body)
    except ParseError:
        return
    assert event.body == body
    assert event.data == data(body)
