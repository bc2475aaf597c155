"""What `billhook schedules` does to a schedule, and to the invoices of one, against a sandbox of Hisab."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from handlers.providers.hisab.client import HisabClient
from handlers.providers.hisab.sandbox import create_app
from tests.handlers.providers.sandbox.served import serving
from tests.receiver.cli.conftest import Billhook
from tests.receiver.conftest import Serve
from tests.workers.given import only, rows
from workers import api_keys
from workers.app import Runtime
from workers.app import runtime as running
from workers.clients import Clients
from workers.models import AuditEntry, Occurrence, Schedule
from workers.schedule.generate import work_off
from workers.schedule.generator import Generator
from workers.schedule.tick import tick
from workers.settings import load

pytestmark = pytest.mark.usefixtures("configured")
once = pytest.mark.parametrize("backend", ["embedded"], indirect=True)  # what the database has no part in

KEY = "hisab_test_sandbox"
CUSTOMER = "cus_2b81fe"
GOOD = ("--source", "shop", "--customer", CUSTOMER, "--frequency", "monthly", "--item", "Hosting; 1; 1300.00")
UNKNOWN = "sch_01M802JFQ4BKP1Z2J476R6XRE8"


@pytest.fixture
def hisab(monkeypatch: pytest.MonkeyPatch, configured: object) -> Iterator[HisabClient]:
    with serving(create_app(rate_limit=10**6), lifespan="off") as url:
        monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__API_URL", f"{url}/api/v1")
        monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__API_KEY", KEY)
        with HisabClient(api_key=KEY, api_url=f"{url}/api/v1") as client:
            yield client


def added(billhook: Billhook, *options: str) -> str:
    ended = billhook("schedules", "add", *GOOD, *options)
    assert ended.status == 0, ended.err
    return ended.out.strip()


def days_from_now(days: int) -> str:
    return (datetime.now(UTC).date() + timedelta(days=days)).isoformat()


# Looking


def test_the_next_due_dates_and_amounts_are_listed(billhook: Billhook) -> None:
    schedule = added(billhook, "--start", days_from_now(3), "--days-until-due", "10", "--max-occurrences", "30")

    ended = billhook("schedules", "preview", schedule, "--next", "24")
    coming = billhook("schedules", "preview", schedule, "--json").objects

    assert ended.out.splitlines()[0].split() == ["due_on", "pay_by", "total", "currency"]
    assert len(ended.out.splitlines()) == 25
    assert coming[0] == {"due_on": days_from_now(3), "pay_by": days_from_now(13), "total": "1560.00", "currency": "MAD"}
    assert len(coming) == 12


def test_a_dry_run_of_adding_lists_what_would_come_and_adds_nothing(billhook: Billhook, engine: Engine) -> None:
    coming = billhook("schedules", "add", *GOOD, "--max-occurrences", "2", "--dry-run", "--json").objects

    assert [one["total"] for one in coming] == ["1560.00", "1560.00"]
    assert rows(engine, Schedule) == []


def test_all_about_one_is_shown(billhook: Billhook) -> None:
    schedule = added(billhook, "--name", "Hosting [b]")

    shown = billhook("schedules", "show", schedule)
    (whole,) = billhook("schedules", "show", schedule, "--json").objects

    assert "Hosting [b]" in shown.out
    assert "nothing was due yet" in shown.err
    assert (whole["id"], whole["status"], whole["history"]) == (schedule, "active", [])
    assert "agreement_token" not in whole


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ((), 2),
        (("--status", "paused"), 1),
        (("--status", "active"), 1),
        (("--customer", "cus_other"), 1),
        (("--frequency", "weekly"), 1),
        (("--source", "elsewhere"), 0),
        (("--search", "hosTING"), 1),
        (("--search", "%"), 0),
        (("--limit", "1"), 1),
    ],
)
def test_schedules_are_chosen(billhook: Billhook, options: tuple[str, ...], found: int) -> None:
    added(billhook, "--name", "Hosting")
    other = added(billhook, "--customer", "cus_other", "--frequency", "weekly", "--name", "Desk")
    billhook("schedules", "pause", other)

    assert len(billhook("schedules", "list", "--json", *options).objects) == found


@once
def test_a_status_that_is_none_is_refused(billhook: Billhook) -> None:
    assert billhook("schedules", "list", "--status", "dead").complaint(2).startswith("--status: 'dead' is none of")


# Changing


def test_a_schedule_is_paused_and_resumed(billhook: Billhook, engine: Engine) -> None:
    schedule = added(billhook)

    assert billhook("schedules", "pause", schedule, "--json").objects[0]["status"] == "paused"
    said = billhook("schedules", "pause", schedule).complaint()
    assert said == "INVALID_STATE: a schedule that is paused cannot be paused"
    resumed = billhook("schedules", "resume", schedule, "--next-run-date", days_from_now(9), "--json").objects[0]

    assert (resumed["status"], resumed["next_run_date"]) == ("active", days_from_now(9))
    assert [entry.action for entry in rows(engine, AuditEntry)] == [
        "schedules.add",
        "schedules.pause",
        "schedules.resume",
    ]


@once
def test_a_next_run_date_in_the_past_is_a_wrong_use(billhook: Billhook) -> None:
    schedule = added(billhook)
    billhook("schedules", "pause", schedule)

    said = billhook("schedules", "resume", schedule, "--next-run-date", days_from_now(-9)).complaint(2)

    assert said.startswith("next_run_date: must not be in the past")


def test_only_what_is_given_is_changed(billhook: Billhook, engine: Engine) -> None:
    schedule = added(billhook, "--end", days_from_now(400), "--auto-finalize", "--auto-send", "--name", "Hosting")

    ended = billhook(
        "schedules", "update", schedule, "--no-auto-send", "--item", "Desk; 2; 10", "--reset", "end-date",
        "--catch-up", "latest",
    )  # fmt: skip

    row = only(engine, Schedule)
    assert ended.status == 0, ended.err
    assert (row.auto_finalize, row.auto_send, row.end_date, row.catch_up, row.name) == (
        True, False, None, "latest", "Hosting",
    )  # fmt: skip
    assert row.items == [{"description": "Desk", "quantity": "2", "unit_price": "10"}]


def test_a_dry_run_of_a_change_lists_what_would_come(billhook: Billhook, engine: Engine) -> None:
    schedule = added(billhook, "--start", days_from_now(3))
    before = only(engine, Schedule)

    coming = billhook("schedules", "update", schedule, "--frequency", "weekly", "--dry-run", "--json").objects

    assert [one["due_on"] for one in coming[:3]] == [days_from_now(3), days_from_now(10), days_from_now(17)]
    assert only(engine, Schedule) == before


@once
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "say what is to change"),
        (("--catch-up", "some"), "catch_up: must be one of all, latest, none"),
        (("--reset", "items"), "--reset: 'items' is none of"),
        (("--reset", "end-date", "--end", "2030-01-01"), "--reset: end-date is given a value too"),
        (("--options", "[]"), "--options: write a JSON object"),
        (("--options", "@nowhere.json"), "--options: cannot read nowhere.json"),
        (("--options", '{"colour": 1}'), "options: "),
    ],
)
def test_a_change_that_cannot_be_is_refused(billhook: Billhook, options: tuple[str, ...], said: str) -> None:
    schedule = added(billhook)

    assert billhook("schedules", "update", schedule, *options).complaint(2).startswith(said)


@once
@pytest.mark.parametrize(
    "command",
    [
        ("show",), ("pause",), ("resume",), ("history",), ("preview",), ("retry",), ("update", "--name", "x"),
        ("cancel", "--yes"), ("delete", "--yes"), ("generate",),
    ],
)  # fmt: skip
def test_a_schedule_that_is_not_there_is_said_to_be_none(billhook: Billhook, command: tuple[str, ...]) -> None:
    name, *options = command

    said = billhook("schedules", name, UNKNOWN, *options).complaint()

    assert said.startswith(f"NOT_FOUND: there is no schedule '{UNKNOWN}'")


@once
@pytest.mark.parametrize("verb", ["cancel", "delete"])
def test_what_cannot_be_taken_back_asks_and_does_not_without_a_terminal(billhook: Billhook, verb: str) -> None:
    schedule = added(billhook)

    assert "--yes" in billhook("schedules", verb, schedule).complaint(2)


def test_a_schedule_is_cancelled_and_then_deleted(billhook: Billhook, engine: Engine) -> None:
    schedule = added(billhook)

    assert billhook("schedules", "cancel", schedule, "--yes", "--json").objects[0]["status"] == "cancelled"
    assert "cancelled" in billhook("schedules", "update", schedule, "--name", "x").complaint()
    assert billhook("schedules", "preview", schedule).err.strip() == "nothing to come: it is cancelled"
    assert billhook("schedules", "delete", schedule, "--yes").out.strip() == f"{schedule} is deleted"
    assert rows(engine, Schedule) == []


# Invoices


def test_an_invoice_is_made_now_and_its_due_date_used_up(
    billhook: Billhook, engine: Engine, hisab: HisabClient
) -> None:
    schedule = added(billhook, "--start", days_from_now(5), "--auto-finalize", "--auto-send")

    dry = billhook("schedules", "generate", schedule, "--dry-run", "--json").objects
    (made,) = billhook("schedules", "generate", schedule, "--issue-date", days_from_now(1), "--json").objects

    (invoice,) = hisab.invoices.list(customer_id=CUSTOMER)
    assert [one["due_on"] for one in dry] == [days_from_now(5)]
    assert (made["status"], made["invoice_number"], made["invoice_total"]) == (
        "success", invoice["invoice_number"], "1560.00",
    )  # fmt: skip
    assert (invoice["status"], invoice["issue_date"]) == ("sent", days_from_now(1))
    assert billhook("schedules", "history", schedule, "--json").objects == [made]
    assert made["scheduled_date"] == days_from_now(5)
    assert billhook("schedules", "preview", schedule, "--json").objects[0]["due_on"] > days_from_now(30)


def test_an_inactive_customer_is_not_billed(billhook: Billhook, engine: Engine, hisab: HisabClient) -> None:
    schedule = added(billhook)
    hisab.customers.update(CUSTOMER, status="inactive")

    said = billhook("schedules", "generate", schedule).complaint()

    assert said == "CUSTOMER_INACTIVE: the customer is inactive"
    assert rows(engine, Occurrence) == []


def test_what_failed_is_listed_and_tried_again(billhook: Billhook, engine: Engine, hisab: HisabClient) -> None:
    customer = str(hisab.customers.create(name="Atlas", type="b2c")["id"])
    schedule = added(billhook, "--customer", customer)
    hisab.customers.update(customer, status="inactive")
    tick(engine, now=datetime.now(UTC) + timedelta(minutes=1))
    settings = load()
    with Clients(settings) as clients:
        work_off(Generator(engine=engine, settings=settings, clients=clients, redis=running().redis), "shop")

    (failed,) = billhook("schedules", "history", schedule, "--json").objects
    assert (failed["status"], failed["error_code"]) == ("failed", "CUSTOMER_INACTIVE")
    assert "CUSTOMER_INACTIVE" in billhook("schedules", "history", schedule).out
    assert billhook("schedules", "retry", schedule, "--due", "2001-01-01").status == 1
    assert billhook("schedules", "retry", schedule).out.strip() == "1 occurrence will be tried again"
    assert "no occurrence of it has failed" in billhook("schedules", "retry", schedule).complaint()
    assert only(engine, Occurrence).status == "waiting"


# Bringing in


def test_a_file_is_imported_once(billhook: Billhook, engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "schedules.csv"
    file.write_text(
        "\ufeffexternal_id,source,customer_id,frequency,start_date,description,quantity,unit_price\r\n"
        "A-1,shop,cus_1,monthly,2026-07-01,Hosting,1,100.00\r\nA-1,,,,,Domain,1,9.90\r\n"
        "A-2,shop,cus_2,yearly,2026-07-01,Licence,1,900.00\r\n"
    )

    assert billhook("schedules", "import", str(file), "--dry-run").out == "would import 2 schedules; 0 known before\n"
    assert billhook("schedules", "import", str(file)).out == "imported 2 schedules; 0 known before\n"
    (again,) = billhook("schedules", "import", str(file), "--json").objects

    assert again == {"ids": [], "new": 0, "known": 2}
    assert sorted(len(row.items) for row in rows(engine, Schedule)) == [1, 2]


@once
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        (b"\xff\xfe", "is not a text file in UTF-8"),
        (b"name\nx", "nothing was imported: file: lacks the column source"),
        (b"colour\nx", "nothing was imported: file: column 'colour' is none of"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused(
    billhook: Billhook, tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "schedules.csv"
    if content is not None:
        file.write_bytes(content)

    assert said in billhook("schedules", "import", str(file)).complaint(2)


def keep(hisab: HisabClient, **fields: Any) -> str:
    item = {"description": "Retainer", "quantity": 1, "unit_price": 100}
    given: dict[str, Any] = {"customer_id": CUSTOMER, "frequency": "monthly", "items": [item]}
    return str(hisab.recurring_invoices.create(**{**given, "start_date": days_from_now(9), **fields})["id"])


def test_schedules_that_hisab_keeps_are_taken_over(billhook: Billhook, engine: Engine, hisab: HisabClient) -> None:
    kept = keep(hisab)

    (dry,) = billhook("schedules", "take-over", "--source", "shop", "--dry-run", "--json").objects
    assert (dry["kept"], dry["outcome"], rows(engine, Schedule)) == (kept, "taken", [])
    table = billhook("schedules", "take-over", "--source", "shop", "--yes")
    (again,) = billhook("schedules", "take-over", "--source", "shop", "--yes", "--json").objects

    assert (table.status, "taken" in table.out) == (0, True)
    assert (again["outcome"], again["schedule_id"]) == ("known", only(engine, Schedule).id)
    assert hisab.recurring_invoices.get(kept)["status"] == "paused"


def test_one_that_is_refused_is_told_with_the_reason_and_the_status(billhook: Billhook, hisab: HisabClient) -> None:
    keep(hisab, auto_send=True)

    ended = billhook("schedules", "take-over", "--source", "shop", "--yes", "--json")

    assert (ended.status, ended.objects[0]["outcome"]) == (1, "refused")
    assert "auto_finalize" in ended.objects[0]["reason"]


@once
def test_nothing_is_taken_over_without_asking(billhook: Billhook) -> None:
    assert "--yes" in billhook("schedules", "take-over", "--source", "shop").complaint(2)


@once
def test_who_keeps_no_schedules_has_none_to_take_over(billhook: Billhook, monkeypatch: pytest.MonkeyPatch) -> None:
    books = {"provider": "hibr", "secrets": ["whsec_x"], "api_key": "hibr_test_x"}
    monkeypatch.setenv("BILLHOOK_SOURCES", json.dumps({"books": books}))

    assert "hibr keeps no schedules" in billhook("schedules", "take-over", "--source", "books", "--yes").complaint(2)
    assert "there is no source 'nope'" in billhook("schedules", "take-over", "--source", "nope", "--yes").complaint(2)


def test_an_api_that_does_not_answer_ends_it_and_says_how_to_go_on(
    billhook: Billhook, hisab: HisabClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__API_URL", "http://127.0.0.1:9/api/v1")

    said = billhook("schedules", "take-over", "--source", "shop", "--yes").complaint()

    assert said.startswith("the API of source 'shop' ended it: NO_ANSWER")
    assert said.endswith("do it again to go on")


@once
def test_over_the_api_an_invoice_is_made_now_too(
    billhook: Billhook, hisab: HisabClient, serve: Serve, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = added(billhook)
    made = api_keys.create(runtime.engine, "ci", ("full",), actor="test", now=datetime.now(UTC))
    monkeypatch.setenv("BILLHOOK_KEY", made.key)
    elsewhere = ("--url", f"http://127.0.0.1:{serve(runtime, sources=load().sources).port}")

    (entry,) = billhook(*elsewhere, "schedules", "generate", schedule, "--json").objects

    assert entry["status"] == "success"
    assert [one["id"] for one in hisab.invoices.list(customer_id=CUSTOMER)] == [entry["invoice_id"]]
    assert billhook(*elsewhere, "schedules", "history", schedule).out == billhook("schedules", "history", schedule).out
