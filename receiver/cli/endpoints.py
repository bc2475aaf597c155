"""Commands about endpoints: the subscribers that messages are sent to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from receiver.bodies import escaped
from receiver.cli import recover
from receiver.cli.actor import actor
from receiver.cli.output import WrongUse, console, show
from receiver.cli.records import Json, open_database, rung_for
from receiver.cli.remote import endpoints as remote
from receiver.cli.remote.place import elsewhere
from receiver.cli.wishes import (
    Ca,
    ClientCertificate,
    Concurrency,
    Description,
    Headers,
    Rate,
    Schedule,
    Signing,
    Sources,
    Types,
    seconds,
    usual,
    wishes,
)

if TYPE_CHECKING:
    from workers.delivery.endpoints import EndpointSpec, Made, Rules, Shown
    from workers.settings import Settings

_COLUMNS = ("id", "url", "event_types", "sources", "forward", "status", "failures", "disabled_reason")
Id = Annotated[str, typer.Argument(metavar="ID", help="The endpoint's id: ep_…")]


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    group = typer.Typer(help="Add and look after the subscribers that messages are sent to.", no_args_is_help=True)
    group.command("add")(add)
    group.command("list")(list_all)
    group.command("show")(show_one)
    group.command("update")(update)
    group.command("enable")(enable)
    group.command("disable")(disable)
    group.command("rotate")(rotate)
    group.command("test")(send_test)
    recover.add_to(group)
    app.add_typer(group, name="endpoints")


def add(
    url: Annotated[str, typer.Argument(help="Where messages are posted to.")],
    types: Types = None,
    sources: Sources = None,
    forward: Annotated[bool, typer.Option("--forward", help="Also what providers send, as it was received.")] = False,
    headers: Headers = None,
    signing: Signing = None,
    schedule: Schedule = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    ca: Ca = None,
    client_certificate: ClientCertificate = None,
    description: Description = None,
    as_json: Json = False,
) -> None:
    """Add an endpoint; print its signing secret this once.

    Example: billhook endpoints add https://example.com/hooks --type 'receipt.*'
    """
    from workers.delivery.endpoints import EndpointSpec

    wanted = wishes(
        types=types,
        sources=sources,
        forward=forward,
        headers=headers,
        signing=signing,
        schedule=schedule,
        rate=rate,
        concurrency=concurrency,
        ca=ca,
        client_certificate=client_certificate,
        description=description,
    )
    spec = EndpointSpec(url=url, **wanted)
    made = _add_here(spec) if (api := elsewhere()) is None else remote.add(api, url, wanted)
    if as_json:
        _print_json(made, url=url)
        return
    of = f" of {', '.join(spec.sources)}" if spec.sources else ""
    print(f"{made.id} gets {', '.join(spec.event_types)}{of}{', forwarded events too' if spec.forward else ''}")
    _print_keys(made)


def update(
    endpoint_id: Id,
    url: Annotated[str | None, typer.Option(help="Where messages are posted to.")] = None,
    types: Types = None,
    sources: Sources = None,
    forward: Annotated[
        bool | None, typer.Option("--forward/--no-forward", help="Also what providers send, as it was received.")
    ] = None,
    headers: Headers = None,
    signing: Signing = None,
    schedule: Schedule = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    ca: Ca = None,
    client_certificate: ClientCertificate = None,
    description: Description = None,
    reset: Annotated[
        list[str] | None,
        typer.Option(help="Make this as usual again: source, header, schedule, rate, …; once for each."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Change an endpoint, only in what is given.

    Types, sources and headers are replaced as a whole.
    """
    changes = wishes(
        url=url,
        types=types,
        sources=sources,
        forward=forward,
        headers=headers,
        signing=signing,
        schedule=schedule,
        rate=rate,
        concurrency=concurrency,
        ca=ca,
        client_certificate=client_certificate,
        description=description,
    )
    changes |= usual(reset or (), changes)
    if not changes:
        raise WrongUse("nothing to change: say what, as in --type 'receipt.*'")
    api = elsewhere()
    made = _change_here(endpoint_id, changes) if api is None else remote.change(api, endpoint_id, changes)
    if as_json:
        _print_json(made)
        return
    print(f"{endpoint_id} is changed: {', '.join(changes).replace('_', ' ')}")
    _print_keys(made)


