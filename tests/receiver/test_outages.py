"""The receiver while Redis or the database does not answer, or does not keep up."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine
from structlog.testing import capture_logs

from tests.receiver.conftest import Serve
from tests.receiver.edge import (
    Edge,
    Line,
    accepted,
    counted,
    delivery,
    gone,
    held,
    refused,
    stored,
    wait_until,
    wire,
)
from tests.services import free_port
from workers import app
from workers.app import Runtime
from workers.settings import Settings

ANSWER_WITHIN = 3.0
"""Seconds that Redis is waited for: longer than any delivery takes that does not wait for it, on a busy machine too."""


@contextmanager
def redis_elsewhere(settings: Settings, port: int) -> Iterator[Runtime]:
    """A process started as `billhook serve` starts, with another server for Redis."""
    changed = settings.model_copy(update={"redis_url": SecretStr(f"redis://127.0.0.1:{port}/0")})
    started = app.start(changed, answer_within=ANSWER_WITHIN)
    yield started
    started.redis.close()
    started.engine.dispose()


def timed(edge: Edge, number: int) -> float:
    request = delivery(number)
    started = time.perf_counter()
    accepted(edge.post(request))
    return time.perf_counter() - started


def test_without_redis_deliveries_are_accepted_without_a_wait(serve: Serve, runtime: Runtime, engine: Engine) -> None:
    with redis_elsewhere(runtime.settings, free_port()) as lonely:
        edge = serve(lonely)

        seconds = [timed(edge, number) for number in range(5)]
        request = delivery(1)
        again = accepted(edge.post(request), 200)

    assert max(seconds) < ANSWER_WITHIN
    assert stored(engine) == 5
    assert again


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_a_redis_that_does_not_answer_holds_up_one_delivery_once(serve: Serve, runtime: Runtime) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        redis_elsewhere(runtime.settings, silent.getsockname()[1]) as lonely,
    ):
        edge = serve(lonely)

        first, *later = [timed(edge, number) for number in range(5)]

    assert first < 2 * ANSWER_WITHIN
    assert max(later) < ANSWER_WITHIN


def test_a_redis_that_lost_its_memory_loses_no_duplicate(edge: Edge, runtime: Runtime, engine: Engine) -> None:
    first = accepted(edge.post(delivery(id="del_1")))
    wait_until(lambda: any(runtime.redis.scan_iter(f"{runtime.settings.redis_prefix}seen:*")))
    for key in runtime.redis.scan_iter(f"{runtime.settings.redis_prefix}*"):
        runtime.redis.delete(key)

    assert accepted(edge.post(delivery(id="del_1")), 200) == first
    refused(edge.post(delivery(2, id="del_1")), 409, "CONFLICT")


def test_without_a_database_a_delivery_is_to_be_sent_again(serve: Serve, runtime: Runtime, tmp_path: Path) -> None:
    before = counted("refused", "unavailable")

    with gone(runtime, tmp_path) as broken, capture_logs() as lines:
        edge = serve(broken)
        answers = [edge.post(delivery(number)) for number in range(2)]

    for answer in answers:
        message = refused(answer, 503, "UNAVAILABLE")
        assert "later" in message
        assert int(answer.headers["retry-after"]) > 0
    assert counted("refused", "unavailable") == before + 2
    assert [line["log_level"] for line in lines if line["action"] == "accept_failed"] == ["error"] * 2
    assert "pa55word" not in repr(lines)


def test_what_was_refused_for_an_outage_is_new_when_it_comes_again(
    serve: Serve, runtime: Runtime, engine: Engine, tmp_path: Path
) -> None:
    request = delivery()
    with gone(runtime, tmp_path) as broken:
        refused(serve(broken).post(request), 503, "UNAVAILABLE")

    accepted(serve(runtime).post(request))

    assert stored(engine) == 1


def test_a_forged_delivery_is_told_so_without_a_database(serve: Serve, runtime: Runtime, tmp_path: Path) -> None:
    with gone(runtime, tmp_path) as broken:
        refused(serve(broken).post(delivery(forged=True)), 401, "UNAUTHORIZED")


@pytest.mark.parametrize("backend", ["servers"], indirect=True)
def test_connections_that_were_cut_cost_no_delivery(edge: Edge, engine: Engine) -> None:
    accepted(edge.post(delivery(1)))
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.invalidate()

    accepted(edge.post(delivery(2)))


@contextmanager
def refusing(engine: Engine, object_id: str) -> Iterator[None]:
    """The database refuses every event about `object_id`."""
    if engine.dialect.name == "postgresql":
        make = f"ALTER TABLE events ADD CONSTRAINT poison CHECK (object_id <> '{object_id}')"
        drop = "ALTER TABLE events DROP CONSTRAINT poison"
    else:
        make = (
            f"CREATE TRIGGER poison BEFORE INSERT ON events WHEN NEW.object_id = '{object_id}' "
            "BEGIN SELECT RAISE(ABORT, 'poison'); END"
        )
        drop = "DROP TRIGGER poison"
    with engine.begin() as connection:
        connection.exec_driver_sql(make)
    yield
    with engine.begin() as connection:
        connection.exec_driver_sql(drop)


def test_one_delivery_that_the_database_refuses_does_not_fail_the_others(edge: Edge, engine: Engine) -> None:
    with refusing(engine, "inv_5"), ExitStack() as opened:
        lines = [opened.enter_context(edge.line()) for _ in range(10)]
        with held(engine):  # so that all but the first come in one batch
            for number, line in enumerate(lines):
                line.send(wire(delivery(number)))
            wait_until_sent(edge, lines)

        replies = [line.reply() for line in lines]

    assert [reply.status_code for reply in replies] == [202] * 5 + [503] + [202] * 4
    assert "retry-after" in replies[5].headers
    assert stored(engine) == 9


def wait_until_sent(edge: Edge, lines: Sequence[Line]) -> None:
    """Wait until the receiver has read what these lines sent: it has answered somebody who asked later."""
    assert edge.client.get("/livez").status_code == 200
    assert select.select(lines, [], [], 0)[0] == []


def test_more_than_may_wait_are_to_be_sent_again(serve: Serve, runtime: Runtime, engine: Engine) -> None:
    edge = serve(runtime, max_waiting=3)
    before = counted("refused", "overloaded")
    with ExitStack() as opened:
        lines = [opened.enter_context(edge.line()) for _ in range(10)]
        with held(engine):
            for number, line in enumerate(lines):
                line.send(wire(delivery(number)))
            # One is being stored, three wait.
            wait_until(lambda: len(select.select(lines, [], [], 0)[0]) == 6)
            overloaded = [line for line in lines if line in select.select(lines, [], [], 0)[0]]
            for line in overloaded:
                reply = line.reply()
                refused(reply, 503, "UNAVAILABLE")
                assert int(reply.headers["retry-after"]) > 0

        for line in lines:
            if line not in overloaded:
                accepted(line.reply())

    assert stored(engine) == 4
    assert counted("refused", "overloaded") == before + 6
