"""Recurring invoices over the API: which there are, to change them, and what becomes of their due dates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

from receiver.cli.remote.rows import named, values

if TYPE_CHECKING:
    from receiver.cli.remote.client import Api
    from workers.schedule.schedules import Filter

_PATH = "/recurring-invoices"

Shown = dict[str, Any]


def find(api: Api, meant: Filter, *, limit: int) -> list[Shown]:
    """The schedules that are meant, oldest first."""
    return [_shown(one) for one in api.listed(_PATH, **asdict(meant), order="asc", limit=limit)]


def get(api: Api, schedule_id: str) -> tuple[Shown, list[Shown]]:
    """A schedule, and the latest of its history. Raises CommandError where there is none."""
    found = api.get(_path(schedule_id))
    return _shown(found), [values(entry) for entry in found["history"]]


def add(api: Api, fields: Mapping[str, Any]) -> str:
    """Add a schedule, from today on where nothing else is said; its id. Raises CommandError."""
    from workers.leases import utcnow
    from workers.schedule import rhythm

    if "start_date" not in fields:
        zone = api.get(f"/sources/{named(fields['source'])}")["timezone"]
        fields = {**fields, "start_date": rhythm.today(utcnow(), zone or "UTC")}
    return str(api.post(_PATH, _plain(fields))["id"])


def update(api: Api, schedule_id: str, changes: Mapping[str, Any]) -> Shown:
    """Change what is given; the schedule. Raises CommandError."""
    return _shown(api.change("PATCH", _path(schedule_id), _plain(changes)))


def do(api: Api, verb: str, schedule_id: str, **fields: Any) -> Shown:
    """Have it paused, resumed or cancelled; the schedule. Raises CommandError."""
    return _shown(api.post(_path(schedule_id, f"/{verb}"), _plain(fields)))


def delete(api: Api, schedule_id: str) -> None:
    """Remove it and its history. Raises CommandError."""
    api.change("DELETE", _path(schedule_id))


def generate(api: Api, schedule_id: str, issue_date: date | None) -> Shown:
    """Make the next invoice now; the entry of its due date, which may be under way. Raises CommandError."""
    return values(api.post(_path(schedule_id, "/generate"), _plain({"issue_date": issue_date})))


def retry(api: Api, schedule_id: str, due_on: Sequence[date] | None) -> int:
    """Try again what failed; how many due dates. Raises CommandError."""
    days = None if due_on is None else [day.isoformat() for day in due_on]
    return int(api.post(_path(schedule_id, "/retry"), {"due_on": days})["occurrences"])


def history(api: Api, schedule_id: str, *, limit: int) -> list[Shown]:
    """What became of its due dates, the latest first. Raises CommandError."""
    return [values(entry) for entry in api.listed(_path(schedule_id, "/history"), limit=limit, page=100)]


def preview(api: Api, schedule_id: str, count: int, issued: date | None = None) -> list[Shown]:
    """The due dates to come, and what their invoices will come to. Raises CommandError."""
    found = api.get(_path(schedule_id, "/preview"), next=count, **_plain({"issue_date": issued}))
    return [values(one) for one in found]


def _path(schedule_id: str, verb: str = "") -> str:
    return f"{_PATH}/{named(schedule_id)}{verb}"


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in fields.items()}


def _shown(found: Mapping[str, Any]) -> Shown:
    """A schedule as the commands show one of the database, its fields in the order of the columns."""
    from workers.models import Schedule

    columns = [column.name for column in Schedule.__table__.columns if column.name in found]
    shown = values({name: found[name] for name in [*columns, "next_run_date"]})
    items = [{name: value for name, value in item.items() if value is not None} for item in found["items"]]
    return shown | {"items": items}
