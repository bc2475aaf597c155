from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import ParseError
from handlers.providers.hisab.webhook import EVENTS, data, parse, sample
from handlers.providers.json_body import MAX_DEPTH
from tests.samples import cases, recorded


def document(**changes: Any) -> bytes:
    """A good body with some members replaced; `...` leaves one out."""
    members = {
        "event": "invoice.paid",
        "data": {"id": "inv_8f3a91"},
        "organization_id": "org_4d11a7",
        "created_at": "2026-06-05T14:00:00Z",
    } | changes
    return orjson.dumps({name: value for name, value in members.items() if value is not ...})


@pytest.mark.parametrize("event_type", EVENTS)
def test_every_documented_event_is_read(event_type: str) -> None:
    body = orjson.dumps(sample(event_type))

    event = parse([], body)

    assert event.type == event_type
    assert event.object_kind == event_type.partition(".")[0]
    assert event.object_id == event.data["id"]
    assert event.organization == "org_4d11a7"
    assert event.provider == "hisab"
    assert event.body == body


def test_the_documented_sample_says_what_the_documentation_says() -> None:
    assert sample("invoice.paid") == {
        "event": "invoice.paid",
        "data": {"id": "inv_8f3a91", "invoice_number": "FAC-2026-0142", "status": "paid", "total": "12480.00"},
        "organization_id": "org_4d11a7",
        "created_at": "2026-06-05T14:00:00Z",
    }


@pytest.mark.parametrize("event_type", ["invoice.canceled", "", "../webhook", "samples/invoice.paid"])
def test_there_is_no_sample_of_another_event(event_type: str) -> None:
    with pytest.raises(KeyError):
        sample(event_type)


def test_a_flat_resource_is_read() -> None:
    headers, body = recorded("hisab", "invoice_paid")

    event = parse(headers, body)

    assert event.data == {
        "id": "inv_8f3a91",
        "invoice_number": "FAC-2026-0142",
        "status": "paid",
        "total": "12480.00",
    }
    assert event.occurred_at == datetime(2026, 6, 5, 14, tzinfo=UTC)
    assert (event.type, event.organization, event.key) == ("invoice.paid", "org_4d11a7", None)
    assert (event.object_kind, event.object_id) == ("invoice", "inv_8f3a91")
    assert event.body == body


def test_a_wrapped_resource_is_unwrapped_with_what_stands_beside_it() -> None:
    event = parse(*recorded("hisab", "invoice_paid_wrapped"))

    assert event.object_id == "inv_8f3a91"
    assert event.data["total"] == "12480.00"
    assert event.data["payment"] == {"method": "bank_transfer", "reference": "VIR-20260605"}
    assert "invoice" not in event.data


def test_a_wrapped_customer_keeps_its_letters_and_changes() -> None:
    event = parse(*recorded("hisab", "customer_updated_wrapped"))

    assert event.object_kind == "customer"
    assert event.data["name"] == "Société Générale d'Élevage — شركة"
    assert event.data["changes"] == ["email"]
    assert event.occurred_at == datetime(2026, 6, 5, 8, 30, 0, 250_000, tzinfo=UTC)


def test_the_field_of_a_wrapped_resource_wins_over_its_sibling() -> None:
    event = parse([], document(data={"status": "beside", "invoice": {"id": "inv_1", "status": "paid"}}))

    assert event.data == {"id": "inv_1", "status": "paid"}


def test_an_invoice_keeps_the_customer_inside_it() -> None:
    resource = {"id": "inv_1", "customer": {"id": "cus_1"}, "invoice": {"id": "inv_0"}}

    event = parse([], document(data=resource))

    assert event.data == resource
    assert event.object_id == "inv_1"


def test_the_time_is_told_in_utc() -> None:
    event = parse(*recorded("hisab", "invoice_finalized_indented"))

    assert event.occurred_at.isoformat() == "2026-06-05T10:00:00+00:00"


@pytest.mark.parametrize("event_type", ["invoice.payment_failed", "recurring.paused.twice", "ping", "x" * 128])
def test_an_unknown_event_passes(event_type: str) -> None:
    event = parse([], document(event=event_type, data={"id": "abc"}))

    assert event.type == event_type
    assert event.object_kind == event_type.partition(".")[0]


@pytest.mark.parametrize("changes", [{"data": {}}, {"data": {"id": None}}, {"event": ".paid"}])
def test_an_event_may_concern_no_object(changes: dict[str, Any]) -> None:
    event = parse([], document(**changes))

    assert (event.object_kind, event.object_id) == (None, None)


@pytest.mark.parametrize("organization", [None, ...])
def test_the_organization_may_be_absent(organization: Any) -> None:
    assert parse([], document(organization_id=organization)).organization is None


OLDER = {
    "id": "evt_1234567890",
    "type": "invoice.finalized",
    "created": "2025-11-27T14:30:00Z",
    "data": {"id": "inv_abc123", "invoice_number": "INV-2025-00042"},
}


def test_a_body_of_2025_is_read_with_the_id_of_its_event() -> None:
    event = parse([], orjson.dumps(OLDER))

    assert (event.type, event.key, event.organization) == ("invoice.finalized", "evt_1234567890", None)
    assert (event.object_kind, event.object_id) == ("invoice", "inv_abc123")
    assert event.occurred_at == datetime(2025, 11, 27, 14, 30, tzinfo=UTC)


def test_a_wrapped_resource_of_2025_is_unwrapped_too() -> None:
    event = parse([], orjson.dumps({**OLDER, "data": {"invoice": {"id": "inv_1"}, "changes": ["total"]}}))

    assert event.data == {"id": "inv_1", "changes": ["total"]}


