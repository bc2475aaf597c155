from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine, select, update

from tests.workers.given import NOW, change, only, received, rows
from tests.workers.history import ended, followed
from workers import audit_log, database, idempotency, ids, retention, sessions
from workers.app import Runtime
from workers.audit import audit
from workers.delivery.messages import Outgoing, publish
from workers.idempotency import Answered, Asked
from workers.leases import utcnow
from workers.models import (
    Attempt,
    AuditEntry,
    Delivery,
    Endpoint,
    EventRow,
    HandlerRun,
    IdempotencyKey,
    Message,
    Model,
    Occurrence,
    OnceKey,
    Schedule,
    Step,
)
from workers.retention import Pruned, prunable, prune
from workers.settings import Settings

OLD = NOW - timedelta(days=36)
RECENT = NOW - timedelta(days=34)


def stored(engine: Engine, table: type[Model] = EventRow) -> set[str]:
    column = next(iter(table.__table__.primary_key))
    with database.read(engine) as connection:
        return set(connection.execute(select(column)).scalars())


def counted(**rows: int) -> Counter[str]:
    return Counter(rows)


def test_what_ended_and_is_older_than_its_time_goes_with_all_that_hangs_on_it(
    engine: Engine, settings: Settings
) -> None:
    old, recent = ended(engine, 3, run="succeeded", at=OLD), ended(engine, 2, run="succeeded", at=RECENT)
    followed(engine, old + recent)

    pruned = prune(engine, NOW, settings)

    assert pruned == Pruned(
        counted(events=3, handler_runs=3, steps=3, messages=3, deliveries=3, attempts=3), complete=True
    )
    assert stored(engine) == set(recent)
    assert [len(rows(engine, table)) for table in (HandlerRun, Message, Delivery, Attempt)] == [2] * 4
    assert len(stored(engine, Step)) == 2
    assert audit(engine).holds


def test_the_time_is_what_the_settings_say(engine: Engine, settings: Settings) -> None:
    ended(engine, run="succeeded", at=OLD)

    kept = prune(engine, NOW, settings.model_copy(update={"retention_days": 37}))

    assert kept == Pruned(counted(), complete=True)
    assert prune(engine, NOW, settings.model_copy(update={"retention_days": 35})).rows["events"] == 1


@pytest.mark.parametrize(
    ("run", "values", "goes"),
    [
        ("succeeded", {}, True),
        ("discarded", {}, True),
        (None, {}, True),
        ("dead", {}, False),
        ("dead", {"acknowledged_at": NOW}, True),
        ("dead", {"status": "waiting", "ring_at": NOW}, False),
        ("succeeded", {"status": "waiting", "ring_at": NOW}, False),
        (None, {"status": "waiting", "ring_at": NOW}, False),
    ],
    ids=["processed", "discarded", "ignored", "dead", "acknowledged", "replayed", "waiting", "unplanned"],
)
def test_what_has_not_ended_or_was_not_seen_stays_however_old(
    run: str | None, values: dict[str, Any], goes: bool, engine: Engine, settings: Settings
) -> None:
    (event_id,) = ended(engine, run=run, at=NOW - timedelta(days=900), **values)

    could = prunable(engine, NOW, settings)
    pruned = prune(engine, NOW, settings)

    assert could["events"] == pruned.rows["events"] == goes
    assert stored(engine) == (set() if goes else {event_id})


@pytest.mark.parametrize("status", ["waiting", "running"])
def test_an_event_stays_whole_until_its_messages_are_delivered(status: str, engine: Engine, settings: Settings) -> None:
    event_ids = ended(engine, 2, run="succeeded", at=OLD)
    followed(engine, event_ids, delivery=status)

    assert prunable(engine, NOW, settings)["events"] == 0
    assert prune(engine, NOW, settings) == Pruned(counted(), complete=True)
    assert len(stored(engine, Step)) == len(rows(engine, Attempt)) == 2

    change(engine, Delivery, status="exhausted", ring_at=None)

    assert prune(engine, NOW, settings).rows["events"] == 2


