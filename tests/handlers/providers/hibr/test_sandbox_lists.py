"""Lists of the sandbox: every documented operator, order and limit, and cursors."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from handlers.providers.hibr.sandbox import listing
from handlers.providers.hibr.sandbox.tables import Resource
from tests.handlers.providers.hibr.sandboxes import Sandbox, refusal

DUBAI = ZoneInfo("Asia/Dubai")
PEOPLE: list[Resource] = [
    {"name": "Amal", "age": 30, "paid": True, "joined_date": "2026-01-31", "seen_at": "2026-01-31T19:59:59Z"},
    {"name": "Badr", "age": 4, "paid": False, "joined_date": "2026-02-01", "seen_at": "2026-01-31T20:00:00Z"},
    {"name": "Celine, Dr", "age": 30, "paid": True, "joined_date": "2026-02-02", "seen_at": "2026-02-01T20:00:00Z"},
    {"name": "Dana", "age": None, "tags": ["a"]},
]
ROWS = [
    (number, {"id": f"cust_{number}", "created_at": "2026-10-15T09:32:14Z", **row}) for number, row in enumerate(PEOPLE)
]


def listed(query: str) -> list[str]:
    """The first letters of those that the query gives."""
    return [record["name"][0] for record in listing.page(ROWS, QueryParams(query), DUBAI)["data"]]


FILTERS = [
    ("name=Badr", "B"),
    ("name.eq=Badr", "B"),
    ("name.eq=badr", ""),
    ("age=30", "CA"),
    ("age.gte=30", "CA"),
    ("age.gt=29", "CA"),
    ("age.gt=30", ""),
    ("age.lte=30", "CBA"),
    ("age.lt=30", "B"),
    ("age.lt=-1", ""),
    ("age.in=4,5", "B"),
    ("name.in=Amal,Badr", "BA"),
    ("name.gte=Badr", "DCB"),
    ("name.contains=a", "DBA"),
    ("name.contains=%2C", "C"),
    ("paid=true", "CA"),
    ("paid.in=true,false", "CBA"),
    ("joined_date.gte=2026-02-01", "CB"),
    ("joined_date.lt=2026-02-01", "A"),
    ("joined_date.gt=2026-01-31&joined_date.lt=2026-02-02", "B"),
    ("seen_at.gte=2026-01-31T20:00:00Z", "CB"),
    ("seen_at.gte=2026-02-01T00:00:00%2B04:00", "CB"),
    ("seen_at=2026-02-01", "B"),  # the day begins at 20:00 UTC in Dubai
    ("seen_at.lt=2026-02-01", "A"),
    ("nobody=has", ""),
    ("", "DCBA"),
]


@pytest.mark.parametrize(("query", "names"), FILTERS)
def test_a_filter_selects(query: str, names: str) -> None:
    assert "".join(listed(query)) == names


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("sort=name", "ABCD"),
        ("sort=name:asc", "ABCD"),
        ("sort=name:desc", "DCBA"),
        ("sort=age", "BACD"),
        ("sort=age:desc", "CABD"),
        ("sort=joined_date:desc", "CBAD"),
        ("sort=nobody", "ABCD"),
        ("sort=age:desc&limit=1", "C"),
    ],
)
def test_an_order_puts_records_without_the_field_last(query: str, names: str) -> None:
    assert "".join(listed(query)) == names


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("sort=name:up", "sort"),
        ("sort=", "sort"),
        ("sort=tags", "sort"),
        ("cursor=", "cursor"),
        ("cursor=%F0%9F%98%80", "cursor"),
        ("cursor=eyJ0IjoxNzAwfQ", "cursor"),
        ("cursor=W10", "cursor"),
        ("age.like=3", "age.like"),
        ("age.=3", "age."),
        ("age.gte.lte=3", "age.gte.lte"),
        ("1=1", "1"),
        ("age=", "age"),
        ("age.in=4,", "age.in"),
        ("age=30.0", "age"),
        ("age=three", "age"),
        ("age.contains=3", "age.contains"),
        ("paid=yes", "paid"),
        ("paid.gt=false", "paid.gt"),
        ("tags=a", "tags"),
        ("joined_date=2026-02-30", "joined_date"),
        ("due_date.gte=soon", "due_date.gte"),
        ("seen_at.gte=noon", "seen_at.gte"),
        ("limit=5&limit=6", None),
    ],
)
def test_a_query_that_cannot_be_read_is_malformed(query: str, field: str | None) -> None:
    response = Sandbox().call("GET", f"/v1/customers?{query}")
    if response.status_code == 200:  # it hangs on what the records have
        with pytest.raises(Exception, match=r"\.|field|sort") as refused:
            listed(query)
        assert vars(refused.value)["details"][0]["field"] == field
        return
    assert refusal(response) == (400, "invalid_request_error", field)


def test_a_page_has_50_records_unless_it_is_asked_and_200_at_most() -> None:
    rows = [(n, {"id": f"cust_{n}", "created_at": "2026-10-15T09:32:14Z"}) for n in range(201)]

    usual = listing.page(rows, QueryParams(""), DUBAI)
    most = listing.page(rows, QueryParams("limit=200"), DUBAI)

    assert (len(usual["data"]), usual["pagination"]["has_more"]) == (50, True)
    assert (len(most["data"]), most["pagination"]["has_more"]) == (200, True)


def test_a_last_page_has_no_cursor() -> None:
    assert listing.page(ROWS, QueryParams("limit=4"), DUBAI)["pagination"] == {"next_cursor": None, "has_more": False}


def test_a_cursor_belongs_to_the_query_it_was_given_for() -> None:
    sandbox = Sandbox()
    cursor = sandbox.call("GET", "/v1/invoices?limit=1").json()["pagination"]["next_cursor"]

    other_filter = sandbox.call("GET", f"/v1/invoices?limit=1&status=open&cursor={cursor}")
    other_limit = sandbox.call("GET", f"/v1/invoices?limit=2&cursor={cursor}")

    assert refusal(other_filter) == (400, "invalid_request_error", "cursor")
    assert len(other_limit.json()["data"]) == 2


def test_pages_are_not_disturbed_by_what_comes_and_goes_between_them() -> None:
    sandbox = Sandbox()
    ids = [sandbox.made("items", name=f"Item {n}")["id"] for n in range(4)]
    first = sandbox.call("GET", "/v1/items?limit=2").json()
    sandbox.call("DELETE", f"/v1/items/{ids[2]}")  # the last one of the first page
    sandbox.made("items", name="New")

    second = sandbox.call("GET", f"/v1/items?limit=2&cursor={first['pagination']['next_cursor']}").json()

    assert [item["id"] for item in first["data"] + second["data"]] == [ids[3], ids[2], ids[1], ids[0]]


VALUE = st.one_of(st.none(), st.integers(-3, 3), st.sampled_from(["", "a", "b"]))


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(VALUE, max_size=12), limit=st.integers(1, 5), order=st.sampled_from(["", "sort=v&", "sort=v:desc&"])
)
def test_the_pages_of_any_list_are_the_list(values: list[Any], limit: int, order: str) -> None:
    rows = [(n, {"id": n, "v": value, "created_at": "2026-10-15T09:32:14Z"}) for n, value in enumerate(values)]
    whole = listing.page(rows, QueryParams(f"{order}limit=200"), DUBAI)["data"]

    read: list[Resource] = []
    cursor: str | None = ""
    while cursor is not None:
        asked = f"&cursor={cursor}" if cursor else ""
        page = listing.page(rows, QueryParams(f"{order}limit={limit}{asked}"), DUBAI)
        read += page["data"]
        cursor = page["pagination"]["next_cursor"]
        assert page["pagination"]["has_more"] is (cursor is not None)

    assert read == whole
    assert sorted(record["id"] for record in read) == list(range(len(values)))
