from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Engine, select

from tests.receiver.cli.conftest import Billhook
from workers import database
from workers.models import Schedule
from workers.schedule import rhythm, schedules

pytestmark = pytest.mark.usefixtures("configured")
once = pytest.mark.parametrize("backend", ["embedded"], indirect=True)  # what is refused before the database is asked

GOOD = ["--source", "shop", "--customer", "cus_1", "--frequency", "monthly", "--item", "Hosting; 1; 1300.00; 20"]


def changed(*changes: str) -> list[str]:
    """A good command line with these options instead of, or beside, those of the same name."""
    options = dict(zip(GOOD[::2], GOOD[1::2], strict=True))
    options |= dict(zip(changes[::2], changes[1::2], strict=True))
    return ["schedules", "add", *(part for pair in options.items() for part in pair)]


def test_a_schedule_is_added_and_listed(billhook: Billhook, engine: Engine) -> None:
    start = datetime.now(UTC).date() + timedelta(days=40)
    ended = billhook(
        *changed("--start", start.isoformat(), "--name", "[b]Hosting", "--currency", "MAD", "--days-until-due", "15"),
        "--item",
        "Domain; 2; 99.90",
        "--auto-finalize",
        "--auto-send",
    )

    assert ended.status == 0, ended.err
    schedule_id = ended.out.strip()
    with database.read(engine) as connection:
        row = connection.execute(select(*Schedule.__table__.columns)).one()
    assert (row.id, row.source, row.customer_id, row.frequency) == (schedule_id, "shop", "cus_1", "monthly")
    assert (row.start_date, row.days_until_due, row.auto_finalize, row.auto_send) == (start, 15, True, True)
    assert row.items == [
        {"description": "Hosting", "quantity": "1", "unit_price": "1300.00", "tax_rate": "20"},
        {"description": "Domain", "quantity": "2", "unit_price": "99.90"},
    ]
    assert row.next_run_at == rhythm.start_of_day(start, "Africa/Casablanca")
    listed = billhook("schedules", "list")
    assert listed.status == 0, listed.err
    assert schedule_id in listed.out
    assert "[b]Hosting" in listed.out
    (as_json,) = billhook("schedules", "list", "--json").objects
    assert as_json["id"] == schedule_id
    assert as_json["start_date"] == start.isoformat()
    assert as_json["items"] == row.items


def test_a_schedule_is_added_as_json_and_starts_today(billhook: Billhook, engine: Engine) -> None:
    (added,) = billhook(*changed(), "--json").objects

    (row,) = schedules.find(engine)
    assert added == {"id": row.id}
    assert abs(row.start_date - datetime.now(UTC).date()) <= timedelta(days=1)


def test_a_start_in_the_past_anchors_the_rhythm(billhook: Billhook, engine: Engine) -> None:
    assert billhook(*changed("--start", "2020-01-31")).status == 0

    (row,) = schedules.find(engine)
    assert row.start_date == date(2020, 1, 31)
    assert row.next_run_at > datetime.now(UTC) - timedelta(days=1)


def test_no_schedules_are_no_error(billhook: Billhook) -> None:
    ended = billhook("schedules", "list")

    assert (ended.status, ended.out) == (0, "")
    assert "billhook schedules add" in ended.err


@once
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        (["--source", "other"], "source"),
        (["--customer", ""], "customer"),
        (["--frequency", "daily"], "frequency"),
        (["--frequency", ""], "frequency"),
        (["--frequency", "Monthly"], "frequency"),
        (["--interval-count", "0"], "interval_count"),
        (["--interval-count", "13"], "interval_count"),
        (["--day-of-month", "29"], "day_of_month"),
        (["--day-of-month", "0"], "day_of_month"),
        (["--day-of-week", "1"], "day_of_week"),
        (["--end", "2020-01-01"], "end_date"),
        (["--start", "2020-01-01", "--max-occurrences", "1"], "max_occurrences"),
        (["--days-until-due", "366"], "days_until_due"),
        (["--days-until-due", "-1"], "days_until_due"),
        (["--currency", "mad"], "currency"),
        (["--currency", "MADX"], "currency"),
        (["--item", "Hosting"], "--item"),
        (["--item", "Hosting; 1"], "--item"),
        (["--item", "Hosting; 1; 2; 3; 4"], "--item"),
        (["--item", "; 1; 2"], "description"),
        (["--item", "Hosting; one; 2"], "quantity"),
        (["--item", "Hosting; ; 2"], "quantity"),
        (["--item", "Hosting; NaN; 2"], "quantity"),
        (["--item", "Hosting; 1_000; 2"], "quantity"),
        (["--item", "Hosting; \u0661; 2"], "quantity"),
        (["--item", "Hosting; 1; Infinity"], "unit_price"),
        (["--item", "Hosting; 1; 1,300"], "unit_price"),
        (["--item", "Hosting; 1; 2; x"], "tax_rate"),
        (["--item", "Hosting; 1; 2; "], "tax_rate"),
    ],
)
def test_a_schedule_with_a_wrong_field_is_refused_by_its_name(
    changes: list[str], field: str, billhook: Billhook, engine: Engine
) -> None:
    assert field in billhook(*changed(*changes)).complaint(2)
    assert schedules.find(engine) == []


@once
@pytest.mark.parametrize("changes", [["--start", "tomorrow"], ["--start", "2026-02-30"], ["--max-occurrences", "0"]])
def test_an_option_that_is_no_date_or_number_is_refused(changes: list[str], billhook: Billhook) -> None:
    assert changes[0] in billhook(*changed(*changes)).misuse()


@once
def test_only_a_finalized_invoice_can_be_sent(billhook: Billhook, engine: Engine) -> None:
    said = billhook(*changed(), "--auto-send").complaint(2)

    assert said.startswith("auto_send")
    assert "auto_finalize" in said
    assert schedules.find(engine) == []


@once
def test_a_source_without_an_api_key_makes_no_invoices(billhook: Billhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BILLHOOK_SOURCES__SHOP__API_KEY")

    assert "api_key" in billhook(*changed()).complaint(2)
