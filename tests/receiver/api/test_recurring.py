"""Recurring invoices over the API: what can be asked, what is refused, and how lists are paged."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.receiver.api.conftest import Caller, CallerWith, ok, refused
from tests.receiver.conftest import Serve
from tests.workers.given import change, only, rows
from workers.app import Runtime
from workers.models import AuditEntry, Occurrence
from workers.models import Schedule as Row
from workers.schedule.tick import tick
from workers.settings import Source

PATH = "/recurring-invoices"
TODAY = datetime.now(UTC).date()
LATER = (TODAY + timedelta(days=40)).isoformat()
ITEM = {"description": "Monthly retainer", "quantity": 1, "unit_price": 10400, "tax_rate": 20}


def wanted(**values: Any) -> dict[str, Any]:
    """The document's own example, from a later day on."""
    return {"customer_id": "cus_2b81fe", "frequency": "monthly", "start_date": LATER, "items": [ITEM]} | values


def created(caller: Caller, **values: Any) -> dict[str, Any]:
    """Such a schedule."""
    return dict(caller.post(PATH, wanted(**values), status=201))


def sent(caller: Caller, text: str, path: str = PATH, method: str = "POST") -> httpx.Response:
    """A body just as it is written."""
    return caller.call(method, path, content=text.encode(), headers={"content-type": "application/json"})


def fields_of(error: dict[str, Any]) -> list[str]:
    return [str(one["field"]) for one in error["details"]]


def test_a_schedule_is_created_with_the_defaults_of_the_document(caller: Caller, runtime: Runtime) -> None:
    made = created(caller)

    assert made["id"].startswith("sch_")
    assert (made["status"], made["next_run_date"], made["source"]) == ("active", LATER, "shop")
    assert (made["interval_count"], made["days_until_due"], made["currency"]) == (1, 30, "MAD")
    assert (made["auto_finalize"], made["auto_send"], made["catch_up"]) == (False, False, "all")
    assert made["items"] == [
        {"description": "Monthly retainer", "quantity": "1", "unit_price": "10400", "tax_rate": "20"}
    ]
    assert caller.get(f"{PATH}/{made['id']}") == made | {"history": []}
    noted = next(one for one in rows(runtime.engine, AuditEntry) if one.action == "schedules.add")
    assert noted.actor.startswith("test (key_")


def test_asked_again_under_its_key_it_is_created_once(caller: Caller) -> None:
    first = caller.post(PATH, wanted(), status=201, idempotency_key="one")
    second = caller.post(PATH, wanted(), status=201, idempotency_key="one")

    assert first == second
    assert len(caller.get(PATH)) == 1


WRITTEN = [
    ("10400.10", "10400.10"), ("0.1", "0.1"), ("123456789012345.1234567891", "123456789012345.1234567891"),
    ("0.3000000001", "0.3000000001"), ("1e2", "100"), ("-0", "0"), ("-0.0", "0.0"), ("-5.50", "-5.50"),
    ('"10400.10"', "10400.10"),
]  # fmt: skip
"""Numbers as they are written in a body, and as they are kept."""


def test_a_number_is_kept_as_it_was_written(caller: Caller) -> None:
    items = ", ".join(f'{{"description": "x", "quantity": 1, "unit_price": {number}}}' for number, _ in WRITTEN)
    body = json.dumps(wanted(items="those")).replace('"those"', f"[{items}]")

    made = ok(sent(caller, body), 201)

    assert [one["unit_price"] for one in made["items"]] == [kept for _, kept in WRITTEN]
    assert caller.get(f"{PATH}/{made['id']}")["items"] == made["items"]


IMPOSSIBLE = [
    "1e400",
    "-1e400",
    "1e999999999",
    "1e15",
    "1e-11",
    "0e999999999",
    '"1e2"',
    '"NaN"',
    '"1,5"',
    '""',
    "true",
    "[]",
]


def test_a_number_that_cannot_be_is_refused_by_its_name(caller: Caller) -> None:
    for number in IMPOSSIBLE:
        body = json.dumps(wanted()).replace('"unit_price": 10400', f'"unit_price": {number}')

        error = refused(sent(caller, body), 400, "VALIDATION_ERROR")

        assert fields_of(error) == ["items[0].unit_price"], number


