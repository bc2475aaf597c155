"""What one handler, one event, or a database in trouble must not do to the others."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy import event as hooks

from handlers import Context, Discard, Event, Retry
from handlers.errors import ProviderUnavailable
from handlers.providers import PROVIDERS
from handlers.registry import Registry
from tests.workers.given import NOW, Clock, received, rows, rung
from workers import ids, inbox
from workers.app import Runtime
from workers.audit import audit
from workers.clients import Clients
from workers.dispatch import Dispatcher, process
from workers.inbox import Arrival
from workers.models import HandlerRun

on_postgresql = pytest.mark.parametrize("backend", ["servers"], indirect=True)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def dispatcher(runtime: Runtime, registry: Registry, clock: Clock) -> Dispatcher:
    return Dispatcher(
        engine=runtime.engine,
        settings=runtime.settings,
        registry=registry,
        clients=Clients(runtime.settings),
        clock=clock,
        chance=lambda: 0.0,
    )


def nothing(event: Event, ctx: Context) -> None:
    pass


def large(engine: Engine, size: int) -> str:
    """Store an event with a body of that many bytes; its id."""
    event_id = ids.new("evt")
    body = json.dumps(
        {"event": "invoice.paid", "data": {"id": event_id, "note": "x" * size}, "created_at": NOW.isoformat()}
    ).encode()
    digest = hashlib.sha256(body)
    event = PROVIDERS["hisab"].inbound({}).parse([], body)
    (outcome,) = inbox.accept(
        engine,
        [
            Arrival(
                id=event_id,
                source="shop",
                received_at=NOW,
                event=event,
                delivery_id=event_id,
                event_key=digest.hexdigest(),
                body_hash=digest.digest(),
                headers={},
            )
        ],
    )
    return outcome.event_id


def test_however_long_it_takes_to_plan_a_batch_one_run_of_it_is_begun(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_to_tell(event: Event) -> bool:
        time.sleep(0.02)
        return True

    monkeypatch.setattr("workers.dispatcher.SLICE", 0.05)
    registry.on("*", name="receipts", when=slow_to_tell)(nothing)
    event_ids = [received(engine) for _ in range(7)]

    process(dispatcher, event_ids)

    assert "succeeded" in {run.status for run in rows(engine, HandlerRun)}


def test_of_large_events_a_process_has_only_a_few_in_hand_and_has_the_others_rung(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry
) -> None:
    registry.on("*", name="receipts")(nothing)
    event_ids = sorted(large(runtime.engine, 1_000_000) for _ in range(12))

    process(dispatcher, event_ids)

    assert {run.event_id for run in rows(runtime.engine, HandlerRun)} == set(event_ids[:8])
    assert [ids for _, ids in rung(runtime, "events")] == [event_ids[8:]]


def test_an_event_larger_than_a_process_should_have_in_hand_is_taken_alone(
    runtime: Runtime, dispatcher: Dispatcher, registry: Registry
) -> None:
    registry.on("*", name="receipts")(nothing)
    giant = large(runtime.engine, 9_000_000)
    after_it = datetime.now(UTC) + timedelta(seconds=1)  # an event's place is its id's, which begins with the time
    others = [received(runtime.engine, at=after_it) for _ in range(10)]

    process(dispatcher, [giant, *others])

    assert {run.event_id for run in rows(runtime.engine, HandlerRun)} == {giant}
    assert [ids for _, ids in rung(runtime, "events")] == [sorted(others)]


class NotMine(Discard):
    def __init__(self) -> None:
        pass


class Later(Retry):
    def __init__(self) -> None:
        pass


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class MuteRetry(Retry):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raising(error: Callable[[], BaseException]) -> Callable[[Event, Context], None]:
    def handler(event: Event, ctx: Context) -> None:
        raise error()

    return handler


ODD: dict[str, tuple[Callable[[Event, Context], None], str]] = {
    "a discard of its own": (raising(NotMine), "discarded"),
    "a retry of its own": (raising(Later), "waiting"),
    "a retry without a text": (raising(MuteRetry), "waiting"),
    "a reason without a text": (raising(lambda: Discard(Mute())), "discarded"),  # type: ignore[arg-type]
    "a wait that is no number": (
        raising(lambda: ProviderUnavailable("X", "down", retry_after=float("nan"))),
        "waiting",
    ),
    "a wait that is a text": (raising(lambda: ProviderUnavailable("X", "down", retry_after="5")), "waiting"),  # type: ignore[arg-type]
    "an error that cannot be shown": (raising(lambda: SyntaxError("m", ("f", 1, 2, 3))), "waiting"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", ODD)
def test_however_odd_what_a_handler_raises_the_others_of_its_batch_keep_their_results(
    what: str, dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    handler, status = ODD[what]
    odd: list[str] = []

    @registry.on("*", name="receipts")
    def receipts(event: Event, ctx: Context) -> None:
        if event.id in odd:
            handler(event, ctx)

    before, culprit, after = (received(engine) for _ in range(3))
    odd.append(culprit)

    process(dispatcher, [before, culprit, after])

    runs = {run.event_id: run.status for run in rows(engine, HandlerRun)}
    assert runs == {before: "succeeded", culprit: status, after: "succeeded"}


def test_a_reason_is_stored_no_longer_than_an_error(dispatcher: Dispatcher, registry: Registry, engine: Engine) -> None:
    registry.on("*", name="receipts")(raising(lambda: Discard("x" * 1_000_000)))

    process(dispatcher, [received(engine)])

    (run,) = rows(engine, HandlerRun)
    assert len(run.error) == 8_000


def _swallows(event: Event, ctx: Context) -> None:
    try:  # noqa: SIM105
        ctx.sleep_until(NOW + timedelta(days=1))
    except BaseException:  # noqa: S110 - what a careless author writes
        pass


async def _in_a_group(event: Event, ctx: Context) -> None:
    async def reminder() -> None:
        ctx.sleep_until(NOW + timedelta(days=1))

    async with asyncio.TaskGroup() as group:
        group.create_task(reminder())


@pytest.mark.parametrize("handler", [_swallows, _in_a_group])
def test_a_pause_is_one_whatever_the_handler_makes_of_it(
    handler: Callable[[Event, Context], Any], dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("*", name="dunning")(handler)

    process(dispatcher, [received(engine)])

    (run,) = rows(engine, HandlerRun)
    assert (run.status, run.pauses, run.attempts) == ("waiting", 1, 0)
    assert run.next_attempt_at == NOW + timedelta(days=1)


def _never_says(event: Event) -> bool:
    while True:
        pass


@pytest.mark.parametrize("when", [_never_says, lambda event: sys.exit()])
def test_a_condition_that_does_not_come_back_costs_its_own_runs_only(
    when: Callable[[Event], bool], dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    registry.on("*", name="picky", when=when, timeout=0.1, retries=0)(nothing)
    registry.on("*", name="receipts")(nothing)

    process(dispatcher, [received(engine)])

    assert {run.handler: run.status for run in rows(engine, HandlerRun)} == {"picky": "dead", "receipts": "succeeded"}
    assert audit(engine).holds


CHANGES_THE_ALARM = """
import signal, time
from tests.workers.test_execution import executed
from workers.execution import last_resort

