"""Commands that show how things are: sources, runs, statistics, and the audit log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from receiver.cli.options import WHEN, moment
from receiver.cli.output import WrongUse, show
from receiver.cli.records import Json, open_database
from receiver.cli.remote import overview as remote
from receiver.cli.remote.place import elsewhere

if TYPE_CHECKING:
    from datetime import datetime

    from workers.models import AnyRow
    from workers.senders import Sender

_SOURCES = ("name", "provider", "health", "last_received_at", "received", "dead", "health_reason")
_RUNS = ("id", "created_at", "handler", "event_id", "status", "attempts", "replays", "ended_at", "duration_ms")
_OF_A_RUN = (
    "id", "handler", "event_id", "status", "attempts", "starts", "pauses", "replays", "ordered", "created_at",
    "next_attempt_at", "ended_at", "duration_ms",
)  # fmt: skip
_STATUSES = ("waiting", "running", "succeeded", "discarded", "dead")
_ENTRIES = ("id", "at", "actor", "action", "detail")

Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")]


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    app.command()(sources)
    app.command()(runs)
    app.command()(stats)
    app.command("audit-log")(audit_log)


def sources(as_json: Json = False) -> None:
    """List who sends, how it does, and its events of the day."""
    from workers.leases import utcnow

    if (api := elsewhere()) is not None:
        rows = remote.sources(api)
    else:
        from workers.senders import senders

        configured, engine = open_database()
        rows = [_source(one) for one in senders(engine, configured, utcnow())]
    if not as_json:
        rows = [row | row["last_day"] for row in rows]
    show(rows, _SOURCES, as_json=as_json, empty="no sources; see BILLHOOK_SOURCES in `billhook settings`")


def runs(
    handler: Annotated[str | None, typer.Option(help="Only of this handler.")] = None,
    status: Annotated[str | None, typer.Option(help=f"{', '.join(_STATUSES[:-1])} or {_STATUSES[-1]}.")] = None,
    event: Annotated[str | None, typer.Option(help="Only on this event: evt_…")] = None,
    since: Annotated[str | None, typer.Option(help=f"Made at or after: {WHEN}.")] = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """List the newest runs of handlers.

    `billhook event ID` shows their errors.
    """
    from workers import browsing

    if status is not None and status not in _STATUSES:
        raise WrongUse(f"--status: {status!r} is none of {', '.join(sorted(_STATUSES))}")
    meant = browsing.Runs(handler=handler, status=status, event_id=event, since=_moment(since))
    if (api := elsewhere()) is not None:
        rows = remote.runs(api, meant, limit)
    else:
        _, engine = open_database()
        rows = [_run(row) for row in browsing.runs(engine, meant, limit=limit).rows]
    show(rows, _RUNS, as_json=as_json, empty="no runs")


def stats(as_json: Json = False) -> None:
    """Tell what waits and since when, what is dead, what came in."""
    found = _now() if (api := elsewhere()) is None else remote.now(api)
    if as_json:
        show([found], (), as_json=True, empty="")
        return
    show([{"what": what, "now": told} for what, told in _told(found)], ("what", "now"), as_json=False, empty="")


def audit_log(
    actor: Annotated[str | None, typer.Option(help="Only by this one, as entries have it.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, such as replay or keys.create.")] = None,
    since: Annotated[str | None, typer.Option(help=f"Done at or after: {WHEN}.")] = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """List what people had done, and who they were.

    By the command line, the API and the console.
    """
    begins = _moment(since)
    if (api := elsewhere()) is not None:
        rows = remote.audit_log(api, actor=actor, action=action, since=begins, limit=limit)
    else:
        from workers import browsing

        _, engine = open_database()
        found = browsing.audit_entries(engine, actor=actor, action=action, since=begins, limit=limit)
        rows = [{name: getattr(row, name) for name in _ENTRIES} for row in found.rows]
    if not as_json:
        rows = [row | {"detail": json.dumps(row["detail"], ensure_ascii=False)} for row in rows]
    show(rows, _ENTRIES, as_json=as_json, empty="nobody has had anything done")


def _moment(text: str | None) -> datetime | None:
    from workers.leases import utcnow

    return None if text is None else moment("--since", text, utcnow())


def _source(sender: Sender) -> dict[str, Any]:
    configured = sender.configured
    return {
        "name": sender.name,
        "configured": configured is not None,
        "provider": sender.provider,
        "timezone": configured and configured.timezone,
        "last_received_at": sender.last_received_at,
        "last_day": _counts(sender.last_day),
        "health": sender.health,
        "health_reason": sender.reason,
    }


def _run(row: AnyRow) -> dict[str, Any]:
    shown = {name: getattr(row, name) for name in _OF_A_RUN}
    return shown | ({} if row.status == "waiting" else {"next_attempt_at": None})


def _now() -> dict[str, Any]:
    from workers import stats
    from workers.leases import utcnow

    _, engine = open_database()
    now = utcnow()
    found = stats.current(engine, now)
    return {
        "at": now,
        "queues": [
            {"queue": one.queue, "waiting": one.waiting, "oldest_seconds": round(one.oldest, 3)}
            for one in found.backlogs
        ],
        "dead_events": found.dead,
        "endpoints": dict(found.endpoints),
        "due_next": [_due(row) for row in found.schedules],
        "last_hour": _counts(found.last_hour),
        "last_day": _counts(found.last_day),
    }


def _due(row: AnyRow) -> dict[str, Any]:
    return {"id": row.id, "name": row.name, "source": row.source, "next_run_at": row.next_run_at.isoformat()}


def _counts(by_status: Mapping[str, int]) -> dict[str, int]:
    each = {name: by_status.get(name, 0) for name in ("processed", "ignored", "dead", "waiting")}
    return {"received": sum(each.values()), **each}


def _told(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for span, name in (("hour", "last_hour"), ("day", "last_day")):
        counts = found[name]
        yield f"events of the last {span}", ", ".join(f"{amount} {word}" for word, amount in counts.items())
    yield "dead events", f"{found['dead_events']} that nobody has acknowledged"
    for one in found["queues"]:
        since = f", the oldest for {one['oldest_seconds']:g} s" if one["waiting"] else ""
        yield f"due {one['queue']}", f"{one['waiting']} waiting{since}"
    yield "endpoints", ", ".join(f"{amount} {state}" for state, amount in found["endpoints"].items())
    if found["due_next"] is None:
        yield "due next", "not shown to a key without recurring:read"
    else:
        due = [f"{one['id']} at {one['next_run_at']}" for one in found["due_next"]]
        yield "due next", ", ".join(due) or "no schedule"
