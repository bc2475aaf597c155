"""Who may call the sandbox, how often and in which version; and that a repeated call is not done twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from handlers.providers.hibr.sandbox import create_app
from handlers.providers.hibr.sandbox.seeds import API_KEY, CUSTOMER
from handlers.providers.hibr.sandbox.turnstile import TIERS
from handlers.providers.sandbox.store import StoreError
from tests.handlers.providers.hibr.sandboxes import INVOICE, NOW, Sandbox, refusal

KEY_HEADER = "Idempotency-Key"
UUID = "9f8e7d6c-5b4a-3210-fedc-ba9876543210"


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic aGlicg==",
        f"Token {API_KEY}",
        "Bearer hibr_test_unknown",
        "Bearer \xff",
        "Bearer hibr_live_sandbox",
        "Bearer nonsense",
    ],
)
def test_without_a_valid_key_there_is_an_authentication_error(authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = Sandbox().call("GET", "/v1/invoices", key=None, headers=headers)

    assert refusal(response) == (401, "authentication_error", None)
    assert "sandbox" not in response.text.partition("belongs")[0]


def test_a_revoked_key_is_refused_and_the_others_are_not() -> None:
    sandbox = Sandbox()
    key = sandbox.key("*")
    assert sandbox.call("GET", "/v1/invoices", key=key).status_code == 200
    key_id = sandbox.call("GET", "/sandbox").json()["keys"][-1]["id"]

    sandbox.call("DELETE", f"/sandbox/keys/{key_id}")

    assert refusal(sandbox.call("GET", "/v1/invoices", key=key)) == (401, "authentication_error", None)
    assert sandbox.call("GET", "/v1/invoices").status_code == 200


SCOPES = [
    ("read:invoices", "invoices credit_notes", ""),
    ("write:invoices", "", "invoices credit_notes"),
    ("read:customers", "customers", ""),
    ("write:customers", "", "customers"),
    ("read:payments", "payments", ""),
    ("write:payments", "", "payments"),
    ("read:vat", "vat_returns", ""),
    ("write:vat", "", "vat_returns"),
    ("read:payroll", "employees payroll_runs", ""),
    ("write:payroll", "", "employees payroll_runs"),
    ("read:reports", "", ""),
    ("*", "EVERYTHING", "EVERYTHING"),
]
RESOURCES = [
    "customers",
    "suppliers",
    "invoices",
    "bills",
    "credit_notes",
    "payments",
    "journal_entries",
    "items",
    "accounts",
    "employees",
    "vat_returns",
    "corporate_tax_returns",
    "payroll_runs",
    "webhook_endpoints",
]


@pytest.mark.parametrize(("scope", "read", "written"), SCOPES)
def test_a_scope_opens_what_it_names(scope: str, read: str, written: str) -> None:
    sandbox = Sandbox()
    key = sandbox.key(scope)
    readable = [one for one in RESOURCES if sandbox.call("GET", f"/v1/{one}", key=key).status_code == 200]
    answers = {one: sandbox.call("POST", f"/v1/{one}/none/post", key=key) for one in RESOURCES}
    writable = [one for one, answer in answers.items() if answer.status_code == 404]

    assert set(readable) == set(RESOURCES if read == "EVERYTHING" else read.split())
    assert set(writable) == set(RESOURCES if written == "EVERYTHING" else written.split())
    for answer in answers.values():
        assert refusal(answer)[:2] in {(404, "not_found"), (403, "permission_error")}


@pytest.mark.parametrize("body", [{"scopes": ["read:everything"]}, {"account": "No Way"}, {"key": "hibr_live_mine"}])
def test_a_key_that_cannot_be_is_not_made(body: dict[str, Any]) -> None:
    assert Sandbox().call("POST", "/sandbox/keys", json=body).status_code == 400


def test_another_account_sees_nothing_of_this_one() -> None:
    sandbox = Sandbox()
    theirs = sandbox.key("*", account="others")

    assert sandbox.call("GET", "/v1/customers", key=theirs).json()["data"] == []
    assert refusal(sandbox.call("GET", f"/v1/customers/{CUSTOMER}", key=theirs)) == (404, "not_found", None)
    refused = sandbox.call("POST", "/v1/invoices", key=theirs, json=INVOICE)
    assert refusal(refused) == (422, "validation_error", "customer_id")


@pytest.mark.parametrize(
    ("tier", "calls", "at_once", "burst"),
    [("lite", 60, 5, 2), ("pro", 300, 20, 3), ("enterprise", 1500, 50, 1), ("sandbox", 30, 3, 1)],
)
def test_the_tiers_are_the_documented_ones(tier: str, calls: int, at_once: int, burst: int) -> None:
    known = TIERS[tier]
    reported = Sandbox(tier=tier, rate_limit=None).call("GET", "/v1/accounts").headers

    assert (known.calls, known.at_once, known.burst) == (calls, at_once, burst)
    assert reported["x-ratelimit-limit"] == str(calls)


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("GET", "/v1/invoices", API_KEY, 200),
        ("GET", "/v1/invoices", None, 401),
        ("GET", "/v1/nothing", API_KEY, 404),
        ("POST", "/v1/customers", API_KEY, 400),
        ("GET", "/nowhere", None, 404),
        ("GET", "/changelog", None, 200),
        ("POST", "/oauth/token", None, 400),
        ("GET", "/oauth/authorize", None, 400),
    ],
)
def test_every_response_reports_limit_and_version(method: str, path: str, key: str | None, status: int) -> None:
    response = Sandbox(rate_limit=None).call(method, path, key=key)

    assert response.status_code == status
    assert (response.headers["x-ratelimit-limit"], response.headers["x-ratelimit-remaining"]) == ("30", "29")
    assert response.headers["x-ratelimit-reset"] == str(int(NOW) + 60)
    assert response.headers["hibr-version"] == "2026-10-01"


@pytest.mark.parametrize("fault", ["error", "too_many", "error_after"])
def test_an_answer_that_a_fault_made_reports_them_too(fault: str) -> None:
    response = Sandbox(faults={fault: 1.0}).call("GET", "/v1/invoices")

    expected = (429, "rate_limit_error", None) if fault == "too_many" else (500, "api_error", None)
    assert refusal(response) == expected
    assert {"x-ratelimit-limit", "hibr-version"} <= set(response.headers)


def test_the_31st_call_of_a_minute_has_to_wait() -> None:
    sandbox = Sandbox(rate_limit=None)
    sandbox.now += 18.5
    allowed = [sandbox.call("GET", "/v1/accounts") for _ in range(30)]
    refused = sandbox.call("GET", "/v1/accounts")
    other_key = sandbox.call("GET", "/v1/accounts", key=sandbox.key("*"))
    sandbox.now += float(refused.headers["retry-after"])
    later = sandbox.call("GET", "/v1/accounts")

    assert [int(one.headers["x-ratelimit-remaining"]) for one in allowed] == list(range(29, -1, -1))
    assert refusal(refused) == (429, "rate_limit_error", None)
    assert (refused.headers["retry-after"], refused.headers["x-ratelimit-remaining"]) == ("42", "0")
    assert (other_key.status_code, later.status_code) == (200, 200)


@pytest.mark.parametrize(("tier", "factor"), [("lite", 2), ("pro", 3)])
def test_a_burst_goes_on_to_a_multiple_of_the_limit(tier: str, factor: int) -> None:
    sandbox = Sandbox(tier=tier, rate_limit=4)

    statuses = [sandbox.call("GET", "/v1/accounts").status_code for _ in range(4 * factor + 1)]

    assert statuses == [200] * (4 * factor) + [429]


def test_a_burst_ends_after_10_seconds_and_is_there_again_in_the_next_minute() -> None:
    sandbox = Sandbox(tier="lite", rate_limit=2)
    statuses = []
    for moment in (0.0, 1.0, 2.0, 12.0, 60.0, 61.0, 62.0):
        sandbox.now = NOW + moment
        statuses.append(sandbox.call("GET", "/v1/accounts").status_code)

    assert statuses == [200, 200, 200, 429, 200, 200, 200]


def test_only_so_many_calls_are_under_way_at_once() -> None:
    sandbox = Sandbox()
    sandbox.call("POST", "/sandbox/faults", json={"kind": "slow", "seconds": 0.2, "times": 3})

    async def together() -> list[httpx.Response]:
        async with sandbox.client() as client:
            headers = {"Authorization": f"Bearer {API_KEY}"}
            return await asyncio.gather(*(client.get("/v1/accounts", headers=headers) for _ in range(4)))

    answers = asyncio.run(together())

    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert (refusal(refused)[1], refused.headers["retry-after"]) == ("rate_limit_error", "1")
    assert sandbox.call("GET", "/v1/accounts").status_code == 200


def test_in_an_outage_every_call_is_answered_503() -> None:
    sandbox = Sandbox()
    sandbox.call("POST", "/sandbox/outage", json={"seconds": 30})
    refused = sandbox.call("GET", "/v1/accounts")
    sandbox.now += 30
    later = sandbox.call("GET", "/v1/accounts")

    assert refusal(refused) == (503, "service_unavailable", None)
    assert refused.headers["retry-after"] == "30"
    assert later.status_code == 200


@pytest.mark.parametrize(
    ("asked", "status"), [(None, 200), ("2026-10-01", 200), ("2025-01-01", 400), ("latest", 400), ("", 400)]
)
def test_a_version_that_is_not_known_is_refused(asked: str | None, status: int) -> None:
    response = Sandbox().call("GET", "/v1/accounts", headers={} if asked is None else {"Hibr-Version": asked})

    assert response.status_code == status
    assert response.headers["hibr-version"] == "2026-10-01"
    if status == 400:
        assert refusal(response) == (400, "invalid_request_error", "Hibr-Version")


def test_the_same_request_under_the_same_key_is_done_once() -> None:
    sandbox = Sandbox()
    before = len(sandbox.call("GET", "/v1/invoices").json()["data"])

    answers = [sandbox.call("POST", "/v1/invoices", json=INVOICE, headers={KEY_HEADER: UUID}) for _ in range(3)]

    assert len({answer.content for answer in answers}) == 1
    assert {answer.headers["content-type"] for answer in answers} == {"application/json"}
    assert len(sandbox.call("GET", "/v1/invoices").json()["data"]) == before + 1


def test_an_action_and_a_deletion_are_answered_again_too() -> None:
    sandbox = Sandbox()
    invoice, draft = sandbox.invoice(), sandbox.invoice()
    posted = [
        sandbox.call("POST", f"/v1/invoices/{invoice['id']}/post", headers={KEY_HEADER: "post"}) for _ in range(2)
    ]
    deleted = [sandbox.call("DELETE", f"/v1/invoices/{draft['id']}", headers={KEY_HEADER: "del"}) for _ in range(2)]

    assert [(one.status_code, one.json()["status"]) for one in posted] == [(200, "open")] * 2
    assert [(one.status_code, one.content) for one in deleted] == [(204, b"")] * 2


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/customers", {"name": "Other"}),
        ("POST", "/v1/suppliers", {"name": "Same"}),
        ("PATCH", f"/v1/customers/{CUSTOMER}", {"name": "Same"}),
    ],
)
def test_a_key_that_was_used_for_another_request_is_a_conflict(method: str, path: str, body: dict[str, Any]) -> None:
    sandbox = Sandbox()
    sandbox.call("POST", "/v1/customers", json={"name": "Same"}, headers={KEY_HEADER: UUID})

    assert refusal(sandbox.call(method, path, json=body, headers={KEY_HEADER: UUID})) == (
        409,
        "conflict_error",
        KEY_HEADER,
    )


def test_an_answer_is_kept_for_24_hours_by_the_machines_clock() -> None:
    sandbox = Sandbox()

    def made() -> str:
        response = sandbox.call("POST", "/v1/customers", json={"name": "A"}, headers={KEY_HEADER: UUID})
        return str(response.json()["id"])

    first = made()
    sandbox.call("POST", "/sandbox/clock", json={"advance": "30d"})
    after_a_month_of_its_own = made()
    sandbox.now += 24 * 3600 - 1
    in_time = made()
    sandbox.now += 1
    too_late = made()

    assert first == after_a_month_of_its_own == in_time != too_late


def test_what_was_refused_may_be_mended_under_the_same_key() -> None:
    sandbox = Sandbox()
    refused = sandbox.call("POST", "/v1/customers", json={}, headers={KEY_HEADER: UUID})
    mended = sandbox.call("POST", "/v1/customers", json={"name": "A"}, headers={KEY_HEADER: UUID})

    assert (refused.status_code, mended.status_code) == (400, 200)


def test_an_answer_that_was_lost_is_given_again() -> None:
    sandbox = Sandbox()
    sandbox.call("POST", "/sandbox/faults", json={"kind": "error_after"})
    lost = sandbox.call("POST", "/v1/customers", json={"name": "A"}, headers={KEY_HEADER: UUID})
    again = sandbox.call("POST", "/v1/customers", json={"name": "A"}, headers={KEY_HEADER: UUID})

    assert (lost.status_code, again.status_code) == (500, 200)
    assert [one["name"] for one in sandbox.call("GET", "/v1/customers").json()["data"]].count("A") == 1


def test_two_calls_at_once_under_one_key_make_one_record() -> None:
    sandbox = Sandbox()
    headers = {"Authorization": f"Bearer {API_KEY}", KEY_HEADER: UUID}

    async def together() -> list[httpx.Response]:
        async with sandbox.client() as client:
            return await asyncio.gather(
                *(client.post("/v1/items", json={"name": "A"}, headers=headers) for _ in range(3))
            )

    assert len({answer.json()["id"] for answer in asyncio.run(together())}) == 1


def test_keys_of_two_accounts_do_not_meet() -> None:
    sandbox = Sandbox()
    theirs = sandbox.key("*", account="others")
    ids = {
        sandbox.call("POST", "/v1/items", key=key, json={"name": "A"}, headers={KEY_HEADER: UUID}).json()["id"]
        for key in (API_KEY, theirs)
    }

    assert len(ids) == 2


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "schl\xfcssel"])
def test_a_key_that_is_no_key_is_malformed(key: str) -> None:
    response = Sandbox().call("POST", "/v1/items", json={"name": "A"}, headers={KEY_HEADER: key})

    assert refusal(response) == (400, "invalid_request_error", KEY_HEADER)


def test_a_file_keeps_it_all(tmp_path: Path) -> None:
    first = Sandbox(path=tmp_path / "hibr.db")
    customer = first.call("POST", "/v1/customers", json={"name": "A"}, headers={KEY_HEADER: UUID}).json()
    key = first.key("read:customers")
    first.app.state.machine.store.close()

    second = Sandbox(path=tmp_path / "hibr.db")

    assert second.call("GET", f"/v1/customers/{customer['id']}", key=key).json() == customer
    again = second.call("POST", "/v1/customers", json={"name": "A"}, headers={KEY_HEADER: UUID})
    assert again.json() == customer
    second.app.state.machine.store.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tier": "free"}, "lite, pro, enterprise, sandbox"),
        ({"api_key": "hibr_live_mine"}, "hibr_test_"),
        ({"time_zone": "Asia/Nowhere"}, "Asia/Dubai"),
        ({"time_zone": "../etc/passwd"}, "Asia/Dubai"),
        ({"webhooks": [("billhook", "s")]}, "http://"),
        ({"webhooks": [("http://a.example", "")]}, "empty"),
        ({"faults": {"flood": 1.0}}, "duplicate"),
    ],
)
def test_an_option_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_app(**options)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hibr.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(StoreError):
        create_app(path=tmp_path / "hibr.db")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PATCH", "/sandbox/accounts/sandbox", {"tier": "gold"}, 400),
        ("PATCH", "/sandbox/accounts/sandbox", {"time_zone": "Mars/Olympus"}, 400),
        ("PATCH", "/sandbox/accounts/nobody", {"tier": "pro"}, 404),
        ("PATCH", "/sandbox/accounts/sandbox", {"tier": "pro"}, 200),
        ("POST", "/sandbox/outage", {"seconds": -1}, 400),
        ("POST", "/sandbox/deprecations", {"sunset": "2027-10-14"}, 400),
        ("POST", "/sandbox/webhooks", {"url": "http://a.example", "secret": "s", "owner": "nobody"}, 404),
        ("POST", "/sandbox/webhooks", {"url": "a.example", "secret": "s"}, 400),
    ],
)
def test_its_own_surface_says_what_is_wrong(method: str, path: str, body: dict[str, Any], status: int) -> None:
    assert Sandbox(rate_limit=1, clock=None).call(method, path, json=body).status_code == status


def test_a_new_tier_counts_at_once() -> None:
    sandbox = Sandbox(rate_limit=None)
    sandbox.call("PATCH", "/sandbox/accounts/sandbox", json={"tier": "pro"})

    assert sandbox.call("GET", "/v1/accounts").headers["x-ratelimit-limit"] == "300"
    assert sandbox.call("GET", "/sandbox").json()["accounts"][0]["tier"] == "pro"