with last_resort():
    executed(lambda event, ctx: signal.signal(signal.SIGALRM, signal.SIG_DFL))
    print(executed(lambda event, ctx: time.sleep(20), timeout=0.1).summary)
"""


def test_a_handler_that_takes_the_alarm_does_not_take_it_from_the_next() -> None:
    root = Path(__file__).parents[2]

    ended = subprocess.run(
        [sys.executable, "-c", CHANGES_THE_ALARM], cwd=root, check=False, capture_output=True, timeout=60
    )

    assert (ended.returncode, ended.stdout) == (0, b"TimeUp: the handler ran longer than 0.1 s\n")


def cut_at(engine: Engine, statement: str, times: int) -> list[str]:
    """Have the server end our connection just before this statement, the first so many times; what was cut."""
    cuts: list[str] = []

    @hooks.listens_for(engine, "before_cursor_execute")
    def cut(_conn: Any, cursor: Any, sql: str, *_: object) -> None:
        if sql.startswith(statement) and len(cuts) < times:
            cuts.append(sql)
            url = engine.url.render_as_string(hide_password=False).replace("postgresql+psycopg", "postgresql")
            with psycopg.connect(url, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", (cursor.connection.info.backend_pid,))

    return cuts


@on_postgresql
def test_results_survive_a_connection_that_is_cut_as_they_are_written(
    dispatcher: Dispatcher, registry: Registry, engine: Engine
) -> None:
    starts: list[str] = []
    registry.on("*", name="receipts")(lambda event, ctx: starts.append(event.id))
    cuts = cut_at(engine, "UPDATE handler_runs AS old", 1)

    process(dispatcher, [received(engine), received(engine)])

    assert cuts
    assert len(starts) == 2
    assert [run.status for run in rows(engine, HandlerRun)] == ["succeeded", "succeeded"]


@on_postgresql
def test_what_was_not_begun_when_results_could_not_be_written_does_not_count_as_dead(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.batch._GROUP", 1)
    registry.on("*", name="receipts")(nothing)
    cut_at(engine, "UPDATE handler_runs AS old", 3)
    first, second = received(engine), received(engine)

    with pytest.raises(Exception, match=r"terminat|closed"):
        process(dispatcher, [first, second])

    runs = {run.event_id: (run.status, run.starts) for run in rows(engine, HandlerRun)}
    assert runs == {first: ("running", 1), second: ("waiting", 0)}


FULL_DISK = """
import sys
from workers import logs
from workers.settings import Settings

logs.configure(Settings(log_format="json"))
logs.log.info("a handler ended", action="run_ended")
logs.log.error("a handler ended", action="run_ended")
print("went on")
"""


def test_a_log_that_takes_no_line_stops_no_work() -> None:
    root = Path(__file__).parents[2]

    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-c", FULL_DISK], cwd=root, check=False, stdout=subprocess.PIPE, stderr=full, timeout=60
        )

    assert ended.stdout == b"went on\n"


def test_a_handler_whose_time_is_up_amid_our_transactions_leaves_no_connection_behind(
    dispatcher: Dispatcher, registry: Registry, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.dispatcher.SLICE", 60.0)
    patient = replace(dispatcher, settings=dispatcher.settings.model_copy(update={"lease_grace": 240.0}))

    def never_done(event: Event, ctx: Context) -> None:
        for number in itertools.count():
            ctx.once(f"{event.id} {number}")
            ctx.step(f"step {number}", lambda: "kept")

    for number in range(40):
        registry.on("*", name=f"handler {number}", timeout=0.02 + number / 1_000, retries=0)(never_done)

    process(patient, [received(engine)])

    assert {run.status for run in rows(engine, HandlerRun)} == {"dead"}
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