def test_what_is_no_number_of_json_is_no_json(caller: Caller) -> None:
    for number in ("NaN", "Infinity", "1e99999999999999999999", "9" * 5000):
        refused(sent(caller, json.dumps(wanted()).replace("10400", number)), 400, "INVALID_JSON")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"frequency": "daily"}, "frequency"),
    ({"start_date": "0000-01-01"}, "start_date"),
    ({"start_date": 1780668000}, "start_date"),
    ({"start_date": "2026-07-01T00:00:00"}, "start_date"),
    ({"start_date": "2026-02-30"}, "start_date"),
    ({"start_date": None}, "start_date"),
    ({"end_date": "0001-01-01"}, "end_date"),
    ({"interval_count": 13}, "interval_count"),
    ({"interval_count": True}, "interval_count"),
    ({"interval_count": "2"}, "interval_count"),
    ({"interval_count": 2**70}, "interval_count"),
    ({"day_of_month": 29}, "day_of_month"),
    ({"day_of_week": 1}, "day_of_week"),
    ({"max_occurrences": 0}, "max_occurrences"),
    ({"max_occurrences": 2**40}, "max_occurrences"),
    ({"auto_finalize": "yes"}, "auto_finalize"),
    ({"auto_finalize": 1}, "auto_finalize"),
    ({"auto_send": True}, "auto_send"),
    ({"days_until_due": 366}, "days_until_due"),
    ({"currency": "mad"}, "currency"),
    ({"catch_up": "some"}, "catch_up"),
    ({"source": "none"}, "source"),
    ({"options": {"colour": "red"}}, "options"),
    ({"options": {"amount": 1.5}}, "options"),
    ({"options": {"amount": 2**70}}, "options"),
    ({"options": {"a": "\x00"}}, "options"),
    ({"options": {"\x00": 1}}, "options"),
    ({"name": "a\x00b"}, "name"),
    ({"name": "x" * 256}, "name"),
    ({"customer_id": "  "}, "customer_id"),
    ({"customer_id": "cus\x00"}, "customer_id"),
    ({"items": []}, "items"),
    ({"items": [ITEM] * 501}, "items"),
    ({"items": [{**ITEM, "description": "\x00"}]}, "items[0].description"),
    ({"items": [{**ITEM, "tax_rate": 19}]}, "items[0].tax_rate"),
    ({"items": [{**ITEM, "colour": "red"}]}, "items[0].colour"),
    ({"items": [{"description": "x"}]}, "items[0].quantity"),
    ({"colour": "red"}, "colour"),
]
"""Fields that a schedule cannot have, and the one that is told of."""


def test_what_cannot_be_is_refused_by_its_field(caller: Caller) -> None:
    for values, field in WRONG:
        error = refused(caller.call("POST", PATH, json=wanted(**values)), 400, "VALIDATION_ERROR")

        assert field in fields_of(error), values
    assert caller.get(PATH) == []


def test_options_of_any_depth_are_refused(caller: Caller) -> None:
    body = json.dumps(wanted(options={"a": "deep"})).replace('"deep"', "[" * 300 + "]" * 300)

    assert fields_of(refused(sent(caller, body), 400, "VALIDATION_ERROR")) == ["options"]


def test_no_body_ends_in_an_error_of_ours(caller: Caller) -> None:
    made = created(caller)

    for body in ("", "null", "[]", "3", '"x"', '{"a": "\\ud800"}', '{"\\ud800": 1}', "[" * 9000):
        for path, method in ((PATH, "POST"), (f"{PATH}/{made['id']}", "PATCH")):
            assert sent(caller, body, path, method).status_code == 400


def test_the_far_ends_of_the_calendar_are_dates_like_others(caller: Caller) -> None:
    ancient = created(caller, start_date="0001-01-01", end_date="9999-12-31")
    far = created(caller, start_date="9999-12-31")

    assert ancient["next_run_date"] >= TODAY.isoformat()
    assert far["next_run_date"] == "9999-12-31"
    assert [one["due_on"] for one in caller.get(f"{PATH}/{far['id']}/preview", next=5)] == ["9999-12-31"]
    caller.post(f"{PATH}/{ancient['id']}/pause")
    assert caller.post(f"{PATH}/{ancient['id']}/resume", {"next_run_date": "9999-12-31"})["status"] == "active"


