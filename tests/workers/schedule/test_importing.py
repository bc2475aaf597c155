from __future__ import annotations

import csv
import io
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from tests.workers.given import NOW, only, rows
from tests.workers.schedule.given import ACTOR
from workers.models import AuditEntry, Schedule
from workers.schedule.errors import ScheduleError
from workers.schedule.importing import COLUMNS, import_all, read_csv
from workers.settings import Settings

HEAD = "external_id,source,customer_id,frequency,start_date,description,quantity,unit_price"
ROW = "A-1,shop,cus_1,monthly,2026-07-01,Hosting,1,100.00"


def imported(engine: Engine, settings: Settings, *lines: str, dry_run: bool = False) -> tuple[int, int]:
    """How many were new, and how many known."""
    text = "\n".join([HEAD, *lines])
    done = import_all(engine, settings, read_csv(text), actor=ACTOR, now=NOW, dry_run=dry_run)
    return len(done.ids), done.known


def complaint(text: str) -> str:
    with pytest.raises(ScheduleError) as refused:
        read_csv(text)
    assert refused.value.code == "VALIDATION_ERROR"
    return str(refused.value)


def test_a_row_is_a_schedule(settings: Settings, engine: Engine) -> None:
    assert imported(engine, settings, ROW) == (1, 0)

    row = only(engine, Schedule)
    assert (row.external_id, row.source, row.customer_id, row.frequency) == ("A-1", "shop", "cus_1", "monthly")
    assert (row.start_date, row.status, row.days_until_due, row.catch_up) == (date(2026, 7, 1), "active", 30, "all")
    assert row.items == [{"description": "Hosting", "quantity": "1", "unit_price": "100.00"}]


def test_every_field_has_a_column(settings: Settings, engine: Engine) -> None:
    cells = {
        "external_id": "A-1", "source": "shop", "customer_id": "cus_1", "frequency": "quarterly",
        "start_date": "2026-07-01", "name": "Café, main street", "interval_count": "2", "day_of_month": "15",
        "day_of_week": "", "end_date": "2030-01-01", "max_occurrences": "8", "auto_finalize": "yes",
        "auto_send": "TRUE", "days_until_due": "10", "currency": "EUR", "catch_up": "latest", "options": "{}",
        "description": "Hosting", "quantity": "1.5", "unit_price": "100.00", "tax_rate": "20",
    }  # fmt: skip
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS)
    table.writeheader()
    table.writerow(cells)

    import_all(engine, settings, read_csv(text.getvalue()), actor=ACTOR, now=NOW)

    row = only(engine, Schedule)
    assert set(cells) == set(COLUMNS)
    assert (row.name, row.interval_count, row.day_of_month, row.day_of_week) == ("Café, main street", 2, 15, None)
    assert (row.end_date, row.max_occurrences, row.auto_finalize, row.auto_send) == (date(2030, 1, 1), 8, True, True)
    assert (row.days_until_due, row.currency, row.catch_up, row.options) == (10, "EUR", "latest", {})
    assert row.items[0]["tax_rate"] == "20"


def test_rows_of_one_external_id_are_items_of_one_schedule(settings: Settings, engine: Engine) -> None:
    done = imported(engine, settings, ROW, "B-2,shop,cus_2,weekly,2026-07-01,Desk,1,50", "A-1,,,,,Domain,2,9.90")

    assert done == (2, 0)
    first = next(row for row in rows(engine, Schedule) if row.external_id == "A-1")
    assert [item["description"] for item in first.items] == ["Hosting", "Domain"]


def test_rows_without_an_external_id_are_schedules_of_their_own(settings: Settings, engine: Engine) -> None:
    bare = ROW.removeprefix("A-1")

    assert imported(engine, settings, bare, bare) == (2, 0)
    assert {row.external_id for row in rows(engine, Schedule)} == {None}


def test_a_file_that_is_imported_again_adds_only_what_is_new(settings: Settings, engine: Engine) -> None:
    imported(engine, settings, ROW)

    assert imported(engine, settings, ROW, ROW.replace("A-1", "B-2")) == (1, 1)
    assert imported(engine, settings, ROW) == (0, 1)
    assert sorted(row.external_id for row in rows(engine, Schedule)) == ["A-1", "B-2"]


