"""Commands that bring schedules in: from a file, and from a provider that keeps some itself."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from receiver.cli.actor import actor
from receiver.cli.asking import DryRun, Yes, ask, at_work, progress, refuse_to_ask
from receiver.cli.options import no_source
from receiver.cli.output import CommandError, WrongUse, many, show
from receiver.cli.records import Json, open_database

if TYPE_CHECKING:
    from handlers.invoicing import Keeping
    from workers.schedule.taking_over import Taken
    from workers.settings import Settings

MAX_WAIT = 60.0
"""Seconds that a provider may have us wait at a time, when we were over its limit of a minute."""
_TAKEN = ("kept", "outcome", "schedule_id", "customer_id", "frequency", "next_run_date", "reason")


def add_to(group: typer.Typer) -> None:
    """Register these commands."""
    group.command("import")(import_file)
    group.command("take-over")(take_over)


def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="A row for each item, with the names of columns.")],
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Add the schedules of a CSV file, all or none.

    Those with a known external_id are left alone.

    Columns are the fields of a schedule (source, customer_id, frequency,
    start_date, …) and of an item (description, quantity, unit_price,
    tax_rate). Rows with one external_id are items of one schedule.
    """
    from workers.leases import utcnow
    from workers.schedule import importing
    from workers.schedule.errors import VALIDATION_ERROR, ScheduleError

    try:
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise WrongUse(f"cannot read {file}: {error.strerror}") from None
    except ValueError:
        raise WrongUse(f"{file} is not a text file in UTF-8") from None
    configured, engine = open_database()
    try:
        lines = importing.read_csv(text)
        with at_work("adding"):
            done = importing.import_all(engine, configured, lines, actor=actor(), now=utcnow(), dry_run=dry_run)
    except ScheduleError as error:
        if error.code != VALIDATION_ERROR:
            raise CommandError(f"nothing was imported: {error.code}: {error}") from None
        first, rest = error.details[:_SAID] or (error,), len(error.details) - _SAID
        more = f"; and {many(rest, 'more fault')}" if rest > 0 else ""
        raise WrongUse(f"nothing was imported: {'; '.join(map(str, first))}{more}") from None
    if as_json:
        print(json.dumps({"ids": [] if dry_run else done.ids, "new": len(done.ids), "known": done.known}))
        return
    would = "would import" if dry_run else "imported"
    print(f"{would} {many(len(done.ids), 'schedule')}; {done.known} known before")


_SAID = 5
"""Faults of a file that are told at once."""


def take_over(
    source: Annotated[str, typer.Option(help="The source whose provider keeps schedules itself.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be taken over, and change nothing.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take over the recurring invoices that a provider keeps.

    They are paused there, and gone on with here. No due date is billed by both, and none by neither; if it ends early,
    do it again.
    """
    from handlers.errors import ProviderError
    from workers.leases import utcnow
    from workers.reconcile import patient_client
    from workers.schedule.taking_over import TakingOver
    from workers.schedule.taking_over import take_over as taking

    refuse_to_ask(dry_run or yes)
    configured, engine = open_database()
    if source not in configured.sources:
        raise no_source("--source", source, configured.sources)
    with closing(patient_client(configured, source, MAX_WAIT)) as client:
        work = TakingOver(
            engine=engine, settings=configured, source=source, keeping=_keeping(configured, source, client),
            actor=actor(), clock=utcnow, dry_run=dry_run,
        )  # fmt: skip
        taken: list[Taken] = []
        try:
            if not dry_run:
                ask(f"Pause the schedules that {source!r} has at its provider, and go on with them here?", yes)
            with progress("taking over", 1) as more:
                for one in taking(work):
                    taken.append(one)
                    more(0)
        except ProviderError as error:
            so_far = f" after {many(len(taken), 'schedule')}" if taken else ""
            raise CommandError(
                f"the API of source {source!r} ended it{so_far}: {error}; do it again to go on"
            ) from None
    show([_row(one) for one in taken], _TAKEN, as_json=as_json, empty="the provider keeps no schedules for this source")
    if any(one.outcome == "refused" for one in taken):
        raise typer.Exit(1)


def _keeping(configured: Settings, source: str, client: Any) -> Keeping:
    from handlers.providers import PROVIDERS

    provider = PROVIDERS[configured.sources[source].provider]
    if provider.billing is None or provider.billing.keeping is None:
        raise WrongUse(f"--source: {provider.name} keeps no schedules that its API tells of")
    return provider.billing.keeping(client)


def _row(taken: Taken) -> dict[str, Any]:
    kept = taken.kept
    return {
        "kept": kept.id,
        "outcome": taken.outcome,
        "schedule_id": taken.schedule_id,
        "customer_id": kept.fields["customer_id"],
        "frequency": kept.fields.get("frequency"),
        "next_run_date": kept.next_run_date,
        "reason": taken.reason,
    }