def list_all(as_json: Json = False) -> None:
    """List the endpoints."""
    if (api := elsewhere()) is not None:
        found = remote.everyone(api)
    else:
        from workers.delivery import endpoints

        _, engine = open_database()
        found = endpoints.everyone(engine)
    rows = [row._asdict() for row in found]
    show(rows, _COLUMNS, as_json=as_json, empty="no endpoints; add one with `billhook endpoints add URL`")


def show_one(endpoint_id: Id, as_json: Json = False) -> None:
    """Show an endpoint: what it wants, and how it is.

    Of its secrets the public keys are shown, and of its headers the names.
    """
    if (api := elsewhere()) is not None:
        found, rate, concurrency = remote.shown(api, endpoint_id)
    else:
        from workers.delivery import endpoints
        from workers.leases import utcnow
        from workers.vault import open_vault

        configured, engine = open_database()
        found = endpoints.shown(engine, open_vault(configured), endpoint_id, utcnow())
        rate, concurrency = configured.endpoint_rate, configured.endpoint_concurrency
    if as_json:
        show([_object(found)], (), as_json=True, empty="")
        return
    lines = Table.grid(padding=(0, 2))
    for name, value in _lines(found, rate, concurrency):
        lines.add_row(Text(name), Text(escaped(", ".join(value) if isinstance(value, list) else str(value))))
    console().print(lines)


def enable(endpoint_id: Id) -> None:
    """Send to an endpoint again; its failures are forgotten."""
    if (api := elsewhere()) is not None:
        failures = remote.enable(api, endpoint_id)
    else:
        from workers.delivery import endpoints
        from workers.leases import utcnow

        _, engine = open_database()
        failures = endpoints.enable(engine, endpoint_id, actor=actor(), now=utcnow()).failures
    forgotten = f"; failures that are forgotten: {failures}" if failures else ""
    print(f"{endpoint_id} is enabled{forgotten}")


def disable(
    endpoint_id: Id,
    reason: Annotated[str, typer.Option(help="Why, for whoever asks later.")] = "somebody disabled it",
) -> None:
    """Send nothing more to an endpoint.

    What waits for it is cancelled.
    """
    if (api := elsewhere()) is not None:
        changed = remote.disable(api, endpoint_id, reason)
    else:
        from workers.delivery import endpoints
        from workers.leases import utcnow

        _, engine = open_database()
        changed = endpoints.switch_off(engine, endpoint_id, reason, actor=actor(), now=utcnow())
    print(f"{endpoint_id} is disabled" if changed else f"{endpoint_id} was disabled before")


def rotate(
    endpoint_id: Id,
    overlap: Annotated[str, typer.Option(help="How long the old secret signs too: 0 to 7d.")] = "24h",
    as_json: Json = False,
) -> None:
    """Give an endpoint a new signing secret; print it this once."""
    from workers.delivery import keys

    length = timedelta(seconds=seconds("--overlap", overlap))
    if length > keys.LONGEST_OVERLAP:
        raise WrongUse(f"--overlap: {overlap} is longer than 7d")
    if (api := elsewhere()) is not None:
        made, until = remote.rotate(api, endpoint_id, length)
    else:
        from workers.delivery import endpoints
        from workers.leases import utcnow
        from workers.vault import open_vault

        configured, engine = open_database()
        now = utcnow()
        made = endpoints.rotate(engine, open_vault(configured), endpoint_id, overlap=length, actor=actor(), now=now)
        until = now + length
    if as_json:
        _print_json(made, old_until=until.isoformat())
        return
    _print_keys(made)
    print(f"what signed before does so until {_time(until)}" if length else "what signed before does so no more")


