"""A look at everything: what it counts, and that it costs little."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine, update

from handlers.context import Context
from handlers.event import Event
from handlers.registry import Registry
from tests.workers.given import NOW, Clock, endpoint, received, statements
from workers import database, ids
from workers.app import Runtime
from workers.delivery import endpoints
from workers.dispatch import Dispatcher, process
from workers.models import Endpoint, EventRow
from workers.overview import ENDPOINTS, MINUTES, overview


def came(engine: Engine, minutes: float) -> str:
    """An event that was received so many minutes ago, with an id of that time."""
    at = NOW - timedelta(minutes=minutes)
    event_id = received(engine, at=at)
    then = ids.derived("evt", at, event_id)
    with database.write(engine) as connection:
        connection.execute(update(EventRow).where(EventRow.id == event_id).values(id=then))
    return then


def test_an_empty_database_is_told_as_such(engine: Engine) -> None:
    look = overview(engine, NOW)

    assert len(look.minutes) == MINUTES
    assert (look.received, look.waiting, look.failing, look.dead, look.underway) == (0, 0, 0, 0, 0)
    assert (list(look.endpoints), list(look.coming)) == ([], [])
    assert all(backlog.waiting == 0 for backlog in look.backlogs)


def test_events_are_counted_by_the_minute_in_which_they_came(
    engine: Engine, dispatcher: Dispatcher, registry: Registry, clock: Clock
) -> None:
    @registry.on("invoice.paid", retries=0)
    def fail(event: Event, ctx: Context) -> None:
        raise ValueError

    for minutes in (0, 0.5, 2, 2, 59, 61, 500):
        came(engine, minutes)
    failed = came(engine, 10)
    process(dispatcher, [failed])

    look = overview(engine, NOW)

    assert {MINUTES - 1 - place: minute.received for place, minute in enumerate(look.minutes) if minute.received} == {
        0: 1, 1: 1, 2: 2, 10: 1, 59: 1
    }  # fmt: skip
    assert look.received == 6
    assert [minute.dead for minute in look.minutes if minute.dead] == [1]
    assert (look.waiting, look.dead) == (7, 1)


def test_what_will_be_tried_again_is_failing(engine: Engine, dispatcher: Dispatcher, registry: Registry) -> None:
    @registry.on("invoice.paid", retries=3)
    def fail(event: Event, ctx: Context) -> None:
        raise ValueError

    process(dispatcher, [received(engine)])

    assert overview(engine, NOW).failing == 1


def test_endpoints_that_ail_stand_first_and_there_are_few(engine: Engine, runtime: Runtime) -> None:
    sound = [endpoint(runtime) for _ in range(ENDPOINTS)]
    disabled, failing, held = (endpoint(runtime) for _ in range(3))
    endpoints.switch_off(engine, disabled, "gone", actor="test", now=NOW)
    with database.write(engine) as connection:
        for endpoint_id, values in (
            (failing, {"failures": 2}),
            (held, {"failures": 2, "held_until": NOW + timedelta(minutes=1)}),
        ):
            connection.execute(update(Endpoint).where(Endpoint.id == endpoint_id).values(**values))

    look = overview(engine, NOW)

    assert [(row.id, state) for row, state in look.endpoints[:3]] == [
        (failing, "failing"), (held, "held"), (disabled, "disabled")
    ]  # fmt: skip
    assert [row.id for row, _ in look.endpoints[3:]] == sound[: -(ENDPOINTS - 3) - 1 : -1]


@pytest.mark.parametrize("backend", ["servers"], indirect=True)
def test_a_look_asks_the_same_however_much_is_stored(engine: Engine) -> None:
    with statements(engine) as few:
        overview(engine, NOW)
    for minutes in range(20):
        came(engine, minutes)
    with statements(engine) as many:
        overview(engine, NOW)

    assert len(many) == len(few)
