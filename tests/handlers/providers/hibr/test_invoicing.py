"""Making invoices for schedules, against the sandbox."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.invoicing import Draft, Invoice, Stage
from handlers.providers.hibr import PROVIDER
from handlers.providers.hibr.billing import BILLING, body_of, check, total_of
from handlers.providers.hibr.client import HibrClient
from handlers.providers.hibr.invoicing import HibrInvoicing
from handlers.providers.hibr.models import minor_digits, to_amount
from handlers.providers.hibr.sandbox import lines
from handlers.providers.hibr.sandbox.repeats import KEPT
from handlers.providers.hibr.sandbox.seeds import API_KEY, CUSTOMER
from tests.handlers.providers.hibr.sandboxes import LINE, Sandbox
from tests.handlers.providers.sandbox.bridged import Bridge

DAY = date(2026, 10, 15)
ITEM = {"description": "Retainer", "quantity": "2", "unit_price": "1300.00"}
ALIKE = LINE | {"unit_price": 130_000}
DRAFT = Draft(
    customer_id=CUSTOMER,
    issue_date=DAY,
    due_date=DAY + timedelta(days=30),
    currency="AED",
    items=[ITEM],
    finalize=True,
    send=True,
    marker="billhook:occ_01HFQB9XTRP3K2Q5HW7Z3V8YJN",
    key="occ_01HFQB9XTRP3K2Q5HW7Z3V8YJN",
    begun_on=DAY,
)
OTHER = replace(DRAFT, marker="billhook:occ_01HFQB9XTRP3K2Q5HW7Z3V8YJP", key="occ_01HFQB9XTRP3K2Q5HW7Z3V8YJP")


class Altered(Bridge):
    """Carries the calls to the sandbox, and another answer back."""

    def __init__(self, sandbox: Sandbox, change: Callable[[str, Any], Any]) -> None:
        super().__init__(sandbox.app)
        self._change = change

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        answer = self._change(self.calls[-1], orjson.loads(response.content))
        return httpx.Response(response.status_code, content=b"" if answer is None else orjson.dumps(answer))


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox()


def invoicing(sandbox: Sandbox, transport: httpx.BaseTransport | None = None, key: str = API_KEY) -> HibrInvoicing:
    client = HibrClient(api_key=key, api_url="http://127.0.0.1", max_wait=0, transport=transport or Bridge(sandbox.app))
    found = BILLING.invoicing(client)
    assert isinstance(found, HibrInvoicing)
    return found


def listed(sandbox: Sandbox) -> list[str]:
    """The invoices of the customer, without the three that a new sandbox has."""
    found = sandbox.call("GET", "/v1/invoices", params={"customer_id": CUSTOMER}).json()["data"]
    return [record["id"] for record in found[:-3]]


def record(sandbox: Sandbox, invoice: Invoice) -> Any:
    return sandbox.call("GET", f"/v1/invoices/{invoice.id}").json()


def items(*, currency: str = "AED", **changes: str) -> Draft:
    return replace(DRAFT, currency=currency, items=[ITEM | changes])


def test_an_invoice_is_created_finalized_and_sent(sandbox: Sandbox) -> None:
    hibr = invoicing(sandbox)
    hibr.check_customer(CUSTOMER)

    created = hibr.create(DRAFT)
    finalized = hibr.finalize(DRAFT, created)
    sent = hibr.send(DRAFT, finalized)

    assert (created.stage, created.number, created.status) == (Stage.DRAFT, None, "draft")
    assert (created.total, created.currency) == (Decimal("2730.00"), "AED")
    assert (finalized.stage, finalized.number, finalized.status) == (Stage.FINALIZED, "INV-2026-001235", "open")
    assert (sent.stage, sent.number, sent.status) == (Stage.SENT, "INV-2026-001235", "open")
    assert created.id == finalized.id == sent.id
    assert hibr.get(created.id) == sent
    assert listed(sandbox) == [created.id]


def test_what_was_drafted_stands_in_the_invoice(sandbox: Sandbox) -> None:
    plain = ITEM | {"quantity": "3.000"}
    untaxed = {"description": "Hosting", "quantity": "1.50", "unit_price": "450", "tax_rate": "0"}

    made = record(sandbox, invoicing(sandbox).create(replace(DRAFT, items=[plain, untaxed])))

    assert (made["customer_id"], made["invoice_date"], made["due_date"]) == (CUSTOMER, "2026-10-15", "2026-11-14")
    assert made["reference"] == DRAFT.marker
    first, second = made["lines"]
    assert (first["description"], first["quantity"], first["unit_price"]) == ("Retainer", 3, 130_000)
    assert (second["description"], second["quantity"], second["unit_price"]) == ("Hosting", "1.5", 45_000)
    assert (first["vat_rate"], second["vat_rate"]) == (5, 0)
    assert {line["unit_price_currency"] for line in made["lines"]} == {"AED"}


def test_what_is_paid_or_void_is_beyond_a_schedule(sandbox: Sandbox) -> None:
    hibr = invoicing(sandbox)

    stages = {status: hibr.get(sandbox.invoice(status)["id"]).stage for status in ("draft", "open", "paid", "void")}

    assert stages == {"draft": Stage.DRAFT, "open": Stage.FINALIZED, "paid": Stage.SENT, "void": Stage.SENT}


def test_a_draft_is_made_finalized_and_sent_once_however_often_it_is_asked_for(sandbox: Sandbox) -> None:
    first, second = invoicing(sandbox), invoicing(sandbox)
    created = first.create(DRAFT)
    finalized = first.finalize(DRAFT, created)
    sent = first.send(DRAFT, finalized)
    sent_at = record(sandbox, sent)["sent_at"]
    sandbox.now += BILLING.remembers.total_seconds()

    again = second.create(DRAFT)

    assert again == created
    assert second.finalize(DRAFT, again) == finalized
    assert second.send(DRAFT, again) == sent
    assert record(sandbox, sent)["sent_at"] == sent_at
    assert listed(sandbox) == [created.id]


def test_two_drafts_of_one_customer_and_day_are_two_invoices(sandbox: Sandbox) -> None:
    hibr = invoicing(sandbox)

    made = [hibr.create(draft) for draft in (DRAFT, OTHER)]

    assert listed(sandbox) == [made[1].id, made[0].id]
    assert [hibr.find(draft) for draft in (DRAFT, OTHER)] == made


@pytest.mark.parametrize("call", ["create", "finalize", "send"])
def test_a_call_whose_answer_was_lost_is_done_once(sandbox: Sandbox, call: str) -> None:
    hibr = invoicing(sandbox)
    steps: dict[str, Callable[[Any], Invoice]] = {
        "create": lambda _: hibr.create(DRAFT),
        "finalize": lambda invoice: hibr.finalize(DRAFT, invoice),
        "send": lambda invoice: hibr.send(DRAFT, invoice),
    }
    invoice = None
    for name, step in steps.items():
        if name == call:
            sandbox.call("POST", "/sandbox/faults", json={"kind": "error_after", "match": "POST *"})
            with pytest.raises(ProviderUnavailable):
                step(invoice)
        invoice = step(invoice)

    assert invoice is not None
    assert (invoice.stage, listed(sandbox)) == (Stage.SENT, [invoice.id])


def test_an_invoice_is_found_by_its_marker_once_its_key_is_forgotten(sandbox: Sandbox) -> None:
    hibr = invoicing(sandbox)
    made = hibr.create(DRAFT)
    sandbox.now += KEPT

    assert hibr.find(DRAFT) == made
    assert hibr.create(DRAFT).id != made.id
    assert timedelta(hours=1) <= timedelta(seconds=KEPT) - BILLING.remembers < timedelta(hours=2)


def test_what_was_never_made_is_not_found(sandbox: Sandbox) -> None:
    hibr = invoicing(sandbox)
    assert hibr.find(DRAFT) is None

    hibr.create(OTHER)
    hibr.create(replace(DRAFT, issue_date=DAY - timedelta(days=1), key="occ_2"))
    sandbox.invoice(lines=[ALIKE | {"unit_price": 130_001}])
    sandbox.invoice(lines=[ALIKE, ALIKE])
    sandbox.invoice(lines=[ALIKE], reference=None)
    sandbox.invoice(lines=[ALIKE], reference="PO 4711")

    assert hibr.find(DRAFT) is None


@pytest.mark.parametrize("dropped", [["reference"], ["reference", "lines"]])
def test_an_invoice_whose_reference_was_not_kept_is_left_to_a_person(sandbox: Sandbox, dropped: list[str]) -> None:
    def without(call: str, answer: Any) -> Any:
        for one in answer.get("data", [answer]):
            for name in dropped:
                one.pop(name, None)
        return answer

    hibr = invoicing(sandbox, Altered(sandbox, without))
    made = hibr.create(DRAFT)
    sandbox.now += KEPT

    with pytest.raises(ProviderError, match=rf"^AMBIGUOUS: .* look at {made.id}.* there; .* by hand$") as refused:
        hibr.find(DRAFT)

    assert refused.value.code == "AMBIGUOUS"
    assert not isinstance(refused.value, ProviderUnavailable)


def test_an_invoice_with_the_marker_is_found_beside_one_without_any_reference(sandbox: Sandbox) -> None:
    hibr = invoicing(sandbox)
    made = hibr.create(DRAFT)
    sandbox.invoice(lines=[ALIKE])

    assert hibr.find(DRAFT) == made
    with pytest.raises(ProviderError, match="AMBIGUOUS"):
        hibr.find(OTHER)


def test_an_invoice_is_found_where_a_list_shows_less_of_it(sandbox: Sandbox) -> None:
    def shortened(call: str, answer: Any) -> Any:
        if "data" in answer:
            answer["data"] = [{name: one[name] for name in ("id", "object", "status")} for one in answer["data"]]
        return answer

    made = invoicing(sandbox).create(DRAFT)

    assert invoicing(sandbox, Altered(sandbox, shortened)).find(DRAFT) == made


def test_a_list_that_is_not_filtered_does_no_harm(sandbox: Sandbox) -> None:
    class Unfiltered(Bridge):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            request.url = request.url.copy_with(query=None)
            return super().handle_request(request)

    hibr = invoicing(sandbox, Unfiltered(sandbox.app))
    sandbox.invoice(lines=[ALIKE], invoice_date="2026-10-14")
    sandbox.invoice(lines=[ALIKE], customer_id=sandbox.made("customers", name="Palm Grove")["id"])

    assert hibr.find(DRAFT) is None
    assert hibr.create(DRAFT) == hibr.find(DRAFT)


def test_an_invoice_that_was_made_of_another_body_under_the_same_key_is_the_drafts(sandbox: Sandbox) -> None:
    hibr = invoicing(sandbox)
    made = hibr.create(replace(DRAFT, items=[ITEM | {"description": "As it was written before"}]))

    assert hibr.create(DRAFT) == made
    assert listed(sandbox) == [made.id]


def test_a_key_that_another_invoice_has_is_a_conflict(sandbox: Sandbox) -> None:
    hibr = invoicing(sandbox)
    hibr.create(replace(OTHER, key=DRAFT.key))

    with pytest.raises(ProviderError) as refused:
        hibr.create(DRAFT)

    assert (refused.value.code, refused.value.status) == ("conflict_error", 409)


def test_what_hibr_refuses_is_told_by_its_code(sandbox: Sandbox) -> None:
    with pytest.raises(ProviderError) as refused:
        invoicing(sandbox).create(replace(DRAFT, customer_id="cust_none"))

    assert (refused.value.code, refused.value.status) == ("validation_error", 422)


def test_an_action_that_is_answered_without_a_body_is_looked_up(sandbox: Sandbox) -> None:
    transport = Altered(sandbox, lambda call, answer: None if call.endswith(("/post", "/send")) else answer)
    hibr = invoicing(sandbox, transport)

    finalized = hibr.finalize(DRAFT, hibr.create(DRAFT))
    sent = hibr.send(DRAFT, finalized)

    assert (finalized.stage, sent.stage) == (Stage.FINALIZED, Stage.SENT)
    assert [call.partition(" ")[0] for call in transport.calls] == ["POST", "POST", "GET", "POST", "GET"]


@pytest.mark.parametrize(
    "change", [{"total": None}, {"total": 5250.0}, {"total_currency": "dirham"}, {"total_currency": None}]
)
def test_an_answer_without_what_an_invoice_has_is_out_of_shape(sandbox: Sandbox, change: dict[str, Any]) -> None:
    hibr = invoicing(sandbox, Altered(sandbox, lambda call, answer: answer | change))

    with pytest.raises(ProviderUnavailable) as refused:
        hibr.create(DRAFT)

    assert refused.value.code == "BAD_ANSWER"


def test_keys_are_uuids_of_version_4_and_each_call_has_its_own(sandbox: Sandbox) -> None:
    keys: list[str] = []

    class Noting(Bridge):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            keys.append(request.headers.get("idempotency-key", ""))
            return super().handle_request(request)

    for draft in (DRAFT, DRAFT, OTHER):
        hibr = invoicing(sandbox, Noting(sandbox.app))
        hibr.send(draft, hibr.finalize(draft, hibr.create(draft)))

    assert keys[:3] == keys[3:6]
    assert len(set(keys)) == 6
    assert all(str(UUID(key)) == key and UUID(key).version == 4 for key in keys)


def test_a_key_needs_the_scopes_of_invoices_only(sandbox: Sandbox) -> None:
    hibr = invoicing(sandbox, key=sandbox.key("read:invoices", "write:invoices"))

    hibr.check_customer(CUSTOMER)
    assert hibr.find(DRAFT) is None
    made = hibr.create(DRAFT)

    assert hibr.send(DRAFT, hibr.finalize(DRAFT, made)) == hibr.find(DRAFT)


@pytest.mark.parametrize(
    ("draft", "units", "amount"),
    [
        (items(currency="KWD", unit_price="1.234"), 2_591, "2.591"),
        (items(currency="JPY", unit_price="500", tax_rate="0"), 1_000, "1000"),
        (items(currency="JPY", unit_price="5", quantity="1.1"), 6, "6"),
        (items(unit_price="0.01", quantity="0.5"), 1, "0.01"),
    ],
)
def test_amounts_have_the_decimals_of_their_currency(sandbox: Sandbox, draft: Draft, units: int, amount: str) -> None:
    check(draft)

    made = invoicing(sandbox).create(draft)

    assert record(sandbox, made)["total"] == units
    assert str(made.total) == str(total_of(draft)) == amount
    assert made.currency == draft.currency


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    currency = draw(st.sampled_from(["AED", "USD", "KWD", "JPY"]))
    numbers = {
        "quantity": st.decimals("0.000001", 10_000, places=6),
        "unit_price": st.integers(1, 10**8).map(lambda units: to_amount(units, currency)),
    }
    item = st.fixed_dictionaries(
        {"description": st.just("x"), **{name: number.map(lambda one: f"{one:f}") for name, number in numbers.items()}},
        optional={"tax_rate": st.sampled_from(["0", "5", "5.00"])},
    )
    return replace(DRAFT, currency=currency, items=draw(st.lists(item, min_size=1, max_size=8)))


@given(drafts())
def test_the_total_is_what_the_sandbox_computes(draft: Draft) -> None:
    check(draft)

    sums = lines.totals(lines.priced(body_of(draft)["lines"]))

    assert total_of(draft) == to_amount(sums["total"], sums["total_currency"])


@given(drafts(), st.integers(1, 9), st.integers(1, 9))
def test_what_is_finer_than_hibr_can_take_is_refused(draft: Draft, place: int, digit: int) -> None:
    finer = "." + "0" * (minor_digits(draft.currency) + place - 1) + str(digit)
    last = len(draft.items)

    with pytest.raises(ValueError, match=rf"^items\[{last}\]\.unit_price: .* is finer than {draft.currency}, .*\.$"):
        check(replace(draft, items=[*draft.items, ITEM | {"unit_price": f"1{finer}"}]))


@pytest.mark.parametrize(
    ("draft", "message"),
    [
        (replace(DRAFT, options={"b": 1, "a": 2}), "options: HIBR takes none, so not 'a'."),
        (replace(DRAFT, currency="XAU"), "currency must be an ISO 4217 code, such as AED, not 'XAU'."),
        (replace(DRAFT, due_date=DAY - timedelta(days=1)), "due_date must not be before issue_date."),
        (
            items(unit_price="10.005"),
            "items[0].unit_price: 10.005 is finer than AED, which has 2 decimal digits: round it first.",
        ),
        (
            items(currency="JPY", unit_price="10.5"),
            "items[0].unit_price: 10.5 is finer than JPY, which has 0 decimal digits: round it first.",
        ),
        (items(unit_price="0.00"), "items[0].unit_price must be above 0: HIBR takes positive amounts only."),
        (items(unit_price="-1"), "items[0].unit_price must be above 0: HIBR takes positive amounts only."),
        (items(unit_price="9" * 18), f"items[0].unit_price: {'9' * 18} AED is too large."),
        (items(quantity="0"), "items[0].quantity must be above 0, with at most 6 decimals."),
        (items(quantity="-1"), "items[0].quantity must be above 0, with at most 6 decimals."),
        (items(quantity="1.0000001"), "items[0].quantity must be above 0, with at most 6 decimals."),
        (items(tax_rate="20"), "items[0].tax_rate must be one of 0, 5: the rates of the UAE's VAT."),
        (items(tax_rate="-5"), "items[0].tax_rate must be one of 0, 5: the rates of the UAE's VAT."),
        (
            replace(DRAFT, items=[ITEM, ITEM | {"quantity": "0.0"}]),
            "items[1].quantity must be above 0, with at most 6 decimals.",
        ),
    ],
)
def test_a_draft_that_hibr_cannot_take_is_refused_by_the_name_of_the_field(draft: Draft, message: str) -> None:
    with pytest.raises(ValueError, match=r"\.$") as refused:
        check(draft)

    assert str(refused.value) == message


@pytest.mark.parametrize(
    "draft",
    [
        replace(DRAFT, due_date=DAY),
        items(unit_price="10.0000000000", quantity="1.0000000000"),
        items(unit_price="0.01", quantity="0.000001", tax_rate="0.00"),
        items(currency="KWD", unit_price="0.001"),
    ],
)
def test_a_draft_that_hibr_can_take_is_taken(sandbox: Sandbox, draft: Draft) -> None:
    check(draft)

    assert invoicing(sandbox).create(draft).total == total_of(draft)


def test_schedules_are_known_without_an_http_client() -> None:
    code = (
        "import sys, handlers.providers.hibr as hibr; hibr.PROVIDER.billing.check;"
        "print({'httpx', 'starlette', 'handlers.providers.hibr.invoicing'} & set(sys.modules))"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "set()"
    assert PROVIDER.billing is BILLING
    assert BILLING.calls_a_minute == 60
