"""Workers that die by SIGKILL at a named point: the event ends well, and what was kept or sent is not done again."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from handlers.providers import PROVIDERS
from handlers.testing import signed_request
from tests.acceptance.stack import SECRET, Sink, Stack, await_, embedded, servers
from workers import database, ids, inbox, replay
from workers.claims import HELD_BACK
from workers.inbox import Arrival
from workers.models import AnyRow, Delivery, EventRow, HandlerRun, Message
from workers.selection import Selection

HANDLERS = str(Path(__file__).with_name("deadly_handlers.py"))
"""Loaded by the workers only: it changes the engine that loads it."""
PAID, PAUSING, ONCE = "invoice.paid", "invoice.updated", "customer.created"


@dataclass(frozen=True)
class Death:
    """Where a process dies, and what there is to see of it in the end."""

    point: str
    called: int
    """How often the handler was called."""
    starts: int
    """How often the engine counted a start."""
    charged: int = 1
    """How often its step had its effect."""
    event_type: str = PAID
    who: str = "process"
    """The pool's process, or the whole worker."""

    @property
    def object_id(self) -> str:
        """What the event is about, which tells `deadly_handlers` to die."""
        return f"{self.point}.{self.event_type}.{self.who}"


DEATHS = [
    # The run is not there yet: another process plans the event.
    Death("before_claim", called=1, starts=1),
    Death("claim_uncommitted", called=1, starts=1),
    # The start is counted before the handler begins, so a handler that kills its process is found out.
    Death("after_claim", called=1, starts=2),
    Death("mid_handler", called=2, starts=2),
    # The one gap: between an effect and its memo lies the process's own memory.
    Death("before_memo", called=2, starts=2, charged=2),
    Death("after_memo", called=2, starts=2),
    Death("after_emit", called=2, starts=2),
    Death("result_uncommitted", called=2, starts=2),
    # All is committed: whoever hears of the event again finds nothing to do.
    Death("after_commit", called=1, starts=1),
    Death("before_ack", called=1, starts=1),
    # The pause is kept before it begins; the second start counts from the first.
    Death("pause_unwritten", called=2, starts=2, event_type=PAUSING),
    Death("after_commit", called=2, starts=2, event_type=PAUSING),
    # The key stays with the run that took it.
    Death("after_once", called=2, starts=2, event_type=ONCE),
]
DEATHS_OF_ALL = [
    Death("before_claim", called=1, starts=1, who="worker"),
    Death("mid_handler", called=2, starts=2, who="worker"),
    Death("after_commit", called=1, starts=1, who="worker"),
]
ON_SQLITE = [
    death
    for death in DEATHS
    if death.point in ("claim_uncommitted", "after_memo", "result_uncommitted", "after_commit")
    and death.event_type == PAID
]


@dataclass
class Scene:
    """A Billhook whose workers load `deadly_handlers`, and the endpoint that gets what they emit."""

    stack: Stack
    sink: Sink

    def post(self, event_type: str, object_id: str, *, number: int = 0) -> str:
        """Deliver an event about this object; its id."""
        request = signed_request(PROVIDERS["hisab"], event_type, SECRET, body=body(event_type, object_id, number))
        url = f"{self.stack.url}/webhooks/shop"
        answer = httpx.post(url, content=request.body, headers=request.headers, trust_env=False)
        assert answer.status_code == 202
        return str(answer.json()["data"]["id"])

    def died(self, object_id: str) -> bool:
        """Whether the process has died that this object's event was to kill."""
        return (self.stack.folder / f"died.{object_id}").exists()

    def ended(self, event_id: str) -> bool:
        """Whether the event has ended well and all that came of it is delivered."""
        with database.read(self.stack.engine) as connection:
            status = connection.execute(select(EventRow.status).where(EventRow.id == event_id)).scalar_one()
            deliveries = select(Delivery.status).join(Message, Message.id == Delivery.message_id)
            sent = connection.execute(deliveries.where(Message.event_id == event_id)).scalars().all()
        return status == "processed" and set(sent) == {"succeeded"}

    def run(self, event_id: str) -> AnyRow:
        """The event's only run."""
        with database.read(self.stack.engine) as connection:
            statement = select(*HandlerRun.__table__.c).where(HandlerRun.event_id == event_id)
            return connection.execute(statement).one()

    def notes(self, word: str, object_id: str) -> list[int]:
        """The numbers of the events of an object for which handlers wrote down this word, in that order."""
        path = self.stack.folder / "notes"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [int(number) for said, about, number in lines if (said, about) == (word, object_id)]

    def messages(self, object_id: str) -> list[Any]:
        """The data of the messages about an object that the endpoint got, each message once."""
        got = {(headers["webhook-id"], bytes(body)) for headers, body in self.sink.received}
        return [json.loads(body)["data"] for _, body in got if json.loads(body)["data"]["invoice"] == object_id]


