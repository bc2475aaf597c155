"""Commands about many stored events at once: replay, acknowledge, prune. Each says how many before it begins."""

from __future__ import annotations

import difflib
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from receiver.cli.actor import actor
from receiver.cli.asking import Counted, DryRun, Yes, ask, at_work, progress, refuse_to_ask
from receiver.cli.handlers import load
from receiver.cli.options import one_of
from receiver.cli.output import CommandError, WrongUse, many
from receiver.cli.records import Json, open_database
from receiver.cli.remote import events as remote
from receiver.cli.remote.place import elsewhere
from receiver.cli.selection import Events, Since, Source, Type, Until, check, selection

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from handlers.registry import Handler
    from workers.errands import Count
    from workers.replay import Wish
    from workers.selection import Selection

_TABLES = (
    "attempts", "deliveries", "messages", "steps", "handler_runs", "events", "once_keys", "idempotency_keys",
    "ended_sessions",
)  # fmt: skip
"""From which rows are deleted when their time has come."""


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
        str | None,
        one_of("dead", "processed", "ignored", after="; default: any. Of dead events only dead runs."),
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
    """Run handlers again on events that have ended, dead or not.

    A dead run goes on behind the last step it completed, a succeeded one runs
    anew. What `once` guards is not repeated; what was emitted is not sent twice.

    Example: billhook replay --status dead --handler receipts.send_receipt
    """
    from workers.leases import utcnow

    if status not in {None, "dead", "processed", "ignored"}:
        raise WrongUse(f"--status: {status!r} is none of dead, ignored, processed")
    meant = selection(event, event_type, source, since, until, status)
    if not meant and handler is None:
        raise WrongUse("say which events: --event, --type, --source, --since, --until, --status or --handler")
    refuse_to_ask(dry_run or yes)
    asked = _asked(meant, handler, rate, limit)
    wish, count, waiting = asked.wish, asked.count, asked.waiting
    left = f"; {many(waiting, 'run')} not ended and left alone" if waiting else ""
    if not count.events:
        said = f"nothing to replay{left}"
    elif dry_run:
        said = f"would replay {_at_most(wish)}{_told(count)}{left}"
    else:
        ask(f"{_at_most(wish)}{_told(count)}{left}. Replay them?", yes)
        now = utcnow()
        with progress("replaying", count.events) as more:
            count = asked.carry_out(now, more)
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
    """Say that dead events were seen, so that they may go.

    They are then deleted with their retention time like others.

    Example: billhook acknowledge --source shop --until 7d
    """
    meant = selection(event, event_type, source, since, until, None)
    if not meant:
        raise WrongUse("say which events: --event, --type, --source, --since or --until")
    refuse_to_ask(dry_run or yes)
    counted = _unacknowledged(meant)
    events = counted.count
    if not events:
        said = "nothing to acknowledge"
    elif dry_run:
        said = f"would acknowledge {many(events, 'dead event')}"
    else:
        ask(f"{many(events, 'dead event')}. Acknowledge them?", yes)
        with progress("acknowledging", events) as more:
            events = counted.carry_out(more)
        said = f"acknowledged {many(events, 'dead event')}"
    _say(said, {"events": events, "dry_run": dry_run}, as_json=as_json)


def prune(dry_run: DryRun = False, as_json: Json = False) -> None:
    """Delete now what is beyond its retention time.

    The workers do it every hour.
    """
    from workers import retention
    from workers.leases import utcnow

    configured, engine = open_database()
    if dry_run:
        rows = retention.prunable(engine, utcnow(), configured)
    else:
        with at_work("deleting"):
            gone = retention.prune(engine, utcnow(), configured).rows
        rows = Counter({table: gone[table] for table in _TABLES})
    named = {table.removeprefix("handler_"): count for table, count in rows.items()}
    told = ", ".join(_of_table(count, table) for table, count in named.items() if count) or "nothing"
    _say(f"{'would delete' if dry_run else 'deleted'} {told}", {**named, "dry_run": dry_run}, as_json=as_json)


def _of_table(count: int, table: str) -> str:
    several = table.replace("_", " ")
    return f"{count} {several}" if count != 1 else many(1, {"deliveries": "delivery"}.get(several, several[:-1]))


