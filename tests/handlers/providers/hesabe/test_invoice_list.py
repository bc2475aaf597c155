"""The list of invoices: how the client reads it, page by page, and what the sandbox shows."""

from __future__ import annotations

from datetime import date
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers.hesabe.client import HesabeClient
from handlers.providers.hesabe.models import InvoiceKind
from tests.handlers.providers.hesabe.server import (
    ACCESS_CODE,
    API_KEY,
    MERCHANT_CODE,
    Answer,
    Hesabe,
    Received,
    encrypted,
    ok,
    opened,
    refused,
    serving,
)
from tests.handlers.providers.hesabe.test_sandbox import INVALID, SUBSCRIPTION, VECTORS, Sandbox
from tests.handlers.providers.hesabe.test_sandbox import opened as read
from tests.handlers.providers.sandbox.served import serving as sandbox_serving

PATH = "/api/v1/invoice-dashboard"
CALL = f"GET {PATH}"
OCTOBER: dict[str, Any] = {"from_date": "2025-10-01", "to_date": date(2025, 10, 31), "invoice_type": InvoiceKind.SINGLE}
QUERY = {"fromDate": "2025-01-01", "toDate": "2025-12-31", "page": "1", "invoiceType": "1"}
PRINTED = f"{PATH}?fromDate=2025-01-01&toDate=2025-12-31&page=1&search=string&invoiceType=1&data="
"""The call that the page "Invoice list" prints."""
COLUMNS = [
    *("id", "invoice_type", "invoice_sub_type", "order_drop_id", "token", "access_key", "split_access_key"),
    *("merchant_id", "reference_number", "amount", "admin_charge", "service_charge", "subscription", "discount"),
    *("description", "sms_response", "invoice_status"),
]
"""Those of an invoice in its sample, as far as it can be read."""
NOTHING = {"total_invoice_count": 0, "invoice_paid": None, "invoice_not_paid": None, "invoice_cancelled": None}


def client_of(hesabe: Hesabe) -> HesabeClient:
    return HesabeClient(api_key=API_KEY, api_url=hesabe.url, max_wait=0)


def query_of(request: Received) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(request.path).query))


def page_of(ids: list[int]) -> Answer:
    return encrypted(ok({"stats": {}, "invoices": {"data": [{"id": one} for one in ids], "pagination": {}}}))


def pages(*listed: list[int]) -> Any:
    """Answers with the page that is asked for; with the last one where there is none."""
    return lambda request: page_of(listed[min(int(query_of(request)["page"]), len(listed)) - 1])


def test_the_list_is_asked_for_in_the_clear_beside_the_encrypted_merchant() -> None:
    with serving({CALL: pages([])}) as hesabe, client_of(hesabe) as client:
        assert list(client.invoices.list(**OCTOBER, search="a b&c=é")) == []

    (request,) = [one for one in hesabe.received if one.call in hesabe.calls]
    query = query_of(request)
    assert opened(query.pop("data")) == {"merchantCode": MERCHANT_CODE}
    assert query == {
        "fromDate": "2025-10-01",
        "toDate": "2025-10-31",
        "search": "a b&c=é",
        "invoiceType": "1",
        "page": "1",
    }
    assert (request.headers["accesscode"], request.headers["authorization"]) == (ACCESS_CODE, "Bearer access-1")
    assert request.body == b""


def test_without_a_search_none_is_sent() -> None:
    with serving({CALL: pages([])}) as hesabe, client_of(hesabe) as client:
        assert list(client.invoices.list(**OCTOBER)) == []

    assert "search" not in query_of(hesabe.received[-1])


def test_page_after_page_is_read_until_one_is_empty() -> None:
    with serving({CALL: pages([5, 4], [3, 2], [1], [])}) as hesabe, client_of(hesabe) as client:
        assert [one["id"] for one in client.invoices.list(**OCTOBER)] == [5, 4, 3, 2, 1]

    assert hesabe.calls == [CALL] * 4


def test_a_page_is_asked_for_when_it_is_needed() -> None:
    with serving({CALL: pages([5, 4], [3, 2], [])}) as hesabe, client_of(hesabe) as client:
        listed = client.invoices.list(**OCTOBER)
        assert hesabe.calls == []

        assert [next(listed)["id"], next(listed)["id"]] == [5, 4]
        assert len(hesabe.calls) == 1

        assert next(listed)["id"] == 3
        assert len(hesabe.calls) == 2


