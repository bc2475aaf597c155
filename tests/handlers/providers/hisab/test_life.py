"""The client against the sandbox, over HTTP on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import httpx
import pytest

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers import PROVIDERS
from handlers.providers.hisab.client import HisabClient
from handlers.providers.hisab.sandbox import create_app
from tests.handlers.providers.sandbox.served import Sink, receiving, serving

NOW = 1_780_668_000.0
SECRET = "whsec_test_secret_key_123456"
ITEM = {"description": "Integration services", "quantity": 8, "unit_price": 1300, "tax_rate": 20}


class Time:
    """The machine's time, for the sandbox and for the client; who sleeps moves it."""

    def __init__(self) -> None:
        self.now = NOW
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def sink() -> Iterator[Sink]:
    with receiving() as sink:
        yield sink


@pytest.fixture
def url(sink: Sink, time: Time) -> Iterator[str]:
    """The sandbox's address; its webhooks go to the sink."""
    with serving(create_app(webhook_url=sink.url, secret=SECRET, rate_limit=1_000, now=time)) as url:
        yield url


@pytest.fixture
def hisab(url: str, time: Time) -> Iterator[HisabClient]:
    with client(url, time) as hisab:
        yield hisab


def client(url: str, time: Time, key: str = "hisab_live_***", **options: Any) -> HisabClient:
    return HisabClient(api_key=key, api_url=f"{url}/api/v1", sleep=time.sleep, clock=time, **options)


def ask(url: str, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    answer = httpx.request(method, f"{url}/sandbox{path}", json=body, trust_env=False)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


def test_the_whole_life_of_an_invoice_is_told_by_signed_webhooks(hisab: HisabClient, sink: Sink) -> None:
    customer = hisab.customers.create(name="MERIT Sarl", type="b2b", ice="001234567000089")
    draft = hisab.invoices.create(customer_id=customer["id"], issue_date=date(2026, 6, 5), items=[ITEM])
    hisab.invoices.update(draft["id"], due_date="2026-08-05")
    finalized = hisab.invoices.finalize(draft["id"])
    hisab.invoices.send(draft["id"])
    paid = hisab.invoices.pay(draft["id"], payment_method="bank_transfer", payment_reference="VIR-20260605")

    assert (draft["status"], draft["total"], draft["invoice_number"]) == ("draft", "12480.00", None)
    assert finalized["invoice_number"].startswith("FAC-2026-")
    assert (paid["status"], paid["due_date"]) == ("paid", "2026-08-05")
    assert hisab.invoices.pdf(draft["id"], locale="ar").startswith(b"%PDF")
    assert b"Invoice-2" in hisab.invoices.xml(draft["id"])
    inbound = PROVIDERS["hisab"].inbound({})
    events = []
    for arrived in sink.take(6):
        inbound.verify(arrived.wire, arrived.body, [SECRET.encode()], NOW)
        events.append(inbound.parse(arrived.wire, arrived.body))
    assert [event.type for event in events] == [
        "customer.created",
        *(f"invoice.{word}" for word in ("created", "updated", "finalized", "sent", "paid")),
    ]
    assert events[-1].invoice.number == finalized["invoice_number"]


def test_what_the_state_of_an_invoice_forbids_is_refused_by_its_code(hisab: HisabClient) -> None:
    invoice = hisab.invoices.create(customer_id="cus_2b81fe", issue_date="2026-06-05", items=[ITEM])["id"]
    with pytest.raises(ProviderError) as early:
        hisab.invoices.pdf(invoice)
    hisab.invoices.finalize(invoice)
    hisab.invoices.pay(invoice)

    codes = [early.value.code]
    calls: list[Callable[[], object]] = [
        lambda: hisab.invoices.update(invoice, notes="late"),
        lambda: hisab.invoices.finalize(invoice),
        lambda: hisab.invoices.void(invoice, reason="Duplicate billing"),
        lambda: hisab.invoices.get("inv_unknown"),
    ]
    for call in calls:
        with pytest.raises(ProviderError) as refused:
            call()
        codes.append(refused.value.code)

    assert codes == ["PDF_NOT_AVAILABLE", "INVOICE_NOT_EDITABLE", "INVOICE_NOT_DRAFT", "CANNOT_VOID_PAID", "NOT_FOUND"]


def test_every_one_of_250_customers_is_listed_once(hisab: HisabClient) -> None:
    made = {hisab.customers.create(name=f"Customer {number}", type="b2c")["id"] for number in range(250)}

    listed = [customer["id"] for customer in hisab.customers.list(search="Customer ")]

    assert len(listed) == 250
    assert set(listed) == made


def test_a_limit_is_waited_out(sink: Sink, time: Time) -> None:
    with serving(create_app(rate_limit=3, now=time)) as url, client(url, time) as hisab:
        statuses = [hisab.invoices.list(status="paid") for _ in range(5)]
        found = [list(pages) for pages in statuses]

    assert found == [[]] * 5
    assert 0 < sum(time.slept) <= 61


def test_without_waiting_a_limit_is_an_error_that_says_how_long(time: Time) -> None:
    with serving(create_app(rate_limit=1, now=time)) as url, client(url, time, max_wait=0) as hisab:
        hisab.organization.get()
        with pytest.raises(ProviderUnavailable) as refused:
            hisab.organization.get()

    assert (refused.value.code, refused.value.status) == ("RATE_LIMIT_EXCEEDED", 429)
    assert refused.value.retry_after is not None and 0 < refused.value.retry_after <= 60  # noqa: PT018 - for the type
    assert time.slept == []


def test_a_revoked_key_opens_nothing(url: str, time: Time) -> None:
    made = ask(url, "POST", "/keys", {"kind": "live"})
    with client(url, time, made["key"]) as hisab:
        hisab.organization.get()
        ask(url, "DELETE", f"/keys/{made['id']}")
        with pytest.raises(ProviderError) as refused:
            hisab.organization.get()

    assert (refused.value.code, refused.value.status) == ("UNAUTHORIZED", 401)


def test_an_archived_organization_is_frozen_until_it_is_restored(url: str, time: Time) -> None:
    with client(url, time, "hisab_acct_***") as account:
        branch = account.organizations.create(legal_name="Filiale Casablanca SARL", ice="002345678000071")["id"]
        entity = account.for_organization(branch)
        entity.customers.create(name="Atlas", type="b2c")
        account.organizations.archive(branch)
        with pytest.raises(ProviderError):
            entity.customers.create(name="Rif", type="b2c")
        assert branch not in {one["id"] for one in account.organizations.list()}
        account.organizations.restore(branch)

        assert [customer["name"] for customer in entity.customers.list()] == ["Atlas"]


def test_a_schedule_is_driven_through_a_year(url: str, hisab: HisabClient) -> None:
    schedule = hisab.recurring_invoices.create(
        customer_id="cus_2b81fe", frequency="monthly", start_date="2026-07-01", auto_finalize=True, items=[ITEM]
    )["id"]

    ask(url, "POST", "/clock", {"to": "2027-06-30"})

    history = hisab.recurring_invoices.history(schedule, limit=100)
    assert sorted(entry["scheduled_date"] for entry in history) == [
        *(f"2026-{month:02d}-01" for month in range(7, 13)),
        *(f"2027-{month:02d}-01" for month in range(1, 7)),
    ]
    assert {entry["status"] for entry in history} == {"success"}
