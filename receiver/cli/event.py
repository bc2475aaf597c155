"""The command that shows one event: what came in, what its handlers made of it, and what was sent on."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from receiver.bodies import escaped
from receiver.cli.output import CommandError, WrongUse, many
from receiver.cli.records import Json, open_database
from receiver.cli.remote import events as remote
from receiver.cli.remote.place import elsewhere

if TYPE_CHECKING:
    from workers.dossier import Dossier
    from workers.models import AnyRow

_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')
_HEX_COLUMNS = 32


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(event)


def event(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="Such as evt_01M802JFQ4BKP1Z2J476R6XRE8.")],
    body: Annotated[bool, typer.Option("--body", help="Write only the body, byte for byte as it was signed.")] = False,
    as_json: Json = False,
) -> None:
    """Show all about one event: body, runs, errors, steps, messages.

    Example: billhook event evt_01M802JFQ4BKP1Z2J476R6XRE8
    """
    if not event_id.strip():
        raise WrongUse("ID: the id of an event is missing; `billhook events` lists the newest")
    found = _found(event_id)
    if body:
        sys.stdout.buffer.write(found.event.body)
        sys.stdout.buffer.flush()
    elif as_json:
        print(json.dumps(_object(found)))
    else:
        for line in _lines(found):
            print(escaped(line))


def _found(event_id: str) -> Dossier:
    """The event, wherever it is. Raises CommandError."""
    if (api := elsewhere()) is not None:
        return remote.dossier(api, event_id)
    from workers.dossier import dossier

    _, engine = open_database()
    found = dossier(engine, event_id)
    if found is None:
        raise CommandError(f"there is no event {event_id}; `billhook events` lists the newest")
    return found


def _object(found: Dossier) -> dict[str, Any]:
    head = {name: _plain(value) for name, value in found.event._asdict().items() if name != "body"}
    text = _text(found.event.body)
    return head | {
        "headers": json.loads(found.event.headers),
        "body": text,
        "body_hex": found.event.body.hex() if text is None else None,
        "runs": [
            {**_columns(run), "steps": [_columns(step) for step in found.steps.get(run.id, ())]} for run in found.runs
        ],
        "messages": [
            {**_columns(message), "deliveries": [_columns(one) for one in found.deliveries.get(message.id, ())]}
            for message in found.messages
        ],
    }


def _columns(row: AnyRow) -> dict[str, Any]:
    return {name: _plain(value) for name, value in row._asdict().items()}


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if isinstance(value, datetime) else value


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _lines(found: Dossier) -> Iterator[str]:
    yield f"{found.event.id}  {found.event.type}  {found.event.status}"
    for name, value in _head(found.event):
        yield f"  {name:<13} {value}"
    yield ""
    yield "body"
    yield from (f"  {line}" for line in _body(found.event.body))
    for run in found.runs:
        yield ""
        yield from _run(run, found)
    for message in found.messages:
        yield ""
        yield f"message {message.id}  {message.type}"
        deliveries = found.deliveries.get(message.id, ())
        yield from (f"  {_delivery(one)}" for one in deliveries)
        if not deliveries:
            yield "  no endpoint wanted it"


def _head(row: AnyRow) -> Iterator[tuple[str, str]]:
    yield "source", f"{row.source} ({row.provider})"
    yield "received", _time(row.received_at)
    yield "occurred", _time(row.occurred_at)
    if row.object_id is not None:
        yield "object", f"{row.object_kind or ''} {row.object_id}".strip()
    if row.organization is not None:
        yield "organization", row.organization
    yield "delivery id", row.delivery_id
    for name, value in json.loads(row.headers).items():
        yield "header", f"{name}: {value}"
    if row.conflicts:
        yield "conflicts", f"{many(row.conflicts, 'time')} its delivery id came with another body"
    if row.reconciled:
        yield "reconciled", "found at the provider; no delivery of it came"
    if row.acknowledged_at is not None:
        yield "acknowledged", _time(row.acknowledged_at)


def _body(body: bytes) -> list[str]:
    text = _text(body)
    if text is None:
        digits = body.hex(" ")
        return [digits[start : start + 3 * _HEX_COLUMNS] for start in range(0, len(digits), 3 * _HEX_COLUMNS)]
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text.splitlines()
    return _indented(text)


def _indented(text: str) -> list[str]:
    """JSON with a line for each item. Its words stay as they are: 10400.00 is no 10400.0."""
    lines, depth, empty = [""], 0, False
    for word in _WORD.findall(text):
        if word in "]}":
            depth -= 1
            lines += [] if empty else ["  " * depth]
        elif empty:
            lines.append("  " * depth)
        empty = word in "[{"
        depth += empty
        lines[-1] += ": " if word == ":" else word
        if word == ",":
            lines.append("  " * depth)
    return lines


def _run(run: AnyRow, found: Dossier) -> Iterator[str]:
    yield f"run {run.id}  {run.handler}  {run.status}"
    counts = [many(run.attempts, "attempt"), many(run.starts, "start")]
    counts += [many(run.pauses, "pause")] if run.pauses else []
    counts += [many(run.replays, "replay")] if run.replays else []
    yield "  " + ", ".join(counts)
    if run.ended_at is not None:
        yield f"  ended {_time(run.ended_at)}{_took(run)}"
    elif run.status == "running":
        yield f"  leased until {_time(run.next_attempt_at)}"
    else:
        yield f"  next attempt {_time(run.next_attempt_at)}{_took(run)}"
    for step in found.steps.get(run.id, ()):
        yield f"  step {step.name}: {many(step.size, 'byte')}, {_time(step.created_at)}"
    for line in (run.error or "").splitlines():
        yield f"    {line}"


def _took(run: AnyRow) -> str:
    """How long the last start took; nothing before one has ended, or of a version that did not keep it."""
    return "" if run.duration_ms is None else f", the last start took {run.duration_ms} ms"


def _delivery(row: AnyRow) -> str:
    following = f", next {_time(row.next_attempt_at)}" if row.status == "waiting" else ""
    return f"delivery {row.id}  to {row.endpoint_id}  {row.status}, {many(row.attempts, 'attempt')}{following}"


def _time(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")
