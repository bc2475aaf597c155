"""What the command line prints: tables for people, JSON for programs, one line for an error."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NoReturn, Self

from rich.console import Console
from rich.table import Table
from rich.text import Text

from handlers.errors import BillhookError
from receiver.bodies import escaped
from receiver.cli.panels import Ordered
from workers.embedded import EmbeddedError
from workers.settings import SettingsError

WRONG_USE = 2
FAILED = 1
INTERRUPTED = 130

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class CommandError(BillhookError):
    """A command cannot do what it was asked; the message says what to do."""


class WrongUse(CommandError):
    """An option or argument has a value that it cannot have; the message names it and says what it accepts."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as the user sees it."""

    message: str
    status: int

    @classmethod
    def of(cls, error: Exception) -> Self:
        """What to say about any exception, in one line and without a secret."""
        message, status = _explain(error)
        return cls(escaped(" ".join(message.split())), status)


def _explain(error: Exception) -> tuple[str, int]:
    if isinstance(error, SettingsError | WrongUse):
        return str(error), WRONG_USE
    if isinstance(error, (BillhookError, EmbeddedError)):
        return str(error), FAILED
    if isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename is None:
        return f"cannot write what there is to say: {error.strerror}", FAILED
    from sqlalchemy.exc import DBAPIError, OperationalError

    if isinstance(error, OperationalError):
        reason = str(error.orig).strip().partition("\n")[0] or "no answer"
        return f"the database does not answer: {reason}; see BILLHOOK_DATABASE_URL", FAILED
    if isinstance(error, DBAPIError):  # its text would repeat the statement's values
        return f"the database refused: {type(error.orig).__name__}; see BILLHOOK_DATABASE_URL", FAILED
    where = "BILLHOOK_LOG_LEVEL=debug shows where. Please report it."
    return f"unexpected {type(error).__name__}: {error}; {where}", FAILED


def many(count: int, what: str) -> str:
    """As in `1 run` and `2 runs`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def show(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """Print rows as JSON lines, or as a table of these columns; `empty` is said where there is none."""
    rows = list(rows)
    if not rows and not as_json:
        print(empty, file=sys.stderr)
        return
    if as_json:
        for row in rows:
            print(json.dumps({key: _plain(value) for key, value in row.items()}))
    else:
        console().print(_table(rows, columns))


def _table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(Text(escaped(_text(row[column]))) for column in columns))  # as it is: brackets are no markup
    return table


def written(status: int) -> int:
    """Write what is still held back; the status to exit with, which is FAILED where that was all that failed."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _drop_the_rest()
        if status == 0 and not isinstance(error, BrokenPipeError):
            print(f"billhook: {Failure.of(error).message}", file=sys.stderr)
            return FAILED
    return status


def reader_has_gone() -> NoReturn:
    """End well: whoever read our output wants no more of it."""
    _drop_the_rest()
    sys.exit(0)


def _drop_the_rest() -> None:
    """Let what is held back go nowhere, or the interpreter would try again to write it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Commands(Ordered):
    """All commands, for which a reader that has gone is no error, whatever they print."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            reader_has_gone()


class Output(Console):
    """Rich's console, for which a reader that has gone is no error."""

    def on_broken_pipe(self) -> None:
        reader_has_gone()


def console() -> Console:
    """A console that writes plain, unwrapped text where there is no terminal."""
    return Output(soft_wrap=True, width=None if sys.stdout.isatty() else 240, highlight=False)


def _plain(value: object) -> object:
    if isinstance(value, Decimal):  # money is never a float
        return str(value)
    return value.isoformat() if isinstance(value, datetime | date) else value


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case datetime():
            return value.isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")
        case list() | tuple():
            return ", ".join(str(item) for item in value)
    return str(value)
