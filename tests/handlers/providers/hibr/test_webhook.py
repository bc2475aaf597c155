from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import ParseError
from handlers.providers.hibr.webhook import EVENTS, data, inbound, parse, renewed, sample
from handlers.signing import Verified
from tests.handlers.providers.senders import HIBR
from tests.samples import cases, recorded

INVOICE = {"id": "inv_01HFQB", "object": "invoice", "status": "paid", "total": 525000, "total_currency": "AED"}


def document(**changes: Any) -> bytes:
    """A good body with some members replaced; `...` leaves one out."""
    members = {
        "id": "evt_01HFQB",
        "object": "event",
        "type": "invoice.paid",
        "created": "2026-10-15T09:32:14Z",
        "api_version": "2026-10-01",
        "livemode": False,
        "data": {"object": INVOICE},
    } | changes
    return orjson.dumps({name: value for name, value in members.items() if value is not ...})


def refusal(body: bytes) -> str:
    with pytest.raises(ParseError) as refused:
        parse([], body)
    return str(refused.value)


@pytest.mark.parametrize("case", cases("hibr"))
def test_a_recorded_delivery_is_verified_and_read(case: str) -> None:
    headers, body = recorded("hibr", case)
    source = inbound({})

    verified = source.verify(headers, body, [source.key(HIBR.secret)], 1_792_056_740)
    event = source.parse(headers, body)

    assert verified == Verified(dict(headers)[b"hibr-event-id"].decode(), 1_792_056_736)
    assert event.key == verified.delivery_id
    assert event.type == dict(headers)[b"hibr-event"].decode()
    assert event.data == data(body)


# --- what a body says -----------------------------------------------------------------------------


def test_an_invoice_is_read_with_what_it_was_before() -> None:
    event = parse(*recorded("hibr", "invoice_paid"))

    assert (event.type, event.provider) == ("invoice.paid", "hibr")
    assert (event.object_kind, event.object_id) == ("invoice", "inv_01HFQB9XTRP3K2Q5HW7Z3V8YJN")
    assert event.key == "evt_01HFQB9XTRP3K2Q5HW7Z3V8YJN"
    assert event.occurred_at == datetime(2026, 10, 15, 9, 32, 14, tzinfo=UTC)
    assert event.data["lines"] == [{"description": "Retainer", "quantity": 1, "unit_price": 525000}]
    assert event.data["previous_attributes"] == {"status": "open"}


def test_the_letters_of_all_languages_are_kept() -> None:
    assert parse(*recorded("hibr", "invoice_paid_live")).data["customer_name"] == "شركة Café & Söhne"


def test_a_deprecation_is_an_event_about_no_object() -> None:
    event = parse(*recorded("hibr", "api_deprecation"))

    assert (event.type, event.object_kind, event.object_id) == ("hibr.api.deprecation", "api_version", None)
    assert (event.data["version"], event.data["sunset"]) == ("2026-10-01", "2027-10-15")


@pytest.mark.parametrize("event_type", EVENTS)
def test_every_known_event_has_a_sample_that_is_read(event_type: str) -> None:
    event = parse([], orjson.dumps(sample(event_type)))

    assert event.type == event_type
    assert event.key == sample(event_type)["id"]


@pytest.mark.parametrize("event_type", ["invoice.voided", "", "../webhook", "samples/invoice.paid"])
def test_there_is_no_sample_of_another_event(event_type: str) -> None:
    with pytest.raises(KeyError):
        sample(event_type)


def test_a_renewed_sample_is_another_event_at_that_moment() -> None:
    moment = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)

    events = [parse([], orjson.dumps(renewed(sample("invoice.paid"), moment))) for _ in range(2)]

    assert len({event.key for event in events} | {sample("invoice.paid")["id"]}) == 3
    assert all(event.occurred_at == moment for event in events)


@pytest.mark.parametrize(
    "event_type",
    [
        "payroll.wps_run.filed",
        "vat_return.submitted",
        "invoice.v2.paid",
        "ping",
        "invoice.payment-failed",
        "Invoice.Paid",
    ],
)
def test_an_unknown_event_passes(event_type: str) -> None:
    event = parse([], document(type=event_type, data={"object": {}}))

    assert event.type == event_type
    assert (event.object_kind, event.object_id) == (event_type.partition(".")[0], None)


def test_the_kind_of_the_object_is_what_the_object_says() -> None:
    event = parse([], document(type="vat_return.filed", data={"object": {"object": "vat", "id": "vat_1"}}))

    assert (event.object_kind, event.object_id) == ("vat", "vat_1")


def test_the_field_of_the_object_wins_over_its_sibling() -> None:
    event = parse([], document(data={"status": "beside", "reason": "x", "object": {"status": "paid"}}))

    assert event.data == {"status": "paid", "reason": "x"}


def test_members_that_are_not_documented_are_passed_over() -> None:
    assert parse([], document(pending_webhooks=1.5, request={"id": None})).type == "invoice.paid"
    assert parse([], document(account="acct_1")).organization == "acct_1"
    assert parse([], document()).organization is None


# --- livemode -------------------------------------------------------------------------------------


