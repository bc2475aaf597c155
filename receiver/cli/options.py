"""What several commands accept as the value of an option: moments, and the names of sources."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import typer

from handlers.checks import nearest
from receiver.cli.output import WrongUse

WHEN = "a date, a time such as 2026-06-05T14:00Z, or how long ago: 7d, 12h, 30m"
_AGO = re.compile(r"([0-9]+)([dhm])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


def one_of(*values: str, before: str = "", after: str = ".") -> Any:
    """An option that has one of these values: its help names them, and a shell completes them."""
    named = f"{', '.join(values[:-1])} or {values[-1]}"

    def completions(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return typer.Option(help=f"{before}{named}{after}", autocompletion=completions)


def moment(option: str, text: str, now: datetime) -> datetime:
    """The moment that somebody wrote; without a zone it is UTC. Raises WrongUse, which names the option."""
    try:
        if (ago := _AGO.fullmatch(text)) is not None:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise WrongUse(f"{option}: {text!r} is not {WHEN}") from None


def no_source(option: str, name: str, sources: Collection[str]) -> WrongUse:
    """What to say where none of the configured sources has this name."""
    near = nearest(name, sorted(sources))
    hint = f"did you mean {near}? " if near else ""
    return WrongUse(f"{option}: there is no source {name!r}; {hint}configured: {', '.join(sorted(sources)) or 'none'}")
