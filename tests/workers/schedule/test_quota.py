"""How many schedules a source may have."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from tests.conftest import SECRET
from tests.workers.given import NOW, rows
from tests.workers.schedule.given import ACTOR, KEY, added, plan, refused
from workers import database
from workers.models import AuditEntry, Schedule
from workers.schedule.errors import QUOTA_EXCEEDED, ScheduleError
from workers.schedule.schedules import add
from workers.schedule.tick import tick
from workers.schedule.verbs import cancel, delete_schedule, pause, resume
from workers.settings import Settings, Source


def at_most(settings: Settings, quota: int | None) -> Settings:
    """Settings by which `shop` may have so many, and `other` any number."""
    shop = Source(provider="hisab", secrets=SECRET, api_key=KEY, max_schedules=quota)
    other = Source(provider="hisab", secrets=SECRET, api_key=KEY)
    return settings.model_copy(update={"sources": {"shop": shop, "other": other}})


def test_a_source_has_as_many_as_it_may(settings: Settings, engine: Engine) -> None:
    two = at_most(settings, 2)
    added(engine, two)
    added(engine, two)

    with refused(QUOTA_EXCEEDED, "BILLHOOK_SOURCES__SHOP__MAX_SCHEDULES"):
        added(engine, two)

    assert len(rows(engine, Schedule)) == len(rows(engine, AuditEntry)) == 2


def test_it_may_have_any_number_where_none_is_set_and_none_of_another_counts(
    settings: Settings, engine: Engine
) -> None:
    one = at_most(settings, 1)
    for _ in range(3):
        added(engine, one, source="other")

    added(engine, one)
    with refused(QUOTA_EXCEEDED, "'shop' may have 1"):
        added(engine, one)
    added(engine, at_most(settings, None))


def _completed(engine: Engine, schedule_id: str) -> None:
    tick(engine, now=NOW)


@pytest.mark.parametrize(
    "end",
    [
        _completed,
        lambda engine, schedule_id: cancel(engine, schedule_id, actor=ACTOR, now=NOW),
        lambda engine, schedule_id: delete_schedule(engine, schedule_id, actor=ACTOR, now=NOW),
    ],
    ids=["completed", "cancelled", "deleted"],
)
def test_what_has_ended_does_not_count(
    settings: Settings, engine: Engine, end: Callable[[Engine, str], object]
) -> None:
    one = at_most(settings, 1)
    end(engine, added(engine, one, max_occurrences=1))

    added(engine, one)

    with refused(QUOTA_EXCEEDED):
        added(engine, one)


def test_what_is_paused_counts_and_can_be_resumed(settings: Settings, engine: Engine) -> None:
    one = at_most(settings, 1)
    schedule_id = added(engine, one)
    pause(engine, schedule_id, actor=ACTOR, now=NOW)

    with refused(QUOTA_EXCEEDED):
        added(engine, one)

    assert resume(engine, schedule_id, actor=ACTOR, now=NOW).status == "active"


def test_what_is_there_already_stays_where_the_quota_is_lowered(settings: Settings, engine: Engine) -> None:
    for _ in range(3):
        added(engine, at_most(settings, 3))

    with refused(QUOTA_EXCEEDED):
        added(engine, at_most(settings, 1))

    assert len(tick(engine, now=NOW)) == 3


def test_processes_that_add_at_once_do_not_exceed_it(settings: Settings, engine: Engine) -> None:
    quota, processes = at_most(settings, 3), 6
    barrier = threading.Barrier(processes)

    def try_to(_: int) -> str:
        own = database.connect(quota)
        try:
            barrier.wait(10)
            return add(own, quota, plan(), actor=ACTOR, now=NOW)
        except ScheduleError as error:
            return error.code
        finally:
            own.dispose()

    with ThreadPoolExecutor(processes) as threads:
        outcomes = list(threads.map(try_to, range(processes)))

    assert outcomes.count(QUOTA_EXCEEDED) == processes - 3
    assert sorted(set(outcomes) - {QUOTA_EXCEEDED}) == [row.id for row in rows(engine, Schedule)]
