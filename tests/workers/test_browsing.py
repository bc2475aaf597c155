"""Lists: what they find, and that an index carries each of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, update
from sqlalchemy import event as hooks

from handlers.registry import matches
from tests.workers.given import NOW, received, rows, waiting_runs
from workers import browsing, database, seeks
from workers.browsing import Runs
from workers.models import AnyRow, EventRow, HandlerRun
from workers.selection import Selection

STATUSES = ("processed", "ignored", "dead", "waiting")
MINUTE = timedelta(minutes=1)


@pytest.fixture
def stored(engine: Engine) -> list[AnyRow]:
    """Events of a few sources, types and statuses, the newest first; some of these never go together."""
    chance = random.Random(7)  # noqa: S311
    for number in range(60):
        source = chance.choice(["shop", "outlet"])
        event_type = chance.choice(
            ["invoice.paid", "invoice.sent", "customer.created"] if source == "shop" else ["x.y"]
        )
        event_id = received(engine, event_type, source=source, object_id=f"inv_{number % 7}", at=NOW + number * MINUTE)
        with database.write(engine) as connection:
            mine = update(EventRow).where(EventRow.id == event_id)
            connection.execute(mine.values(status=chance.choice(STATUSES)))
    return list(reversed(rows(engine, EventRow)))


WISHES = [
    Selection(),
    Selection(status="dead"),
    Selection(source="outlet"),
    Selection(type="invoice.paid"),
    Selection(type="invoice.*"),
    Selection(type="*"),
    Selection(type="invoice.paid", source="outlet"),
    Selection(type="invoice.*", source="shop", status="processed"),
    Selection(object_id="inv_3"),
    Selection(object_id="inv_3", status="ignored", source="shop"),
    Selection(since=NOW + 10 * MINUTE, until=NOW + 30 * MINUTE),
    Selection(since=NOW + 10 * MINUTE, until=NOW + 30 * MINUTE, source="shop"),
    Selection(status="nothing"),
]


def fits(wish: Selection, row: AnyRow) -> bool:
    """What is meant, in so many words."""
    return (
        wish.status in (None, row.status)
        and wish.source in (None, row.source)
        and wish.object_id in (None, row.object_id)
        and (wish.type is None or matches(wish.type, row.type))
        and (wish.since is None or row.received_at >= wish.since)
        and (wish.until is None or row.received_at < wish.until)
    )


def walked(engine: Engine, wish: Selection, limit: int) -> Iterator[str]:
    """The ids of all pages."""
    after = None
    while True:
        found = browsing.events(engine, wish, after=after, limit=limit)
        yield from (row.id for row in found.rows)
        after = found.after
        if after is None:
            return


@pytest.mark.parametrize("few", [False, True], ids=["sought", "plain"])
def test_lists_find_what_is_meant(
    engine: Engine, stored: list[AnyRow], monkeypatch: pytest.MonkeyPatch, few: bool
) -> None:
    if few:
        monkeypatch.setattr(seeks, "MOST", 2)
    for wish in WISHES:
        meant = [row.id for row in stored if fits(wish, row)]
        assert list(walked(engine, wish, 7)) == meant, wish
        assert list(walked(engine, wish, len(meant) or 1)) == meant, wish


def test_runs_are_found_by_handler_and_status(engine: Engine) -> None:
    waiting_runs(engine, 6)
    with database.write(engine) as connection:
        connection.execute(update(HandlerRun).where(HandlerRun.id < "run_003").values(status="dead"))

    def found(limit: int = 50, **filters: Any) -> list[str]:
        return [row.id for row in browsing.runs(engine, Runs(**filters), limit=limit).rows]

    assert found(2, status="dead") == ["run_002", "run_001"]
    assert found(status="waiting") == ["run_005", "run_004", "run_003"]
    assert found(handler="handler_001") == found(handler="handler_001", status="dead") == ["run_001"]
    assert found(handler="handler_001", status="waiting") == []
    assert len(found(event_id=rows(engine, EventRow)[0].id)) == 6


@contextmanager
def plans(engine: Engine) -> Iterator[list[str]]:
    """How PostgreSQL would carry out what it is asked meanwhile, were there very many rows."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        asked.append((statement, parameters))

    found: list[str] = []
    hooks.listen(engine, "before_cursor_execute", note)
    yield found
    hooks.remove(engine, "before_cursor_execute", note)
    with database.read(engine) as connection:
        for method in ("seqscan", "bitmapscan", "sort"):
            connection.exec_driver_sql(f"SET LOCAL enable_{method} = off")
        for statement, parameters in asked:
            lines = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars()
            found.append("\n".join(lines))


@pytest.mark.parametrize(
    ("wish", "index"),
    [
        (Selection(), "pk_events"),
        (Selection(since=NOW, until=NOW + MINUTE), "pk_events"),
        (Selection(status="dead"), "ix_events_seek"),
        (Selection(source="shop"), "ix_events_seek"),
        (Selection(type="invoice.*"), "ix_events_seek"),
        (Selection(type="invoice.paid", source="shop", since=NOW), "ix_events_seek"),
        (Selection(object_id="inv_3"), "ix_events_object"),
    ],
)
def test_an_index_carries_each_list_of_events(
    engine: Engine, stored: list[AnyRow], wish: Selection, index: str
) -> None:
    if engine.dialect.name != "postgresql":
        pytest.skip("these are PostgreSQL's plans")
    with plans(engine) as found:
        browsing.events(engine, wish, after=stored[5].id, limit=3)

    assert any(index in plan for plan in found), found
    assert not any("Seq Scan on events" in plan for plan in found), found


@pytest.mark.parametrize(
    ("wish", "index"),
    [
        (Runs(), "pk_handler_runs"),
        (Runs(handler="handler_001"), "ix_handler_runs_seek"),
        (Runs(status="waiting"), "ix_handler_runs_seek"),
    ],
)
def test_an_index_carries_each_list_of_runs(engine: Engine, wish: Runs, index: str) -> None:
    if engine.dialect.name != "postgresql":
        pytest.skip("these are PostgreSQL's plans")
    waiting_runs(engine, 6)
    with plans(engine) as found:
        browsing.runs(engine, wish, limit=3)

    assert any(index in plan for plan in found), found
    assert not any("Seq Scan on handler_runs" in plan for plan in found), found
