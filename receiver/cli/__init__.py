"""The command `billhook`. Commands live in modules by what they are for; errors for people end here."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from receiver.cli import processes, records, tools
from receiver.cli.output import Failure

app = typer.Typer(
    name="billhook",
    help="Receives signed invoice webhooks, stores each exactly once, runs your handlers, sends signed webhooks on.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
for module in (processes, records, tools):
    module.add_to(app)


def main() -> None:
    """Run a command; whatever goes wrong is one line on stderr and an exit status."""
    try:
        app()
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        failure = Failure.of(error)
        print(f"billhook: {failure.message}", file=sys.stderr)
        if os.environ.get("BILLHOOK_LOG_LEVEL") == "debug":
            traceback.print_exc()
        sys.exit(failure.status)