def test_a_list_that_says_the_same_again_has_an_end() -> None:
    with serving({CALL: pages([3, 2], [1])}) as hesabe, client_of(hesabe) as client:
        assert [one["id"] for one in client.invoices.list(**OCTOBER)] == [3, 2, 1]

    assert len(hesabe.calls) == 3


@pytest.mark.parametrize(
    "about",
    [None, [], {}, {"invoices": None}, {"invoices": {}}, {"invoices": {"data": {}}}, {"invoices": {"data": [1]}}],
)
def test_an_answer_without_a_list_is_an_outage(about: Any) -> None:
    with (
        serving({CALL: lambda _: encrypted(ok(about))}) as hesabe,
        client_of(hesabe) as client,
        pytest.raises(ProviderUnavailable, match="BAD_ANSWER"),
    ):
        list(client.invoices.list(**OCTOBER))


def test_a_refusal_is_an_error() -> None:
    with (
        serving({CALL: lambda _: refused(506, "Invalid Request Data", 506)}) as hesabe,
        client_of(hesabe) as client,
        pytest.raises(ProviderError, match="INVALID_REQUEST_DATA"),
    ):
        list(client.invoices.list(**OCTOBER))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"from_date": "01.10.2025"}, "fromDate"),
        ({"to_date": "2025-02-30"}, "toDate"),
        ({"search": " "}, "search"),
        ({"search": "a\x00"}, "search"),
        ({"invoice_type": "2"}, "invoiceType"),
    ],
)
def test_what_the_page_does_not_allow_is_refused_before_anything_is_sent(change: dict[str, Any], said: str) -> None:
    with serving() as hesabe, client_of(hesabe) as client, pytest.raises(ValueError, match=said):
        client.invoices.list(**(OCTOBER | change))

    assert hesabe.received == []


def listed(sandbox: Sandbox, **changes: str | None) -> dict[str, Any]:
    """What the sandbox answers; a parameter that is None is left out."""
    query = {name: value for name, value in (QUERY | changes).items() if value is not None}
    params = query | {"data": Sandbox.hidden(merchantCode=MERCHANT_CODE)}
    answer = read(sandbox.send("GET", PATH, headers=sandbox.headers, params=params))
    assert (answer["status"], answer["message"]) == (True, "Invoice Dashboard")
    found: dict[str, Any] = answer["response"]
    return found


def ids(sandbox: Sandbox, **changes: str | None) -> list[int]:
    return [one["id"] for one in listed(sandbox, **changes)["invoices"]["data"]]


def recurring(sandbox: Sandbox) -> dict[str, Any]:
    found: dict[str, Any] = read(sandbox.call("POST", "/api/v1/invoice/", **SUBSCRIPTION))["response"]
    return found


def test_the_printed_call_runs_as_it_is() -> None:
    url = PRINTED + VECTORS["merchantCode only"]["ciphertext"]
    headers = {"accessCode": ACCESS_CODE, "Accept": "application/json", "Content-Type": "application/json"}

    answer = Sandbox(login_required=False).send("GET", url, headers=headers)

    assert url.endswith("data=0e7898bd7464d0c402fe8a949d9cbf9b826ccb9b83b56fa003373275f1947a65")
    assert read(answer)["response"] == {
        "stats": NOTHING,
        "order_stats": NOTHING,
        "invoices": {"data": [], "pagination": {}},
    }


def test_an_invoice_is_shown_as_in_the_sample() -> None:
    sandbox = Sandbox()
    created = sandbox.create()

    found = listed(sandbox)

    (shown,) = found["invoices"]["data"]
    assert list(shown) == COLUMNS
    assert {name: shown[name] for name in ("id", "token", "reference_number", "amount")} == {
        name: created[name] for name in ("id", "token", "reference_number", "amount")
    }
    assert (shown["invoice_type"], shown["invoice_sub_type"], shown["subscription"]) == (1, 3, 0)
    assert (shown["merchant_id"], shown["invoice_status"]) == ("84", 0)
    assert found["order_stats"] == NOTHING


