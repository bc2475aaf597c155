"""`billhook sandbox`: a fake of a provider's API to develop against, with no account."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from handlers.providers import PROVIDERS, Provider
from receiver.cli.options import one_of
from receiver.cli.output import CommandError
from receiver.cli.processes import listen
from workers import settings
from workers.settings import Settings

WITH_SANDBOX = tuple(name for name, provider in PROVIDERS.items() if provider.sandbox is not None)


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    app.command()(sandbox)


def sandbox(
    provider: Annotated[str, one_of(*WITH_SANDBOX)] = "hisab",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where it listens on 127.0.0.1; 0: a free one.")] = 8801,
    source: Annotated[
        str | None,
        typer.Option(help="Send webhooks to this source of the settings; default: the provider's, if there is one."),
    ] = None,
    webhook: Annotated[list[str] | None, typer.Option(help="Send webhooks there too: SECRET@URL. Repeatable.")] = None,
    state: Annotated[
        Path | None, typer.Option(help="Its SQLite file; default: sandbox-PROVIDER.db in the state folder.")
    ] = None,
    memory: Annotated[bool, typer.Option("--memory", help="Keep nothing on disk.")] = False,
    clock: Annotated[
        str | None, typer.Option(help="Where its time begins, such as 2026-01-01; it can be set forward later.")
    ] = None,
    fault: Annotated[
        list[str] | None, typer.Option(help="Let something go wrong: KIND=RATE, such as duplicate=0.1. Repeatable.")
    ] = None,
) -> None:
    """Serve a fake of a provider's API, which sends signed webhooks.

    Example: billhook sandbox --provider hisab --fault duplicate=0.1
    """
    chosen = PROVIDERS.get(provider)
    if chosen is None or chosen.sandbox is None:
        raise CommandError(f"--provider: {provider!r} has no sandbox; there is {', '.join(WITH_SANDBOX)}")
    configured = settings.load()
    targets = [_target(text) for text in webhook or ()] + _of_settings(configured, chosen, source)
    try:
        app = chosen.sandbox(
            path=None if memory else state or _file(configured, provider),
            webhooks=targets,
            clock=_moment(clock),
            faults=_faults(fault or ()),
        )
    except ImportError as error:
        raise CommandError(f"the sandbox needs {error.name}: pip install 'billhook[sandbox]'") from None
    except ValueError as error:
        raise CommandError(str(error)) from None
    import uvicorn

    from receiver.server import serve

    listening = listen(f"127.0.0.1:{port}", "--port")
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"

    def ready() -> None:
        print(f"the {provider} sandbox is at {address}, its own surface at {address}/sandbox", file=sys.stderr)
        for url, _ in targets:
            print(f"webhooks go to {url.rpartition('/')[0]}/…", file=sys.stderr)
        sys.stderr.flush()

    config = uvicorn.Config(app, lifespan="on", access_log=False, log_level="warning", timeout_graceful_shutdown=5)
    serve(config, listening, ready)


def _file(configured: Settings, provider: str) -> Path:
    try:
        configured.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot use {configured.state_dir}: {error.strerror}; name a file with --state") from None
    return configured.state_dir / f"sandbox-{provider}.db"


def _target(written: str) -> tuple[str, str]:
    secret, at, url = written.partition("@")
    if not at or not url.startswith(("http://", "https://")):
        raise CommandError("--webhook: write SECRET@http://host/path")
    return url, secret


def _of_settings(configured: Settings, provider: Provider, named: str | None) -> list[tuple[str, str]]:
    """Where the deliveries of a source go, with its first secret."""
    if named is not None and named not in configured.sources:
        raise CommandError(f"--source: there is no source {named!r} in the settings")
    if named is not None and (other := configured.sources[named].provider) != provider.name:
        raise CommandError(f"--source: {named!r} is of provider {other}, and takes no delivery of {provider.name}")
    names = [named] if named else [name for name, one in configured.sources.items() if one.provider == provider.name]
    found = []
    for name in names[:1]:
        one = configured.sources[name]
        secret = one.secrets[0].get_secret_value()
        path = name if one.inbound().schemes else f"{name}/{secret}"
        found.append((f"http://{configured.listen}/webhooks/{path}", secret))
    return found


def _moment(written: str | None) -> datetime | None:
    if written is None:
        return None
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        raise CommandError(f"--clock: {written!r} is no date or moment such as 2026-01-01") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _faults(written: list[str] | tuple[()]) -> Mapping[str, Any]:
    faults = {}
    for one in written:
        kind, _, rate = one.partition("=")
        try:
            faults[kind] = float(rate or 1)
        except ValueError:
            raise CommandError(f"--fault: {one!r} is not KIND=RATE, such as duplicate=0.1") from None
    return faults
