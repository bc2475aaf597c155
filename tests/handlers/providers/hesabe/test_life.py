"""The client against the sandbox, on real sockets: an invoice's whole life, and what goes wrong on its way."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest

from handlers.errors import ProviderError, ProviderUnavailable, VerificationError
from handlers.event import Event
from handlers.providers import PROVIDERS
from handlers.providers.hesabe import webhook
from handlers.providers.hesabe.client import HesabeClient
from handlers.providers.hesabe.models import (
    InvoiceSubType,
    InvoiceType,
    Item,
    PaymentType,
    RefundMethod,
    SingleInvoice,
    SubscriptionInvoice,
    SubscriptionType,
)
from handlers.providers.hesabe.sandbox import create_app
from tests.handlers.providers.hesabe.server import ACCESS_CODE, API_KEY, IV_KEY, SECRET_KEY
from tests.handlers.providers.hesabe.test_sandbox import NOW, VECTORS, opened
from tests.handlers.providers.sandbox.served import serving


class Wall:
    """A clock that is set by hand: monotonic for the client, Unix seconds for the sandbox."""

    def __init__(self, start: float = 0.0) -> None:
        self.now = start

    def __call__(self) -> float:
        return self.now


class Endpoint:
    """Keeps what arrives."""

    def __init__(self) -> None:
        self.arrived: queue.Queue[tuple[list[tuple[bytes, bytes]], bytes]] = queue.Queue()
        self.url = ""

    def event(self) -> Event:
        """The next webhook, as the receiver reads it."""
        headers, body = self.arrived.get(timeout=20)
        return webhook.parse(headers, body)


@contextlib.contextmanager
def receiving() -> Iterator[Endpoint]:
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
            endpoint.arrived.put((headers, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            endpoint.url = f"http://127.0.0.1:{server.server_port}/webhooks/pay/a-long-random-word"
            yield endpoint
        finally:
            server.shutdown()
            thread.join(10)


@dataclass
class Scene:
    """A merchant, its client and its endpoint, and the sandbox they live with."""

    url: str
    hesabe: HesabeClient
    endpoint: Endpoint
    wall: Wall
    monotonic: Wall
    made: list[dict[str, Any]] = field(default_factory=list)

    def create(self, **changes: Any) -> dict[str, Any]:
        options: dict[str, Any] = {
            "mobile_number": "66666666",
            "customer_name": "TEST",
            "reference_number": "12349899",
            "amount": Decimal("20.000"),
            "invoice_type": InvoiceType.SMS,
            "invoice_sub_type": InvoiceSubType.URL,
            "payment_types": [PaymentType.KNET, PaymentType.MPGS],
            "expires_at": "2025-12-12",
            "webhook": self.endpoint.url,
        }
        return self.hesabe.invoices.create(SingleInvoice(**(options | changes)))

    def pay(self, invoice: dict[str, Any], outcome: str = "pay") -> None:
        answer = httpx.post(invoice["url"], data={"outcome": outcome}, follow_redirects=True)
        assert answer.status_code == 200, answer.text

    def admin(self, path: str, **body: Any) -> dict[str, Any]:
        answer = httpx.post(f"{self.url}/sandbox{path}", json=body)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def clear_faults(self) -> None:
        assert httpx.delete(f"{self.url}/sandbox/faults").is_success


@pytest.fixture
def scene() -> Iterator[Scene]:
    wall, monotonic = Wall(NOW.timestamp()), Wall()
    with (
        receiving() as endpoint,
        serving(create_app(clock=NOW, now=wall)) as url,
        HesabeClient(api_key=API_KEY, api_url=url, clock=monotonic, sleep=lambda seconds: None) as hesabe,
    ):
        yield Scene(url, hesabe, endpoint, wall, monotonic)


def test_an_invoice_is_made_paid_told_confirmed_and_refunded(scene: Scene) -> None:
    item = Item(title="Iphone", rate="10.000", quantity=2, amount="20.000")
    invoice = scene.create(items=[item], customer_name="أحمد", description="Invoice / testing")
    assert (invoice["invoice_status"], invoice["transaction"]) == (None, None)
    assert invoice["url"] == f"{scene.url}/s/{invoice['access_key']}"
    assert invoice["customer"]["name"] == "أحمد"

    scene.pay(invoice)

    event = scene.endpoint.event()
    confirm = PROVIDERS["hesabe"].inbound({}).confirm
    assert confirm is not None
    confirm(scene.hesabe, event)
    assert event.type == "transaction.successful"
    assert event.occurred_at == NOW
    assert (event.data["reference_number"], event.data["amount"]) == ("12349899", "20.000")
    paid = scene.hesabe.invoices.get(invoice["id"])
    assert (paid["invoice_status"], paid["transaction"]["token"]) == (1, event.object_id)
    assert paid["transaction"]["net_amount"] == Decimal("19.9")

    token = str(event.object_id)
    refund = scene.hesabe.refunds.create(token=token, amount="20.000", method=RefundMethod.FULL)
    assert (refund["status"], refund["refund_status"]) == (0, "PENDING")
    scene.admin("/clock", advance="1h")
    assert scene.hesabe.refunds.get(refund["id"])["status"] == 1
    refunded = scene.endpoint.event()
    webhook.confirm(scene.hesabe, refunded)
    assert (refunded.type, refunded.object_id) == ("transaction.refunded", token)
    with pytest.raises(VerificationError, match="status"):
        webhook.confirm(scene.hesabe, event)


def test_a_failed_payment_is_told_and_the_next_one_under_a_token_of_its_own(scene: Scene) -> None:
    invoice = scene.create()
    scene.pay(invoice, "fail")
    scene.pay(invoice)

    failed, successful = scene.endpoint.event(), scene.endpoint.event()

    for event in (failed, successful):
        webhook.confirm(scene.hesabe, event)
    assert (failed.type, successful.type) == ("transaction.failed", "transaction.successful")
    assert failed.key != successful.key
    attempts = scene.hesabe.transactions.find("12349899")
    assert [one["token"] for one in attempts] == [failed.object_id, successful.object_id]


def test_an_authorized_payment_is_told_and_confirmed(scene: Scene) -> None:
    scene.pay(scene.create(), "authorize")

    event = scene.endpoint.event()

    webhook.confirm(scene.hesabe, event)
    assert event.type == "transaction.authorized"


def test_an_invoice_is_sent_again_and_cancelled(scene: Scene) -> None:
    invoice = scene.create()

    assert scene.hesabe.invoices.resend(invoice["id"], mobile_number="66666666")["id"] == invoice["id"]
    scene.hesabe.invoices.cancel(invoice["token"])

    assert scene.hesabe.invoices.get(invoice["id"])["invoice_status"] == 3
    assert httpx.post(invoice["url"], data={"outcome": "pay"}).status_code == 409
    with pytest.raises(ProviderError, match="Invoice status update failed"):
        scene.hesabe.invoices.cancel(invoice["token"])


def test_a_partial_refund_can_be_taken_back(scene: Scene) -> None:
    scene.pay(scene.create())
    token = str(scene.endpoint.event().object_id)

    refund = scene.hesabe.refunds.create(token=token, amount="5.000", method=RefundMethod.PARTIAL)
    scene.hesabe.refunds.cancel(refund["id"])

    with pytest.raises(ProviderError) as gone:
        scene.hesabe.refunds.get(refund["id"])
    assert gone.value.code == "NOT_FOUND"


def recurring(scene: Scene, kind: SubscriptionType) -> dict[str, Any]:
    return scene.hesabe.invoices.create_subscription(
        SubscriptionInvoice(
            mobile_number="66666666",
            customer_name="TEST",
            reference_number="1234",
            amount="9.900",
            country_code="+965",
            invoice_type=InvoiceType.URL,
            invoice_sub_type=InvoiceSubType.EMAIL,
            customer_email="test@gmail.com",
            payment_types=[PaymentType.KNET, PaymentType.MPGS],
            expires_at="2025-12-12",
            webhook=scene.endpoint.url,
            subscription_type=kind,
            recurrences=12,
            start_date="2025-10-31",
        )
    )


def test_a_subscription_is_captured_for_a_year_by_the_clock(scene: Scene) -> None:
    invoice = recurring(scene, SubscriptionType.ZERO)
    scene.pay(invoice)
    consent = scene.endpoint.event()

    assert scene.admin("/clock", advance="365d")["fell_due"] == 12

    events = [scene.endpoint.event() for _ in range(12)]
    for event in (consent, *events):
        webhook.confirm(scene.hesabe, event)
    assert consent.type == "transaction.authorized"
    assert {event.type for event in events} == {"transaction.successful"}
    assert len({event.key for event in events}) == 12
    days = sorted(event.data["datetime"][:10] for event in events)
    assert (days[0], days[4], days[-1]) == ("2025-10-31", "2026-02-28", "2026-09-30")
    assert scene.endpoint.arrived.empty()
    assert scene.hesabe.invoices.get(invoice["id"])["invoice_status"] == 1


def test_a_subscription_on_demand_is_captured_and_ended(scene: Scene) -> None:
    scene.pay(recurring(scene, SubscriptionType.ONE))
    token = str(scene.endpoint.event().object_id)

    captured = scene.hesabe.subscriptions.capture(token=token, amount="3.250", reference_number="month-1")
    event = scene.endpoint.event()
    scene.hesabe.subscriptions.cancel(token)

    webhook.confirm(scene.hesabe, event)
    assert (captured["status"], captured["amount"], captured["token"]) == ("SUCCESSFUL", "3.250", event.object_id)
    with pytest.raises(ProviderError) as refused:
        scene.hesabe.subscriptions.capture(token=token, amount="3.250", reference_number="month-2")
    assert refused.value.code == "INVALID_PAYMENT_TOKEN"
    with pytest.raises(ProviderError) as ended:
        scene.hesabe.subscriptions.cancel(token)
    assert ended.value.code == "HESABE_400"


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"amount": "2000.000"}, "amount"),
        ({"status": "AUTHORIZED"}, "status"),
        ({"reference_number": "1"}, "reference_number"),
        ({"token": "84221717595666339677489123456"}, "knows no transaction"),
    ],
)
def test_a_webhook_that_lies_is_refused(scene: Scene, lie: dict[str, str], said: str) -> None:
    scene.admin("/lies", **lie)
    scene.pay(scene.create())

    event = scene.endpoint.event()

    with pytest.raises(VerificationError, match=said):
        webhook.confirm(scene.hesabe, event)


def test_while_the_enquiry_is_down_nothing_is_decided(scene: Scene) -> None:
    scene.pay(scene.create())
    event = scene.endpoint.event()

    for kind in ("error", "too_many", "error_after"):
        scene.admin("/faults", kind=kind, times=None, match="GET /api/transaction/*")
        with pytest.raises(ProviderUnavailable):
            webhook.confirm(scene.hesabe, event)
        scene.clear_faults()

    webhook.confirm(scene.hesabe, event)


def test_a_duplicate_is_the_same_event(scene: Scene) -> None:
    scene.admin("/faults", kind="duplicate_other_id")
    scene.pay(scene.create())

    first, second = scene.endpoint.event(), scene.endpoint.event()

    assert first.key == second.key


def test_the_client_renews_its_token_before_it_ends_and_after_it_was_ended(scene: Scene) -> None:
    invoice = scene.create()
    for passed in (800.0, 880.0, 2000.0, 4000.0):
        scene.monotonic.now, scene.wall.now = passed, NOW.timestamp() + passed
        assert scene.hesabe.invoices.get(invoice["id"])["id"] == invoice["id"]

    scene.admin("/tokens")

    assert scene.hesabe.invoices.get(invoice["id"])["id"] == invoice["id"]


def test_a_token_that_ended_unnoticed_is_renewed_and_the_invoice_made_once(scene: Scene) -> None:
    first = scene.create()
    scene.wall.now += 901

    second = scene.create()

    assert second["id"] == first["id"] + 1


@pytest.mark.parametrize(
    ("right", "wrong", "code"),
    [
        (SECRET_KEY, "a" * 32, "INVALID_REQUEST_DATA"),
        (IV_KEY, "a" * 16, "INVALID_REQUEST_DATA"),
        (ACCESS_CODE, "c333729b", "UNAUTHORIZED"),
        ("842217", "842218", "INVALID_MERCHANT"),
        ("Test@1234", "test", "UNAUTHORIZED"),
    ],
)
def test_wrong_credentials_are_refused_by_what_is_wrong(scene: Scene, right: str, wrong: str, code: str) -> None:
    # the IV key is a part of the secret key: only a whole part of the credentials is changed
    api_key = ":".join(wrong if part == right else part for part in API_KEY.split(":"))
    with (
        HesabeClient(api_key=api_key, api_url=scene.url, sleep=lambda seconds: None) as hesabe,
        pytest.raises(ProviderError) as refused,
    ):
        hesabe.invoices.get(14685)

    assert not isinstance(refused.value, ProviderUnavailable)
    assert refused.value.code == code


def test_a_lost_answer_leaves_the_invoice_made(scene: Scene) -> None:
    scene.admin("/faults", kind="error_after", match="POST /api/v1/invoice")

    with pytest.raises(ProviderUnavailable):
        scene.create()

    assert scene.hesabe.invoices.get(14685)["reference_number"] == "12349899"


def test_what_the_sandbox_refuses_is_no_outage_for_the_client(scene: Scene) -> None:
    with pytest.raises(ProviderError) as missing:
        scene.hesabe.invoices.get(1)
    with pytest.raises(ProviderError) as unknown:
        scene.hesabe.transactions.get("84221716951937729753667644493")

    assert [error.value.code for error in (missing, unknown)] == ["NOT_FOUND", "NOT_FOUND"]
    assert not isinstance(missing.value, ProviderUnavailable)


def test_the_documented_call_runs_as_it_is_printed() -> None:
    headers = {"Content-Type": "application/json", "accessCode": ACCESS_CODE, "Accept": "application/json"}
    hidden = VECTORS["single-invoice request"]["ciphertext"]

    with serving(create_app(login_required=False)) as url:
        answer = httpx.post(f"{url}/api/v1/invoice", headers=headers, content=f'{{  "data": "{hidden}"}}')

    invoice = opened(answer)["response"]
    assert (invoice["reference_number"], invoice["amount"]) == ("12349899", "20.000")
    assert invoice["url"] == f"{url}/s/{invoice['access_key']}"
