"""Handlers, and an engine around them, that die by SIGKILL where an event says: once for each event.

The workers of `test_killed_at` load this file. The object of an event says where: `before_memo.….process` has that
process of the pool die that would keep the result of a step, `before_memo.….worker` the whole worker. What the
handlers did stands, line by line, in the file `notes` of the folder that the worker runs in.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from celery import signals
from sqlalchemy import Connection

from handlers import Context, Event, on
from workers import batch, claims, database, durable, planning, settling
from workers.app import PROCESS, runtime
from workers.dispatcher import Done, Taken


def die(point: str, objects: Iterable[str | None]) -> None:
    """Die here if one of these objects says so and nobody has died for it before."""
    for name in objects:
        if name is not None and name.partition(".")[0] == point and _first(name):
            if name.endswith(".worker"):
                os.killpg(os.getpgrp(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)


def _first(name: str) -> bool:
    try:
        Path(f"died.{name}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def note(word: str, event: Event) -> None:
    """Write down what a handler did: it survives the process, unlike what the engine has not yet kept."""
    with Path("notes").open("a") as notes:
        notes.write(f"{word} {event.object_id} {event.data.get('number', 0)}\n")


# --- the engine -----------------------------------------------------------------------------------

Objects = Callable[..., Iterable[str | None]]


def before(owner: Any, name: str, point: str, objects: Objects) -> None:
    """Die on the way into a function of the engine; `objects` tells from its arguments what it is about."""
    original = getattr(owner, name)

    def deadly(*arguments: Any, **named: Any) -> Any:
        die(point, objects(*arguments, **named))
        return original(*arguments, **named)

    setattr(owner, name, deadly)


def after(owner: Any, name: str, point: str, objects: Objects) -> None:
    """Die on the way out of a function of the engine."""
    original = getattr(owner, name)

    def deadly(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        die(point, objects(*arguments, **named))
        return result

    setattr(owner, name, deadly)


def stored(connection: Connection, event_ids: Sequence[str]) -> list[str | None]:
    """The objects of these events."""
    return [reading.row.object_id for reading in planning.read(connection, event_ids).values()]


def of_events(event_ids: Sequence[str]) -> list[str | None]:
    """The objects of these events, where no transaction is at hand."""
    with database.read(runtime().engine) as connection:
        return stored(connection, event_ids)


def of_taken(taken: Iterable[Taken]) -> list[str | None]:
    """The objects of these runs."""
    return [one.reading.row.object_id for one in taken]


def of_done(group: Iterable[Done]) -> list[str | None]:
    """The objects of these results."""
    return of_taken(done.taken for done in group)


before(planning, "plan", "before_claim", lambda _, connection, event_ids: stored(connection, event_ids))
after(planning, "plan", "claim_uncommitted", lambda _, connection, event_ids: stored(connection, event_ids))
before(batch.Batch, "run", "after_claim", lambda _, taken: of_taken(taken))
before(durable.Kept, "record", "before_memo", lambda kept, *_: [kept._lease.lane.rpartition("/")[2]])
after(settling, "_end_events", "result_uncommitted", stored)
before(batch, "settle", "pause_unwritten", lambda _, group: of_done(group))
after(batch, "settle", "after_commit", lambda _, group: of_done(group))
before(claims, "give_back", "before_handing_back", lambda _, __, taken: of_taken(taken))
before(batch, "ring", "after_handing_back", lambda _, event_ids: of_events(event_ids))


@signals.task_postrun.connect
def _before_ack(task: Any, args: Sequence[Any], **_: Any) -> None:
    """All is done; only the worker's main process has not heard it, which would tell the broker."""
    if task.name == PROCESS:
        die("before_ack", of_events(args[0]))


# --- the handlers ---------------------------------------------------------------------------------


@on("invoice.paid", timeout=1)
def careful(event: Event, ctx: Context) -> None:
    note("called", event)
    if str(event.object_id).startswith("slow"):
        time.sleep(0.7)  # longer than the rest of a batch waits behind a handler
    die("mid_handler", [event.object_id])
    ctx.step("charge", lambda: note("charged", event))
    die("after_memo", [event.object_id])
    if ctx.replay:
        die("replayed", [event.object_id])
    ctx.emit("receipt.issued", {"invoice": event.object_id})
    die("after_emit", [event.object_id])


@on("invoice.updated", timeout=1)
def patient(event: Event, ctx: Context) -> None:
    note("called", event)
    ctx.step("charge", lambda: note("charged", event))
    ctx.sleep_until(datetime.now(UTC) + timedelta(seconds=0.5))
    ctx.emit("reminder.due", {"invoice": event.object_id})


@on("customer.created", timeout=1)
def once(event: Event, ctx: Context) -> None:
    note("called", event)
    if ctx.once(f"welcome {event.object_id}"):
        die("after_once", [event.object_id])
        note("charged", event)
    ctx.emit("customer.welcomed", {"invoice": event.object_id})


@on("customer.updated", timeout=1, ordered=True)
def in_order(event: Event, ctx: Context) -> None:
    note("called", event)
    die("in_order", [event.object_id])
    time.sleep(0.4)  # longer than a process goes on to the next of a line
    ctx.emit("customer.synced", {"invoice": event.object_id})


@on("invoice.sent", timeout=1, concurrency=1)
def one_at_a_time(event: Event, ctx: Context) -> None:
    note("called", event)
    die("in_its_place", [event.object_id])
    ctx.emit("ledger.written", {"invoice": event.object_id})
