"""Commands about many stored events at once: replay, acknowledge, prune. Each says how many before it begins."""

from __future__ import annotations

import difflib
import json
import os
import pwd
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from receiver.cli.output import INTERRUPTED, WRONG_USE, CommandError
from receiver.cli.records import Json, open_database

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from handlers.registry import Handler
    from workers.errands import Count
    from workers.replay import Wish
    from workers.selection import Selection
    from workers.settings import Settings

_AGO = re.compile(r"([0-9]+)([dhm])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}
_WHEN = "a date, a time such as 2026-06-05T14:00Z, or how long ago: 7d, 12h, 30m"

Events = Annotated[list[str] | None, typer.Option("--event", help="An event's id; once for each.")]
Type = Annotated[str | None, typer.Option("--type", help="Such as invoice.paid, invoice.* or *.")]
Source = Annotated[str | None, typer.Option(help="Only from this source.")]
Since = Annotated[str | None, typer.Option(help=f"Received at or after: {_WHEN}.")]
Until = Annotated[str | None, typer.Option(help="Received before; like --since.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say how many, and change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask; for scripts.")]


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    for command in (replay, acknowledge, prune):
        app.command()(command)


def replay(
    event: Events = None,
    event_type: Type = None,
    source: Source = None,
    since: Since = None,
    until: Until = None,
    status: Annotated[
        str | None, typer.Option(help="dead (then only dead runs), processed or ignored; default: any.")
    ] = None,
    handler: Annotated[
        str | None, typer.Option(help="Only its runs; events it wants and never had get one, too.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0.001, max=1e6, help="Events a second.")] = 50.0,
    limit: Annotated[
        int | None, typer.Option(min=1, max=1_000_000_000, help="So many events at most, oldest first.")
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Run handlers again on events that have ended: dead ones, or any others.

    A dead run goes on behind the last step it completed, a succeeded one runs
    anew. What `once` guards is not repeated; what was emitted is not sent twice.
    """
    from workers import replay as replays
    from workers.leases import utcnow

    if status not in {None, "dead", "processed", "ignored"}:
        _refuse(f"--status: {status!r} is none of dead, ignored, processed")
    selection = _selection(event, event_type, source, since, until, status)
    if not selection and handler is None:
        _refuse("say which events: --event, --type, --source, --since, --until, --status or --handler")
    _refuse_to_ask(dry_run or yes)
    configured, engine = open_database()
    _check_ids(engine, selection)
    wish = replays.Wish(
        selection=selection,
        handler=handler,
        loaded=None if handler is None else _handler(configured, engine, handler),
        rate=rate,
        limit=limit,
    )
    count, waiting = replays.preview(engine, wish), replays.waiting(engine, wish)
    left = f"; {_many(waiting, 'run')} not ended and left alone" if waiting else ""
    if not count.events:
        said = f"nothing to replay{left}"
    elif dry_run:
        said = f"would replay {_at_most(wish)}{_told(count)}{left}"
    else:
        _ask(f"{_at_most(wish)}{_told(count)}{left}. Replay them?", yes)
        now = utcnow()
        with _progress("replaying", count.events) as done:
            count = replays.replay(engine, wish, actor=_actor(), now=now, done=done)
        last = now + timedelta(seconds=max(count.events - 1, 0) / rate)
        said = f"replayed {_told(count)}; the last is due {last:%Y-%m-%d %H:%M:%S}Z"
    _say(said, {**asdict(count), "waiting": waiting, "dry_run": dry_run}, as_json=as_json)


def acknowledge(
    event: Events = None,
    event_type: Type = None,
    source: Source = None,
    since: Since = None,
    until: Until = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Say that dead events were seen: they are then deleted with their retention time like others."""
    from workers import acknowledgement
    from workers.leases import utcnow

    selection = _selection(event, event_type, source, since, until, None)
    if not selection:
        _refuse("say which events: --event, --type, --source, --since or --until")
    _refuse_to_ask(dry_run or yes)
    _, engine = open_database()
    _check_ids(engine, selection)
    events = acknowledgement.unacknowledged(engine, selection)
    if not events:
        said = "nothing to acknowledge"
    elif dry_run:
        said = f"would acknowledge {_many(events, 'dead event')}"
    else:
        _ask(f"{_many(events, 'dead event')}. Acknowledge them?", yes)
        with _progress("acknowledging", events) as done:
            events = acknowledgement.acknowledge(engine, selection, actor=_actor(), now=utcnow(), done=done)
        said = f"acknowledged {_many(events, 'dead event')}"
    _say(said, {"events": events, "dry_run": dry_run}, as_json=as_json)


def prune(dry_run: DryRun = False, as_json: Json = False) -> None:
    """Delete now what is beyond its retention time; the workers do it every hour."""
    from workers import retention
    from workers.leases import utcnow

    configured, engine = open_database()
    if dry_run:
        rows = retention.prunable(engine, utcnow(), configured)
    else:
        rows = retention.prune(engine, utcnow(), configured).rows
    named = {table.removeprefix("handler_"): count for table, count in rows.items() if count}
    told = ", ".join(f"{count} {table.replace('_', ' ')}" for table, count in named.items()) or "nothing"
    _say(f"{'would delete' if dry_run else 'deleted'} {told}", {**named, "dry_run": dry_run}, as_json=as_json)


# --- which events ---------------------------------------------------------------------------------


def _selection(
    events: list[str] | None,
    event_type: str | None,
    source: str | None,
    since: str | None,
    until: str | None,
    status: str | None,
) -> Selection:
    from handlers.registry import valid_pattern
    from workers.leases import utcnow
    from workers.selection import Selection

    if event_type is not None and "*" in event_type and not valid_pattern(event_type):
        _refuse(f"--type: {event_type!r} is not an event type, a prefix with .* or *")
    now = utcnow()
    return Selection(
        events=tuple(events or ()),
        type=event_type,
        source=source,
        since=None if since is None else _moment("--since", since, now),
        until=None if until is None else _moment("--until", until, now),
        status=status,
    )


def _moment(option: str, text: str, now: datetime) -> datetime:
    """The time that somebody wrote; without a zone it is UTC."""
    try:
        if (ago := _AGO.fullmatch(text)) is not None:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        _refuse(f"{option}: {text!r} is not {_WHEN}")


def _check_ids(engine: Engine, selection: Selection) -> None:
    from workers.selection import unknown

    if missing := unknown(engine, selection.events):
        raise CommandError(f"there is no event {', '.join(missing)}")


def _handler(configured: Settings, engine: Engine, name: str) -> Handler | None:
    """The handler of that name; None where only its runs are known here. Raises CommandError, RegistrationError."""
    from handlers import loading
    from handlers.registry import REGISTRY
    from workers.replay import handlers_with_runs

    loading.load(configured.handlers, sources={key: one.provider for key, one in configured.sources.items()})
    if (loaded := REGISTRY.get(name)) is not None:
        return loaded
    with_runs = handlers_with_runs(engine)
    if name in with_runs:
        print(
            f"billhook: {name} is not among BILLHOOK_HANDLERS here: only runs that it had are replayed", file=sys.stderr
        )
        return None
    known = sorted({*with_runs, *(handler.name for handler in REGISTRY)})
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}; see BILLHOOK_HANDLERS"
    raise CommandError(f"there is no handler {name}; {hint}")


# --- asking and telling ---------------------------------------------------------------------------


def _refuse(message: str) -> NoReturn:
    """End a command that was called wrongly."""
    print(f"billhook: {message}", file=sys.stderr)
    raise typer.Exit(WRONG_USE)


def _refuse_to_ask(settled: bool) -> None:
    if not settled and not sys.stdin.isatty():
        _refuse("there is no terminal to ask at: say --yes to go ahead, or --dry-run to see how many")


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:  # Ctrl-C or Ctrl-D, which end a command with 130 like anywhere else
        print("\nbillhook: nothing was changed", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    if not agreed:
        raise CommandError("nothing was changed")


def _actor() -> str:
    """Who has this done: the user of the operating system, and on which machine."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user need not have a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


@contextmanager
def _progress(what: str, events: int) -> Iterator[Callable[[Count], None]]:
    """A bar on a terminal, which is told of each batch."""
    if not sys.stderr.isatty():
        yield lambda _count: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=events)
        yield lambda count: bar.advance(task, count.events)


def _at_most(wish: Wish) -> str:
    """What stands before a count that the handler's `when` may make smaller."""
    return "at most " if wish.loaded is not None and wish.loaded.when is not None else ""


def _told(count: Count) -> str:
    new = f", {_many(count.new, 'new run')}" if count.new else ""
    return f"{_many(count.events, 'event')}: {_many(count.runs, 'run')}{new}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _say(sentence: str, numbers: dict[str, Any], *, as_json: bool) -> None:
    print(json.dumps(numbers) if as_json else sentence)
