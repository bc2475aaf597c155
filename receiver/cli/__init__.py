"""The command `billhook`. Commands live in modules by what they are for; errors for people end here."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from functools import cache

import typer

from handlers.errors import BillhookError
from receiver.cli import (
    authors,
    beginnings,
    deliveries,
    doctor,
    endpoints,
    event,
    handlers,
    init,
    keys,
    listen,
    overview,
    processes,
    reconcile,
    records,
    reencrypt,
    replay,
    sandbox,
    schedules,
    tail,
    tools,
    users,
)
from receiver.cli.output import INTERRUPTED, Commands, Failure, written
from receiver.cli.panels import arrange
from receiver.cli.remote import place
from workers import faults

app = typer.Typer(
    name="billhook",
    cls=Commands,
    help="Receives signed invoice webhooks, stores each exactly once, runs your handlers, sends signed webhooks on.",
    epilog="`billhook init` begins a project; `billhook doctor` says what is wrong; COMMAND --help tells more of each. "
    + place.OVER_THE_API,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
app.callback()(place.choose)
for module in (
    processes,
    handlers,
    authors,
    init,
    beginnings,
    records,
    overview,
    tail,
    schedules,
    endpoints,
    deliveries,
    event,
    replay,
    reconcile,
    reencrypt,
    doctor,
    tools,
    keys,
    users,
    sandbox,
    listen,
):
    module.add_to(app)
arrange(app)


def main() -> None:
    """Run a command; whatever goes wrong is one line on stderr and an exit status."""
    _open_streams()
    try:
        _commands()(prog_name="billhook")  # also where it is run as a module
    except SystemExit as end:  # how every command ends
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except Exception as error:
        if not isinstance(error, BillhookError):
            faults.report(error)
        failure = Failure.of(error)
        print(f"billhook: {failure.message}", file=sys.stderr)
        if os.environ.get("BILLHOOK_LOG_LEVEL") == "debug":
            traceback.print_exc()
        status = failure.status
    sys.exit(written(status))


@cache
def _commands() -> Callable[..., object]:
    """All commands with their options, made once in a process."""
    return typer.main.get_command(app)


def _open_streams() -> None:
    """Put the null device where a stream was closed by who started us, as a daemon or `>&-` does."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115 - for as long as the process lives
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
