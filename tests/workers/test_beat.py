from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.beat import Scheduler
from celery.schedules import schedule
from structlog.testing import capture_logs

from tests.services import free_port, private_redis
from tests.workers.given import fill_queue, restarted, rung
from workers import app, beat
from workers.app import QUEUES, Runtime
from workers.settings import Settings, load

SWEEPS = {f"billhook.{queue}.sweep" for queue in QUEUES}
PRUNE = "billhook.events.prune"
AUDIT = "billhook.events.audit"
TALLY = "billhook.events.tally"


@pytest.fixture
def scheduler(runtime: Runtime) -> Iterator[Scheduler]:
    made = beat.service(runtime.settings).get_scheduler()
    yield made
    made.connection.close()
    app.app.conf.beat_schedule = {}


def send_all(scheduler: Scheduler) -> None:
    for entry in list(scheduler.schedule.values()):
        scheduler.apply_entry(entry, producer=scheduler.producer)


def test_beat_sends_the_three_sweeps_and_what_prunes_audits_and_tallies(scheduler: Scheduler) -> None:
    assert set(scheduler.schedule) == {*SWEEPS, PRUNE, AUDIT, TALLY}
    assert {entry.task for entry in scheduler.schedule.values()} == {*SWEEPS, PRUNE, AUDIT, TALLY}


