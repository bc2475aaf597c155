"""Asking before a command changes much, and telling how far it has come."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from receiver.cli.output import INTERRUPTED, CommandError, WrongUse

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say how many, and change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask; for scripts.")]


def refuse_to_ask(settled: bool, *, instead: str = ", or --dry-run to see how many") -> None:
    """Refuse, before anything is looked at, to ask where nobody could answer. Raises WrongUse."""
    if not settled and not sys.stdin.isatty():
        raise WrongUse(f"there is no terminal to ask at: say --yes to go ahead{instead}")


def ask(question: str, yes: bool) -> None:
    """Go on only where somebody agrees. Raises CommandError."""
    if yes:
        return
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:  # Ctrl-C or Ctrl-D, which end a command with 130 like anywhere else
        print("\nbillhook: nothing was changed", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    if not agreed:
        raise CommandError("nothing was changed")


@dataclass(frozen=True, slots=True)
class Counted:
    """What somebody wants done: how much that is, and how it is done."""

    count: int
    carry_out: Callable[[Callable[[int], object]], int]
    """Does it, and tells of each part how much that was; how much in all."""


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, which is told how many more are done."""
    if not sys.stderr.isatty():
        yield lambda _more: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda more: bar.advance(task, more)


@contextmanager
def at_work(what: str) -> Iterator[None]:
    """On a terminal, for how long the block has been at it; for work whose end cannot be told."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task(what, total=None)
        yield
