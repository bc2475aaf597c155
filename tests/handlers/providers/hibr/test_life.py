"""The client against the sandbox, over HTTP on this machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import httpx
import pytest

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers.hibr.client import HibrClient
from handlers.providers.hibr.failures import ERROR_CODES
from handlers.providers.hibr.models import to_amount, to_minor
from handlers.providers.hibr.oauth import HibrOAuth
from handlers.providers.hibr.sandbox import create_app
from handlers.providers.hibr.sandbox.app import CLIENT_ID, CLIENT_SECRET
from handlers.providers.hibr.sandbox.seeds import API_KEY, CUSTOMER
from tests.handlers.providers.hibr.sandboxes import LINE, NOW, SECRET, read, receiving
from tests.handlers.providers.sandbox.served import serving

CALLBACK = "http://127.0.0.1:1/callback"


class Time:
    """The machine's time, for the sandbox; who sleeps moves it."""

    def __init__(self) -> None:
        self.now = NOW
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Lossy(httpx.BaseTransport):
    """Loses the first answers on their way back."""

    def __init__(self, lost: int) -> None:
        self.lost = lost
        self.statuses: list[int] = []
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._inner.handle_request(request)
        self.statuses.append(response.status_code)
        if len(self.statuses) <= self.lost:
            response.close()
            raise httpx.ReadError("connection reset", request=request)
        return response

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def hibr() -> Iterator[HibrClient]:
    with serving(create_app(rate_limit=10_000)) as url, HibrClient(api_key=API_KEY, api_url=url) as client:
        yield client


def test_an_invoice_lives_through_the_client_and_its_payment_is_told() -> None:
    with (
        receiving() as (target, arrived),
        serving(create_app(webhooks=[(target, SECRET)], now=lambda: NOW)) as url,
        HibrClient(api_key=API_KEY, api_url=url) as hibr,
    ):
        draft = hibr.invoices.create(
            customer_id=CUSTOMER,
            invoice_date=date(2026, 10, 15),
            lines=[LINE | {"unit_price": to_minor("2500.00", "AED")}],
            issued_at=datetime(2026, 10, 15, 9, 32, 14, tzinfo=UTC),
        )
        changed = hibr.invoices.update(draft["id"], due_date=date(2026, 11, 14))
        posted = hibr.invoices.action(draft["id"], "post")
        sent = hibr.invoices.action(draft["id"], "send")
        with pytest.raises(ProviderError) as refused:
            hibr.invoices.delete(draft["id"])
        hibr.payments.create(invoice_id=draft["id"], amount=posted["amount_due"], amount_currency="AED")
        paid = hibr.invoices.get(draft["id"])
        found = list(hibr.invoices.list({"status": "paid", "invoice_no": paid["invoice_no"]}))
        webhook = arrived.get(timeout=10)

    assert (draft["status"], draft["issued_at"]) == ("draft", "2026-10-15T09:32:14Z")
    assert changed["due_date"] == "2026-11-14"
    assert (posted["status"], posted["invoice_no"]) == ("open", "INV-2026-001235")
    assert sent["sent_at"] is not None
    assert (refused.value.code, refused.value.status) == ("conflict_error", 409)
    assert refused.value.request_id is not None
    assert (paid["status"], to_amount(paid["total"], paid["total_currency"])) == ("paid", to_amount(525_000, "AED"))
    assert found == [paid]
    event = read(webhook)
    assert (event.type, event.object_id) == ("invoice.paid", draft["id"])
    assert event.data["previous_attributes"]["status"] == "open"
    assert webhook.headers["hibr-webhook-endpoint"].startswith("wh_")


def test_the_client_reads_all_of_120_customers(hibr: HibrClient) -> None:
    ids = [hibr.customers.create(name=f"Customer {number}", group="new")["id"] for number in range(120)]

    listed = [customer["id"] for customer in hibr.customers.list({"group": "new"}, sort="created_at", limit=50)]
    page = hibr.customers.page({"group": "new"})

    assert listed == ids
    assert (len(page.records), page.next_cursor is not None) == (50, True)


def test_a_429_is_waited_out() -> None:
    time = Time()
    with (
        serving(create_app(now=time)) as url,
        HibrClient(api_key=API_KEY, api_url=url, sleep=time.sleep, clock=time) as hibr,
    ):
        time.now += 20
        for _ in range(31):
            hibr.customers.get(CUSTOMER)
        limit = hibr.rate_limit

    assert time.slept == [40.0]
    assert limit is not None
    assert (limit.limit, limit.remaining) == (30, 29)
    assert limit.resets_at == datetime.fromtimestamp(NOW + 120, UTC)


def test_who_does_not_wait_is_told_how_long() -> None:
    with (
        serving(create_app(rate_limit=1, now=lambda: NOW + 45)) as url,
        HibrClient(api_key=API_KEY, api_url=url, max_wait=0) as hibr,
    ):
        hibr.customers.get(CUSTOMER)
        with pytest.raises(ProviderUnavailable) as refused:
            hibr.customers.get(CUSTOMER)

    assert (refused.value.code, refused.value.retry_after) == ("rate_limit_error", 15.0)


