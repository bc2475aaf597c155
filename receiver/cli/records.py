"""Commands that read records: events, audit; and what commands on the database here begin with."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.asking import at_work
from receiver.cli.options import one_of
from receiver.cli.output import WrongUse, show
from receiver.cli.remote import events as remote
from receiver.cli.remote.place import elsewhere, refuse_elsewhere
from workers import settings
from workers.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from workers.models import AnyRow

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    app.command()(events)
    app.command()(audit)


def open_database() -> tuple[Settings, Engine]:
    """The settings and a database whose schema is right. Raises WrongUse where a command is to work elsewhere."""
    from workers import database

    refuse_elsewhere()
    configured = settings.load()
    quiet(configured)
    engine = database.connect(configured)
    database.ensure_schema(configured, engine)
    return configured, engine


def rung_for(configured: Settings, delivery_ids: Sequence[str]) -> bool:
    """Whether the workers could be told that these deliveries are due; if not, their sweep finds them."""
    from workers.app import DELIVER, ring, start
    from workers.embedded import EmbeddedError

    try:
        start(configured, answer_within=3.0)
        return ring(DELIVER, delivery_ids)
    except EmbeddedError:
        return False


def quiet(configured: Settings) -> None:
    """Leave log lines to the processes that run on and on: who gives a command is told by the command itself."""
    from workers import logs

    logs.configure(configured.model_copy(update={"log_level": "error"}))


def events(
    status: Annotated[
        str | None,
        one_of("waiting", "processed", "ignored", "dead"),
    ] = None,
    event_type: Annotated[str | None, typer.Option("--type", help="Such as invoice.paid, invoice.* or *.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List the newest events.

    `billhook event ID` shows all about one, its errors too.

    Example: billhook events --status dead
    """
    from workers import browsing
    from workers.audit import STATUSES
    from workers.selection import Selection

    if status is not None and status not in STATUSES:
        raise WrongUse(f"--status: {status!r} is none of {', '.join(sorted(STATUSES))}")
    if (api := elsewhere()) is not None:
        rows: Sequence[AnyRow] = remote.newest(api, status=status, event_type=event_type, limit=limit)
    else:
        _, engine = open_database()
        rows = browsing.events(engine, Selection(status=status, type=event_type), limit=limit).rows
    columns = ("id", "received_at", "source", "type", "object_id", "status", "runs")
    show([row._asdict() for row in rows], columns, as_json=as_json, empty="no events")


def audit(as_json: Json = False) -> None:
    """Prove that nothing is lost.

    Where something is, its ids are named and the exit status is 1.
    """
    from workers.audit import audit as check

    _, engine = open_database()
    with at_work("counting, and looking for what is lost"):
        balance = check(engine)
    if as_json:
        counts = {name: getattr(balance, name) for name in ("received", "processed", "ignored", "dead", "waiting")}
        faults = [{"rule": fault.rule, "ids": fault.ids} for fault in balance.faults]
        print(json.dumps({**counts, "holds": balance.holds, "faults": faults}))
    else:
        print(balance)
        for fault in balance.faults:
            print(f"  {fault.rule}: {' '.join(fault.ids)}", file=sys.stderr)
    if not balance.holds:
        raise typer.Exit(1)
