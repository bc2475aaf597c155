"""What somebody wrote about a schedule on the command line, as its fields."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from receiver.cli.output import WrongUse

_ITEM = ("description", "quantity", "unit_price", "tax_rate")
_DAYS = {"end": "end_date", "start": "start_date"}
_ISO = ["%Y-%m-%d"]

Id = Annotated[str, typer.Argument(metavar="ID", help="The schedule's id: sch_…")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be, and change nothing.")]
Items = Annotated[
    list[str] | None,
    typer.Option("--item", help='"DESCRIPTION; QUANTITY; UNIT PRICE[; TAX RATE]"; once for each item.'),
]
Name = Annotated[str | None, typer.Option(help="For people.")]
IntervalCount = Annotated[int | None, typer.Option(help="Every how many weeks, months, …: 1 to 12. Default: 1.")]
DayOfMonth = Annotated[int | None, typer.Option(help="1 to 28.")]
DayOfWeek = Annotated[int | None, typer.Option(help="0 (Sunday) to 6.")]
End = Annotated[datetime | None, typer.Option(formats=_ISO, help="Last day, YYYY-MM-DD.")]
MaxOccurrences = Annotated[int | None, typer.Option(min=1, help="End after so many due dates.")]
AutoFinalize = Annotated[
    bool | None, typer.Option("--auto-finalize/--no-auto-finalize", help="Finalize each invoice.", show_default=False)
]
AutoSend = Annotated[bool | None, typer.Option("--auto-send/--no-auto-send", help="And send it.", show_default=False)]
DaysUntilDue = Annotated[int | None, typer.Option(help="0 to 365. Default: 30.")]
CatchUp = Annotated[
    str | None, typer.Option(help="What of missed due dates gets an invoice: all, latest or none. Default: all.")
]
Options = Annotated[
    str | None, typer.Option(help="What the provider must be told beside that: a JSON object, or @FILE with one.")
]
Start = Annotated[datetime | None, typer.Option(formats=_ISO, help="First day, YYYY-MM-DD; default: today.")]
NextRunDate = Annotated[
    datetime | None, typer.Option(formats=_ISO, help="Go on at this day, today or later, and skip what was missed.")
]
IssueDate = Annotated[datetime | None, typer.Option(formats=_ISO, help="The date of the invoice; default: today.")]
Due = Annotated[list[datetime] | None, typer.Option(formats=_ISO, help="Only of this due date; once for each.")]


def written(*, items: Sequence[str] | None, options: str | None, **others: Any) -> dict[str, Any]:
    """The fields that were written, by their names. Raises WrongUse."""
    found = {_DAYS.get(name, name): day(value) if name in _DAYS else value for name, value in others.items()}
    found |= {
        "items": [_item(text) for text in items] if items else None,
        "options": None if options is None else _options(options),
    }
    return {name: value for name, value in found.items() if value is not None}


def day(moment: datetime | None) -> date | None:
    """The day that an option names."""
    return moment.date() if moment else None


def _item(text: str) -> dict[str, str]:
    parts = [part.strip() for part in text.split(";")]
    if not len(_ITEM) - 1 <= len(parts) <= len(_ITEM):
        raise WrongUse(f'--item: {text!r} is not "DESCRIPTION; QUANTITY; UNIT PRICE[; TAX RATE]"')
    return dict(zip(_ITEM, parts, strict=False))


def _options(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(Path(text[1:]).read_text("utf-8") if text.startswith("@") else text)
    except OSError as error:
        raise WrongUse(f"--options: cannot read {text[1:]}: {error.strerror}") from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise WrongUse('--options: write a JSON object, such as {"mobile_number": "66666666"}, or @FILE with one')
    return found
