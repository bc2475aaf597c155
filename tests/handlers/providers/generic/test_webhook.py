from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import ParseError
from handlers.event import AT_RECEIPT, Event, Headers
from handlers.providers.generic.webhook import data, inbound, parse, sample
from tests.handlers.providers.senders import GITHUB, SHOPIFY, SLACK, STRIPE, Sender
from tests.samples import cases, recorded

BODY = orjson.dumps(
    {
        "type": "Invoice-Paid",
        "id": "evt_1",
        "created": 1_780_668_000,
        "account": 7,
        "data": {"object": {"id": "inv_1", "at": "2026-06-05T16:00:00+02:00", "number": 12}},
        "list": [{"id": "inv_0"}],
    }
)


def read(body: bytes = BODY, headers: Headers = (), **options: str) -> Event:
    """The event that a source with these options makes of a body."""
    return inbound({"signature": "X-Signature", **options}).parse(headers, body)


def signed_id(header: str) -> dict[str, str]:
    """The options under which an event's key may stand in this header."""
    return {"id": header, "content": "{id}.{body}"}


# --- recorded -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sender", [pytest.param(sender, id=sender.name) for sender in (GITHUB, STRIPE, SHOPIFY, SLACK)]
)
def test_a_recorded_delivery_is_verified(sender: Sender) -> None:
    headers, body = recorded("generic", sender.name)

    verified = sender.verify(headers, body, now=1_780_668_005)

    assert sender.name in cases("generic")
    assert verified.timestamp == (1_780_668_002 if sender.timed else None)
    assert verified.delivery_id == (dict(headers)[sender.id].decode() if sender.id else None)


def test_the_events_of_github_are_named_by_a_header() -> None:
    event = GITHUB.inbound.parse(*recorded("generic", "github"))

    assert (event.type, event.object_kind, event.object_id) == ("marketplace_purchase", "marketplace_purchase", None)
    assert (event.key, event.occurred_at) == (None, AT_RECEIPT)
    assert event.data["action"] == "purchased"


def test_the_events_of_stripe_have_an_id_of_their_own() -> None:
    headers, body = recorded("generic", "stripe")

    event = inbound({**STRIPE.options, "time": "created", "organization": "account"}).parse(headers, body)

    assert (event.type, event.key, event.object_kind, event.object_id) == ("invoice.paid", "evt_1", "invoice", "in_1")
    assert event.occurred_at == datetime(2026, 6, 5, 14, tzinfo=UTC)
    assert event.organization is None


def test_the_topics_of_shopify_become_types() -> None:
    headers, body = recorded("generic", "shopify")

    event = inbound({**SHOPIFY.options, "object": "id", "time": "header:X-Shopify-Triggered-At"}).parse(headers, body)

    assert (event.type, event.object_kind, event.object_id) == ("orders.paid", "orders", "820982911946154508")
    assert event.occurred_at == datetime(2026, 6, 5, 14, 0, 0, 123_456, tzinfo=UTC)


def test_the_time_of_slack_stands_in_a_header_in_digits() -> None:
    headers, body = recorded("generic", "slack")

    event = inbound({**SLACK.options, "time": "header:X-Slack-Request-Timestamp"}).parse(headers, body)

    assert event.type == "event_callback"
    assert event.occurred_at == datetime(2026, 6, 5, 14, 0, 2, tzinfo=UTC)


# --- places ---------------------------------------------------------------------------------------


def test_what_is_not_described_is_not_looked_for() -> None:
    event = read()

    assert (event.type, event.provider, event.object_kind) == ("invoice_paid", "generic", "invoice_paid")
    assert (event.key, event.object_id, event.organization) == (None, None, None)
    assert event.occurred_at is AT_RECEIPT
    assert event.data == orjson.loads(BODY) == data(BODY)


def test_places_are_paths_in_the_body() -> None:
    event = read(key="id", object="data.object.id", organization="account", time="data.object.at")

    assert (event.key, event.object_id, event.organization) == ("evt_1", "inv_1", "7")
    assert event.occurred_at == datetime(2026, 6, 5, 14, tzinfo=UTC)


def test_places_are_headers_whatever_their_case() -> None:
    headers = [
        (b"x-key", b"k1"),
        (b"x-type", b"Orders/Paid"),
        (b"x-at", b"2026-06-05T14:00:00Z"),
        (b"x-object", b"o-1"),
    ]

    places = {"type": "header:X-TYPE", "key": "header:x-key", "object": "header:X-Object", "time": "header:X-At"}
    event = read(b"{}", headers, **places, **signed_id("X-Key"))

    assert (event.type, event.key, event.object_id) == ("orders.paid", "k1", "o-1")
    assert event.occurred_at == datetime(2026, 6, 5, 14, tzinfo=UTC)


