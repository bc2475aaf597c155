"""Recurring invoices: the rhythm, the verbs, and a year in a moment."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.providers.hisab.sandbox.rhythm import FREQUENCIES, Rhythm
from tests.handlers.providers.hisab.sandbox_given import ACCOUNT_KEY, ORGANIZATION, SCHEDULE, Sandbox, refusal


def dates(sandbox: Sandbox) -> list[str]:
    return [invoice["issue_date"] for invoice in sandbox.listed("/invoices?order=asc&per_page=100")]


def history(sandbox: Sandbox, schedule_id: str) -> list[tuple[str, str]]:
    entries = sandbox.listed(f"/recurring-invoices/{schedule_id}/history?limit=100")
    return [(entry["scheduled_date"], entry["status"]) for entry in entries]


def shown(sandbox: Sandbox, schedule_id: str) -> dict[str, Any]:
    return sandbox.done("GET", f"/recurring-invoices/{schedule_id}")


@pytest.mark.parametrize(
    ("fields", "due"),
    [
        ({"frequency": "weekly"}, ["2026-01-30", "2026-02-06", "2026-02-13"]),
        ({"frequency": "weekly", "day_of_week": 0}, ["2026-02-01", "2026-02-08", "2026-02-15"]),
        ({"frequency": "biweekly", "day_of_week": 5}, ["2026-01-30", "2026-02-13", "2026-02-27"]),
        ({"frequency": "weekly", "interval_count": 3}, ["2026-01-30", "2026-02-20", "2026-03-13"]),
        ({"frequency": "monthly"}, ["2026-01-30", "2026-02-28", "2026-03-30"]),
        ({"frequency": "monthly", "day_of_month": 28}, ["2026-02-28", "2026-03-28", "2026-04-28"]),
        ({"frequency": "monthly", "day_of_month": 1, "interval_count": 2}, ["2026-02-01", "2026-04-01", "2026-06-01"]),
        ({"frequency": "monthly", "day_of_week": 0}, ["2026-01-30", "2026-02-28", "2026-03-30"]),
        ({"frequency": "quarterly"}, ["2026-01-30", "2026-04-30", "2026-07-30"]),
        ({"frequency": "biannually"}, ["2026-01-30", "2026-07-30", "2027-01-30"]),
        ({"frequency": "yearly", "interval_count": 12}, ["2026-01-30", "2038-01-30", "2050-01-30"]),
    ],
)
def test_the_rhythm_of_a_schedule(fields: dict[str, Any], due: list[str]) -> None:
    rhythm = Rhythm(anchor=date(2026, 1, 30), **{"interval_count": 1} | fields)

    found: list[str] = []
    day = date(2026, 1, 1)
    while len(found) < len(due):
        next_day = rhythm.due(day)
        assert next_day is not None
        found.append(next_day.isoformat())
        day = next_day + timedelta(days=1)

    assert found == due


@given(
    frequency=st.sampled_from(FREQUENCIES),
    interval=st.integers(1, 12),
    anchor=st.dates(date(2000, 1, 1), date(2100, 1, 1)),
    day_of_month=st.none() | st.integers(1, 28),
    day_of_week=st.none() | st.integers(0, 6),
    earliest=st.dates(date(1999, 1, 1), date(2110, 1, 1)),
)
def test_a_due_date_is_the_first_from_a_day_on(
    frequency: str, interval: int, anchor: date, day_of_month: int | None, day_of_week: int | None, earliest: date
) -> None:
    rhythm = Rhythm(
        frequency=frequency,
        interval_count=interval,
        anchor=anchor,
        day_of_month=day_of_month,
        day_of_week=day_of_week,
    )

    due = rhythm.due(earliest)

    assert due is not None
    assert due >= max(earliest, anchor)
    # from any day between the two it is the same one: none was left out
    between = earliest + (due - earliest) / 2
    assert rhythm.due(between) == rhythm.due(due) == due


def test_there_is_no_due_date_after_the_last_year() -> None:
    weekly = Rhythm(frequency="weekly", interval_count=1, anchor=date(9999, 12, 30))
    yearly = Rhythm(frequency="yearly", interval_count=1, anchor=date(9999, 12, 30))

    assert weekly.due(date(9999, 12, 31)) is None
    assert yearly.due(date(9999, 12, 31)) is None


def test_the_documented_schedule_runs_for_a_year() -> None:
    sandbox = Sandbox()
    schedule_id = sandbox.schedule(auto_finalize=True)

    sandbox.go_to("2027-06-05")

    firsts = [f"2026-{month:02d}-01" for month in range(7, 13)] + [f"2027-{month:02d}-01" for month in range(1, 7)]
    assert dates(sandbox) == firsts
    assert history(sandbox, schedule_id) == [(day, "success") for day in reversed(firsts)]
    found = sandbox.listed("/invoices?order=asc&per_page=100")
    numbers = [invoice["invoice_number"] for invoice in found]
    assert numbers == [f"FAC-{day[:4]}-{number:04d}" for number, day in enumerate(firsts, start=142)]
    assert [event.type for event in sandbox.events()] == ["invoice.created", "invoice.finalized"] * 12
    schedule = shown(sandbox, schedule_id)
    assert (schedule["occurrences_created"], schedule["last_run_date"]) == (12, "2027-06-01")
    assert (schedule["next_run_date"], len(schedule["history"])) == ("2027-07-01", 5)


def test_what_falls_due_has_the_time_at_which_it_fell_due() -> None:
    sandbox = Sandbox()
    sandbox.schedule(frequency="weekly", auto_finalize=True, auto_send=True, max_occurrences=2)
    sandbox.schedule(frequency="biweekly", days_until_due=0)

    sandbox.go_to("2026-07-31")

    told = [(event.type, event.occurred_at.isoformat()[:16], event.data["due_date"]) for event in sandbox.events()]
    # midnight in Morocco is 23:00 UTC of the day before
    assert told == [
        ("invoice.created", "2026-06-30T23:00", "2026-07-31"),
        ("invoice.finalized", "2026-06-30T23:00", "2026-07-31"),
        ("invoice.sent", "2026-06-30T23:00", "2026-07-31"),
        ("invoice.created", "2026-06-30T23:00", "2026-07-01"),
        ("invoice.created", "2026-07-07T23:00", "2026-08-07"),
        ("invoice.finalized", "2026-07-07T23:00", "2026-08-07"),
        ("invoice.sent", "2026-07-07T23:00", "2026-08-07"),
        ("invoice.created", "2026-07-14T23:00", "2026-07-15"),
        ("invoice.created", "2026-07-28T23:00", "2026-07-29"),
    ]


def test_what_falls_due_is_done_without_being_asked() -> None:
    sandbox = Sandbox()
    sandbox.schedule(start_date="2026-06-06")

    sandbox.now += 24 * 3600

    assert dates(sandbox) == ["2026-06-06"]


def test_a_start_in_the_past_only_anchors_the_rhythm() -> None:
    sandbox = Sandbox()

    schedule_id = sandbox.schedule(start_date="2024-01-31")

    assert shown(sandbox, schedule_id)["next_run_date"] == "2026-06-30"


@pytest.mark.parametrize(
    ("end", "made"),
    [
        ({"max_occurrences": 2}, ["2026-07-01", "2026-08-01"]),
        ({"end_date": "2026-08-01"}, ["2026-07-01", "2026-08-01"]),
        ({"end_date": "2026-07-31"}, ["2026-07-01"]),
    ],
)
def test_a_schedule_is_completed_in_the_end(end: dict[str, Any], made: list[str]) -> None:
    sandbox = Sandbox()
    schedule_id = sandbox.schedule(**end)

    sandbox.go_to("2027-01-01")

    schedule = shown(sandbox, schedule_id)
    assert (dates(sandbox), schedule["status"], schedule["next_run_date"]) == (made, "completed", None)


def test_auto_send_alone_leaves_a_draft() -> None:
    sandbox = Sandbox()
    schedule_id = sandbox.schedule(auto_send=True)

    invoice = sandbox.done("POST", f"/recurring-invoices/{schedule_id}/generate")

    assert invoice["status"] == "draft"


def test_generate_makes_the_next_invoice_now_and_its_run_is_over() -> None:
    sandbox = Sandbox()
    schedule_id = sandbox.schedule(auto_finalize=True, auto_send=True)

    response = sandbox.call("POST", f"/recurring-invoices/{schedule_id}/generate")
    sandbox.done("POST", f"/recurring-invoices/{schedule_id}/generate", json={"issue_date": "2026-06-20"})

    invoice = response.json()["data"]
    assert response.status_code == 201
    assert (invoice["status"], invoice["issue_date"], invoice["due_date"]) == ("sent", "2026-06-05", "2026-07-05")
    assert (invoice["total"], invoice["invoice_number"]) == ("12480.00", "FAC-2026-0142")
    assert shown(sandbox, schedule_id)["next_run_date"] == "2026-09-01"
    assert history(sandbox, schedule_id) == [("2026-08-01", "success"), ("2026-07-01", "success")]
    assert dates(sandbox) == ["2026-06-05", "2026-06-20"]


def test_a_paused_schedule_waits_and_goes_on_from_today() -> None:
    sandbox = Sandbox()
    schedule_id = sandbox.schedule()
    sandbox.done("POST", f"/recurring-invoices/{schedule_id}/pause")
    sandbox.go_to("2026-09-15")

    resumed = sandbox.done("POST", f"/recurring-invoices/{schedule_id}/resume")

    assert dates(sandbox) == []
    assert (resumed["status"], resumed["next_run_date"]) == ("active", "2026-10-01")


def test_a_schedule_is_resumed_from_a_day_that_one_names() -> None:
    sandbox = Sandbox()
    schedule_id = sandbox.schedule()
    sandbox.done("POST", f"/recurring-invoices/{schedule_id}/pause")

    sandbox.done("POST", f"/recurring-invoices/{schedule_id}/resume", json={"next_run_date": "2026-06-10"})
    sandbox.go_to("2026-08-01")

    assert dates(sandbox) == ["2026-06-10", "2026-07-10"]


def test_a_schedule_can_be_adjusted() -> None:
    sandbox = Sandbox()
    schedule_id = sandbox.schedule()
    item = {"description": "Retainer", "quantity": 2, "unit_price": 100, "tax_rate": 10}

    changed = sandbox.done(
        "PUT",
        f"/recurring-invoices/{schedule_id}",
        json={"frequency": "weekly", "auto_finalize": True, "days_until_due": 7, "items": [item]},
    )
    sandbox.go_to("2026-07-09")

    assert (changed["total"], changed["next_run_date"]) == ("220.00", "2026-07-01")
    assert dates(sandbox) == ["2026-07-01", "2026-07-08"]


def test_an_end_before_the_next_run_completes_a_schedule() -> None:
    sandbox = Sandbox()
    schedule_id = sandbox.schedule(start_date="2026-06-10")
    sandbox.go_to("2026-06-20")

    changed = sandbox.done("PUT", f"/recurring-invoices/{schedule_id}", json={"end_date": "2026-06-30"})

    assert changed["status"] == "completed"


def test_a_deleted_schedule_is_gone_and_its_invoices_stay() -> None:
    sandbox = Sandbox()
    schedule_id = sandbox.schedule()
    sandbox.done("POST", f"/recurring-invoices/{schedule_id}/generate")

    sandbox.done("DELETE", f"/recurring-invoices/{schedule_id}")

    assert refusal(sandbox.call("GET", f"/recurring-invoices/{schedule_id}/history")) == (404, "NOT_FOUND")
    assert dates(sandbox) == ["2026-06-05"]


def in_state(sandbox: Sandbox, state: str) -> str:
    schedule_id = sandbox.schedule(max_occurrences=1)
    if state == "completed":
        sandbox.done("POST", f"/recurring-invoices/{schedule_id}/generate")
    elif state == "paused":
        sandbox.done("POST", f"/recurring-invoices/{schedule_id}/pause")
    elif state == "cancelled":
        sandbox.done("POST", f"/sandbox/recurring-invoices/{schedule_id}", json={"status": "cancelled"})
    assert shown(sandbox, schedule_id)["status"] == state
    return schedule_id


@pytest.mark.parametrize(
    ("state", "refused"),
    [
        ("active", ["resume"]),
        ("paused", ["generate", "pause"]),
        ("completed", ["change", "generate", "pause", "resume"]),
        ("cancelled", ["change", "generate", "pause", "resume"]),
    ],
)
def test_a_verb_that_does_not_fit_the_state_is_refused_and_changes_nothing(state: str, refused: list[str]) -> None:
    sandbox = Sandbox()
    calls = {"change": ("PUT", ""), "generate": ("POST", "/generate"), "pause": ("POST", "/pause")}
    calls |= {"resume": ("POST", "/resume")}
    schedule_id = in_state(sandbox, state)
    before = shown(sandbox, schedule_id)

    answers = {
        verb: sandbox.call(*calls[verb][:1], f"/recurring-invoices/{schedule_id}{calls[verb][1]}") for verb in refused
    }

    assert {verb: refusal(answer) for verb, answer in answers.items()} == dict.fromkeys(refused, (409, "INVALID_STATE"))
    assert shown(sandbox, schedule_id) == before


def test_no_invoice_is_made_for_a_customer_who_is_not_active() -> None:
    sandbox = Sandbox()
    schedule_id = sandbox.schedule()
    sandbox.done("PATCH", "/customers/cus_2b81fe", json={"status": "inactive"})

    refused = sandbox.call("POST", f"/recurring-invoices/{schedule_id}/generate")
    sandbox.go_to("2026-07-02")
    sandbox.done("PATCH", "/customers/cus_2b81fe", json={"status": "active"})
    sandbox.go_to("2026-08-02")

    assert refusal(refused) == (409, "CUSTOMER_INACTIVE")
    assert history(sandbox, schedule_id) == [("2026-08-01", "success"), ("2026-07-01", "failed")]
    entries = shown(sandbox, schedule_id)["history"]
    assert entries[1]["error_message"].startswith("CUSTOMER_INACTIVE")
    assert shown(sandbox, schedule_id)["occurrences_created"] == 1


def test_a_run_whose_invoice_is_refused_leaves_nothing_but_its_history() -> None:
    sandbox = Sandbox()
    customer = sandbox.done("POST", "/customers", json={"name": "Sans ICE", "type": "b2b"})
    schedule_id = sandbox.schedule(customer_id=customer["id"], auto_finalize=True)
    told = len(sandbox.posted)

    sandbox.go_to("2026-07-02")

    assert history(sandbox, schedule_id) == [("2026-07-01", "failed")]
    assert "customer.ice" in shown(sandbox, schedule_id)["history"][0]["error_message"]
    assert (dates(sandbox), len(sandbox.posted)) == ([], told)


def test_the_quota_counts_what_may_still_generate() -> None:
    sandbox = Sandbox()
    sandbox.switch(recurring_quota=2)
    first, second = sandbox.schedule(), sandbox.schedule()
    sandbox.done("POST", f"/recurring-invoices/{first}/pause")

    assert refusal(sandbox.call("POST", "/recurring-invoices", json=SCHEDULE)) == (409, "QUOTA_EXCEEDED")
    sandbox.done("DELETE", f"/recurring-invoices/{second}")
    sandbox.schedule()


def test_an_archived_organization_generates_nothing_and_says_later_what_it_missed() -> None:
    sandbox = Sandbox()
    schedule_id = sandbox.schedule()
    sandbox.done("POST", f"/organizations/{ORGANIZATION}/archive", key=ACCOUNT_KEY)
    sandbox.go_to("2026-09-15")

    sandbox.done("POST", f"/organizations/{ORGANIZATION}/restore", key=ACCOUNT_KEY)
    sandbox.go_to("2026-10-02")

    assert history(sandbox, schedule_id) == [
        ("2026-10-01", "success"),
        ("2026-09-01", "skipped"),
        ("2026-08-01", "skipped"),
        ("2026-07-01", "skipped"),
    ]
    assert dates(sandbox) == ["2026-10-01"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["Hosting", "Retainer"]),
        ("status=paused", ["Hosting"]),
        ("frequency=weekly", ["Retainer"]),
        ("customer_id=cus_...", ["Retainer"]),
        ("search=host", ["Hosting"]),
        ("search=rif+conseil", ["Retainer"]),
        ("search=%25", []),
    ],
)
def test_schedules_are_filtered(query: str, found: list[str]) -> None:
    sandbox = Sandbox()
    hosting = sandbox.schedule(name="Hosting")
    sandbox.schedule(name="Retainer", frequency="weekly", customer_id="cus_...")
    sandbox.done("POST", f"/recurring-invoices/{hosting}/pause")

    listed = sandbox.listed(f"/recurring-invoices?order=asc&{query}")

    assert [schedule["name"] for schedule in listed] == found
