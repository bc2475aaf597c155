"""The command that makes the next invoice of a schedule now."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import date
from typing import Any

import typer

from receiver.cli.actor import actor
from receiver.cli.output import CommandError
from receiver.cli.records import Json, open_database
from receiver.cli.remote import schedules as remote
from receiver.cli.remote.place import elsewhere
from receiver.cli.schedule_fields import DryRun, Id, IssueDate, day
from receiver.cli.schedule_output import dates_of, explained, say_coming, say_history


def generate(schedule_id: Id, issue_date: IssueDate = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Make the next invoice now; its due date is used up by it."""
    issued = day(issue_date)
    if dry_run:
        _say_next(schedule_id, issued, as_json=as_json)
        return
    entry = _generated(schedule_id, issued)
    say_history([entry], as_json=as_json)
    if entry["status"] == "failed":
        raise typer.Exit(1)
    if entry["status"] in {"waiting", "running"}:
        print("billhook: it is under way; `billhook schedules history` tells how it ends", file=sys.stderr)


def _generated(schedule_id: str, issued: date | None) -> dict[str, Any]:
    """The entry of the due date whose invoice was made. Raises CommandError."""
    if (api := elsewhere()) is not None:
        return remote.generate(api, schedule_id, issued)
    from workers.app import PROCESS, ring, start
    from workers.clients import Clients
    from workers.embedded import EmbeddedError
    from workers.schedule import schedules
    from workers.schedule.generator import DEADLINE, Generator
    from workers.schedule.on_demand import generate_now

    configured, engine = open_database()
    try:
        process = start(configured, answer_within=3.0)
    except EmbeddedError as error:
        raise CommandError(str(error)) from None
    with explained(), Clients(configured, deadline=DEADLINE) as clients:
        generator = Generator(engine=engine, settings=configured, clients=clients, redis=process.redis)
        row = generate_now(generator, schedule_id, issue_date=issued, actor=actor())
    if row.event_id is not None:
        ring(PROCESS, [row.event_id])
    return asdict(schedules.entry(row))


def _say_next(schedule_id: str, issued: date | None, *, as_json: bool) -> None:
    """Print what the next invoice would be, dated today or `issued`."""
    from workers.leases import utcnow
    from workers.schedule.rhythm import today

    if (api := elsewhere()) is not None:
        shown, _ = remote.get(api, schedule_id)
        status = shown["status"]
        coming = remote.preview(api, schedule_id, 1, issued or today(utcnow(), shown["timezone"]))
    else:
        from workers.schedule import schedules

        configured, engine = open_database()
        with explained():
            row = schedules.get(engine, schedule_id)
            status, coming = row.status, dates_of(configured, row, 1, issued or today(utcnow(), row.timezone))
    say_coming(coming, as_json=as_json, empty=f"nothing to come: it is {status}")
