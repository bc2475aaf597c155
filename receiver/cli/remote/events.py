"""Events over the API: which there are, all about one, and to have them handled again or let go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from receiver.cli.output import WrongUse
from receiver.cli.remote.rows import content, named, row, written

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from receiver.cli.remote.client import Api
    from workers.dossier import Dossier
    from workers.errands import Count
    from workers.models import AnyRow
    from workers.replay import Wish
    from workers.selection import Selection

MOST = 10_000
"""Events that one request replays or acknowledges at most."""


def newest(api: Api, *, status: str | None, event_type: str | None, limit: int) -> Sequence[AnyRow]:
    """As `workers.browsing.events`."""
    return [row(one) for one in api.listed("/events", status=status, type=event_type, limit=limit)]


def dossier(api: Api, event_id: str) -> Dossier:
    """As `workers.dossier.dossier`. Raises CommandError where there is none."""
    from workers.dossier import Dossier

    shown = api.get(f"/events/{named(event_id)}")
    runs, messages = shown.pop("handler_runs"), shown.pop("messages")
    body = content(shown, "body")
    for beside in ("body_base64", "runs"):
        shown.pop(beside)
    return Dossier(
        event=row(shown, headers=json.dumps(shown["headers"]), body=body),
        runs=[row(_run(one)) for one in runs],
        steps={run["id"]: [row(step) for step in run["steps"]] for run in runs},
        messages=[row({name: one[name] for name in ("id", "type", "created_at")}) for one in messages],
        deliveries={one["id"]: [row(sent) for sent in one["deliveries"]] for one in messages},
    )


def preview(api: Api, wish: Wish) -> tuple[Count, int]:
    """How much a replay would change, and how many runs have not ended. Raises CommandError."""
    found = api.post("/events/replay", _wanted(wish) | {"dry_run": True})
    if found["more"] and wish.limit is None:
        raise WrongUse(
            f"more than {MOST} events are meant, and the API replays no more at once: say --limit {MOST}, "
            "or narrow them by --since and --until"
        )
    return _count(found), found["waiting"]


def replay(api: Api, wish: Wish) -> Count:
    """As `workers.replay.replay`. Raises CommandError."""
    return _count(api.post("/events/replay", _wanted(wish)))


def unacknowledged(api: Api, meant: Selection) -> int:
    """How many dead events `acknowledge` would mark, `MOST` at most. Raises CommandError."""
    return int(api.post("/events/acknowledge", _meant(meant) | {"limit": MOST, "dry_run": True})["events"])


def acknowledge(api: Api, meant: Selection, done: Callable[[int], object]) -> int:
    """As `workers.acknowledgement.acknowledge`. Raises CommandError."""
    events, more = 0, True
    while more:
        found = api.post("/events/acknowledge", _meant(meant) | {"limit": MOST})
        events, more = events + found["events"], found["more"]
        done(found["events"])
    return events


def _run(shown: dict[str, Any]) -> dict[str, Any]:
    """A run's columns: one moment is until when it waits, or is leased."""
    run = {name: value for name, value in shown.items() if name not in {"steps", "leased_until"}}
    return run | {"next_attempt_at": shown["next_attempt_at"] or shown["leased_until"]}


def _wanted(wish: Wish) -> dict[str, Any]:
    if wish.limit is not None and wish.limit > MOST:
        raise WrongUse(f"--limit: the API replays {MOST} events at once, and no more")
    given = {"status": wish.selection.status, "handler": wish.handler}
    return _meant(wish.selection) | _only(given) | {"rate": wish.rate, "limit": wish.limit or MOST}


def _meant(meant: Selection) -> dict[str, Any]:
    given = {
        "ids": list(meant.events) or None,
        "type": meant.type,
        "source": meant.source,
        "since": written(meant.since),
        "until": written(meant.until),
    }
    return _only(given)


def _only(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _count(found: dict[str, Any]) -> Count:
    from workers.errands import Count

    return Count(events=found["events"], runs=found["runs"], new=found["new"])
