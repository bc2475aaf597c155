"""Over the API: sources, runs, statistics, and what people had done."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from receiver.cli.remote.rows import values, written

if TYPE_CHECKING:
    from datetime import datetime

    from receiver.cli.remote.client import Api
    from workers.browsing import Runs

Shown = dict[str, Any]


def sources(api: Api) -> list[Shown]:
    """All sources, each with how it does."""
    return [values(one) for one in api.get("/sources")]


def runs(api: Api, meant: Runs, limit: int) -> list[Shown]:
    """The newest of the runs that are meant."""
    times = {"since": written(meant.since), "until": written(meant.until)}
    return [values(one) for one in api.listed("/runs", limit=limit, **(asdict(meant) | times))]


def audit_log(api: Api, *, actor: str | None, action: str | None, since: datetime | None, limit: int) -> list[Shown]:
    """The newest entries that are meant."""
    found = api.listed("/audit-log", actor=actor, action=action, since=written(since), limit=limit)
    return [values(one) for one in found]


def now(api: Api) -> Shown:
    """How things are now."""
    found = values(api.get("/stats/now"))
    if found["due_next"] is None:
        return found
    due = [one | {"next_run_at": values(one)["next_run_at"].isoformat()} for one in found["due_next"]]
    return found | {"due_next": due}
