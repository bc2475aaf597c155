"""Invoices for schedules at Hesabe: against the sandbox on real sockets, and what is refused without asking it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.invoicing import NOT_AGREED, Capturing, Draft, Invoicing, Mode, Stage, read_draft
from handlers.providers import PROVIDERS
from handlers.providers.hesabe.billing import BILLING, check, mode, options_of, total_of
from handlers.providers.hesabe.client import HesabeClient
from handlers.providers.hesabe.invoicing import HesabeCapturing, HesabeInvoicing
from handlers.providers.hesabe.sandbox import create_app
from tests.handlers.providers.hesabe.server import API_KEY, TOKEN, Answer, Received, encrypted, ok, plain, refused
from tests.handlers.providers.hesabe.server import serving as faking
from tests.handlers.providers.hesabe.test_sandbox import NOW
from tests.handlers.providers.sandbox.served import serving

MARKER = "billhook:occ_01K6TB6M0RZ5Q9V0N8K2H3J4D5"
OPTIONS: Mapping[str, Any] = {"mobile_number": "66666666", "customer_name": "Noura", "payment_types": [1, "2"]}
ON_DEMAND = {**OPTIONS, "subscription": {"type": "1", "on_demand": True}}
AUTOMATIC = {**OPTIONS, "subscription": {"type": "0", "on_demand": False}}
ITEM: Mapping[str, str] = {"description": "Rent", "quantity": "2", "unit_price": "10.250"}
LOST = {"kind": "error_after", "times": 1}


def draft(**changes: Any) -> Draft:
    fields: dict[str, Any] = {
        "customer_id": "noura",
        "issue_date": NOW.date(),
        "due_date": NOW.date() + timedelta(days=30),
        "currency": "KWD",
        "items": [ITEM],
        "finalize": True,
        "send": True,
        "marker": MARKER,
        "key": f"{MARKER}:0",
        "begun_on": NOW.date(),
        "options": OPTIONS,
        "monthly": True,
        "recurrences": 12,
    }
    return Draft(**(fields | changes))


def options(**changes: Any) -> dict[str, Any]:
    return {**OPTIONS, **changes}


@dataclass(frozen=True)
class Scene:
    """A merchant and the sandbox."""

    url: str
    hesabe: HesabeClient

    @property
    def invoicing(self) -> Invoicing:
        return BILLING.invoicing(self.hesabe)

    @property
    def capturing(self) -> Capturing:
        assert BILLING.capturing is not None
        return BILLING.capturing(self.hesabe)

    def admin(self, path: str = "", **body: Any) -> Any:
        call = httpx.post(f"{self.url}/sandbox{path}", json=body) if path else httpx.get(f"{self.url}/sandbox")
        assert call.is_success, call.text
        return call.json()

    def messages(self) -> list[tuple[str, str]]:
        """How and to whom the customers were written, the latest first."""
        return [(one["channel"], one["recipient"]) for one in self.admin()["messages"]]

    def pay(self, invoice_id: str, outcome: str = "pay") -> None:
        url = self.hesabe.invoices.get(invoice_id)["url"]
        answer = httpx.post(url, data={"outcome": outcome}, follow_redirects=True)
        assert answer.status_code == 200, answer.text

    def agreed(self, **changes: Any) -> tuple[Draft, str]:
        """A draft whose agreement is made and agreed to, and the token of that."""
        asked = draft(options=ON_DEMAND, **changes)
        invoice = self.invoicing.create(asked)
        self.pay(invoice.id)
        return asked, self.capturing.token(invoice.id)

    def captures(self, asked: Draft) -> Sequence[Mapping[str, Any]]:
        return self.hesabe.transactions.find(f"{asked.marker}:capture")


@pytest.fixture
def scene() -> Iterator[Scene]:
    with (
        serving(create_app(clock=NOW, now=NOW.timestamp)) as url,
        HesabeClient(api_key=API_KEY, api_url=url, max_wait=0) as hesabe,
    ):
        yield Scene(url, hesabe)


def test_the_provider_makes_invoices() -> None:
    assert PROVIDERS["hesabe"].billing is BILLING
    assert BILLING.calls_a_minute == 30
    assert BILLING.remembers == timedelta(0)
    assert BILLING.keeping is None


def test_an_invoice_that_is_to_be_sent_goes_by_sms(scene: Scene) -> None:
    asked = draft(
        options=options(
            country_code="+966",
            email="noura@gmail.com",
            language="en",
            description="Rent of October",
            webhook="https://billhook.test/webhooks/pay/word",
            channel="sms",
        )
    )

    invoice = scene.invoicing.create(asked)

    assert dataclasses.asdict(invoice) == {
        "id": "14685",
        "number": MARKER,
        "stage": Stage.SENT,
        "status": "unpaid",
        "total": Decimal("20.500"),
        "currency": "KWD",
    }
    assert scene.messages() == [("sms", "96666666666")]
    stored = scene.hesabe.invoices.get(invoice.id)
    assert (stored["expires_at"], stored["language"], stored["description"]) == ("2025-11-04", "en", "Rent of October")
    assert stored["customer"] == {"name": "Noura", "email": "noura@gmail.com", "phone_number": "96666666666"}
    assert stored["products"] == [{"itemTitle": "Rent", "rate": "10.250", "quantity": "2", "amount": "20.500"}]
    assert stored["payment_method"] == ["1", "2"]
    assert stored["subscription"] is None


def test_an_invoice_that_is_not_to_be_sent_is_a_link_to_share(scene: Scene) -> None:
    invoice = scene.invoicing.create(draft(send=False))

    assert invoice.stage == Stage.FINALIZED
    assert scene.messages() == [("url", "")]


def test_an_invoice_is_read_again_as_it_was_made(scene: Scene) -> None:
    for send in (True, False):
        asked = draft(send=send, marker=f"{MARKER}:{send}")
        invoice = scene.invoicing.create(asked)

        assert scene.invoicing.get(invoice.id) == scene.invoicing.find(asked) == invoice
        assert scene.invoicing.finalize(asked, invoice) is invoice


def test_its_status_is_told_in_words_and_what_is_paid_needs_nothing_more(scene: Scene) -> None:
    paid, cancelled = (scene.invoicing.create(draft(send=False, marker=f"{MARKER}:{one}")) for one in range(2))

    scene.pay(paid.id)
    scene.hesabe.invoices.cancel(scene.hesabe.invoices.get(cancelled.id)["token"])

    for invoice, status in ((paid, "paid"), (cancelled, "cancelled")):
        found = scene.invoicing.get(invoice.id)
        assert (found.status, found.stage) == (status, Stage.SENT)


def test_a_link_is_sent_later_by_sms_where_the_schedule_was_changed(scene: Scene) -> None:
    invoice = scene.invoicing.create(draft(send=False))

    sent = scene.invoicing.send(draft(), invoice)

    assert sent == dataclasses.replace(invoice, stage=Stage.SENT)
    assert scene.messages() == [("sms", "96566666666"), ("url", "")]


def test_nobody_is_asked_about_a_customer(scene: Scene) -> None:
    scene.admin("/faults", kind="error", times=None)

    scene.invoicing.check_customer("nobody")


@pytest.mark.parametrize("asked", [draft(), draft(send=False), draft(options=ON_DEMAND), draft(options=AUTOMATIC)])
def test_an_invoice_whose_answer_was_lost_is_found_by_its_marker(scene: Scene, asked: Draft) -> None:
    scene.admin("/faults", match="POST /api/v1/invoice*", **LOST)
    with pytest.raises(ProviderUnavailable):
        scene.invoicing.create(asked)

    found = scene.invoicing.find(read_draft(asked.written()))

    assert found is not None
    assert found == scene.invoicing.get(found.id)
    assert (found.number, found.total) == (MARKER, Decimal("20.500"))


def test_what_was_not_made_is_not_found(scene: Scene) -> None:
    scene.admin("/faults", kind="error", match="POST /api/v1/invoice")
    with pytest.raises(ProviderUnavailable):
        scene.invoicing.create(draft())

    assert scene.invoicing.find(draft()) is None


def test_a_marker_that_is_a_part_of_others_is_told_from_them_over_many_pages(scene: Scene) -> None:
    asked = draft()
    invoice = scene.invoicing.create(asked)
    for number in range(22):
        scene.invoicing.create(draft(marker=f"{MARKER}{number}"))

    found = scene.invoicing.find(asked)

    assert found == invoice
    assert scene.invoicing.find(draft(marker=MARKER[:-1])) is None


def test_another_kind_of_invoice_is_not_taken_for_it(scene: Scene) -> None:
    scene.invoicing.create(draft())

    assert scene.invoicing.find(draft(options=ON_DEMAND)) is None


def test_an_invoice_is_found_whatever_the_day_is_in_kuwait_and_a_year_later(scene: Scene) -> None:
    invoice = scene.invoicing.create(draft())

    for begun_on in (NOW.date() + timedelta(days=1), NOW.date(), NOW.date() - timedelta(days=400)):
        assert scene.invoicing.find(draft(begun_on=begun_on)) == invoice
    assert scene.invoicing.find(draft(begun_on=NOW.date() + timedelta(days=2))) is None


@pytest.mark.parametrize(
    ("channel", "told"),
    [
        (None, ("sms", "96566666666")),
        ("sms", ("sms", "96566666666")),
        ("whatsapp", ("whatsapp", "96566666666")),
        ("email", ("email", "noura@gmail.com")),
    ],
)
@pytest.mark.parametrize("kind", [ON_DEMAND, AUTOMATIC])
def test_a_subscription_is_sent_as_the_schedule_asks(
    scene: Scene, kind: Mapping[str, Any], channel: str | None, told: tuple[str, str]
) -> None:
    asked = draft(options={**kind, "channel": channel, "email": "noura@gmail.com"}, recurrences=7)

    invoice = scene.invoicing.create(asked)

    stored = scene.hesabe.invoices.get(invoice.id)
    assert invoice.stage == Stage.SENT
    assert scene.messages() == [told]
    assert stored["subscription"] == {
        "frequency": "1",
        "noofRecurrence": "7",
        "SubscriptionType": kind["subscription"]["type"],
        "startDate": "2025-10-05",
        "token": None,
        "captured": 0,
        "next_capture": None,
    }
    assert (stored["amount"], stored["expires_at"]) == ("20.500", "2025-11-04")


def test_a_subscription_by_link_is_sent_by_nobody(scene: Scene) -> None:
    invoice = scene.invoicing.create(draft(options=AUTOMATIC, send=False))

    assert invoice.stage == Stage.FINALIZED
    assert scene.messages() == [("url", "")]


def test_an_agreement_that_is_made_by_link_is_not_sent_once_it_is_agreed_to(scene: Scene) -> None:
    invoice = scene.invoicing.create(draft(options=ON_DEMAND, send=False))
    scene.pay(invoice.id)

    assert scene.invoicing.get(invoice.id).stage == Stage.SENT


def test_while_the_customer_has_not_agreed_that_is_asked_again_later(scene: Scene) -> None:
    invoice = scene.invoicing.create(draft(options=ON_DEMAND))
    scene.pay(invoice.id, "fail")

    with pytest.raises(ProviderUnavailable) as waiting:
        scene.capturing.token(invoice.id)

    assert (waiting.value.code, waiting.value.retry_after) == (NOT_AGREED, 3600)


def test_a_payment_is_captured_once_the_customer_has_agreed(scene: Scene) -> None:
    asked, token = scene.agreed()

    payment = scene.capturing.capture(asked, token)

    (stored,) = scene.captures(asked)
    assert (payment.token, payment.status, payment.amount) == (stored["token"], "SUCCESSFUL", Decimal("20.500"))
    assert payment.token != token


def test_every_due_date_is_captured_under_the_same_agreement(scene: Scene) -> None:
    asked, token = scene.agreed()
    invoice_id = "14685"
    for number, price in enumerate(("1.000", "2.500", "0.250")):
        due = draft(marker=f"{MARKER}:{number}", options=ON_DEMAND, items=[{**ITEM, "unit_price": price}])
        assert scene.capturing.token(invoice_id) == token

        payment = scene.capturing.capture(due, token)

        assert payment.amount == 2 * Decimal(price)
        assert scene.capturing.find_payment(due) == payment
    assert scene.capturing.find_payment(asked) is None


def test_consent_is_not_taken_for_a_payment(scene: Scene) -> None:
    asked, _ = scene.agreed()

    assert [one["status"] for one in scene.hesabe.transactions.find(MARKER)] == ["AUTHORIZED"]
    assert scene.capturing.find_payment(asked) is None


def test_a_capture_whose_answer_was_lost_is_found(scene: Scene) -> None:
    asked, token = scene.agreed()
    scene.admin("/faults", match="POST /api/subscription/capture", **LOST)
    with pytest.raises(ProviderUnavailable):
        scene.capturing.capture(asked, token)

    payment = scene.capturing.find_payment(asked)

    assert payment is not None
    assert (payment.status, payment.amount) == ("SUCCESSFUL", Decimal("20.500"))
    assert len(scene.captures(asked)) == 1


def test_a_capture_that_was_declined_is_an_error_and_no_payment(scene: Scene) -> None:
    asked, token = scene.agreed()
    scene.admin(f"/subscriptions/{token}", declines=1)

    with pytest.raises(ProviderError) as declined:
        scene.capturing.capture(asked, token)

    assert declined.value.code == "TRANSACTION_ERROR"
    assert not isinstance(declined.value, ProviderUnavailable)
    assert scene.capturing.find_payment(asked) is None

    payment = scene.capturing.capture(asked, token)

    assert scene.capturing.find_payment(asked) == payment


def test_while_the_enquiry_is_down_no_payment_is_called_absent(scene: Scene) -> None:
    asked, _ = scene.agreed()
    scene.admin("/faults", kind="error", times=None, match="GET /api/transaction/*")

    with pytest.raises(ProviderUnavailable):
        scene.capturing.find_payment(asked)


def attempts(*entries: Any) -> Any:
    return lambda _: plain(ok(None, name="data", results=list(entries)))


def attempt(**changes: Any) -> dict[str, Any]:
    found = {"token": TOKEN, "amount": 20.5, "reference_number": f"{MARKER}:capture", "status": "SUCCESSFUL"}
    return {**found, **changes}


ENQUIRY = f"GET /api/transaction/{MARKER}:capture".replace(":", "%3A")
OF_THE_CONSENT = f"GET /api/transaction/{MARKER}".replace(":", "%3A")
DETAILS = "GET /api/v1/invoice/7"


@pytest.mark.parametrize(
    ("entries", "status"),
    [
        ([attempt(status="FAILED"), attempt()], "SUCCESSFUL"),
        ([attempt(status="AUTHORIZED"), attempt(), attempt(status="FAILED")], "SUCCESSFUL"),
        ([attempt(status="REFUNDED")], "REFUNDED"),
        ([attempt(status="CAPTURED"), attempt(status="FAILED")], "CAPTURED"),
        ([attempt(status="FAILED")], None),
        ([attempt(reference_number=MARKER), attempt(reference_number="1")], None),
    ],
)
def test_what_counts_as_the_payment(entries: list[dict[str, Any]], status: str | None) -> None:
    with (
        faking({ENQUIRY: attempts(*entries)}) as hesabe,
        HesabeClient(api_key=API_KEY, api_url=hesabe.url) as client,
    ):
        payment = HesabeCapturing(client).find_payment(draft())

    assert (payment and payment.status) == status
    assert payment is None or (payment.token, payment.amount) == (TOKEN, Decimal("20.5"))


@pytest.mark.parametrize(
    "entry", [attempt(amount=None), attempt(amount="a lot"), {"reference_number": f"{MARKER}:capture"}]
)
def test_a_transaction_out_of_shape_is_an_outage(entry: dict[str, Any]) -> None:
    with (
        faking({ENQUIRY: attempts(entry)}) as hesabe,
        HesabeClient(api_key=API_KEY, api_url=hesabe.url) as client,
        pytest.raises(ProviderUnavailable, match="BAD_ANSWER"),
    ):
        HesabeCapturing(client).find_payment(draft())


def details(**members: Any) -> Any:
    """An invoice as its details show it, by itself."""
    return lambda _: encrypted({"token": "1", "reference_number": MARKER, **members})


def unknown(_: Received) -> Answer:
    return refused(404, "Transaction not found")


def test_where_the_enquiry_knows_no_consent_the_invoices_own_transaction_names_it() -> None:
    routes = {DETAILS: details(transaction={"token": TOKEN}), OF_THE_CONSENT: unknown}
    with faking(routes) as hesabe, HesabeClient(api_key=API_KEY, api_url=hesabe.url) as client:
        assert HesabeCapturing(client).token("7") == TOKEN


@pytest.mark.parametrize("transaction", [{}, [], "1", {"id": 1}])
def test_a_consent_without_a_token_is_an_outage(transaction: Any) -> None:
    routes = {DETAILS: details(transaction=transaction), OF_THE_CONSENT: unknown}
    with (
        faking(routes) as hesabe,
        HesabeClient(api_key=API_KEY, api_url=hesabe.url) as client,
        pytest.raises(ProviderUnavailable, match="BAD_ANSWER"),
    ):
        HesabeCapturing(client).token("7")


SHOWN: Mapping[str, Any] = {"id": 7, "amount": "20.500", "invoice_sub_type": "3", "invoice_status": None}


@pytest.mark.parametrize(
    ("members", "stage", "status"),
    [
        ({}, Stage.FINALIZED, "unpaid"),
        ({"invoice_sub_type": 3, "invoice_status": 0, "amount": 20.5}, Stage.FINALIZED, "unpaid"),
        ({"invoice_sub_type": "0", "invoice_status": "0"}, Stage.SENT, "unpaid"),
        ({"invoice_sub_type": 1, "invoice_status": 1}, Stage.SENT, "paid"),
        ({"invoice_status": "3"}, Stage.SENT, "cancelled"),
        ({"invoice_status": 8}, Stage.SENT, "8"),
        ({"transaction": {"token": TOKEN}}, Stage.SENT, "unpaid"),
    ],
)
def test_an_invoice_is_read_whether_numbers_come_as_text_or_not(
    members: dict[str, Any], stage: Stage, status: str
) -> None:
    routes = {DETAILS: details(**{**SHOWN, **members})}
    with faking(routes) as hesabe, HesabeClient(api_key=API_KEY, api_url=hesabe.url) as client:
        invoice = HesabeInvoicing(client).get("7")

    assert (invoice.id, invoice.stage, invoice.status, invoice.total) == ("7", stage, status, Decimal("20.5"))


@pytest.mark.parametrize("missing", ["id", "amount", "invoice_sub_type"])
def test_an_invoice_out_of_shape_is_an_outage(missing: str) -> None:
    routes = {DETAILS: details(**{name: value for name, value in SHOWN.items() if name != missing})}
    with (
        faking(routes) as hesabe,
        HesabeClient(api_key=API_KEY, api_url=hesabe.url) as client,
        pytest.raises(ProviderUnavailable, match="BAD_ANSWER"),
    ):
        HesabeInvoicing(client).get("7")


def test_a_subscription_tells_the_mode_and_its_type_does_not() -> None:
    assert mode(OPTIONS) == Mode.EACH
    for kind in ("0", "1"):
        assert mode(options(subscription={"type": kind, "on_demand": True})) == Mode.CAPTURED
        assert mode(options(subscription={"type": kind, "on_demand": False})) == Mode.AUTOMATIC


def test_options_have_the_documented_defaults_and_null_is_not_given() -> None:
    read = options_of({**OPTIONS, "country_code": None, "channel": None, "subscription": None})

    assert read == options_of(OPTIONS)
    assert (read.country_code, read.payment_types) == ("965", ["1", "2"])


@pytest.mark.parametrize("changes", [{}, {"send": False}, {"items": [{**ITEM, "tax_rate": "0.00", "quantity": "2.0"}]}])
@pytest.mark.parametrize("kind", [OPTIONS, ON_DEMAND, AUTOMATIC])
def test_what_can_be_made_is_not_refused(changes: dict[str, Any], kind: Mapping[str, Any]) -> None:
    check(draft(**changes, options=kind))


def test_a_single_invoice_needs_no_month_and_no_end() -> None:
    check(draft(monthly=False, recurrences=None))


def with_item(**changes: str) -> dict[str, Any]:
    return {"items": [ITEM, {**ITEM, **changes}]}


def with_options(kind: Mapping[str, Any] = OPTIONS, **changes: Any) -> dict[str, Any]:
    return {"options": {**kind, **changes}}


REFUSED: Sequence[tuple[dict[str, Any], str]] = [
    ({"currency": "MAD"}, "currency must be KWD: "),
    ({"finalize": False, "send": False}, "auto_finalize must be true: Hesabe has no drafts, "),
    (with_item(unit_price="1.0005"), "items[1].unit_price must be "),
    (with_item(unit_price="0"), "items[1].unit_price must be "),
    (with_item(unit_price="-1"), "items[1].unit_price must be "),
    (with_item(unit_price="1000000000"), "items[1].unit_price must be "),
    (with_item(unit_price="999999999", quantity="2"), "items[1].unit_price times quantity must be "),
    (with_item(unit_price="999999999.999", quantity="1"), "items must come to "),
    (with_item(quantity="1.5"), "items[1].quantity must be a whole number from 1 to 9999"),
    (with_item(quantity="0"), "items[1].quantity must be "),
    (with_item(quantity="-1"), "items[1].quantity must be "),
    (with_item(quantity="10000"), "items[1].quantity must be "),
    (with_item(tax_rate="5"), "items[1].tax_rate must be 0: "),
    (with_item(description="x" * 256), "items[1].description must be 1 to 255 characters"),
    (with_item(description="a\tb"), "items[1].description has characters that cannot be printed"),
    ({"items": []}, "items must come to more than 0 "),
    ({"options": {}}, "options.mobile_number is needed"),
    (with_options(customer_name=None), "options.customer_name is needed"),
    (with_options(mobile="66666666"), "options: there is no 'mobile'; Hesabe takes mobile_number, customer_name, "),
    (with_options(mobile_number=66666666), "options.mobile_number must be 6 to 15 digits"),
    (with_options(mobile_number="+96566666666"), "options.mobile_number must be 6 to 15 digits"),
    (with_options(customer_name=" "), "options.customer_name must be 1 to 255 characters"),
    (with_options(country_code="00965"), "options.country_code must be "),
    (with_options(payment_types=[]), "options.payment_types must have at least one value"),
    (with_options(payment_types=[1, "1"]), "options.payment_types must have "),
    (with_options(payment_types=[3]), "options.payment_types must be one of "),
    (with_options(payment_types=[True]), "options.payment_types must be one of "),
    (with_options(payment_types="1,2"), "options.payment_types must be a list of values"),
    (with_options(email="noura"), "options.email must be "),
    (with_options(language="fr"), "options.language must be one of en, ar"),
    (with_options(description="x" * 1001), "options.description must be 1 to 1000 characters"),
    (with_options(webhook="billhook.test"), "options.webhook must be "),
    (with_options(channel="fax"), "options.channel must be one of sms, whatsapp, email"),
    (with_options(channel="whatsapp"), "options.channel must be sms: "),
    (with_options(channel="email", email="noura@gmail.com"), "options.channel must be sms: "),
    ({**with_options(channel="sms"), "send": False}, "options.channel needs auto_send: "),
    (with_options(AUTOMATIC, channel="email"), "options.email is needed "),
    (with_options(subscription=True), "options.subscription must be an object with type and on_demand"),
    (with_options(subscription={}), "options.subscription.type is needed"),
    (with_options(subscription={"type": "1"}), "options.subscription.on_demand is needed"),
    (with_options(subscription={"type": 1, "on_demand": True}), "options.subscription.type must be one of "),
    (with_options(subscription={"type": "1", "on_demand": 1}), "options.subscription.on_demand must be true or false"),
    (
        with_options(subscription={"type": "1", "on_demand": True, "every": 2}),
        "options.subscription: there is no 'every'; Hesabe takes type, on_demand",
    ),
    ({"options": AUTOMATIC, "monthly": False}, "frequency must be monthly with interval_count 1: "),
    ({"options": ON_DEMAND, "recurrences": None}, "max_occurrences is needed: "),
    ({"options": ON_DEMAND, "recurrences": 0}, "max_occurrences must be a whole number from 1 "),
    ({"marker": "x" * 256}, "marker must be 1 to 255 characters"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_cannot_be_made_is_refused_in_a_sentence_that_begins_with_the_field(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=r"\.$") as refusal:
        check(draft(**changes))

    sentence = str(refusal.value)
    assert sentence.startswith(said)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert sentence.count(". ") == 0


def test_what_is_refused_is_not_sent(scene: Scene) -> None:
    with pytest.raises(ValueError, match="currency"):
        scene.invoicing.create(draft(currency="MAD"))

    assert scene.admin()["invoices"] == []


def number(least: int, most: int, places: int) -> st.SearchStrategy[str]:
    """A decimal as text, with at most so many decimals."""
    return st.decimals(least, most, places=places, allow_nan=False, allow_infinity=False).map(str)


PRICES = st.integers(0, 3).flatmap(lambda places: number(0, 20_000, places)).filter(lambda text: Decimal(text) > 0)
ITEMS = st.lists(
    st.fixed_dictionaries(
        {
            "description": st.text("abc é/", min_size=1, max_size=10).filter(str.strip),
            "quantity": st.integers(1, 9999).map(str),
            "unit_price": PRICES,
        },
        optional={"tax_rate": st.sampled_from(["0", "0.00"])},
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def shared() -> Iterator[HesabeClient]:
    with (
        serving(create_app(clock=NOW, now=NOW.timestamp)) as url,
        HesabeClient(api_key=API_KEY, api_url=url, max_wait=0) as hesabe,
    ):
        yield hesabe


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(items=ITEMS, send=st.booleans())
def test_what_a_draft_comes_to_is_what_is_billed(shared: HesabeClient, items: list[dict[str, str]], send: bool) -> None:
    asked = draft(items=items, send=send)
    check(asked)

    invoice = HesabeInvoicing(shared).create(asked)

    stored = shared.invoices.get(invoice.id)
    assert total_of(asked) == invoice.total == Decimal(stored["amount"])
    assert sum(Decimal(item["amount"]) for item in stored["products"]) == invoice.total


@settings(max_examples=300)
@given(
    items=st.lists(
        st.fixed_dictionaries(
            {"description": st.text(max_size=3), "quantity": number(-2, 10**5, 2), "unit_price": number(-2, 10**10, 5)}
        ),
        max_size=3,
    ),
    given_options=st.dictionaries(
        st.sampled_from([*OPTIONS, "channel", "email", "subscription", "x"]),
        st.none() | st.text(max_size=3) | st.integers() | st.lists(st.integers(0, 3)),
        max_size=3,
    ),
    recurrences=st.none() | st.integers(-1, 5),
)
def test_any_draft_is_taken_or_refused_in_a_sentence(
    items: list[dict[str, str]], given_options: dict[str, Any], recurrences: int | None
) -> None:
    asked = draft(items=items, options={**OPTIONS, **given_options}, recurrences=recurrences)
    try:
        check(asked)
    except ValueError as error:
        assert str(error).endswith(".")  # noqa: PT017 - it may be taken, too
