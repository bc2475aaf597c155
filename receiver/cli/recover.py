"""Commands that send an endpoint what failed there, or what it never got. Each says how many before it begins."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.actor import actor
from receiver.cli.asking import Counted, DryRun, Yes, ask, progress, refuse_to_ask
from receiver.cli.options import WHEN, moment
from receiver.cli.output import WrongUse, many
from receiver.cli.records import Json, open_database
from receiver.cli.remote import endpoints as remote
from receiver.cli.remote.place import elsewhere

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
    span = _span(since, until)
    refuse_to_ask(dry_run or yes)
    counted = _failed(endpoint_id, span)
    count = counted.count
    if not count:
        said = f"nothing failed at {endpoint_id} in that time"
    elif dry_run:
        said = f"would send {deliveries(count)} to {endpoint_id} again"
    else:
        ask(f"{deliveries(count)} to {endpoint_id} failed. Send again?", yes)
        with progress("recovering", count) as more:
            count = counted.carry_out(more)
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
    span = _span(since, until)
    refuse_to_ask(dry_run or yes)
    counted = _missing(endpoint_id, span, forwarded)
    count = counted.count
    if not count:
        said = f"nothing of that time is missing at {endpoint_id}"
    elif dry_run:
        said = f"would send {many(count, 'message')} to {endpoint_id}"
    else:
        ask(f"{endpoint_id} never got {many(count, 'message')} that it wants. Send now?", yes)
        with progress("sending", count) as more:
            count = counted.carry_out(more)
        said = f"{many(count, 'message')} to {endpoint_id} {_are(count)} due"
    _say(said, endpoint_id, count, dry_run=dry_run, as_json=as_json)


def _failed(endpoint_id: str, span: Span) -> Counted:
    if (api := elsewhere()) is not None:
        count = remote.recover(api, endpoint_id, span, dry_run=True)
        return Counted(count, lambda done: remote.recover(api, endpoint_id, span, done=done))
    from workers.delivery import recover as recovering
    from workers.leases import utcnow

    _, engine = open_database()

    def carry_out(done: Callable[[int], object]) -> int:
        return recovering.recover(
            engine, endpoint_id, span, actor=actor(), now=utcnow(), done=lambda one: done(one.deliveries)
        )

    return Counted(recovering.failed(engine, endpoint_id, span), carry_out)


def _missing(endpoint_id: str, span: Span, forwarded: bool) -> Counted:
    if (api := elsewhere()) is not None:
        count = remote.missing(api, endpoint_id, span, forwarded=forwarded, dry_run=True)
        return Counted(count, lambda done: remote.missing(api, endpoint_id, span, forwarded=forwarded, done=done))
    from workers.delivery import recover as recovering
    from workers.leases import utcnow

    _, engine = open_database()

    def carry_out(done: Callable[[int], object]) -> int:
        return recovering.fill(
            engine,
            endpoint_id,
            span,
            actor=actor(),
            now=utcnow(),
            forwarded=forwarded,
            done=lambda one: done(one.deliveries),
        )

    return Counted(recovering.missing(engine, endpoint_id, span, forwarded=forwarded), carry_out)


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