def test_a_dry_run_counts_and_changes_nothing(settings: Settings, engine: Engine) -> None:
    assert imported(engine, settings, ROW, dry_run=True) == (1, 0)

    assert rows(engine, Schedule) == rows(engine, AuditEntry) == []


def test_nothing_is_imported_unless_all_of_it_can_be_and_each_line_is_named(settings: Settings, engine: Engine) -> None:
    with pytest.raises(ScheduleError) as refused:
        imported(
            engine,
            settings,
            ROW,
            "B-2,nowhere,cus_2,monthly,2026-07-01,Desk,1,50",
            "C-3,shop,cus_3,daily,2026-07-01,Desk,one,50",
        )

    assert [str(one) for one in refused.value.details] == [
        "line 3: source: there is no source 'nowhere' in the settings",
        "line 4: items[0].quantity: must be a decimal number, such as 1300.00",
        "line 4: frequency: must be one of weekly, biweekly, monthly, quarterly, biannually, yearly",
    ]
    assert rows(engine, Schedule) == []


def test_a_quota_refuses_the_whole_file(settings: Settings, engine: Engine) -> None:
    source = settings.sources["shop"].model_copy(update={"max_schedules": 1})
    limited = settings.model_copy(update={"sources": {"shop": source}})

    with pytest.raises(ScheduleError) as refused:
        imported(engine, limited, ROW, ROW.replace("A-1", "B-2"))

    assert refused.value.code == "QUOTA_EXCEEDED"
    assert rows(engine, Schedule) == []


def test_it_is_written_down_who_imported_how_many(settings: Settings, engine: Engine) -> None:
    imported(engine, settings, ROW, ROW.replace("A-1", "B-2"))

    entry = only(engine, AuditEntry)
    assert (entry.actor, entry.action, entry.detail) == (ACTOR, "schedules.import", {"schedules": 2, "known": 0})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lacks the column source"),
        ("\n\n", "lacks the column source"),
        (HEAD, "must have 1 to"),
        (HEAD.replace("frequency", "rhythm") + "\n" + ROW, "column 'rhythm' is none of"),
        (HEAD.replace(",frequency", "") + "\nA", "lacks the column frequency"),
        (HEAD + ",quantity\n" + ROW + ",2", "has the column quantity twice"),
        (HEAD + "\n" + ROW + ",more", "line 2: has more or fewer cells"),
        (HEAD + "\nA-1,shop", "line 2: has more or fewer cells"),
        (HEAD + "\n" + ROW.replace("cus_1", ""), "line 2: lacks customer_id"),
        (HEAD + "\n" + ROW.replace("2026-07-01", "01/07/2026"), "line 2: start_date must be a date"),
        (HEAD + "\n" + ROW + "\n" + ROW.replace("cus_1", "cus_2"), "line 3: customer_id is another one than on line 2"),
        (HEAD + ",auto_send\n" + ROW + ",maybe", "auto_send must be true or false"),
        (HEAD + ",options\n" + ROW + ",[]", "options must be a JSON object"),
        (HEAD + ",interval_count\n" + ROW + ",two", "interval_count must be a whole number"),
        (HEAD + ",interval_count\n" + ROW + ",٢", "interval_count must be a whole number"),
        (HEAD + '\n"' + ROW, "is not CSV"),
        (HEAD + "," + "x" * 200_000 + "\n" + ROW, "file"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_its_line(text: str, said: str) -> None:
    assert said in complaint(text)


@given(st.text(st.sampled_from('a1,"\n\r\0;\u0661shop-.{}') | st.characters(), max_size=300))
def test_any_text_is_read_or_refused_with_one_kind_of_error(text: str) -> None:
    for whole in (text, f"{HEAD}\n{text}", f"{HEAD}\n{ROW}{text}"):
        try:
            found: Any = read_csv(whole)
        except ScheduleError:
            continue
        assert all(line.items for line in found)