def send_test(endpoint_id: Id, as_json: Json = False) -> None:
    """Send a billhook.test message to an endpoint, as any other goes."""
    rung: bool | None = None  # an API tells the workers, and does not say how that went
    if (api := elsewhere()) is not None:
        delivery_id = remote.send_test(api, endpoint_id)
    else:
        from workers.delivery import endpoints
        from workers.leases import utcnow

        configured, engine = open_database()
        delivery_id = endpoints.send_test(engine, endpoint_id, actor=actor(), now=utcnow())
        rung = rung_for(configured, [delivery_id])
    if as_json:
        print(json.dumps({"endpoint": endpoint_id, "delivery": delivery_id, "rung": rung}))
        return
    when = "" if rung is not False else "; the workers could not be told, and find it by themselves"
    print(f"{delivery_id} is on its way to {endpoint_id}{when}")


def _add_here(spec: EndpointSpec) -> Made:
    from workers.delivery import endpoints
    from workers.leases import utcnow
    from workers.vault import open_vault

    configured, engine = open_database()
    vault = open_vault(configured)
    with _wrong_use():
        return endpoints.add(engine, vault, spec, _rules(configured), actor=actor(), now=utcnow())


def _change_here(endpoint_id: str, changes: dict[str, Any]) -> Made:
    from workers.delivery import endpoints
    from workers.leases import utcnow
    from workers.vault import open_vault

    configured, engine = open_database()
    vault, rules = open_vault(configured), _rules(configured)
    with _wrong_use():
        return endpoints.change(engine, vault, endpoint_id, changes, rules, actor=actor(), now=utcnow())


def _rules(configured: Settings) -> Rules:
    from workers.delivery.egress import Egress
    from workers.delivery.endpoints import Rules

    return Rules(Egress.of(configured), configured.sources.keys())


@contextmanager
def _wrong_use() -> Iterator[None]:
    """A field that cannot be so was written wrong; an endpoint that is not there is another matter."""
    from workers.delivery.endpoints import EndpointError, NoEndpoint

    try:
        yield
    except NoEndpoint:
        raise
    except EndpointError as error:
        raise WrongUse(str(error)) from None


def _print_json(made: Made, **more: str) -> None:
    print(json.dumps({"id": made.id, **more, "secret": made.secret, "public_key": made.public_key}))


def _print_keys(made: Made) -> None:
    if made.secret is not None:
        print(f"its secret, shown only now: {made.secret}")
    if made.public_key is not None:
        print(f"its public key: {made.public_key}")


def _object(found: Shown) -> dict[str, Any]:
    return {
        **found.row._asdict(),
        "headers": list(found.headers),
        "client_certificate": found.client_certificate,
        "public_keys": list(found.public_keys),
        "keys": [
            {"kind": key.kind, "created_at": _iso(key.created_at), "expires_at": _iso(key.expires_at)}
            for key in found.keys
        ],
    }


def _lines(found: Shown, rate: int, concurrency: int) -> Iterator[tuple[str, object]]:
    row = found.row
    yield "endpoint", f"{row.id}  {row.status}"
    if row.disabled_reason is not None:
        yield "disabled", row.disabled_reason
    yield "url", row.url
    if row.description:
        yield "description", row.description
    yield "event types", row.event_types
    yield "sources", row.sources or "all"
    yield "forwards", "what providers send, too" if row.forward else "no"
    yield "headers", list(found.headers) or "none of its own"
    yield "rate", _limit(row.rate, rate, "a second")
    yield "concurrency", _limit(row.concurrency, concurrency, "at once")
    yield "schedule", "the usual one" if row.schedule is None else ", ".join(f"{wait:g}s" for wait in row.schedule)
    if row.ca is not None:
        yield "authorities", "its own"
    if found.client_certificate:
        yield "certificate", "shown to it"
    yield "failures", f"{row.failures} since {_time(row.failing_since)}" if row.failing_since else row.failures
    if row.held_until is not None:
        yield "held until", _time(row.held_until)
    for key in found.keys:
        yield (
            f"{key.kind} secret",
            f"of {_time(key.created_at)}" + (f", until {_time(key.expires_at)}" if key.expires_at else ""),
        )
    for public_key in found.public_keys:
        yield "public key", public_key


def _limit(own: int | None, setting: int, unit: str) -> str:
    limit = setting if own is None else own
    return f"{limit or 'no limit'} {unit if limit else ''}".rstrip() + ("" if own is not None else " (the setting)")


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"