# --- what is meant, here or elsewhere -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asked:
    """A replay that somebody wants, and how much that is."""

    wish: Wish
    count: Count
    waiting: int
    """Runs that are meant, have not ended, and so are left alone."""
    carry_out: Callable[[datetime, Callable[[int], object]], Count]
    """Does it from a moment on, and tells how many more events are done; how much in all."""


def _asked(meant: Selection, handler: str | None, rate: float, limit: int | None) -> _Asked:
    from workers.replay import Wish

    wish = Wish(selection=meant, handler=handler, rate=rate, limit=limit)
    if (api := elsewhere()) is None:
        return _asked_here(wish)
    count, waiting = remote.preview(api, wish)

    def carry_out(_now: datetime, done: Callable[[int], object]) -> Count:
        replayed = remote.replay(api, wish)
        done(replayed.events)
        return replayed

    return _Asked(wish, count, waiting, carry_out)


def _asked_here(wish: Wish) -> _Asked:
    from workers import replay as replays

    configured, engine = open_database()
    check(engine, configured, wish.selection)
    for error in load(configured, configured.handlers).errors:
        raise error
    wish = replace(wish, loaded=None if wish.handler is None else _handler(engine, wish.handler))
    count, waiting = replays.preview(engine, wish), replays.waiting(engine, wish)
    if count.events and wish.handler is None:
        _look_for_handlers(engine, wish)

    def carry_out(now: datetime, done: Callable[[int], object]) -> Count:
        return replays.replay(engine, wish, actor=actor(), now=now, done=lambda one: done(one.events))

    return _Asked(wish, count, waiting, carry_out)


def _unacknowledged(meant: Selection) -> Counted:
    if (api := elsewhere()) is not None:
        return Counted(remote.unacknowledged(api, meant), lambda done: remote.acknowledge(api, meant, done))
    from workers import acknowledgement
    from workers.leases import utcnow

    configured, engine = open_database()
    check(engine, configured, meant)

    def carry_out(done: Callable[[int], object]) -> int:
        return acknowledgement.acknowledge(
            engine, meant, actor=actor(), now=utcnow(), done=lambda one: done(one.events)
        )

    return Counted(acknowledgement.unacknowledged(engine, meant), carry_out)


# --- whose runs -----------------------------------------------------------------------------------


def _handler(engine: Engine, name: str) -> Handler | None:
    """The handler of that name; None where only its runs are known here. Raises WrongUse."""
    from handlers.registry import REGISTRY
    from workers.replay import handlers_with_runs

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
    raise WrongUse(f"--handler: there is no handler {name}; {hint}")


def _look_for_handlers(engine: Engine, wish: Wish) -> None:
    """Say whose runs nobody here could carry out: they would fail again. Raises CommandError where nobody could any."""
    from handlers.registry import REGISTRY
    from workers.replay import runs_of

    if not list(REGISTRY):
        raise CommandError(
            "no handler is loaded here, so what is replayed would end as before: set BILLHOOK_HANDLERS to what the "
            "workers have, or name a handler with --handler"
        )
    strangers = {name: runs for name, runs in runs_of(engine, wish).items() if REGISTRY.get(name) is None}
    if strangers:
        bound = "up to " if wish.limit is not None else ""
        print(
            f"billhook: {bound}{many(sum(strangers.values()), 'run')} of handlers that BILLHOOK_HANDLERS does not name "
            f"here, and that end dead again if no worker has them: {', '.join(strangers)}",
            file=sys.stderr,
        )


# --- telling --------------------------------------------------------------------------------------


def _at_most(wish: Wish) -> str:
    """What stands before a count that the handler's `when` may make smaller."""
    return "at most " if wish.loaded is not None and wish.loaded.when is not None else ""


def _told(count: Count) -> str:
    new = f", {many(count.new, 'new run')}" if count.new else ""
    return f"{many(count.events, 'event')}: {many(count.runs, 'run')}{new}"


def _say(sentence: str, numbers: dict[str, Any], *, as_json: bool) -> None:
    print(json.dumps(numbers) if as_json else sentence)
