"""Commands about API keys: who may call the management API, and sign in to the console with one."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from receiver.cli.actor import actor
from receiver.cli.asking import Yes, ask, refuse_to_ask
from receiver.cli.output import WrongUse, show
from receiver.cli.records import Json, open_database
from receiver.cli.remote import keys as remote
from receiver.cli.remote.place import elsewhere

Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope", "--scopes", help="full, read, or a scope such as events:read; once for each, or with commas."
    ),
]
_COLUMNS = ("id", "name", "hint", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at")
_AHEAD = re.compile(r"([1-9][0-9]{0,4})([dh])")


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    group = typer.Typer(help="Make, list and end API keys, for /api/v1 and the console.", no_args_is_help=True)
    group.command("create")(create)
    group.command("list")(list_all)
    group.command("revoke")(revoke)
    app.add_typer(group, name="keys")


def create(
    name: Annotated[str, typer.Option(help="What it is for; the audit log shows it.")] = "",
    scope: Scopes = None,
    expires: Annotated[str | None, typer.Option(help="When it ends: 90d, 12h, or a date. Default: never.")] = None,
    as_json: Json = False,
) -> None:
    """Make an API key; print it this once.

    Example: billhook keys create --name ci --scope events:read --expires 90d
    """
    from workers import api_keys
    from workers.leases import utcnow

    now = utcnow()
    wanted = scopes(scope)
    ends = None if expires is None else moment_to_come("--expires", expires, now)
    if (api := elsewhere()) is not None:
        made = remote.create(api, name or actor(), wanted, expires_at=ends)
    else:
        _, engine = open_database()
        try:
            made = api_keys.create(engine, name or actor(), wanted, actor=actor(), now=now, expires_at=ends)
        except api_keys.ApiKeyError as error:
            raise WrongUse(str(error)) from None
    if as_json:
        until = None if ends is None else ends.isoformat()
        print(json.dumps({"id": made.id, "key": made.key, "scopes": made.scopes, "expires_at": until}))
        return
    print(made.key)
    print(f"this is {made.id}; the key is shown only now. It may: {', '.join(made.scopes)}", file=sys.stderr)


def list_all(as_json: Json = False) -> None:
    """List the API keys, newest first.

    The keys themselves are never shown.
    """
    if (api := elsewhere()) is not None:
        rows = remote.everyone(api)
    else:
        from workers import api_keys

        _, engine = open_database()
        rows = [row._asdict() for row in api_keys.everyone(engine)]
    show(rows, _COLUMNS, as_json=as_json, empty="no API keys; make one with `billhook keys create --scopes full`")


def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id: key_…")],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """End an API key at once, and for good.

    Whoever signed in with it is signed out.
    """
    refuse_to_ask(yes, instead="")
    if (api := elsewhere()) is not None:
        ask(f"Revoke {key_id} ({remote.get(api, key_id).name})?", yes)
        row = remote.revoke(api, key_id)
    else:
        from workers import api_keys
        from workers.leases import utcnow

        _, engine = open_database()
        ask(f"Revoke {key_id} ({api_keys.get(engine, key_id).name})?", yes)
        row = api_keys.revoke(engine, key_id, actor=actor(), now=utcnow())
    print(json.dumps({"id": row.id, "revoked_at": row.revoked_at.isoformat()}) if as_json else f"{key_id} is revoked")


def scopes(given: list[str] | None) -> tuple[str, ...]:
    """The scopes that were written. Raises WrongUse."""
    from workers.api_keys import BUNDLES, SCOPES, ApiKeyError, expanded

    wanted = [name.strip() for one in given or () for name in one.split(",")]
    if not wanted:
        raise WrongUse(f"--scopes: say what it is for: {', '.join((*BUNDLES, *SCOPES))}")
    try:
        return expanded(wanted)
    except ApiKeyError as error:
        raise WrongUse(f"--scopes: {error}") from None


def moment_to_come(option: str, text: str, now: datetime) -> datetime:
    """The moment that somebody wrote; without a zone it is UTC. Raises WrongUse, which names the option."""
    try:
        if (ahead := _AHEAD.fullmatch(text)) is not None:
            return now + timedelta(**{{"d": "days", "h": "hours"}[ahead[2]]: int(ahead[1])})
        found = datetime.fromisoformat(text)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise WrongUse(f"{option}: {text!r} is neither a date nor how long from now: 90d, 12h") from None
    if found <= now:
        raise WrongUse(f"{option}: {text} is past")
    return found
