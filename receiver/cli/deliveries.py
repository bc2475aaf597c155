"""Commands about deliveries: which there are, how one went, and to have some sent now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from receiver.bodies import escaped
from receiver.cli.actor import actor
from receiver.cli.options import WHEN, moment, one_of
from receiver.cli.output import CommandError, WrongUse, many, show
from receiver.cli.records import Json, open_database, rung_for
from receiver.cli.recover import deliveries
from receiver.cli.remote import deliveries as remote
from receiver.cli.remote.place import elsewhere

if TYPE_CHECKING:
    from workers.delivery.deliveries import Shown
    from workers.delivery.recover import Retried
    from workers.models import AnyRow

_COLUMNS = ("id", "created_at", "type", "endpoint_id", "status", "attempts", "last")
_EXCERPT = 300
"""Characters that are shown of an answer; `--json` has all that was kept."""


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    group = typer.Typer(help="List, show and retry what is on its way to endpoints.", no_args_is_help=True)
    group.command("list")(list_some)
    group.command("show")(show_one)
    group.command("retry")(retry)
    app.add_typer(group, name="deliveries")


def list_some(
    endpoint: Annotated[str | None, typer.Option(help="Only to this endpoint: ep_…")] = None,
    status: Annotated[
        list[str] | None,
        one_of("waiting", "running", "succeeded", "exhausted", "refused", "cancelled", after="; once for each."),
    ] = None,
    message: Annotated[str | None, typer.Option(help="Only of this message: msg_…")] = None,
    since: Annotated[str | None, typer.Option(help=f"Made at or after: {WHEN}.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List the newest deliveries.

    `billhook deliveries show ID` tells how one went.

    Example: billhook deliveries list --status exhausted --since 1d
    """
    from workers.delivery.deliveries import STATUSES, Wanted, newest
    from workers.leases import utcnow

    for one in status or ():
        if one not in STATUSES:
            raise WrongUse(f"--status: {one!r} is none of {', '.join(sorted(STATUSES))}")
    begins = None if since is None else moment("--since", since, utcnow())
    wanted = Wanted(endpoint_id=endpoint, message_id=message, statuses=status or (), since=begins)
    if (api := elsewhere()) is not None:
        rows: Sequence[AnyRow] = remote.newest(api, wanted, limit=limit)
    else:
        _, engine = open_database()
        rows = newest(engine, wanted, limit=limit).rows
    show([row._asdict() for row in rows], _COLUMNS, as_json=as_json, empty="no deliveries")


def show_one(
    delivery_id: Annotated[str, typer.Argument(metavar="ID", help="The delivery's id: dlv_…")],
    as_json: Json = False,
) -> None:
    """Show one delivery: what, where to, and how each attempt went."""
    found = _found(delivery_id)
    if as_json:
        print(json.dumps(_object(found)))
        return
    for line in _lines(found):
        print(escaped(line))


def retry(
    delivery_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Deliveries' ids: dlv_…")],
    succeeded: Annotated[
        bool, typer.Option("--succeeded", help="Also those that succeeded: the same message once more.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send deliveries now, those that ended and those that wait.

    What ended has all of its schedule before it again.
    """
    retried, rung = _retried(delivery_ids, succeeded)
    if as_json:
        print(json.dumps({"due": list(retried.due), "under_way": list(retried.under_way), "rung": rung}))
        return
    told = [f"{deliveries(len(retried.due))} due now"] if retried.due else []
    told += [f"{deliveries(len(retried.under_way))} under way already"] if retried.under_way else []
    told += [] if rung is not False else ["the workers could not be told, and find this by themselves"]
    print("; ".join(told))


def _found(delivery_id: str) -> Shown:
    """The delivery, wherever it is. Raises CommandError."""
    if (api := elsewhere()) is not None:
        return remote.shown(api, delivery_id)
    from workers.delivery.deliveries import shown

    _, engine = open_database()
    found = shown(engine, delivery_id)
    if found is None:
        raise CommandError(f"there is no delivery {delivery_id}; `billhook deliveries list` shows the newest")
    return found


def _retried(delivery_ids: list[str], succeeded: bool) -> tuple[Retried, bool | None]:
    """What became of them, and whether the workers were told; None where an API told them, which does not say."""
    if (api := elsewhere()) is not None:
        return remote.retry(api, delivery_ids, succeeded=succeeded), None
    from workers.delivery import recover
    from workers.leases import utcnow

    configured, engine = open_database()
    retried = recover.retry(engine, delivery_ids, actor=actor(), now=utcnow(), succeeded=succeeded)
    return retried, rung_for(configured, retried.due)


def _object(found: Shown) -> dict[str, Any]:
    return {
        **{name: _plain(value) for name, value in found.delivery._asdict().items()},
        "attempts_made": [
            {name: _plain(value) for name, value in attempt._asdict().items() if name not in {"id", "delivery_id"}}
            for attempt in found.attempts
        ],
    }


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return _text(value)
    return value.isoformat() if isinstance(value, datetime) else value


def _text(response: bytes) -> str:
    return response.decode("utf-8", "backslashreplace")


def _lines(found: Shown) -> Iterator[str]:
    row = found.delivery
    yield f"{row.id}  {row.status}"
    for name, value in _head(row):
        yield f"  {name:<9} {value}"
    for attempt in found.attempts:
        yield ""
        yield from _attempt(attempt)


def _head(row: AnyRow) -> Iterator[tuple[str, str]]:
    yield "message", f"{row.message_id}  {row.type}"
    if row.event_id is not None:
        yield "event", row.event_id
    yield "endpoint", row.endpoint_id + ("" if row.endpoint_status == "enabled" else f"  {row.endpoint_status}")
    yield "made", _time(row.created_at)
    before = f", {row.prior} of them before it was asked for again" if row.prior else ""
    yield "attempts", f"{row.attempts}{before}"
    if row.ended_at is not None:
        yield "ended", _time(row.ended_at)
    elif row.status == "running":
        yield "leased", f"until {_time(row.next_attempt_at)}"
    elif row.held_until is not None and row.held_until > row.next_attempt_at:
        yield "next", f"{_time(row.held_until)}, for until then nothing is sent to the endpoint"
    else:
        yield "next", _time(row.next_attempt_at)


def _attempt(row: AnyRow) -> Iterator[str]:
    outcome = row.error if row.status is None else f"{row.status}"
    yield f"attempt {row.number}  {_time(row.started_at)}  {outcome}  {row.duration_ms} ms"
    response = " ".join(_text(row.response).split())
    if response:
        cut = f" … ({many(len(row.response), 'byte')})" if len(response) > _EXCERPT else ""
        yield f"  {response[:_EXCERPT]}{cut}"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"