def body(event_type: str, object_id: str, number: int = 0) -> dict[str, Any]:
    """An event about an object; `number` tells those of one object apart, and is when they happened, in seconds."""
    sample = dict(PROVIDERS["hisab"].sample(event_type))
    at = datetime(2026, 6, 5, tzinfo=UTC) + timedelta(seconds=number)
    return {**sample, "data": {**sample["data"], "id": object_id, "number": number}, "created_at": at.isoformat()}


@contextmanager
def playing(stack: Stack) -> Iterator[Scene]:
    """Start a Billhook with its endpoint."""
    with Sink() as sink:
        stack.environment["BILLHOOK_HANDLERS"] = HANDLERS
        assert stack.run("endpoints", "add", sink.url).returncode == 0
        stack.start("serve", "work", "beat")
        yield Scene(stack, sink)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, redis_url: str) -> Iterator[Scene]:
    """One for all tests, on PostgreSQL and Redis."""
    folder = tmp_path_factory.mktemp("servers")
    with servers(folder, postgres_url, redis_url) as stack, playing(stack) as started:
        yield started


@pytest.fixture(scope="module")
def sqlite_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One for all tests, with nothing configured."""
    with embedded(tmp_path_factory.mktemp("embedded")) as stack, playing(stack) as started:
        yield started


Killed = dict[Death, str]
"""The id of the event that each death was about."""


@pytest.fixture(scope="module")
def killed(scene: Scene) -> Killed:
    """All deaths of single processes, one after the other; the leases that they leave run out at the same time."""
    return {death: kill(scene, death) for death in DEATHS}


@pytest.fixture(scope="module")
def killed_on_sqlite(sqlite_scene: Scene) -> Killed:
    return {death: kill(sqlite_scene, death) for death in ON_SQLITE}


def kill(scene: Scene, death: Death) -> str:
    """Post an event and wait until the process has died over it; the event's id."""
    event_id = scene.post(death.event_type, death.object_id)
    await_(lambda: scene.died(death.object_id), f"the process has died: {death}")
    return event_id


def assert_it_ended_well(scene: Scene, event_id: str, death: Death) -> None:
    """The event is processed, its message delivered, and no more was done than the death is to blame for."""
    about = death.object_id
    await_(lambda: scene.ended(event_id), "the event is processed and its message delivered")
    run = scene.run(event_id)
    assert (run.status, run.attempts, run.starts) == ("succeeded", 1, death.starts)
    assert len(scene.notes("called", about)) == death.called
    assert len(scene.notes("charged", about)) == death.charged
    assert scene.messages(about) == [{"invoice": about}]
    assert scene.stack.balance().holds