def test_a_revoked_key_is_an_authentication_error() -> None:
    with serving(create_app()) as url, httpx.Client(base_url=url) as own:
        made = own.post("/sandbox/keys", json={"scopes": ["read:customers"]}).json()
        with HibrClient(api_key=made["key"], api_url=url) as hibr:
            assert hibr.customers.get(CUSTOMER)["id"] == CUSTOMER
            with pytest.raises(ProviderError) as lacking:
                hibr.customers.create(name="A")
            own.delete(f"/sandbox/keys/{made['id']}")
            with pytest.raises(ProviderError) as refused:
                hibr.customers.get(CUSTOMER)

    assert (lacking.value.code, lacking.value.status) == ("permission_error", 403)
    assert (refused.value.code, refused.value.status) == ("authentication_error", 401)
    assert made["key"] not in str(refused.value)


@pytest.mark.parametrize("lost", [1, 2])
def test_a_creation_whose_answer_was_lost_is_done_once(lost: int) -> None:
    lossy = Lossy(lost)
    with (
        serving(create_app()) as url,
        HibrClient(api_key=API_KEY, api_url=url, transport=lossy, sleep=lambda _: None) as hibr,
    ):
        made = hibr.customers.create(name="Palm Grove")
        found = [customer["id"] for customer in hibr.customers.list({"name": "Palm Grove"})]

    assert found == [made["id"]]
    assert lossy.statuses == [200] * (lost + 2)


def test_a_creation_can_be_asked_for_again_after_a_crash(hibr: HibrClient) -> None:
    first = hibr.customers.create(name="Palm Grove", idempotency_key="occ_1")
    again = hibr.customers.create(name="Palm Grove", idempotency_key="occ_1")
    with pytest.raises(ProviderError) as refused:
        hibr.customers.create(name="Other", idempotency_key="occ_1")

    assert first == again
    assert refused.value.code == "conflict_error"


def test_the_flow_of_oauth_goes_from_end_to_end() -> None:
    time = Time()
    with (
        serving(create_app(now=time)) as url,
        HibrOAuth(
            client_id=CLIENT_ID,
            client_secret=CLIENT_SECRET,
            redirect_uri=CALLBACK,
            app_url=url,
            api_url=url,
            now=lambda: datetime.fromtimestamp(time.now, UTC),
        ) as oauth,
    ):
        authorization = oauth.authorize(["read:invoices", "read:customers"])
        tokens = oauth.exchange(authorization, approved(authorization.url, url))
        with HibrClient(api_key=tokens.access_token, api_url=url) as hibr:
            assert hibr.customers.get(CUSTOMER)["id"] == CUSTOMER
            with pytest.raises(ProviderError, match="write:customers"):
                hibr.customers.create(name="A")
        told = oauth.introspect(tokens.access_token)
        time.now += 3600
        assert tokens.expired(datetime.fromtimestamp(time.now, UTC))
        renewed = oauth.refresh(tokens)
        with HibrClient(api_key=renewed.access_token, api_url=url) as hibr:
            assert hibr.customers.get(CUSTOMER)["id"] == CUSTOMER
        assert renewed.refresh_token is not None
        oauth.revoke(renewed.refresh_token)
        ended = oauth.introspect(renewed.access_token)
        with pytest.raises(ProviderError) as refused:
            oauth.refresh(renewed)

    assert (told.active, told.scope) == (True, "read:invoices read:customers")
    assert told.expires_at == datetime.fromtimestamp(NOW + 3600, UTC)
    assert ended.active is False
    assert refused.value.code == "invalid_grant"


def approved(address: str, url: str) -> str:
    """Press Approve, as a browser would; where it is sent then."""
    with httpx.Client(base_url=url) as browser:
        page = browser.get(address)
        fields: dict[str, Any] = dict(re.findall(r'name="([^"]*)" value="([^"]*)"', page.text))
        answer = browser.post("/oauth/authorize", data=fields | {"decision": "approve"})
    return str(answer.headers["location"])


def test_errors_reach_the_caller_by_their_documented_codes(hibr: HibrClient) -> None:
    draft = hibr.invoices.create(customer_id=CUSTOMER, lines=[LINE])
    calls: dict[str, Callable[[], object]] = {
        "invalid_request_error": lambda: hibr.invoices.create(customer_id=CUSTOMER, lines=[]),
        "not_found": lambda: hibr.invoices.get("inv_none"),
        "conflict_error": lambda: hibr.invoices.action(draft["id"], "send"),
        "validation_error": lambda: hibr.invoices.create(customer_id="cust_none", lines=[LINE]),
    }
    for code, call in calls.items():
        with pytest.raises(ProviderError) as refused:
            call()
        assert (refused.value.code, refused.value.status) == (code, ERROR_CODES[code])
