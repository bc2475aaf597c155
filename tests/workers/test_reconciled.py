"""Late deliveries of what a reconciled event stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, event, select, text

from handlers.event import Event
from handlers.reconciling import Change
from tests.workers.given import NOW
from workers import database, ids, inbox
from workers.inbox import Arrival
from workers.models import AnyRow, EventRow
from workers.reconciled import key_of, known_by_reconciliation

BEFORE = NOW - timedelta(hours=1)


def change(event_type: str = "invoice.paid", object_id: str = "inv_1", *, repeats: bool = False) -> Change:
    return Change(
        type=event_type,
        occurred_at=BEFORE,
        earliest=BEFORE,
        object_kind="invoice",
        object_id=object_id,
        body=b"{}",
        repeats=repeats,
    )


def arrival(delivery_id: str, **fields: Any) -> Arrival:
    """That an invoice was paid, delivered under this id."""
    told = Event(
        type="invoice.paid",
        data={},
        occurred_at=BEFORE,
        object_kind="invoice",
        object_id="inv_1",
        provider="hisab",
        body=b"{}",
    )
    return Arrival(
        id=ids.new("evt"),
        source="shop",
        received_at=NOW,
        event=replace(told, **fields),
        delivery_id=delivery_id,
        event_key=delivery_id,
        body_hash=b"",
        headers={},
    )


def reconciled(found: Change) -> Arrival:
    told = arrival(key_of(found), type=found.type, object_id=found.object_id)
    return replace(told, reconciled=True)


def known(engine: Engine, *arrivals: Arrival) -> list[str]:
    """The delivery ids of those that are known by reconciliation, once all are stored."""
    inbox.accept(engine, arrivals)
    with database.read(engine) as connection:
        rows: Sequence[AnyRow] = connection.execute(select(*EventRow.__table__.columns)).all()
        found = known_by_reconciliation(connection, rows)
    return sorted(row.delivery_id for row in rows if row.id in found)


def test_a_late_delivery_of_what_was_reconciled_is_known(engine: Engine) -> None:
    assert known(engine, arrival("del_1"), reconciled(change())) == ["del_1"]


def test_a_delivery_of_something_else_is_news(engine: Engine) -> None:
    others = [
        arrival("other type", type="invoice.sent"),
        arrival("other object", object_id="inv_2"),
        arrival("no object", object_kind=None, object_id=None),
        replace(arrival("other source"), source="books"),
    ]

    assert known(engine, *others, reconciled(change())) == []


def test_without_a_reconciled_event_everything_is_news(engine: Engine) -> None:
    assert known(engine, arrival("del_1"), arrival("del_2")) == []


def test_what_repeats_is_news_each_time(engine: Engine) -> None:
    updated = change("customer.updated", repeats=True)

    assert known(engine, arrival("del_1", type="customer.updated"), reconciled(updated)) == []


def test_what_happened_after_it_was_reconciled_is_news(engine: Engine) -> None:
    again = arrival("paid again", occurred_at=NOW + timedelta(seconds=1))

    assert known(engine, arrival("paid", occurred_at=NOW), again, reconciled(change())) == ["paid"]


def test_ids_of_any_letters_are_compared_as_they_are(engine: Engine) -> None:
    odd = "شركة %_'\"\\ inv"

    assert known(engine, arrival("del_1", object_id=odd), reconciled(change(object_id=odd))) == ["del_1"]


def test_a_batch_without_deliveries_about_objects_asks_nothing(engine: Engine) -> None:
    inbox.accept(engine, [reconciled(change())])
    asked: list[str] = []
    with database.read(engine) as connection:
        rows = connection.execute(select(*EventRow.__table__.columns)).all()
        event.listen(engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))
        found = known_by_reconciliation(connection, rows)

    assert (found, asked) == (set(), [])


def test_no_more_than_an_index_of_the_object_or_of_reconciled_events_is_read(engine: Engine) -> None:
    inbox.accept(engine, [arrival("del_1"), reconciled(change())])
    asked: list[tuple[str, Any]] = []
    with database.read(engine) as connection:
        rows = connection.execute(select(*EventRow.__table__.columns)).all()
        event.listen(engine, "before_cursor_execute", lambda *arguments: asked.append((arguments[2], arguments[3])))
        known_by_reconciliation(connection, rows)
        ((statement, parameters),) = asked
        explain = "EXPLAIN QUERY PLAN"
        if engine.dialect.name == "postgresql":
            explain = "EXPLAIN"
            connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = connection.exec_driver_sql(f"{explain} {statement}", parameters).all()

    # With so few rows either may be taken: what was reconciled, or what there is of the object.
    assert any(index in str(plan) for index in ("ix_events_reconciled", "ix_events_object"))
    assert "Seq Scan" not in str(plan)


def test_a_key_is_that_of_the_change_and_of_nothing_else() -> None:
    once, again = change(), replace(change(repeats=True), occurred_at=datetime(2026, 6, 5, 13, tzinfo=UTC))

    assert key_of(once) == key_of(replace(once, occurred_at=NOW, body=b"{1}")) == "reconciled:invoice.paid:inv_1"
    assert key_of(again) == "reconciled:invoice.paid:inv_1:2026-06-05T13:00:00+00:00"
