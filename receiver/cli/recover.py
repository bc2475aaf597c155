"""Commands that send an endpoint what failed there, or what it never got. Each says how many before it begins."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.actor import actor
from receiver.cli.asking import DryRun, Yes, ask, progress, refuse_to_ask
from receiver.cli.options import WHEN, moment
from receiver.cli.output import WrongUse, many
from receiver.cli.records import Json, open_database

if TYPE_CHECKING:
    from workers.delivery.recover import Span

Id = Annotated[str, typer.Argument(metavar="ID", help="The endpoint's id: ep_…")]


def add_to(endpoints: typer.Typer) -> None:
    """Register these commands among those about endpoints."""
    endpoints.command("recover")(recover)
    endpoints.command("missing")(missing)


def recover(
    endpoint_id: Id,
    since: Annotated[str, typer.Option(help=f"Failed at or after: {WHEN}.")],
    until: Annotated[str | None, typer.Option(help="Failed before; like --since.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Send again what failed at an endpoint.

    That is what was exhausted, refused or cancelled.

    Example: billhook endpoints recover ep_… --since 2d --dry-run
    """
    from workers.delivery import recover as recovering
    from workers.leases import utcnow

    span = _span(since, until)
    refuse_to_ask(dry_run or yes)
    _, engine = open_database()
    count = recovering.failed(engine, endpoint_id, span)
    if not count:
        said = f"nothing failed at {endpoint_id} in that time"
    elif dry_run:
        said = f"would send {deliveries(count)} to {endpoint_id} again"
    else:
        ask(f"{deliveries(count)} to {endpoint_id} failed. Send again?", yes)
        with progress("recovering", count) as more:
            count = recovering.recover(
                engine, endpoint_id, span, actor=actor(), now=utcnow(), done=lambda one: more(one.deliveries)
            )
        said = f"{deliveries(count)} to {endpoint_id} {_are(count)} due again"
    _say(said, endpoint_id, count, dry_run=dry_run, as_json=as_json)


def missing(
    endpoint_id: Id,
    since: Annotated[str, typer.Option(help=f"Published at or after: {WHEN}.")],
    until: Annotated[str | None, typer.Option(help="Published before; like --since.")] = None,
    forwarded: Annotated[bool, typer.Option("--forwarded", help="Also what was forwarded of providers.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Send what an endpoint wants and never got.

    That is what was published before it was added, or while it was disabled.

    Example: billhook endpoints missing ep_… --since 2d --dry-run
    """
    from workers.delivery import recover as recovering
    from workers.leases import utcnow

    span = _span(since, until)
    refuse_to_ask(dry_run or yes)
    _, engine = open_database()
    count = recovering.missing(engine, endpoint_id, span, forwarded=forwarded)
    if not count:
        said = f"nothing of that time is missing at {endpoint_id}"
    elif dry_run:
        said = f"would send {many(count, 'message')} to {endpoint_id}"
    else:
        ask(f"{endpoint_id} never got {many(count, 'message')} that it wants. Send now?", yes)
        with progress("sending", count) as more:
            count = recovering.fill(
                engine,
                endpoint_id,
                span,
                actor=actor(),
                now=utcnow(),
                forwarded=forwarded,
                done=lambda one: more(one.deliveries),
            )
        said = f"{many(count, 'message')} to {endpoint_id} {_are(count)} due"
    _say(said, endpoint_id, count, dry_run=dry_run, as_json=as_json)


def deliveries(count: int) -> str:
    """As in `1 delivery` and `2 deliveries`."""
    return f"{count} delivery" if count == 1 else f"{count} deliveries"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _span(since: str, until: str | None) -> Span:
    from workers.delivery.recover import Span
    from workers.leases import utcnow

    now = utcnow()
    span = Span(moment("--since", since, now), None if until is None else moment("--until", until, now))
    if span.until is not None and span.until <= span.since:
        raise WrongUse(f"--until: {until!r} is not later than --since")
    return span


def _say(sentence: str, endpoint_id: str, count: int, *, dry_run: bool, as_json: bool) -> None:
    numbers = {"endpoint": endpoint_id, "deliveries": count, "dry_run": dry_run}
    print(json.dumps(numbers) if as_json else sentence)
