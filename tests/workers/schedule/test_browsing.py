"""Lists of schedules: how many there are is counted anew, or once a minute where they are many."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, select

from tests.workers.given import NOW
from tests.workers.schedule.given import added, refused
from workers import database
from workers.models import Schedule
from workers.schedule import browsing
from workers.schedule.browsing import Counts, history, numbered
from workers.schedule.errors import NOT_FOUND
from workers.schedule.schedules import Filter
from workers.schedule.verbs import delete_schedule
from workers.settings import Settings

INDEXED = ("source", "status", "customer_id", "frequency")


def test_few_are_counted_each_time(engine: Engine, settings: Settings) -> None:
    counts = Counts(lambda: 0.0)
    first = added(engine, settings)
    assert numbered(engine, counts, Filter(), size=1).total == 1

    added(engine, settings)
    delete_schedule(engine, first, actor="test", now=NOW)
    added(engine, settings)

    assert numbered(engine, counts, Filter(), size=1).total == 2
    assert numbered(engine, counts, Filter(), number=9, size=1).total == 2


def test_many_are_counted_once_a_minute(engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browsing, "COUNTED", 2)
    now = 0.0
    counts = Counts(lambda: now)
    for _ in range(3):
        added(engine, settings)
    assert numbered(engine, counts, Filter(), size=2).total == 3

    added(engine, settings, customer_id="cus_other")
    found = numbered(engine, counts, Filter(), size=2)
    assert (found.total, len(found.rows)) == (3, 2)
    assert numbered(engine, counts, Filter(customer_id="cus_other"), size=1).total == 1
    assert numbered(engine, counts, Filter(status="active"), size=2).total == 4
    now = browsing.KEPT

    assert numbered(engine, counts, Filter(), size=2).total == 4


def test_of_a_last_page_that_is_not_full_nothing_is_counted(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Counts, "of")
    for _ in range(3):
        added(engine, settings)

    assert numbered(engine, Counts(), Filter(), number=2, size=2).total == 3
    assert numbered(engine, Counts(), Filter(search="none")).total == 0


def test_a_history_of_none_is_none(engine: Engine) -> None:
    with refused(NOT_FOUND):
        history(engine, "sch_none")


@pytest.mark.parametrize("name", INDEXED)
def test_what_is_rare_is_found_by_an_index(engine: Engine, name: str) -> None:
    rare = select(Schedule.id).where(getattr(Schedule, name) == "rare").order_by(Schedule.id.desc())
    asked = str(rare.compile(engine, compile_kwargs={"literal_binds": True}))
    of_sqlite = engine.dialect.name == "sqlite"
    with database.read(engine) as connection:
        if not of_sqlite:  # which would read so small a table as it stands
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        plan = str(connection.exec_driver_sql(f"EXPLAIN {'QUERY PLAN ' if of_sqlite else ''}{asked}").all())

    assert f"ix_schedules_{name}_id" in plan