@pytest.mark.parametrize("livemode", [True, False])
def test_a_source_takes_the_events_of_its_environment_only(livemode: bool) -> None:
    source = inbound({"livemode": livemode})

    assert source.parse([], document(livemode=livemode)).type == "invoice.paid"
    with pytest.raises(ParseError, match=f"livemode is not {str(livemode).lower()}: .*other environment"):
        source.parse([], document(livemode=not livemode))


@pytest.mark.parametrize("livemode", [True, False])
def test_a_source_without_the_option_takes_both(livemode: bool) -> None:
    assert inbound({}).parse([], document(livemode=livemode)).type == "invoice.paid"


@pytest.mark.parametrize("livemode", [..., None, 0, 1, "true", "false", [], {}])
def test_livemode_is_true_or_false(livemode: Any) -> None:
    for source in (inbound({}), inbound({"livemode": True}), inbound({"livemode": False})):
        with pytest.raises(ParseError, match="livemode"):
            source.parse([], document(livemode=livemode))


# --- money ----------------------------------------------------------------------------------------

FRACTIONS = {
    "the total": {"object": {"total": 5250.0}},
    "written without decimals": {"object": {"total": 5250.0, "status": "paid"}},
    "in a line": {"object": {"lines": [{"unit_price": 100}, {"unit_price": 0.1}]}},
    "deep": {"object": {"a": [[{"b": {"c": [1, 2, 3.5]}}]]}},
    "negative zero": {"object": {"total": -0.0}},
    "before the change": {"object": {"total": 525000}, "previous_attributes": {"total": 5250.0}},
    "beside the object": {"object": {"total": 525000}, "refunded": 5250.0},
    "overwritten": {"object": {"total": 525000}, "total": 5250.0},
    "under an odd name": {"object": {"a b\n": 0.5}},
}


@pytest.mark.parametrize("data", FRACTIONS.values(), ids=FRACTIONS)
def test_a_number_with_a_fraction_is_refused_anywhere_in_the_data(data: dict[str, Any]) -> None:
    assert "minor units" in refusal(document(data=data))


@pytest.mark.parametrize("written", [b"5250.00", b"525000.0", b"5.25e5", b"5E3", b"1e0", b"-0.0"])
def test_every_spelling_of_a_fraction_is_refused(written: bytes) -> None:
    assert "minor units" in refusal(document().replace(b"525000", written))


@pytest.mark.parametrize("amount", [0, -1, 2**53 + 1, 2**63 - 1])
def test_an_integer_of_minor_units_is_exact(amount: int) -> None:
    assert parse([], document(data={"object": {"total": amount}})).data["total"] == amount


def test_the_place_of_a_fraction_is_told_and_its_value_is_not() -> None:
    said = refusal(document(data={"object": {"lines": [{"unit_price": 1}, {"unit_price": 12.75}]}}))

    assert said.startswith("data.object.lines[1].unit_price is a number with a fraction")
    assert "12.75" not in said


def test_the_place_of_a_fraction_has_an_end() -> None:
    assert len(refusal(document(data={"object": {"x" * 100_000: 0.5}}))) < 1_000


# --- what is no event -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "values"),
    [
        ("id", [..., None, "", 1, True, [], {}, "x" * 201, "evt\n1", "evt\x00"]),
        ("type", [..., None, "", 1, True, [], {}, "x" * 129, "a b", "invoice.paid\n", "facture.payée"]),
        ("created", [..., None, "", 0, 1_792_056_736, "now", "2026-10-15", "2026-10-15T09:32:14", "x\x00"]),
        ("data", [..., None, "", 0, [], {}, {"object": None}, {"object": []}, {"object": "inv_1"}]),
        ("account", ["", 1, True, [], {}, "x" * 201, "a\n"]),
    ],
)
def test_a_member_out_of_shape_is_refused(member: str, values: list[Any]) -> None:
    for value in values:
        assert member in refusal(document(**{member: value}))


@pytest.mark.parametrize("value", ["", 1, True, [], {}, "x" * 201, "inv\n1", "inv\x00"])
def test_an_object_has_an_id_and_a_kind_in_shape_or_none(value: Any) -> None:
    assert "data.object.id" in refusal(document(data={"object": {"id": value}}))
    assert "data.object.object" in refusal(document(data={"object": {"object": value}}))


def test_a_refusal_quotes_nothing_of_the_body() -> None:
    for body in (b"secret", document(type="secret\n"), document(id="secret\n"), document(livemode="secret")):
        assert "secret" not in refusal(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
MEMBERS = st.sampled_from(["id", "type", "created", "livemode", "data", "account"])


@given(st.dictionaries(MEMBERS, JSON), st.sampled_from([{}, {"livemode": True}, {"livemode": False}]))
def test_any_document_is_an_event_or_refused(changes: dict[str, Any], options: dict[str, Any]) -> None:
    body = document(**changes)
    try:
        event = inbound(options).parse([], body)
    except ParseError:
        return
    assert event.body == body
    assert event.data == data(body)
    assert b"." not in orjson.dumps(numbers(event.data))


def numbers(value: Any) -> list[Any]:
    """All numbers in a value, however deep."""
    if isinstance(value, dict):
        return [number for child in value.values() for number in numbers(child)]
    if isinstance(value, list):
        return [number for child in value for number in numbers(child)]
    return [value] if isinstance(value, int | float) else []