def test_what_is_paid_and_what_is_cancelled_is_counted_as_text() -> None:
    sandbox = Sandbox()
    paid, cancelled, _, _ = (sandbox.create() for _ in range(4))
    sandbox.pay(paid)
    assert sandbox.call("PUT", f"/api/v1/invoice/{cancelled['token']}", statusId="3").is_success

    found = listed(sandbox)

    assert found["stats"] == {
        "total_invoice_count": 4,
        "invoice_paid": "1",
        "invoice_not_paid": "2",
        "invoice_cancelled": "1",
    }
    assert [one["invoice_status"] for one in found["invoices"]["data"]] == [0, 0, 3, 1]


def test_a_page_has_ten_and_the_newest_first() -> None:
    sandbox = Sandbox()
    made = [sandbox.create()["id"] for _ in range(12)]

    assert ids(sandbox) == made[:1:-1]
    assert ids(sandbox, page="2") == made[1::-1]
    assert ids(sandbox, page="3") == []
    assert listed(sandbox, page="2")["stats"]["total_invoice_count"] == 12


def test_each_kind_has_a_list_of_its_own() -> None:
    sandbox = Sandbox()
    single, subscription = sandbox.create()["id"], recurring(sandbox)["id"]

    assert [ids(sandbox, invoiceType=kind) for kind in InvoiceKind] == [[subscription], [single], [], []]
    assert listed(sandbox, invoiceType="0")["invoices"]["data"][0]["subscription"] == 1


def test_a_search_looks_into_token_reference_number_and_name() -> None:
    sandbox = Sandbox()
    first = sandbox.create(referenceNumber="billhook:occ_1", customerName="Noura")
    sandbox.create(referenceNumber="billhook:occX1", customerName="Fahad")

    for wanted in (first["token"], first["token"][4:], "billhook:occ_1", "hook:occ_", "Nour"):
        assert ids(sandbox, search=wanted) == [first["id"]]
    assert len(ids(sandbox, search="billhook:occ")) == 2
    assert len(ids(sandbox, search="")) == 2
    assert ids(sandbox, search="nobody") == []


def test_days_are_those_of_creation_in_kuwait() -> None:
    sandbox = Sandbox()
    evening = sandbox.create()["id"]
    sandbox.admin("POST", "/clock", to="2025-10-05T21:00:00Z")
    next_day = sandbox.create()["id"]

    assert ids(sandbox, fromDate="2025-10-05", toDate="2025-10-05") == [evening]
    assert ids(sandbox, fromDate="2025-10-06", toDate="2025-10-06") == [next_day]
    assert ids(sandbox, fromDate="2025-10-05", toDate="2025-10-06") == [next_day, evening]
    assert ids(sandbox, fromDate="2025-10-07") == []


def test_nobody_sees_the_invoices_of_another() -> None:
    sandbox = Sandbox()
    sandbox.create()
    api_key = sandbox.admin("POST", "/keys")["key"]

    with (
        sandbox_serving(sandbox.app) as url,
        HesabeClient(api_key=api_key, api_url=url) as other,
        HesabeClient(api_key=API_KEY, api_url=url) as ours,
    ):
        assert list(other.invoices.list(**OCTOBER)) == []
        assert len(list(ours.invoices.list(**OCTOBER))) == 1


@pytest.mark.parametrize(
    "change",
    [
        *({name: None} for name in QUERY),
        {"fromDate": "2025-1-1"},
        {"toDate": "tomorrow"},
        {"page": "0"},
        {"page": "one"},
        {"invoiceType": "2"},
    ],
)
def test_the_sandbox_refuses_a_list_that_is_asked_for_wrongly(change: dict[str, str | None]) -> None:
    query = {name: value for name, value in (QUERY | change).items() if value is not None}
    sandbox = Sandbox()

    params = query | {"data": Sandbox.hidden(merchantCode=MERCHANT_CODE)}
    answer = sandbox.send("GET", PATH, headers=sandbox.headers, params=params)

    assert (answer.status_code, answer.json()) == (506, INVALID)
    assert next(iter(change)) in answer.headers["x-sandbox-reason"]


def test_the_client_reads_many_pages_of_the_sandbox() -> None:
    sandbox = Sandbox()
    made = [sandbox.create(referenceNumber=f"bill-{number:02}")["id"] for number in range(23)]

    with sandbox_serving(sandbox.app) as url, HesabeClient(api_key=API_KEY, api_url=url) as client:
        everyone = list(client.invoices.list(**OCTOBER))
        some = list(client.invoices.list(**OCTOBER, search="bill-1"))

    assert [one["id"] for one in everyone] == made[::-1]
    assert [one["id"] for one in some] == made[19:9:-1]