@pytest.mark.parametrize(
    ("member", "values"),
    [
        ("type", [None, "", 1, [], "a b", "x" * 129]),
        ("created", [..., None, 0, "now", "2025-11-27"]),
        ("id", ["", 1, True, "a\n", "x" * 201]),
        ("data", [..., None, [], "inv_1"]),
    ],
)
def test_a_body_of_2025_out_of_shape_is_refused(member: str, values: list[Any]) -> None:
    for value in values:
        changed = {name: kept for name, kept in {**OLDER, member: value}.items() if kept is not ...}
        with pytest.raises(ParseError, match=member if member != "type" else "event"):
            parse([], orjson.dumps(changed))


def test_a_body_with_both_names_of_the_type_is_a_present_one() -> None:
    event = parse([], document(type="invoice.sent", id="evt_1"))

    assert (event.type, event.key) == ("invoice.paid", None)


@pytest.mark.parametrize("case", cases("hisab"))
def test_the_data_of_a_stored_body_is_what_was_parsed(case: str) -> None:
    headers, body = recorded("hisab", case)

    assert data(body) == parse(headers, body).data


def test_a_name_that_stands_twice_is_refused() -> None:
    with pytest.raises(ParseError, match="twice"):
        parse([], document()[:-1] + b',"event":"invoice.sent"}')


def nested(levels: int) -> bytes:
    """A body of that many levels, itself included."""
    return document(event=...)[:-1] + b',"event":"x","more":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_a_body_may_nest_a_little() -> None:
    assert parse([], nested(MAX_DEPTH)).type == "x"


def test_a_body_may_be_wide() -> None:
    items = [{"id": str(number), "taxes": []} for number in range(1000)]

    assert len(parse([], document(data={"id": "inv_1", "items": items})).data["items"]) == 1000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"true",
        b"[]",
        b'"invoice.paid"',
        b"12480.00",
        b"{",
        b"{}",
        b"\xef\xbb\xbf" + document(),
        document() + b"\x00",
        document() + document(),
        document().decode().encode("utf-16"),
        document().replace(b"org_4d11a7", b"\xff"),
        document().replace(b"org_4d11a7", b"\xed\xa0\x80"),
        document().replace(b"org_4d11a7", rb"\ud800"),
        document().replace(b"org_4d11a7", b"a\nb"),
        document(data=...)[:-1] + b',"data":{"id":NaN}}',
        document(data=...)[:-1] + b',"data":{"n":1e999}}',
        document(data=...)[:-1] + b',"data":{"n":' + b"9" * 1_000_000 + b"}}",
        nested(MAX_DEPTH + 1),
        nested(1000),
        nested(10_000),
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_what_is_not_a_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(ParseError):
        parse([], body)


@pytest.mark.parametrize(
    ("member", "values"),
    [
        (
            "event",
            [
                ...,
                None,
                "",
                1,
                True,
                [],
                {},
                "x" * 129,
                "a b",
                "a\n",
                "a\x00",
                "\x7f",
                "facture.payée",
                "invoice\u2024paid",
            ],
        ),
        ("data", [..., None, "", 0, [], "inv_1", [{"id": "inv_1"}]]),
        (
            "created_at",
            [
                *(..., None, "", 0, 1_780_668_000, [], {}, "now", "2026-06-05", "2026-06-05T14:00:00", "14:00:00Z"),
                *("2026-06-05T14:00:00 CET", "2026-13-05T14:00:00Z", "2026-06-05T14:00:00+99:00", "٢٠٢٦-06-05T14:00Z"),
                *(
                    "0001-01-01T00:00:00+14:00",
                    "9999-12-31T23:59:59-14:00",
                    "2026-06-05T14:00:00Z\x00",
                    "2026-06-05\n14:00:00Z",
                ),
            ],
        ),
        ("organization_id", ["", 1, True, [], {}, "x" * 201, "org\n1", "org\x00", "org\x9f", "\u202e"]),
    ],
)
def test_a_member_out_of_shape_is_refused(member: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ParseError, match=member):
            parse([], document(**{member: value}))


@pytest.mark.parametrize("object_id", ["", 1, 1.5, True, [], {}, "x" * 201, "inv\n1", "inv\x00", "inv\x85"])
def test_an_id_out_of_shape_is_refused_flat_and_wrapped(object_id: Any) -> None:
    for resource in ({"id": object_id}, {"invoice": {"id": object_id}}):
        with pytest.raises(ParseError, match=r"data\.id"):
            parse([], document(data=resource))


def test_a_refusal_quotes_nothing_of_the_body() -> None:
    for body in (b"secret", document(event="secret\n"), document(organization_id="secret\n")):
        with pytest.raises(ParseError) as refused:
            parse([], body)
        assert "secret" not in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
MEMBERS = st.sampled_from(["event", "data", "organization_id", "created_at", "more"])
DOCUMENTS = st.dictionaries(MEMBERS, JSON | st.sampled_from(["invoice.paid", "2026-06-05T14:00:00Z"])).map(orjson.dumps)


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")) | DOCUMENTS)
def test_any_bytes_are_an_event_or_refused(body: bytes) -> None:
    try:
        event = parse([], body)
    except ParseError:
        return
    assert event.body == body


@given(
    event_type=st.from_regex(r"\A[!-~]{1,128}\Z"),
    resource=st.dictionaries(st.text(max_size=8), JSON, max_size=4),
    moment=st.datetimes(timezones=st.just(UTC)),
)
def test_any_event_within_the_bounds_is_read(event_type: str, resource: dict[str, Any], moment: datetime) -> None:
    resource |= {"id": "inv_1"}

    event = parse([], document(event=event_type, data=resource, created_at=moment.isoformat()))

    assert event.type == event_type
    assert event.occurred_at == moment
    assert event.data == orjson.loads(orjson.dumps(resource))