def test_beat_sends_no_audit_where_the_settings_want_none(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLHOOK_AUDIT_HOURS", "0")
    settings = runtime.settings.model_copy(update={"audit_hours": load().audit_hours})

    assert AUDIT not in beat.service(settings).get_scheduler().schedule
    app.app.conf.beat_schedule = {}


def test_a_tick_goes_to_the_queue_of_its_work_and_carries_nothing(scheduler: Scheduler, runtime: Runtime) -> None:
    send_all(scheduler)

    for queue in QUEUES:
        pruning: list[Any] = [(AUDIT, []), (PRUNE, []), (TALLY, [])] if queue == "events" else []
        assert sorted(rung(runtime, queue)) == sorted([*pruning, (f"billhook.{queue}.sweep", [])])


def test_a_tick_that_nobody_takes_expires(scheduler: Scheduler) -> None:
    options = {name: entry.options for name, entry in scheduler.schedule.items()}

    # What is sent each second is soon worth nothing; what is sent each hour waits for the next.
    assert options == {name: {"expires": 30} for name in SWEEPS} | {
        PRUNE: {"expires": 3600.0},
        TALLY: {"expires": 60.0},
        AUDIT: {"expires": 6 * 3600.0},
    }


def test_the_ticks_come_as_often_as_the_settings_say(runtime: Runtime) -> None:
    settings = runtime.settings.model_copy(update={"sweep_interval": 0.5, "schedule_interval": 60.0})

    entries = beat.service(settings).get_scheduler().schedule

    assert {name: entry.schedule for name, entry in entries.items()} == {
        "billhook.events.sweep": schedule(0.5),
        "billhook.deliveries.sweep": schedule(0.5),
        "billhook.schedules.sweep": schedule(60.0),
        PRUNE: schedule(3600.0),
        TALLY: schedule(60.0),
        AUDIT: schedule(6 * 3600.0),
    }
    app.app.conf.beat_schedule = {}


def test_ticks_are_left_out_for_a_queue_that_is_full_and_come_again_after(
    scheduler: Scheduler, runtime: Runtime
) -> None:
    fill_queue(runtime, "events")
    key = f"{runtime.settings.redis_prefix}events"

    send_all(scheduler)

    assert runtime.redis.llen(key) == 101
    assert len(rung(runtime, "deliveries")) == 1
    runtime.redis.delete(key)
    send_all(scheduler)
    assert sorted(rung(runtime, "events")) == [(AUDIT, []), (PRUNE, []), ("billhook.events.sweep", []), (TALLY, [])]


def due_in(scheduler: Scheduler, task: str) -> float:
    """Seconds until it is sent."""
    return scheduler.schedule[task].is_due()[1]


def let_pass(scheduler: Scheduler, time: timedelta) -> None:
    """As if all was sent so much earlier."""
    for entry in scheduler.schedule.values():
        assert entry.last_run_at is not None
        entry.last_run_at -= time
    vars(scheduler)["_heap"] = None


def test_a_tick_that_comes_seldom_is_tried_again_soon_after_it_was_left_out(
    scheduler: Scheduler, runtime: Runtime
) -> None:
    let_pass(scheduler, timedelta(hours=7))
    fill_queue(runtime, "events")
    for _ in range(20):
        scheduler.tick()

    assert 0 < due_in(scheduler, AUDIT) <= 60
    assert 0 < due_in(scheduler, PRUNE) <= 60

    # When there is room for them, they are sent, and come as seldom as ever
    runtime.redis.delete(f"{runtime.settings.redis_prefix}events")
    let_pass(scheduler, timedelta(minutes=1))
    for _ in range(20):
        scheduler.tick()

    assert {(AUDIT, ()), (PRUNE, ())} <= {(task, tuple(about)) for task, about in rung(runtime, "events")}
    assert due_in(scheduler, AUDIT) > 5 * 3600
    assert due_in(scheduler, PRUNE) > 3000


def test_without_redis_ticks_are_left_out(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state", redis_url=f"redis://127.0.0.1:{free_port()}/0")
    started = app.start(settings, answer_within=1.0)
    try:
        scheduler = beat.service(settings).get_scheduler()
        for entry in scheduler.schedule.values():
            assert scheduler.apply_async(entry) is None
    finally:
        app.app.conf.beat_schedule = {}
        started.redis.close()
        started.engine.dispose()


def test_a_tick_that_redis_refuses_is_one_line_in_the_log(tmp_path: Path) -> None:
    with private_redis() as (_, url):
        started = restarted(Settings(state_dir=tmp_path / "state", redis_url=url))
        scheduler = beat.service(started.settings).get_scheduler()
        started.redis.replicaof("127.0.0.1", "1")

        with capture_logs() as lines:
            send_all(scheduler)

        assert {(line["action"], line["log_level"]) for line in lines} == {("tick_failed", "warning")}
        assert {line["task"] for line in lines} == {*SWEEPS, PRUNE, AUDIT, TALLY}
        app.app.conf.beat_schedule = {}
        started.redis.close()
        started.engine.dispose()


def test_beat_keeps_no_file(scheduler: Scheduler, tmp_path: Path) -> None:
    send_all(scheduler)
    scheduler.close()

    assert [path.name for path in Path.cwd().iterdir() if "celerybeat" in path.name] == []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """What time it is for Celery."""
    time = [datetime(2026, 6, 5, 14, tzinfo=UTC)]
    monkeypatch.setattr(app.app, "now", lambda: time[0])
    return time


def test_a_clock_that_is_set_back_puts_no_tick_off(
    clock: list[datetime], scheduler: Scheduler, runtime: Runtime
) -> None:

    def sent(seconds: int) -> Counter[str]:
        """What is sent in so many seconds, of which each takes a few looks."""
        found: Counter[str] = Counter()
        for _ in range(seconds):
            clock[0] += timedelta(seconds=1)
            for _ in range(8):
                scheduler.tick()
            for queue in QUEUES:
                found.update(task for task, _ in rung(runtime, queue))
                runtime.redis.delete(f"{runtime.settings.redis_prefix}{queue}")
        return found

    first = sent(120)
    clock[0] -= timedelta(hours=2)
    second = sent(120)

    assert first == {
        "billhook.events.sweep": 120,
        "billhook.deliveries.sweep": 120,
        "billhook.schedules.sweep": 24,
        TALLY: 2,
        AUDIT: 1,
    }
    assert all(0 <= first[task] - second[task] <= 1 for task in first)
    assert set(second) <= set(first), "what comes seldom comes as seldom as ever"