@pytest.mark.parametrize(
    "place", ["nothing", "data.nothing", "id.deeper", "list.id", "list.0.id", "data", "data.object", "header:X-No"]
)
def test_a_place_where_no_identifier_is_gives_none(place: str) -> None:
    event = read(BODY, (), key=place, object=place, organization=place, **signed_id("X-No"))

    assert (event.key, event.object_id, event.organization) == (None, None, None)


def test_a_number_is_an_identifier_too() -> None:
    event = read(key="data.object.number", object="created")

    assert (event.key, event.object_id) == ("12", "1780668000")


# --- types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("invoice.paid", "invoice.paid"),
        ("orders/paid", "orders.paid"),
        ("Pull Request", "pull_request"),
        ("invoice-payment--failed", "invoice_payment_failed"),
        ("INVOICE_PAID", "invoice_paid"),
        ("a:b|c", "a_b_c"),
        ("facture payée", "facture_pay_e"),
        ("v2.invoice.paid", "v2.invoice.paid"),
    ],
)
def test_a_type_becomes_one_that_a_handler_can_name(written: str, expected: str) -> None:
    assert read(orjson.dumps({"type": written})).type == expected
    assert read(b"{}", [(b"x-type", written.encode())], type="header:X-Type").type == expected


@pytest.mark.parametrize("value", [None, "", 1, True, [], {}, ["invoice.paid"], "x" * 129])
def test_an_event_without_a_type_is_refused(value: object) -> None:
    with pytest.raises(ParseError, match=r"^type must be"):
        read(orjson.dumps({"type": value}))


def test_the_place_of_a_missing_type_is_told() -> None:
    for place in ("meta.kind", "header:X-Type"):
        with pytest.raises(ParseError, match=f"^{place} must be"):
            read(type=place)


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1_780_668_000, datetime(2026, 6, 5, 14, tzinfo=UTC)),
        (1_780_668_000_250, datetime(2026, 6, 5, 14, 0, 0, 250_000, tzinfo=UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        ("2026-06-05T14:00:00Z", datetime(2026, 6, 5, 14, tzinfo=UTC)),
        (9_999_999_999_000, datetime(2286, 11, 20, 17, 46, 39, tzinfo=UTC)),
        (99_999_999_999, datetime(5138, 11, 16, 9, 46, 39, tzinfo=UTC)),
    ],
)
def test_a_time_is_a_date_or_unix_seconds_or_milliseconds(value: object, expected: datetime) -> None:
    assert read(orjson.dumps({"type": "x", "at": value}), time="at").occurred_at == expected


def test_a_time_that_is_missing_is_that_of_the_receipt() -> None:
    assert read(b'{"type":"x","at":null}', time="at").occurred_at is AT_RECEIPT
    assert read(time="nothing").occurred_at is AT_RECEIPT


@pytest.mark.parametrize(
    "value", [-1, 10**13, True, "", "now", "2026-06-05", [], {}, "9" * 400, "١٧٨٠٦٦٨٠٠٠", "1_780_668_000"]
)
def test_a_time_out_of_shape_is_that_of_the_receipt(value: object) -> None:
    assert read(orjson.dumps({"type": "x", "at": value}), time="at").occurred_at is AT_RECEIPT


# --- any input ------------------------------------------------------------------------------------


def test_the_sample_is_read_and_there_is_no_other() -> None:
    event = read(orjson.dumps(sample("invoice.paid")), key="id", object="invoice.id")

    assert (event.type, event.key, event.object_id) == ("invoice.paid", "evt_1", "inv_1")
    with pytest.raises(KeyError):
        sample("invoice.sent")


def test_without_options_the_type_stands_in_the_body() -> None:
    assert parse([], BODY).type == "invoice_paid"


PLACES = st.sampled_from(["type", "a", "a.b", "header:X-A"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=4),
    max_leaves=8,
)


@given(
    document=st.dictionaries(st.sampled_from(["type", "a"]), JSON | st.just("invoice.paid")),
    header=st.binary(max_size=20),
    options=st.dictionaries(st.sampled_from(["type", "key", "object", "time", "organization"]), PLACES),
)
def test_any_document_is_an_event_or_refused(document: dict[str, Any], header: bytes, options: dict[str, str]) -> None:
    body = orjson.dumps(document)
    try:
        event = read(body, [(b"x-a", header)], **options, **signed_id("X-A"))
    except ParseError:
        return
    assert event.data == document