def test_the_longest_numbers_are_multiplied(caller: Caller) -> None:
    most = "9" * 15 + "." + "9" * 10
    made = created(caller, items=[{**ITEM, "quantity": most, "unit_price": most}] * 2)

    (coming,) = caller.get(f"{PATH}/{made['id']}/preview", next=1)

    assert coming["total"] == "2399999999999999999999999520000.00"


def test_which_source_is_meant_is_to_be_said_where_several_can_bill(
    serve: Serve, runtime: Runtime, caller: Caller
) -> None:
    shop = runtime.settings.sources["shop"]
    other = Source(provider="hisab", secrets="whsec_test_secret_key_123456", api_key="hisab_other_key")
    edge = serve(runtime, sources={"shop": shop, "other": other})
    with_two = Caller(edge.client, caller.key)

    error = refused(with_two.call("POST", PATH, json=wanted()), 400, "VALIDATION_ERROR")

    assert error["details"] == [{"field": "source", "message": "must be named: there are shop, other"}]
    assert created(with_two, source="other")["source"] == "other"
    assert [one["source"] for one in with_two.get(PATH, source="other")] == ["other"]


def test_a_source_may_have_so_many(serve: Serve, runtime: Runtime, caller: Caller) -> None:
    shop = runtime.settings.sources["shop"].model_copy(update={"max_schedules": 1})
    limited = Caller(serve(runtime, sources={"shop": shop}).client, caller.key)
    created(limited)

    refused(limited.call("POST", PATH, json=wanted()), 409, "QUOTA_EXCEEDED")


def test_a_change_is_made_only_in_what_is_given(caller: Caller) -> None:
    for method in ("PUT", "PATCH"):
        made = created(caller, end_date="2099-12-31", max_occurrences=30)

        changed = ok(caller.call(method, f"{PATH}/{made['id']}", json={"days_until_due": 0, "end_date": None}))

        assert (changed["days_until_due"], changed["end_date"], changed["max_occurrences"]) == (0, None, 30)
        assert changed["items"] == made["items"]


WRONG_CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"frequency": None}, "frequency"),
    ({"items": None}, "items"),
    ({"items": [ITEM] * 501}, "items"),
    ({"auto_send": 1}, "auto_send"),
    ({"max_occurrences": True}, "max_occurrences"),
    ({"max_occurrences": 2**31}, "max_occurrences"),
    ({"end_date": 20270101}, "end_date"),
    ({"end_date": "0001-01-01"}, "end_date"),
    ({"name": "\x00"}, "name"),
    ({"options": {"a": {"b": "\x00"}}}, "options"),
    ({"customer_id": "cus_other"}, "customer_id"),
    ({"status": "paused"}, "status"),
]


def test_a_change_that_cannot_be_is_refused(caller: Caller) -> None:
    made = created(caller)

    for body, field in WRONG_CHANGES:
        error = refused(caller.call("PATCH", f"{PATH}/{made['id']}", json=body), 400, "VALIDATION_ERROR")

        assert field in fields_of(error), body
    assert caller.get(f"{PATH}/{made['id']}") == made


def test_a_change_is_made_only_of_the_version_that_was_seen(caller: Caller) -> None:
    path = f"{PATH}/{created(caller)['id']}"
    seen = caller.call("GET", path).headers["etag"]

    assert caller.call("GET", path, headers={"if-none-match": seen}).status_code == 304
    ok(caller.call("PATCH", path, json={"name": "mine"}, headers={"if-match": seen}))
    refused(caller.call("PUT", path, json={"name": "yours"}, headers={"if-match": seen}), 412, "PRECONDITION_FAILED")
    refused(caller.call("DELETE", path, headers={"if-match": seen}), 412, "PRECONDITION_FAILED")

    assert caller.get(path)["name"] == "mine"


