"""Commands about users: people who sign in to the console with a name and a password."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from receiver.cli.actor import actor
from receiver.cli.keys import Scopes, scopes
from receiver.cli.output import WrongUse, show
from receiver.cli.records import Json, open_database

Name = Annotated[str, typer.Argument(metavar="NAME", help="As they sign in.")]
FromStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input; else it is asked for.")
]
_COLUMNS = ("name", "scopes", "created_at", "created_by", "disabled_at", "last_signed_in_at")


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    group = typer.Typer(help="Add and look after people who sign in to the console.", no_args_is_help=True)
    group.command("add")(add)
    group.command("list")(list_all)
    group.command("password")(change_password)
    group.command("disable")(disable)
    app.add_typer(group, name="users")


def add(name: Name, scope: Scopes = None, password_stdin: FromStdin = False) -> None:
    """Add somebody who may sign in to the console.

    With all scopes, unless some are named.
    """
    from workers import users
    from workers.leases import utcnow

    wanted = scopes(scope or ["full"])
    password = _password(password_stdin)
    _, engine = open_database()
    try:
        users.add(engine, name, password, wanted, actor=actor(), now=utcnow())
    except users.UserError as error:
        raise WrongUse(str(error)) from None
    print(f"{name} may sign in at /console")


def list_all(as_json: Json = False) -> None:
    """List the users by name."""
    from workers import users

    _, engine = open_database()
    rows = [row._asdict() for row in users.everyone(engine)]
    show(rows, _COLUMNS, as_json=as_json, empty="no users; add one with `billhook users add NAME`")


def change_password(name: Name, password_stdin: FromStdin = False) -> None:
    """Give somebody a new password.

    Their sessions end.
    """
    from workers import users
    from workers.leases import utcnow

    password = _password(password_stdin)
    _, engine = open_database()
    users.change_password(engine, name, password, actor=actor(), now=utcnow())
    print(f"{name} has a new password")


def disable(name: Name) -> None:
    """Let somebody in no more, from now on."""
    from workers import users
    from workers.leases import utcnow

    _, engine = open_database()
    users.disable(engine, name, actor=actor(), now=utcnow())
    print(f"{name} is disabled")


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise WrongUse("there is no terminal to ask for the password at: use --password-stdin")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
