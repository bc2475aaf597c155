"""Sources over the API: how they do, and never what they are signed with."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from tests.conftest import SECRET
from tests.receiver.api.conftest import Caller, CallerWith, refused
from tests.receiver.api.stored import ended
from tests.receiver.conftest import Serve
from tests.receiver.edge import Edge, accepted, delivery
from workers import database
from workers.app import Runtime
from workers.models import EventRow
from workers.settings import Source


def test_a_source_is_shown_without_its_secrets(caller: Caller) -> None:
    answer = caller.call("GET", "/sources")

    [shop] = answer.json()["data"]
    assert shop["name"] == "shop"
    assert shop["provider"] == "hisab"
    assert shop["webhook_path"] == "/webhooks/shop"
    assert shop["secrets"] == 1
    assert shop["has_api_key"] is True
    assert shop["health"] == "new"
    assert SECRET not in answer.text
    assert "hisab_test_key" not in answer.text


def test_a_secret_that_stands_in_the_path_is_not_shown(serve: Serve, runtime: Runtime, caller: Caller) -> None:
    pay = Source(
        provider="hesabe", secrets="a-very-secret-path-0123456789", api_key=f"842217:access:{'k' * 32}:{'v' * 16}"
    )
    edge = serve(runtime, sources={"pay": pay})

    answer = Caller(edge.client, caller.key).call("GET", "/sources/pay")

    assert answer.json()["data"]["webhook_path"] == "/webhooks/pay/{secret}"
    assert "a-very-secret-path" not in answer.text
    assert "842217" not in answer.text


@pytest.mark.parametrize(("dead", "health"), [(0, "ok"), (1, "troubled"), (4, "failing")])
def test_a_source_does_as_its_events_do(caller: Caller, edge: Edge, runtime: Runtime, dead: int, health: str) -> None:
    for number in range(12):
        status = "dead" if number < dead else "succeeded"
        ended(runtime.engine, accepted(edge.post(delivery(number))), status=status)

    shop = caller.get("/sources/shop")

    assert shop["health"] == health, shop["health_reason"]
    assert shop["last_day"] == {"received": 12, "processed": 12 - dead, "ignored": 0, "dead": dead, "waiting": 0}
    assert shop["last_received_at"] is not None


def test_a_source_that_is_configured_no_more_is_shown_while_it_has_events(
    caller: Caller, edge: Edge, runtime: Runtime
) -> None:
    accepted(edge.post(delivery()))
    with database.write(runtime.engine) as connection:
        connection.execute(update(EventRow).values(source="closed"))

    shop, closed = caller.get("/sources")

    assert (shop["name"], shop["health"]) == ("shop", "new")
    assert (closed["name"], closed["configured"], closed["health"]) == ("closed", False, "unconfigured")
    assert closed["provider"] == "hisab"


def test_who_may_not_see_sources(caller: Caller, caller_with: CallerWith) -> None:
    refused(caller.call("GET", "/sources/none"), 404, "NOT_FOUND")
    refused(caller.call("GET", "/sources/%00"), 404, "NOT_FOUND")
    refused(caller_with("events:read").call("GET", "/sources"), 403, "FORBIDDEN")
