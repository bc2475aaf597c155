"""`billhook doctor`: what is wrong here, and what to do about it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from receiver.bodies import escaped
from receiver.cli.output import FAILED, console, many
from receiver.cli.records import Json, quiet

if TYPE_CHECKING:
    from receiver.cli.doctor.finding import Finding, Site
    from workers.settings import Settings

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "fault": ("✗", "bold red")}


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    app.command()(doctor)


def doctor(
    online: Annotated[
        bool, typer.Option("--online", help="Also ask the providers' APIs whether their keys work.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look for what is wrong, and say what to do about it.

    All that Billhook needs is looked at, and nothing is changed. Each check takes 3 s at most; the exit status is 1
    where there is a fault, and 0 where there are warnings alone.
    """
    from workers.logs import hidden, masked
    from workers.settings import SettingsError, load

    try:
        configured = load()
    except SettingsError as error:
        findings, secrets = [_no_settings(error)], tuple[str, ...]()
    else:
        quiet(configured)
        findings, secrets = _found(configured, online=online), hidden(configured)
    findings = [replace(one, said=masked(one.said, secrets), todo=masked(one.todo, secrets)) for one in findings]
    _print(findings, as_json=as_json)
    if any(one.level == "fault" for one in findings):
        raise typer.Exit(FAILED)


def _no_settings(error: Exception) -> Finding:
    from receiver.cli.doctor.finding import Finding

    return Finding("settings", "fault", str(error), "nothing else could be looked at; correct it first")


def _found(configured: Settings, *, online: bool) -> list[Finding]:
    from receiver.cli.doctor import bell, outside, storage
    from receiver.cli.doctor import configured as given
    from receiver.cli.doctor.rounds import examine

    checks = {
        "settings": given.of_settings,
        "sources": given.of_sources,
        "handlers": given.of_handlers,
        "database": storage.of_database,
        "schema": storage.of_schema,
        "redis": bell.of_redis,
        "sentinels": bell.of_sentinels,
        "clocks": bell.of_clocks,
        "encryption": storage.of_encryption,
        "processes": bell.of_processes,
        "queues": bell.of_queues,
        "books": storage.of_books,
        "dead events": storage.of_dead_events,
        "receiver": outside.of_receiver,
        "endpoints": outside.of_endpoints,
        "api keys": outside.of_apis,
    }
    site = _site(configured, online=online)
    try:
        return examine(checks, site, here="handlers")  # by the main thread, as a worker loads them
    finally:
        if site.engine is not None:
            site.engine.dispose()


def _site(configured: Settings, *, online: bool) -> Site:
    """What there is to connect to; nothing is made or started."""
    from receiver.cli.doctor.finding import LIMIT, Site
    from workers import broker, diagnosis, embedded, redis_url

    there = not configured.embedded_database or (configured.state_dir / "billhook.db").exists()
    engine = diagnosis.connect(configured, LIMIT) if there else None
    if configured.redis_url is not None:
        url: str | None = configured.redis_url.get_secret_value()
    else:
        server = embedded.running(configured.state_dir)
        url = server.redis_url if server else None
    redis = None
    if url is not None:
        servers = redis_url.parse(url)
        broker.check(servers)
        redis = broker.client(servers, answer_within=LIMIT - 1)
    return Site(configured, engine, redis, online)


def _print(findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        for one in findings:
            print(json.dumps(asdict(one)))
        return
    shown = console()
    for one in findings:
        mark, colour = _MARKS[one.level]
        line = Text.assemble((mark, colour), f" {one.name:<12} {escaped(one.said)}")
        if one.todo:
            line.append(f" → {escaped(one.todo)}", "dim" if one.level == "ok" else "")
        shown.print(line)
    faults, warnings = (sum(one.level == level for one in findings) for level in ("fault", "warning"))
    print(f"{many(faults, 'fault')}, {many(warnings, 'warning')}", file=sys.stderr)