def test_it_is_paused_resumed_and_cancelled(caller: Caller) -> None:
    path = f"{PATH}/{created(caller)['id']}"

    assert caller.post(f"{path}/pause")["status"] == "paused"
    refused(caller.call("POST", f"{path}/pause"), 409, "INVALID_STATE")
    soon = (TODAY + timedelta(days=3)).isoformat()
    resumed = caller.post(f"{path}/resume", {"next_run_date": soon})
    assert (resumed["status"], resumed["next_run_date"]) == ("active", soon)
    refused(caller.call("POST", f"{path}/resume"), 409, "INVALID_STATE")
    assert caller.post(f"{path}/cancel")["status"] == "cancelled"
    refused(caller.call("PUT", path, json={"name": "late"}), 409, "INVALID_STATE")
    assert caller.get(f"{path}/preview") == []


def test_a_day_in_the_past_is_none_to_go_on_at(caller: Caller) -> None:
    path = f"{PATH}/{created(caller)['id']}"
    caller.post(f"{path}/pause")

    error = refused(
        caller.call("POST", f"{path}/resume", json={"next_run_date": "2020-01-01"}), 400, "VALIDATION_ERROR"
    )

    assert fields_of(error) == ["next_run_date"]
    assert caller.get(path)["status"] == "paused"


def test_a_deleted_one_is_gone(caller: Caller) -> None:
    path = f"{PATH}/{created(caller)['id']}"

    assert caller.call("DELETE", path).status_code == 204

    for method, of in (("GET", ""), ("GET", "/history"), ("GET", "/preview"), ("DELETE", ""), ("POST", "/pause")):
        refused(caller.call(method, f"{path}{of}"), 404, "NOT_FOUND")
    for of in ("/resume", "/cancel", "/retry", "/generate"):
        refused(caller.call("POST", f"{path}{of}"), 404, "NOT_FOUND")
    refused(caller.call("PATCH", path, json={}), 404, "NOT_FOUND")


def test_what_failed_is_tried_again_on_the_dates_that_are_named(caller: Caller, runtime: Runtime) -> None:
    schedule = created(caller, start_date=TODAY.isoformat())
    path = f"{PATH}/{schedule['id']}"
    refused(caller.call("POST", f"{path}/retry"), 409, "INVALID_STATE")
    tick(runtime.engine, now=datetime.now(UTC))
    change(runtime.engine, Occurrence, status="failed", error="X: no", error_code="X", ring_at=None)

    refused(caller.call("POST", f"{path}/retry", json={"due_on": ["2020-01-01"]}), 409, "INVALID_STATE")
    refused(caller.call("POST", f"{path}/retry", json={"due_on": []}), 400, "VALIDATION_ERROR")
    assert caller.get(path)["history"][0]["status"] == "failed"
    assert caller.post(f"{path}/retry", {"due_on": [TODAY.isoformat()]}) == {"occurrences": 1}

    assert only(runtime.engine, Occurrence).status == "waiting"
    assert caller.get(f"{path}/history")[0]["scheduled_date"] == TODAY.isoformat()


def test_whose_source_is_not_in_the_settings_any_more_cannot_be_previewed(caller: Caller, runtime: Runtime) -> None:
    path = f"{PATH}/{created(caller)['id']}"
    change(runtime.engine, Row, source="gone")

    refused(caller.call("GET", f"{path}/preview"), 409, "INVALID_STATE")
    assert fields_of(refused(caller.call("PATCH", path, json={"name": "x"}), 400, "VALIDATION_ERROR")) == ["source"]
    assert caller.get(path)["source"] == "gone"


SCOPES = [
    ("recurring:read", "GET", ""), ("recurring:read", "GET", "/sch_1"), ("recurring:read", "GET", "/sch_1/history"),
    ("recurring:read", "GET", "/sch_1/preview"), ("recurring:write", "POST", ""), ("recurring:write", "PUT", "/sch_1"),
    ("recurring:write", "PATCH", "/sch_1"), ("recurring:delete", "DELETE", "/sch_1"),
    *(("recurring:write", "POST", f"/sch_1/{verb}") for verb in ("generate", "pause", "resume", "cancel", "retry")),
]  # fmt: skip


def test_each_needs_its_scope(caller_with: CallerWith) -> None:
    verbs = ("read", "write", "delete")
    without = {
        f"recurring:{verb}": caller_with(*(f"recurring:{one}" for one in verbs if one != verb)) for verb in verbs
    }
    for scope, method, of in SCOPES:
        error = refused(without[scope].call(method, f"{PATH}{of}"), 403, "FORBIDDEN")

        assert error["details"] == {"required_scopes": [scope]}


