"""`billhook tail`: what happens, as it happens; read from the database alone."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from receiver.bodies import escaped
from receiver.cli.options import WHEN, moment, no_source, one_of
from receiver.cli.output import Failure, WrongUse, console, many
from receiver.cli.records import Json, open_database

if TYPE_CHECKING:
    from workers.watching import Happening, Watch

LOOK_EVERY = 0.5
"""Seconds between two looks."""
_PATIENCE = 5.0
"""Seconds between two looks while the database does not answer."""
_COLOURS = {
    "received": "dim",
    "processed": "green",
    "ignored": "dim",
    "dead": "bold red",
    "failed": "yellow",
    "delivered": "green",
    "undelivered": "yellow",
}


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    app.command()(tail)


def tail(
    event_type: Annotated[str | None, typer.Option("--type", help="Such as invoice.paid, invoice.* or *.")] = None,
    source: Annotated[str | None, typer.Option(help="Only what comes of this source.")] = None,
    status: Annotated[
        list[str] | None,
        one_of(*_COLOURS, before="Only lines that say ", after="; once for each."),
    ] = None,
    since: Annotated[str | None, typer.Option(help=f"Begin with what was received then: {WHEN}.")] = None,
    as_json: Json = False,
) -> None:
    """Show what happens, as it happens, until Ctrl-C.

    That is events as they come and end, starts that fail, and attempts at endpoints. The database alone is asked, twice
    a second, and nothing is changed.

    Example: billhook tail --type 'invoice.*' --since 1h
    """
    from handlers.registry import matches, valid_pattern
    from workers.leases import utcnow
    from workers.watching import Watch

    for one in status or ():
        if one not in _COLOURS:
            raise WrongUse(f"--status: {one!r} is none of {', '.join(_COLOURS)}")
    if event_type is not None and "*" in event_type and not valid_pattern(event_type):
        raise WrongUse(f"--type: {event_type!r} is not an event type, a prefix with .* or *")
    begins = utcnow() if since is None else moment("--since", since, utcnow())
    configured, engine = open_database()
    if source is not None and source not in configured.sources:
        raise no_source("--source", source, configured.sources)

    def wants(of_type: str, of_source: str | None) -> bool:
        return (event_type is None or matches(event_type, of_type)) and source in (None, of_source)

    with suppress(KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        for happening in _happenings(Watch(engine, begins, wants)):
            if not status or happening.what in status:
                _print(happening, as_json=as_json)


def _happenings(watch: Watch) -> Iterator[Happening]:
    """What happens, for ever; a database that does not answer is waited for."""
    from sqlalchemy.exc import DBAPIError

    from workers.database import unavailable
    from workers.leases import utcnow

    down = False
    while True:
        try:
            yield from watch.look(utcnow())
            down = False
        except DBAPIError as error:
            if not unavailable(error):
                raise
            if not down:
                print(f"billhook: {Failure.of(error).message}; trying again", file=sys.stderr, flush=True)
            down = True
        if not watch.behind:
            time.sleep(_PATIENCE if down else LOOK_EVERY)


def _print(happening: Happening, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_object(happening)), flush=True)
    else:
        console().print(_line(happening))
        sys.stdout.flush()


def _object(happening: Happening) -> dict[str, Any]:
    found = {name: value for name, value in asdict(happening).items() if value is not None}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in found.items()}


def _line(one: Happening) -> Text:
    """As `12:03:04Z  processed    evt_…  invoice.paid  shop  inv_8f3a91  2 runs`; what others wrote is escaped."""
    of = "  ".join(escaped(part) for part in (one.id, one.type, one.source, one.object_id) if part)
    line = Text.assemble((f"{one.at:%H:%M:%SZ}", "dim"), "  ", (f"{one.what:<11}", _COLOURS[one.what]), f"  {of}")
    if rest := escaped("; ".join(_rest(one))):
        line.append(f"  {rest}", _COLOURS["dead"] if one.what == "dead" else "")
    return line


def _rest(one: Happening) -> Iterator[str]:
    if one.endpoint is not None:
        answered = "no answer" if one.status is None else f"{one.status}"
        yield f"to {one.endpoint}: {answered} in {one.duration_ms} ms"
        if one.attempt and one.attempt > 1:
            yield f"attempt {one.attempt}"
        if one.error:
            yield one.error
    elif one.handler is not None:
        yield f"{one.handler}: {one.error or 'no error was kept'}"
        again = "" if one.next_attempt_at is None else f", again at {one.next_attempt_at:%H:%M:%SZ}"
        yield f"attempt {one.attempt}{again}"
    elif one.runs:
        yield many(one.runs, "run")
