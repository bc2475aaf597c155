"""Which of the stored events a command means: what was written on the command line, checked before anything begins."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.options import WHEN, moment, no_source
from receiver.cli.output import CommandError, WrongUse

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from workers.selection import Selection
    from workers.settings import Settings

Events = Annotated[list[str] | None, typer.Option("--event", help="An event's id; once for each.")]
Type = Annotated[str | None, typer.Option("--type", help="Such as invoice.paid, invoice.* or *.")]
Source = Annotated[str | None, typer.Option(help="Only from this source.")]
Since = Annotated[str | None, typer.Option(help=f"Received at or after: {WHEN}.")]
Until = Annotated[str | None, typer.Option(help="Received before; like --since.")]


def selection(
    events: list[str] | None,
    event_type: str | None,
    source: str | None,
    since: str | None,
    until: str | None,
    status: str | None,
) -> Selection:
    """The events that fit all of these options. Raises WrongUse for a value that is none, whatever is stored."""
    from handlers.registry import valid_pattern
    from workers.leases import utcnow
    from workers.selection import Selection

    if event_type is not None and "*" in event_type and not valid_pattern(event_type):
        raise WrongUse(f"--type: {event_type!r} is not an event type, a prefix with .* or *")
    for option, value in (("--type", event_type), ("--source", source), *(("--event", one) for one in events or ())):
        if value == "":
            raise WrongUse(f"{option}: nothing is written there; leave it out, or say which")
    now = utcnow()
    return Selection(
        events=tuple(events or ()),
        type=event_type,
        source=source,
        since=None if since is None else moment("--since", since, now),
        until=None if until is None else moment("--until", until, now),
        status=status,
    )


def check(engine: Engine, configured: Settings, meant: Selection) -> None:
    """Refuse ids that no event has and a source that is none; say so where a type is probably misspelt.

    A source that is configured no more is one for as long as events of it are stored; so is a type that nobody
    documents. Raises CommandError, WrongUse.
    """
    from handlers.vocabulary import everything, misspelt
    from workers.selection import Selection, is_any, unknown

    if missing := unknown(engine, meant.events):
        raise CommandError(f"there is no event {', '.join(missing)}")
    known = meant.source is None or meant.source in configured.sources
    if not known and not is_any(engine, Selection(source=meant.source)):
        raise no_source("--source", str(meant.source), configured.sources)
    if meant.type is None or (near := misspelt(meant.type, everything())) is None:
        return
    if not is_any(engine, Selection(type=meant.type)):
        print(f"billhook: --type: no event {meant.type} is stored; did you mean {near}?", file=sys.stderr)