def named(deaths: list[Death]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("death", deaths, ids=[death.object_id for death in deaths])


@named(DEATHS)
def test_an_event_outlives_the_process_that_handles_it(scene: Scene, killed: Killed, death: Death) -> None:
    assert_it_ended_well(scene, killed[death], death)


@named(DEATHS_OF_ALL)
def test_an_event_outlives_the_worker_that_handles_it(scene: Scene, death: Death) -> None:
    event_id = kill(scene, death)
    assert scene.stack.processes["work"].wait(30) == -signal.SIGKILL
    scene.stack.start("work")

    assert_it_ended_well(scene, event_id, death)


def test_an_event_outlives_the_death_of_its_replay(scene: Scene) -> None:
    # Given an event that was processed
    about = "replayed.process"
    event_id = scene.post(PAID, about)
    await_(lambda: scene.ended(event_id), "the event is processed")

    # When it is replayed, and the process dies after the step was kept
    wish = replay.Wish(selection=Selection(events=(event_id,)))
    replay.replay(scene.stack.engine, wish, actor="test", now=datetime.now(UTC))
    await_(lambda: scene.died(about), "the process has died")
    await_(lambda: scene.ended(event_id), "the event is processed again")

    # Then the replay had its effect once, and what was sent before is not sent under another id
    assert (scene.run(event_id).starts, scene.run(event_id).replays) == (2, 1)
    assert len(scene.notes("called", about)) == 3
    assert len(scene.notes("charged", about)) == 2
    assert scene.messages(about) == [{"invoice": about}]
    assert scene.stack.balance().holds


def test_what_happened_later_waits_for_the_run_that_died_before_it(scene: Scene) -> None:
    about = "in_order.process"
    first = scene.post("customer.updated", about, number=1)
    await_(lambda: scene.died(about), "the process has died")

    # Who frees the line takes the next, long before the sweep would look at it
    second = scene.post("customer.updated", about, number=2)
    await_(lambda: scene.ended(first) and scene.ended(second), "both are processed", HELD_BACK.total_seconds() / 2)

    assert scene.notes("called", about) == [1, 1, 2]
    assert [scene.run(event_id).starts for event_id in (first, second)] == [2, 1]
    assert scene.messages(about) == [{"invoice": about}] * 2
    assert scene.stack.balance().holds


def test_the_place_of_a_run_that_died_is_kept_for_it_and_then_free(scene: Scene) -> None:
    about = "in_its_place.process"
    first = scene.post("invoice.sent", about)
    await_(lambda: scene.died(about), "the process has died")

    second = scene.post("invoice.sent", "behind_it")
    await_(lambda: scene.ended(first) and scene.ended(second), "both are processed")

    assert [scene.run(event_id).starts for event_id in (first, second)] == [2, 1]
    assert [scene.run(event_id).slot for event_id in (first, second)] == [None, None]
    assert scene.stack.balance().holds


@pytest.mark.parametrize(("point", "starts"), [("before_handing_back", 2), ("after_handing_back", 1)])
def test_an_event_outlives_the_process_that_hands_it_back(scene: Scene, point: str, starts: int) -> None:
    # Given two events in one batch, of which the second waits behind a slow handler, and is handed back
    about = f"{point}.process"
    slow, behind = store_together(scene.stack, PAID, f"slow.{about}", about)

    # When the process dies over it
    await_(lambda: scene.died(about), "the process has died")
    await_(lambda: scene.ended(slow) and scene.ended(behind), "both are processed")

    # Then the second never began twice
    assert scene.run(behind).starts == starts
    assert len(scene.notes("called", about)) == len(scene.notes("charged", about)) == 1
    assert scene.messages(about) == [{"invoice": about}]
    assert scene.stack.balance().holds


@named(ON_SQLITE)
def test_on_sqlite_too_an_event_outlives_its_process(
    sqlite_scene: Scene, killed_on_sqlite: Killed, death: Death
) -> None:
    assert_it_ended_well(sqlite_scene, killed_on_sqlite[death], death)


def test_after_all_these_deaths_the_audit_is_in_balance(scene: Scene, sqlite_scene: Scene) -> None:
    for stack in (scene.stack, sqlite_scene.stack):
        audit = stack.run("audit")

        assert audit.returncode == 0
        assert audit.stdout.strip().endswith("+ dead 0 + waiting 0: in balance")


def store_together(stack: Stack, event_type: str, *objects: str) -> list[str]:
    """Store events in one commit, so that one sweep announces them in one message; their ids, in order."""
    arrivals = []
    for event_id, object_id in zip(sorted(ids.new("evt") for _ in objects), objects, strict=True):
        content = json.dumps(body(event_type, object_id)).encode()
        digest = hashlib.sha256(content)
        arrivals.append(
            Arrival(
                id=event_id,
                source="shop",
                received_at=datetime.now(UTC) - inbox.RING_AFTER,
                event=PROVIDERS["hisab"].inbound({}).parse([], content),
                delivery_id=digest.hexdigest(),
                event_key=digest.hexdigest(),
                body_hash=digest.digest(),
                headers={},
            )
        )
    return [outcome.event_id for outcome in inbox.accept(stack.engine, arrivals)]
