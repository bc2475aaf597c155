"""The command that compares a source with its provider: what was never delivered is taken in."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from receiver.cli.options import WHEN, moment, no_source
from receiver.cli.output import CommandError, WrongUse, many, show
from receiver.cli.records import Json, open_database

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.reconcile import Totals

MAX_WAIT = 60.0
"""Seconds that a provider may have us wait at a time, when we were over its limit of a minute."""
_COUNTS = ("seen", "known", "missed", "too_recent")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(reconcile)


def reconcile(
    source: Annotated[str, typer.Option(help="The source to compare with its provider.")],
    since: Annotated[str, typer.Option(help=f"Happened at or after: {WHEN}.")],
    grace: Annotated[
        int,
        typer.Option(min=0, max=10_080, help="Minutes in which the provider may still deliver by itself: left alone."),
    ] = 60,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what was missed, and take in nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Take in what a provider never delivered, by asking its API.

    Example: billhook reconcile --source shop --since 7d --dry-run
    """
    from handlers.errors import ProviderError
    from workers import reconcile as comparing
    from workers.leases import utcnow
    from workers.reconcile import Compared, Reconciler, Totals

    configured, engine = open_database()
    if source not in configured.sources:
        raise no_source("--source", source, configured.sources)
    start = moment("--since", since, now := utcnow())
    if start > now:
        raise WrongUse(f"--since: {since} is still to come")
    client = comparing.patient_client(configured, source, MAX_WAIT)
    totals, missed = Totals(), list[dict[str, Any]]()
    with closing(client), _progress() as tell:

        def watch(compared: Compared) -> None:
            totals.add(compared)
            tell(totals)
            if dry_run:
                missed.extend(
                    {"type": change.type, "object_id": change.object_id, "occurred_at": change.occurred_at}
                    for change in compared.missed
                )

        reconciler = Reconciler(
            engine=engine,
            settings=configured,
            source=source,
            client=client,
            grace=timedelta(minutes=grace),
            dry_run=dry_run,
            announce=lambda _ids: None,  # the workers' sweep finds them within seconds, also where no Redis answers
        )
        try:
            comparing.reconcile(reconciler, start, watch)
        except ProviderError as error:
            taken = 0 if dry_run else totals.missed
            stays = f"; what was taken in before stays: {many(taken, 'missed event')}" if taken else ""
            raise CommandError(f"the API of source {source!r} ended it: {error}{stays}") from None
    _print(source, start, totals, missed, dry_run=dry_run, as_json=as_json)


def _print(
    source: str, since: datetime, totals: Totals, missed: list[dict[str, Any]], *, dry_run: bool, as_json: bool
) -> None:
    counts = asdict(totals)
    if as_json:
        listed = [{**change, "occurred_at": change["occurred_at"].isoformat()} for change in missed]
        changes = {"changes": listed} if dry_run else {}
        print(json.dumps({"source": source, "since": since.isoformat(), "dry_run": dry_run, **counts, **changes}))
        return
    if missed:
        show(missed, ("type", "object_id", "occurred_at"), as_json=False, empty="")
        print()
    show([{"source": source, **counts}], ("source", *_COUNTS), as_json=False, empty="")


@contextmanager
def _progress() -> Iterator[Callable[[Totals], None]]:
    """A line at the terminal that says how far it is; nothing where there is no terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    shown = sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as progress:
        task = progress.add_task("asking the provider", total=None)

        def tell(totals: Totals) -> None:
            line = f"{totals.seen:,} changes seen, {totals.known:,} known, {totals.missed:,} missed"
            progress.update(task, description=line)

        yield tell
