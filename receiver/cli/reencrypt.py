"""The command that brings what is encrypted in the database under the newest key."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from receiver.cli.actor import actor
from receiver.cli.asking import DryRun, progress
from receiver.cli.output import CommandError, many
from receiver.cli.records import Json, open_database

if TYPE_CHECKING:
    from workers.delivery.reencryption import Rewritten

_NAMED = 10
"""How many endpoints an error names."""


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    app.command()(reencrypt)


def reencrypt(dry_run: DryRun = False, as_json: Json = False) -> None:
    """Bring what is encrypted under the first of the keys.

    That is endpoints' secrets, headers and certificates; the older keys can then be removed. Exits with 1 where none of
    the keys opens one of them. Safe to run again, and while everything runs.
    """
    from workers.delivery import reencryption
    from workers.leases import utcnow

    configured, engine = open_database()
    found = reencryption.outdated(engine, configured)
    amount = found.amount
    if amount.values and not dry_run:
        with progress("encrypting", amount.endpoints) as more:
            amount = reencryption.reencrypt(
                engine, configured, actor=actor(), now=utcnow(), done=lambda one: more(one.endpoints)
            )
    if as_json:
        print(json.dumps({**asdict(amount), "unreadable": found.unreadable, "dry_run": dry_run}))
    elif amount.values or not found.unreadable:
        print(_said(amount, dry_run=dry_run))
    if found.unreadable:
        raise CommandError(_complaint(found.unreadable))


def _said(amount: Rewritten, *, dry_run: bool) -> str:
    if not amount.values:
        return "everything is encrypted under the first key"
    told = f"{many(amount.values, 'value')} of {many(amount.endpoints, 'endpoint')} under the first key"
    return f"{'would encrypt' if dry_run else 'encrypted'} {told}"


def _complaint(unreadable: tuple[str, ...]) -> str:
    more = f" and {len(unreadable) - _NAMED} more" if len(unreadable) > _NAMED else ""
    return (
        f"a key that is not in BILLHOOK_ENCRYPTION_KEYS encrypted what {', '.join(unreadable[:_NAMED])}{more} has: "
        "add that key, or give new secrets (`billhook endpoints rotate ID --overlap 0`), headers and certificate"
    )