def test_pages_by_number_tell_how_many_there_are(caller: Caller) -> None:
    ids = [created(caller, name=f"number {number}")["id"] for number in range(5)]

    answer = caller.call("GET", PATH, params={"page": 2, "per_page": 2}).json()
    first = caller.call("GET", PATH, params={"order": "asc"}).json()

    assert [one["id"] for one in answer["data"]] == [ids[2], ids[1]]
    assert answer["meta"] == {"pagination": {"total": 5, "page": 2, "perPage": 2, "totalPages": 3}}
    assert [one["id"] for one in first["data"]] == ids
    assert first["meta"] == {"pagination": {"total": 5, "page": 1, "perPage": 20, "totalPages": 1}}
    assert caller.get(PATH, page=10**9) == []


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_by_cursor_go_on_behind_each_other(caller: Caller, order: str) -> None:
    ids = [created(caller)["id"] for _ in range(5)]

    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        answer = caller.call("GET", PATH, params={"limit": 2, "order": order} | cursor).json()
        seen += [one["id"] for one in answer["data"]]
        if not answer["meta"]["pagination"]["has_more"]:
            break
        cursor = {"cursor": answer["meta"]["pagination"]["next_cursor"]}

    assert seen == (ids if order == "asc" else ids[::-1])


def test_lists_are_filtered(caller: Caller) -> None:
    yearly = created(caller, frequency="yearly", name="Loyer 100%")["id"]
    other = created(caller, customer_id="cus_other")["id"]
    caller.post(f"{PATH}/{other}/pause")

    def found(**filters: str) -> list[str]:
        return [one["id"] for one in caller.get(PATH, **filters)]

    assert found(frequency="yearly") == found(search="100%") == found(search="LOYER") == [yearly]
    assert found(customer_id="cus_other") == found(status="paused") == found(search=other) == [other]
    assert found(source="shop", status="active") == found(search="cus_2b", limit="5") == [yearly]
    assert found(source="none") == []


WRONG_LISTS: list[dict[str, Any]] = [
    {"page": 1, "limit": 2}, {"per_page": 5, "cursor": "c2NoX3"}, {"page": 0}, {"per_page": 101}, {"page": 10**30},
    {"page": "x"}, {"order": "up"}, {"status": "on"}, {"frequency": "daily"}, {"limit": 201}, {"cursor": "x"},
    {"search": "\x00"}, {"customer_id": "\x00"}, {"source": "\x00"}, {"search": "x" * 256}, {"colour": "red"},
]  # fmt: skip


def test_a_list_that_cannot_be_is_refused(caller: Caller) -> None:
    for params in WRONG_LISTS:
        refused(caller.call("GET", PATH, params=params), 400, "VALIDATION_ERROR")


def test_a_strange_path_is_refused(caller: Caller) -> None:
    for path in ("/sch_%00", "/%00/history", "/sch_%00/preview", "/sch_x/preview?next=0"):
        refused(caller.call("GET", f"{PATH}{path}"), 400, "VALIDATION_ERROR")


def test_a_history_that_cannot_be_is_refused(caller: Caller) -> None:
    path = f"{PATH}/{created(caller)['id']}/history"
    wrong: list[dict[str, Any]] = [{"limit": 0}, {"limit": 101}, {"cursor": "x"}, {"colour": "red"}]

    for params in wrong:
        refused(caller.call("GET", path, params=params), 400, "VALIDATION_ERROR")


def test_a_history_goes_on_behind_its_cursor(caller: Caller, runtime: Runtime) -> None:
    schedule = created(caller, frequency="weekly", start_date=TODAY.isoformat())
    tick(runtime.engine, now=datetime.now(UTC) + timedelta(days=30))
    path = f"{PATH}/{schedule['id']}/history"

    first = caller.call("GET", path, params={"limit": 3}).json()
    rest = caller.get(path, cursor=first["meta"]["pagination"]["next_cursor"])

    days = [one["scheduled_date"] for one in [*first["data"], *rest]]
    assert days == [(TODAY + timedelta(days=7 * week)).isoformat() for week in (4, 3, 2, 1, 0)]
