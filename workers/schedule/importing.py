"""Importing schedules from a table: a CSV file, a row for each item.

Rows with the same `external_id` are items of one schedule, and a schedule with an `external_id` is imported once,
however often its file is. Nothing is imported unless all of it can be.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, Engine, select

from workers import audit_log, database
from workers.models import Schedule
from workers.schedule.errors import Problem, ScheduleError, invalid
from workers.schedule.plans import Plan
from workers.schedule.schedules import Start, expect_quota, insert, row_of
from workers.settings import Settings

MOST = 100_000
"""Rows of one file."""
_ITEM = ("description", "quantity", "unit_price", "tax_rate")
_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _flag(text: str) -> bool:
    if text.lower() not in _FLAGS:
        raise ValueError("must be true or false")
    return _FLAGS[text.lower()]


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a date, YYYY-MM-DD") from None


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise ValueError("must be a whole number")
    return int(text)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError('must be a JSON object, such as {"mobile_number": "66666666"}')
    return found


_READ: Mapping[str, Callable[[str], Any]] = {
    "source": str, "customer_id": str, "frequency": str, "start_date": _day, "name": str, "interval_count": _whole,
    "day_of_month": _whole, "day_of_week": _whole, "end_date": _day, "max_occurrences": _whole, "auto_finalize": _flag,
    "auto_send": _flag, "days_until_due": _whole, "currency": str, "catch_up": str, "options": _object,
}  # fmt: skip
COLUMNS = ("external_id", *_READ, *_ITEM)
"""The columns of a file, in any order; what is left empty has its default."""
REQUIRED = ("source", "customer_id", "frequency", "start_date", "description", "quantity", "unit_price")


@dataclass(slots=True)
class Line:
    """A schedule of a file, and on which of its lines it begins."""

    number: int
    external_id: str | None
    fields: dict[str, Any]
    items: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Imported:
    """How many schedules were new, with their ids, and how many were known by their `external_id`."""

    ids: tuple[str, ...]
    known: int


def read_csv(text: str) -> list[Line]:
    """The schedules of a CSV file. Raises ScheduleError that names each line which cannot be read."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        table = list(reader)
        _check_columns(list(reader.fieldnames or ()), len(table))
    except csv.Error as error:
        raise invalid(Problem("file", f"is not CSV: {error}")) from None
    lines: list[Line] = []
    by_id: dict[str, Line] = {}
    problems: list[Problem] = []
    for number, cells in enumerate(table, start=2):
        try:
            _read_row(lines, by_id, number, cells)
        except ScheduleError as error:
            problems += error.details
    if problems:
        raise invalid(*problems)
    return lines


def import_all(
    engine: Engine, settings: Settings, lines: list[Line], *, actor: str, now: datetime, dry_run: bool = False
) -> Imported:
    """Store the schedules that are not known yet, all or none. Raises ScheduleError that names each wrong line."""
    rows: dict[str, list[dict[str, Any]]] = {}
    problems: list[Problem] = []
    for line in lines:
        try:
            plan = Plan(**line.fields, items=line.items)
            row = row_of(settings, plan, now, Start(external_id=line.external_id))
            rows.setdefault(plan.source, []).append(row)
        except ScheduleError as error:
            problems += [Problem(f"line {line.number}", str(detail)) for detail in error.details]
    if problems:
        raise invalid(*problems)
    with database.write(engine) as connection:
        new = [row for source in sorted(rows) for row in _unknown(connection, source, rows[source])]
        known = len(lines) - len(new)
        batches = [[row for row in new if row["source"] == source] for source in sorted({row["source"] for row in new})]
        if dry_run or not new:
            for batch in batches:
                expect_quota(connection, settings, batch[0]["source"], len(batch))
            return Imported(tuple(row["id"] for row in new), known)
        stored = [row_id for batch in batches for row_id in insert(connection, settings, batch)]
        audit_log.note(connection, actor, "schedules.import", {"schedules": len(stored), "known": known}, now)
    return Imported(tuple(sorted(stored)), known)


def _check_columns(names: list[str], count: int) -> None:
    if unknown := [name for name in names if name not in COLUMNS]:
        raise invalid(Problem("file", f"column {unknown[0]!r} is none of {', '.join(COLUMNS)}"))
    if twice := [name for name in names if names.count(name) > 1]:
        raise invalid(Problem("file", f"has the column {twice[0]} twice"))
    if missing := [name for name in REQUIRED if name not in names]:
        raise invalid(Problem("file", f"lacks the column {', '.join(missing)}"))
    if not 1 <= count <= MOST:
        raise invalid(Problem("file", f"must have 1 to {MOST} rows below the names of its columns"))


def _read_row(lines: list[Line], by_id: dict[str, Line], number: int, cells: Mapping[str | None, Any]) -> None:
    """Take a row in: as another item of the schedule before it, or as a new one."""
    if None in cells or None in cells.values():
        raise invalid(Problem(f"line {number}", "has more or fewer cells than there are columns"))
    given = {name: cell.strip() for name, cell in cells.items() if name is not None and cell.strip()}
    item = {name: given[name] for name in _ITEM if name in given}
    external_id = given.get("external_id")
    found = dict(_fields(number, given))
    before = None if external_id is None else by_id.get(external_id)
    if before is None:
        missing = [name for name in REQUIRED if name not in given]
        if missing:
            raise invalid(Problem(f"line {number}", f"lacks {', '.join(missing)}"))
        lines.append(Line(number, external_id, found, [item]))
        if external_id is not None:
            by_id[external_id] = lines[-1]
        return
    if other := [name for name, value in found.items() if before.fields.get(name) != value]:
        raise invalid(Problem(f"line {number}", f"{other[0]} is another one than on line {before.number}"))
    before.items.append(item)


def _fields(number: int, given: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for name, read in _READ.items():
        if name in given:
            try:
                yield name, read(given[name])
            except ValueError as error:
                raise invalid(Problem(f"line {number}", f"{name} {error}")) from None


def _unknown(connection: Connection, source: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ids = [row["external_id"] for row in rows if row["external_id"] is not None]
    among = database.among(connection.dialect.name, Schedule.external_id, ids)
    known = set(connection.execute(select(Schedule.external_id).where(Schedule.source == source, among)).scalars())
    return [row for row in rows if row["external_id"] is None or row["external_id"] not in known]