def test_what_must_stay_does_not_hold_up_what_may_go(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    dead, old = ended(engine, 8, at=OLD), ended(engine, 8, run="succeeded", at=OLD + timedelta(hours=1))
    recent = ended(engine, 8, run="succeeded", at=RECENT)

    assert prune(engine, NOW, settings).rows["events"] == len(old)
    assert stored(engine) == {*dead, *recent}


def test_a_message_without_an_event_goes_by_its_own_age(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    with database.write(engine) as connection:
        for name, at in (("a", OLD), ("b", OLD), ("c", OLD), ("d", RECENT), ("e", OLD)):
            publish(connection, [Outgoing(f"msg_{name}", None, "receipt.issued", b"{}")], now=at)
    endpoint = {"id": "ep_1", "url": "https://example.com/", "event_types": ["*"], "secret": b"", "created_at": NOW}
    open_one = {"id": ids.new("dlv"), "message_id": "msg_e", "endpoint_id": "ep_1", "status": "waiting"}
    with database.write(engine) as connection:
        connection.execute(database.insert(connection, Endpoint), [endpoint])
        connection.execute(
            database.insert(connection, Delivery),
            [{**open_one, "next_attempt_at": NOW, "ring_at": NOW, "created_at": OLD}],
        )

    assert prunable(engine, NOW, settings)["messages"] == 3
    assert prune(engine, NOW, settings).rows == counted(messages=3)
    assert stored(engine, Message) == {"msg_d", "msg_e"}


def test_once_keys_have_a_time_of_their_own(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    ages = [500, 401, 401, 401, 401, 399, 36]
    keys = [
        {"handler": "h", "key": str(number), "run_id": "run_1", "done": True, "created_at": NOW - timedelta(days=age)}
        for number, age in enumerate(ages)
    ]
    with database.write(engine) as connection:
        connection.execute(database.insert(connection, OnceKey), keys)

    assert prunable(engine, NOW, settings)["once_keys"] == 5
    assert prune(engine, NOW, settings).rows == counted(once_keys=5)
    with database.read(engine) as connection:
        assert sorted(connection.execute(select(OnceKey.key)).scalars()) == ["5", "6"]


def test_the_answers_to_changes_that_were_asked_for_a_day_ago_go(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    for number, hours in enumerate((500, 26, 25, 25, 25, 23, 0)):
        asked, at = Asked("key_1", str(number), b"r" * 32), NOW - timedelta(hours=hours)
        idempotency.carry_out(engine, lambda _: Answered(204, b""), at, asked=asked, vault=None)

    assert prunable(engine, NOW, settings)["idempotency_keys"] == 5
    assert prune(engine, NOW, settings).rows == counted(idempotency_keys=5)
    with database.read(engine) as connection:
        assert sorted(connection.execute(select(IdempotencyKey.key)).scalars()) == ["5", "6"]


def test_a_session_that_was_signed_out_of_is_forgotten_once_it_would_be_over_anyway(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    begun = {hours: ids.first("ses", NOW - timedelta(hours=hours)) for hours in (500, 16, 15, 14, 11, 0)}
    for session in begun.values():
        sessions.end(engine, session)
        sessions.end(engine, session)

    assert prunable(engine, NOW, settings)["ended_sessions"] == 4
    assert prune(engine, NOW, settings).rows == counted(ended_sessions=4)
    assert [hours for hours, session in begun.items() if sessions.ended(engine, session)] == [11, 0]


def keep_key(engine: Engine, key: str, run_id: str, age: timedelta) -> None:
    """A run took a once key that long ago."""
    row = {"handler": "h", "key": key, "run_id": run_id, "done": False, "created_at": NOW - age}
    with database.write(engine) as connection:
        connection.execute(database.insert(connection, OnceKey), row)


def test_a_once_key_stays_as_long_as_its_run_which_may_be_replayed(engine: Engine, settings: Settings) -> None:
    ended(engine, run="dead", at=NOW - timedelta(days=900))
    keep_key(engine, "payment 1", only(engine, HandlerRun).id, timedelta(days=900))

    assert prunable(engine, NOW, settings)["once_keys"] == 0
    assert prune(engine, NOW, settings).rows == counted()

    change(engine, EventRow, acknowledged_at=NOW)
    assert prune(engine, NOW, settings).rows["once_keys"] == 1


def test_a_once_key_stays_as_long_as_events_are_kept(engine: Engine, settings: Settings) -> None:
    keep_key(engine, "payment 1", "run_gone", timedelta(days=500))
    longer = settings.model_copy(update={"retention_days": 1000})

    assert prunable(engine, NOW, longer)["once_keys"] == prune(engine, NOW, longer).rows["once_keys"] == 0
    assert prune(engine, NOW, settings).rows["once_keys"] == 1


def test_the_audit_log_stays(engine: Engine, settings: Settings) -> None:
    with database.write(engine) as connection:
        audit_log.note(connection, "amal@till", "replay", {}, NOW - timedelta(days=3000))

    assert prune(engine, NOW, settings).rows == counted()
    assert only(engine, AuditEntry).actor == "amal@till"


def test_an_occurrence_outlives_the_event_that_reported_it(engine: Engine, settings: Settings) -> None:
    (event_id,) = ended(engine, run="succeeded", at=OLD, delivery_id="occ_1", type="recurring.generated")
    plan = {
        "id": "sch_1",
        "source": "shop",
        "name": "",
        "customer_id": "cus_1",
        "frequency": "monthly",
        "interval_count": 1,
        "start_date": OLD.date(),
        "timezone": "UTC",
        "auto_finalize": False,
        "auto_send": False,
        "days_until_due": 30,
        "currency": "MAD",
        "items": [],
        "next_index": 1,
        "planned": 1,
        "status": "completed",
        "created_at": OLD,
    }
    due = {
        "id": "occ_1",
        "schedule_id": "sch_1",
        "due_on": OLD.date(),
        "status": "generated",
        "invoice_id": "inv_1",
        "event_id": event_id,
        "next_attempt_at": OLD,
        "created_at": OLD,
        "ended_at": OLD,
    }
    with database.write(engine) as connection:
        connection.execute(database.insert(connection, Schedule), [plan])
        connection.execute(database.insert(connection, Occurrence), [due])

    prune(engine, NOW, settings)

    assert event_id not in stored(engine)
    assert audit(engine, lambda: NOW).holds
    # Within that time it would have been lost.
    assert [fault.ids for fault in audit(engine, lambda: OLD + timedelta(days=29)).faults] == [("occ_1",)]


# --- in batches -----------------------------------------------------------------------------------


def test_a_budget_that_is_spent_leaves_whole_events_and_the_rest_for_the_next_time(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 4)
    event_ids = ended(engine, 10, run="succeeded", at=OLD)
    followed(engine, event_ids)

    first = prune(engine, NOW, settings, 0.0)

    assert (first.rows["events"], first.complete) == (4, False)
    assert stored(engine) == set(event_ids[4:])
    assert len(rows(engine, Attempt)) == len(rows(engine, HandlerRun)) == 6
    assert audit(engine).holds
    second = prune(engine, NOW, settings)
    assert (second.rows["events"], second.complete) == (6, True)


def test_the_budget_is_in_seconds(engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 1)
    ended(engine, 10, run="succeeded", at=OLD)
    seconds = iter(range(100))

    assert prune(engine, NOW, settings, 3.0, seconds=lambda: float(next(seconds))).rows["events"] == 3


def test_a_worker_that_stops_prunes_no_further(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 1)
    ended(engine, 10, run="succeeded", at=OLD)

    assert prune(engine, NOW, settings, stopping=lambda: True).rows["events"] == 1


@pytest.mark.parametrize("dies_at", ["_delete_messages", "_delete"])
def test_who_dies_within_a_batch_has_deleted_nothing_of_it(
    dies_at: str, engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_ids = ended(engine, 3, run="succeeded", at=OLD)
    followed(engine, event_ids)
    whole: Callable[..., object] = getattr(retention, dies_at)

    def dies(*arguments: object) -> None:
        whole(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(retention, dies_at, dies)
        with pytest.raises(KeyboardInterrupt):
            prune(engine, NOW, settings)

    assert stored(engine) == set(event_ids)
    assert len(rows(engine, Attempt)) == len(rows(engine, Message)) == 3
    assert prune(engine, NOW, settings).rows["events"] == 3


@pytest.mark.parametrize("backend", ["servers"], indirect=True)
def test_what_somebody_else_is_at_is_left_for_the_next_time(engine: Engine, settings: Settings) -> None:
    held, *others = ended(engine, 3, run="succeeded", at=OLD)

    with database.write(engine) as connection:
        connection.execute(update(EventRow).where(EventRow.id == held).values(conflicts=1))
        pruned = prune(engine, NOW, settings)

    assert pruned.rows["events"] == len(others)
    assert stored(engine) == {held}
    assert prune(engine, NOW, settings).rows["events"] == 1


def test_new_deliveries_come_in_beside_it(engine: Engine, settings: Settings) -> None:
    ended(engine, 3, run="succeeded", at=OLD)
    fresh = received(engine, at=NOW)

    prune(engine, NOW, settings)

    assert stored(engine) == {fresh}
    assert audit(engine).holds


def test_what_was_deleted_is_counted(engine: Engine, settings: Settings) -> None:
    def metric(table: str) -> float:
        return REGISTRY.get_sample_value("billhook_pruned_total", {"table": table}) or 0.0

    before = metric("events"), metric("handler_runs")
    ended(engine, 3, run="succeeded", at=OLD)
    ended(engine, 1, run=None, at=OLD)

    prune(engine, NOW, settings)

    assert (metric("events"), metric("handler_runs")) == (before[0] + 4, before[1] + 3)


def test_the_workers_prune_by_the_clock_of_the_system(runtime: Runtime) -> None:
    ended(runtime.engine, run="succeeded", at=utcnow() - timedelta(days=36))
    received(runtime.engine)

    retention.prune_task()

    assert only(runtime.engine, EventRow).status == "waiting"
