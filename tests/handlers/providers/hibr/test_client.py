from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import ProviderUnavailable
from handlers.providers.hibr.client import VERSION, HibrClient
from handlers.providers.hibr.encoding import OPERATORS
from handlers.providers.hibr.models import RESOURCES
from handlers.providers.hibr.resources import Page, Resource

KEY = "hibr_test_s3cret0123456789"
INVOICE = {"id": "inv_01HFQB9XTRP3K2Q5HW7Z3V8YJN", "object": "invoice", "invoice_no": "INV-2026-001234"}


class Hibr:
    """Answers with what the test says, the last answer for ever, and keeps the requests."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []
        self._answers = list(answers)
        self.client = HibrClient(api_key=KEY, transport=httpx.MockTransport(self), sleep=self.slept.append)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._answers[min(len(self.requests), len(self._answers)) - 1]

    @property
    def calls(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.requests]

    @property
    def last(self) -> httpx.Request:
        return self.requests[-1]


def ok(document: Any) -> httpx.Response:
    return httpx.Response(200, json=document)


def page(records: list[dict[str, Any]], cursor: str | None = None) -> httpx.Response:
    pagination = {"next_cursor": cursor, "has_more": cursor is not None}
    return ok({"object": "list", "data": records, "pagination": pagination})


def test_the_documented_request_is_made() -> None:
    hibr = Hibr(ok(INVOICE))
    line = {"description": "Design", "quantity": 1, "unit_price": 525_000, "unit_price_currency": "AED"}

    with hibr.client as client:
        created = client.invoices.create(customer_id="cust_01HFQA", invoice_date=date(2026, 10, 15), lines=[line])

    assert created == INVOICE
    assert (hibr.last.method, str(hibr.last.url)) == ("POST", "https://sandbox-api.hibr.ai/v1/invoices")
    assert hibr.last.headers["authorization"] == f"Bearer {KEY}"
    assert hibr.last.headers["content-type"] == "application/json"
    assert hibr.last.headers["hibr-version"] == VERSION == "2026-10-01"
    assert uuid.UUID(hibr.last.headers["idempotency-key"]).version == 4
    assert orjson.loads(hibr.last.content) == {
        "customer_id": "cust_01HFQA",
        "invoice_date": "2026-10-15",
        "lines": [line],
    }


def test_the_verbs_go_to_the_documented_paths() -> None:
    hibr = Hibr(ok(INVOICE), ok(INVOICE), ok(INVOICE), ok(INVOICE), httpx.Response(204))
    invoices = hibr.client.invoices

    assert invoices.get("inv_1") == INVOICE
    assert invoices.create(customer_id="cust_1") == INVOICE
    assert invoices.update("inv_1", notes=None) == INVOICE
    assert invoices.action("inv_1", "void", reason="Duplicate") == INVOICE
    invoices.delete("inv_1")

    assert hibr.calls == [
        "GET /v1/invoices/inv_1",
        "POST /v1/invoices",
        "PATCH /v1/invoices/inv_1",
        "POST /v1/invoices/inv_1/void",
        "DELETE /v1/invoices/inv_1",
    ]
    assert [request.content for request in hibr.requests] == [
        b"",
        b'{"customer_id":"cust_1"}',
        b'{"notes":null}',
        b'{"reason":"Duplicate"}',
        b"",
    ]


def test_whatever_changes_something_is_json_and_has_a_key_and_reading_neither() -> None:
    hibr = Hibr(ok(INVOICE))
    invoices = hibr.client.invoices

    invoices.get("inv_1")
    invoices.create()
    invoices.update("inv_1")
    invoices.action("inv_1", "post")
    invoices.delete("inv_1")

    get, *changes = hibr.requests
    assert "idempotency-key" not in get.headers
    assert "content-type" not in get.headers
    assert {request.headers["content-type"] for request in changes} == {"application/json"}
    assert len({request.headers["idempotency-key"] for request in changes}) == 4
    assert {request.headers["hibr-version"] for request in hibr.requests} == {VERSION}


def test_a_field_may_have_the_name_of_anything() -> None:
    hibr = Hibr(ok(INVOICE))

    hibr.client.customers.update("cust_1", name="ACME", record_id=1, self=2, action=3)

    assert orjson.loads(hibr.last.content) == {"name": "ACME", "record_id": 1, "self": 2, "action": 3}


@pytest.mark.parametrize(
    "change",
    [
        lambda invoices: invoices.create(),
        lambda invoices: invoices.update("inv_1"),
        lambda invoices: invoices.action("inv_1", "post"),
        lambda invoices: invoices.delete("inv_1"),
    ],
)
def test_a_call_that_is_repeated_has_the_same_key(change: Callable[[Resource], Any]) -> None:
    hibr = Hibr(httpx.Response(503), httpx.Response(502), ok(INVOICE))

    change(hibr.client.invoices)

    assert len(hibr.requests) == 3
    assert len({request.headers["idempotency-key"] for request in hibr.requests}) == 1
    assert len(hibr.slept) == 2


def test_a_caller_may_give_the_key_and_give_it_again() -> None:
    hibr = Hibr(ok(INVOICE))
    invoices = hibr.client.invoices

    invoices.create(idempotency_key="occ_1")
    invoices.update("inv_1", idempotency_key="occ_1")
    invoices.action("inv_1", "post", idempotency_key="occ_1")
    invoices.delete("inv_1", idempotency_key="occ_1")

    assert [request.headers["idempotency-key"] for request in hibr.requests] == ["occ_1"] * 4
    assert b"occ_1" not in b"".join(request.content for request in hibr.requests)


@pytest.mark.parametrize("key", ["", " ", "a\r\nX: 1", "é"])
def test_a_key_that_no_header_can_hold_is_refused(key: str) -> None:
    hibr = Hibr(ok(INVOICE))

    with pytest.raises(ValueError, match="Idempotency-Key"):
        hibr.client.invoices.create(idempotency_key=key)

    assert hibr.requests == []


def test_an_action_may_answer_without_a_body() -> None:
    hibr = Hibr(httpx.Response(204), httpx.Response(200), httpx.Response(202, json={"object": "email"}))

    assert hibr.client.invoices.action("inv_1", "send") == {}
    assert hibr.client.invoices.action("inv_1", "send") == {}
    assert hibr.client.invoices.action("inv_1", "send") == {"object": "email"}


@pytest.mark.parametrize("answer", [httpx.Response(204), httpx.Response(200), ok({"id": "inv_1", "deleted": True})])
def test_a_deletion_says_nothing_however_it_is_answered(answer: httpx.Response) -> None:
    Hibr(answer).client.invoices.delete("inv_1")


def test_a_list_is_fetched_page_by_page_and_only_as_far_as_it_is_read() -> None:
    hibr = Hibr(page([{"id": "inv_1"}, {"id": "inv_2"}], "eyJ0IjoxNzAw"), page([], "b"), page([{"id": "inv_3"}]))

    invoices = hibr.client.invoices.list()
    assert hibr.requests == []

    assert [next(invoices)["id"], next(invoices)["id"]] == ["inv_1", "inv_2"]
    assert len(hibr.requests) == 1

    assert [invoice["id"] for invoice in invoices] == ["inv_3"]
    assert [dict(request.url.params) for request in hibr.requests] == [
        {"limit": "200"},
        {"limit": "200", "cursor": "eyJ0IjoxNzAw"},
        {"limit": "200", "cursor": "b"},
    ]


def test_the_documented_filters_and_order_are_sent_with_every_page() -> None:
    hibr = Hibr(page([], "a"), page([]))
    filters = {"status": "paid", "invoice_date.gte": date(2026, 1, 1)}

    assert list(hibr.client.invoices.list(filters, sort="invoice_date:desc", limit=50)) == []

    selected = {"status": "paid", "invoice_date.gte": "2026-01-01", "sort": "invoice_date:desc", "limit": "50"}
    assert [dict(request.url.params) for request in hibr.requests] == [selected, {**selected, "cursor": "a"}]


def test_one_page_can_be_asked_for() -> None:
    hibr = Hibr(page([{"id": "inv_1"}], "b"), page([{"id": "inv_2"}]))

    assert hibr.client.invoices.page() == Page([{"id": "inv_1"}], "b")
    assert hibr.client.invoices.page({"status": "paid"}, limit=1, cursor="b") == Page([{"id": "inv_2"}], None)

    assert [dict(request.url.params) for request in hibr.requests] == [
        {"limit": "50"},
        {"limit": "1", "status": "paid", "cursor": "b"},
    ]


@pytest.mark.parametrize("limit", [0, 201, -1])
def test_a_page_has_one_to_two_hundred_records(limit: int) -> None:
    hibr = Hibr(page([]))

    with pytest.raises(ValueError, match="1 to 200"):
        hibr.client.invoices.list(limit=limit)


@pytest.mark.parametrize(
    ("filters", "sent"),
    [
        ({"status.eq": "paid"}, {"status.eq": "paid"}),
        ({"status.in": ["open", "paid"]}, {"status.in": "open,paid"}),
        ({"total.in": (1, 2)}, {"total.in": "1,2"}),
        ({"total.gt": 525_000, "total.lt": 600_000}, {"total.gt": "525000", "total.lt": "600000"}),
        ({"notes.contains": "a b&c=ü,"}, {"notes.contains": "a b&c=ü,"}),
        ({"active": True}, {"active": "true"}),
        ({"created_at.lte": datetime(2026, 10, 15, 9, 32, 14, tzinfo=UTC)}, {"created_at.lte": "2026-10-15T09:32:14Z"}),
        (
            {"created_at.lte": datetime(2026, 10, 15, 13, 32, 14, tzinfo=timezone(timedelta(hours=4)))},
            {"created_at.lte": "2026-10-15T09:32:14Z"},
        ),
    ],
)
def test_a_filter_is_a_field_an_operator_and_a_value(filters: dict[str, Any], sent: dict[str, str]) -> None:
    hibr = Hibr(page([]))

    list(hibr.client.invoices.list(filters))

    assert dict(hibr.last.url.params) == {**sent, "limit": "200"}


@pytest.mark.parametrize(
    "filters",
    [
        {"status.ne": "paid"},
        {"customer.name": "ACME"},
        {"total.gte.lte": 5},
        {"": "paid"},
        {".eq": "paid"},
        {"status ": "paid"},
        {"limit": 5},
        {"cursor": "a"},
        {"sort": "status"},
        {"status.in": []},
        {"status.in": ["open,paid"]},
        {"status.in": [""]},
        {"status.in": "paid"},
        {"status.in": 5},
        {"status.in": [["open"]]},
        {"status": None},
        {"status": ["open", "paid"]},
        {"status": {"gte": 1}},
        {"notes.contains": 5},
        {"total": 5250.0},
        {"created_at.gte": datetime(2026, 10, 15)},  # noqa: DTZ001 - what is refused
    ],
)
def test_a_filter_that_the_reference_does_not_have_is_refused(filters: dict[str, Any]) -> None:
    hibr = Hibr(page([]))

    with pytest.raises((ValueError, TypeError)):
        hibr.client.invoices.list(filters)

    assert hibr.requests == []


@pytest.mark.parametrize("sort", ["", "invoice_date:down", "invoice_date desc", "a,b", ":desc", "a:asc:desc"])
def test_an_order_is_a_field_and_a_direction(sort: str) -> None:
    with pytest.raises(ValueError, match="invoice_date:desc"):
        Hibr(page([])).client.invoices.list(sort=sort)


@given(
    st.dictionaries(
        st.from_regex(rf"[a-z_]{{1,20}}(\.({'|'.join(set(OPERATORS) - {'in', 'contains'})}))?", fullmatch=True),
        st.text(st.characters(exclude_categories=["Cs"])),
    )
)
def test_any_text_to_filter_by_arrives_as_it_is(filters: dict[str, str]) -> None:
    filters = {name: value for name, value in filters.items() if name.partition(".")[0] not in {"limit", "sort"}}
    filters.pop("cursor", None)
    hibr = Hibr(page([]))

    hibr.client.invoices.page(filters)

    assert dict(hibr.last.url.params) == {**filters, "limit": "50"}


@pytest.mark.parametrize(
    "document",
    [
        {"object": "list", "data": [], "pagination": {"has_more": True, "next_cursor": None}},
        {"object": "list", "data": [], "pagination": {"has_more": True}},
        {"object": "list", "data": [], "pagination": {"has_more": True, "next_cursor": ""}},
        {"object": "list", "data": [], "pagination": {"next_cursor": "a"}},
        {"object": "list", "data": [], "pagination": None},
        {"object": "list", "data": []},
        {"object": "list", "data": [1], "pagination": {"has_more": False}},
        {"object": "list", "data": {}, "pagination": {"has_more": False}},
        [],
        None,
    ],
)
def test_a_page_out_of_shape_is_not_taken_for_the_end(document: Any) -> None:
    with pytest.raises(ProviderUnavailable) as failed:
        list(Hibr(ok(document)).client.invoices.list())

    assert failed.value.code == "BAD_ANSWER"


def test_pages_that_go_round_in_a_circle_end() -> None:
    hibr = Hibr(page([], "a"), page([], "b"), page([], "a"), page([]))

    with pytest.raises(ProviderUnavailable, match="circle"):
        list(hibr.client.invoices.list())

    assert len(hibr.requests) == 3


@pytest.mark.parametrize("answer", [ok([]), ok(None), ok({}), ok({"id": 5}), ok("inv_1"), httpx.Response(204)])
def test_an_answer_without_a_record_is_out_of_shape(answer: httpx.Response) -> None:
    calls: list[Callable[[Resource], Any]] = [
        lambda invoices: invoices.get("inv_1"),
        lambda invoices: invoices.create(),
        lambda invoices: invoices.update("inv_1"),
    ]

    for call in calls:
        with pytest.raises(ProviderUnavailable) as failed:
            call(Hibr(answer).client.invoices)
        assert failed.value.code == "BAD_ANSWER"


@pytest.mark.parametrize("record_id", ["inv_01HFQB9XTRP3K2Q5HW7Z3V8YJN", "cn_01HFQB...", "je_1", "a"])
def test_an_id_is_sent_as_it_is(record_id: str) -> None:
    hibr = Hibr(ok(INVOICE))

    hibr.client.invoices.get(record_id)

    assert hibr.last.url.raw_path.decode() == f"/v1/invoices/{record_id}"


@pytest.mark.parametrize(
    "record_id", ["", ".", "..", "a/b", "../bills", "a?b", "a#b", "a b", "a\n", "é", "%2e", None, 5]
)
def test_what_cannot_be_one_part_of_a_path_is_no_id(record_id: Any) -> None:
    hibr = Hibr(ok(INVOICE))
    invoices = hibr.client.invoices

    for call in (
        lambda: invoices.get(record_id),
        lambda: invoices.update(record_id),
        lambda: invoices.delete(record_id),
        lambda: invoices.action(record_id, "post"),
    ):
        with pytest.raises(ValueError, match="an id is"):
            call()

    assert hibr.requests == []


@pytest.mark.parametrize("name", ["", "..", "a/b", "Post", "a b", "a?", "_a", "a_", None])
def test_what_is_no_name_in_a_path_is_neither_resource_nor_action(name: Any) -> None:
    hibr = Hibr(ok(INVOICE))

    with pytest.raises(ValueError, match="name in a path"):
        hibr.client.resource(name)
    with pytest.raises(ValueError, match="name in a path"):
        hibr.client.invoices.action("inv_1", name)

    assert hibr.requests == []


def test_each_resource_with_a_documented_prefix_is_an_attribute() -> None:
    hibr = Hibr(ok(INVOICE))

    for name in RESOURCES:
        getattr(hibr.client, name).get("x_1")

    assert hibr.calls == [f"GET /v1/{name}/x_1" for name in RESOURCES]


def test_any_other_resource_is_reached_by_its_name() -> None:
    hibr = Hibr(ok({"id": "bt_1"}))

    hibr.client.resource("bank-transactions").get("bt_1")

    assert hibr.calls == ["GET /v1/bank-transactions/bt_1"]


@pytest.mark.parametrize(
    ("key", "url"),
    [
        ("hibr_test_1", "https://sandbox-api.hibr.ai/v1/invoices/inv_1"),
        ("hibr_live_1", "https://api.hibr.ai/v1/invoices/inv_1"),
        ("an-oauth-access-token", "https://api.hibr.ai/v1/invoices/inv_1"),
    ],
)
def test_a_key_goes_to_its_own_environment(key: str, url: str) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return ok(INVOICE)

    HibrClient(api_key=key, transport=httpx.MockTransport(answer)).invoices.get("inv_1")

    assert str(asked[0].url) == url


@pytest.mark.parametrize(
    ("key", "url"),
    [
        ("hibr_test_1", "https://api.hibr.ai"),
        ("hibr_test_1", "https://API.hibr.ai:443/"),
        ("hibr_live_1", "https://sandbox-api.hibr.ai"),
    ],
)
def test_a_key_is_not_sent_to_the_other_environment(key: str, url: str) -> None:
    with pytest.raises(ValueError, match="key is for"):
        HibrClient(api_key=key, api_url=url)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8080", "http://localhost/", "http://[::1]:1", "http://127.8.9.1", "https://proxy.example/x"],
)
def test_plain_http_is_for_this_machine(url: str) -> None:
    HibrClient(api_key=KEY, api_url=url).close()


@pytest.mark.parametrize(
    "url",
    [
        "http://api.hibr.ai",
        "HTTP://sandbox-api.hibr.ai",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://127.0.0.1@api.hibr.ai",
        "https://user:pass@api.hibr.ai",
        "https://api.hibr.ai?x=1",
        "https://api.hibr.ai#x",
        "https://",
        "https://api.hibr.ai:port",
        "api.hibr.ai",
        "ftp://127.0.0.1",
        "",
    ],
)
def test_an_address_without_tls_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="api_url"):
        HibrClient(api_key="hibr_live_1", api_url=url)


@pytest.mark.parametrize("version", ["", "2026", "v1", "2026-10-01\n", "latest"])
def test_a_version_is_a_date(version: str) -> None:
    with pytest.raises(ValueError, match="2026-10-01"):
        HibrClient(api_key=KEY, version=version)


def test_another_version_can_be_asked_for() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return ok({"id": request.headers["hibr-version"]})

    client = HibrClient(api_key=KEY, version="2027-04-01", transport=httpx.MockTransport(answer))

    assert client.invoices.get("inv_1")["id"] == "2027-04-01"


@pytest.mark.parametrize("key", ["", "hibr_test_1\n", "hibr_test_é"])
def test_a_key_that_cannot_be_sent_is_refused_without_quoting_it(key: str) -> None:
    with pytest.raises(ValueError, match=r"api_key|Authorization") as refused:
        HibrClient(api_key=key)

    assert "hibr_test" not in str(refused.value)


def test_the_key_is_in_no_representation() -> None:
    client = HibrClient(api_key=KEY)

    assert repr(client) == "<HibrClient of https://sandbox-api.hibr.ai, version 2026-10-01>"
    assert repr(client.invoices) == "<Resource /v1/invoices>"
    assert KEY not in "".join(map(repr, vars(client).values()))


def test_the_limit_of_the_key_can_be_read() -> None:
    headers = {"X-RateLimit-Limit": "300", "X-RateLimit-Remaining": "247", "X-RateLimit-Reset": "1729000080"}
    hibr = Hibr(httpx.Response(200, json=INVOICE, headers=headers))
    assert hibr.client.rate_limit is None

    hibr.client.invoices.get("inv_1")

    limit = hibr.client.rate_limit
    assert limit is not None
    assert (limit.limit, limit.remaining) == (300, 247)
    assert limit.resets_at == datetime(2024, 10, 15, 13, 48, tzinfo=UTC)


def test_a_client_that_was_closed_is_closed() -> None:
    hibr = Hibr(ok(INVOICE))

    def ids() -> Iterator[str]:
        with hibr.client as client:
            yield client.invoices.get("inv_1")["id"]
            client.invoices.get("inv_1")

    found = ids()
    assert next(found) == INVOICE["id"]
    hibr.client.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(found)
