"""Commands for those who set Billhook up: settings, send, demo."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from handlers.providers import PROVIDERS
from handlers.testing import signed_request
from receiver.cli.options import no_source
from receiver.cli.output import CommandError, WrongUse, show
from receiver.cli.records import Json
from workers import settings
from workers.settings import Source


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    app.command("settings")(show_settings)
    app.command()(send)
    app.command()(demo)


def show_settings(as_json: Json = False) -> None:
    """List every option, its value, and where that came from.

    Secrets are masked.
    """
    rows = [
        {
            "option": option.variable,
            "value": option.value,
            "default": option.default,
            "from": option.origin,
            "help": option.help,
        }
        for option in settings.options(settings.load())
    ]
    show(rows, ("option", "value", "default", "from", "help"), as_json=as_json, empty="")
    for variable in settings.unknown_variables():
        print(f"billhook: {variable} is set but is no option; it has no effect", file=sys.stderr)


def send(
    event_type: Annotated[str, typer.Argument(help="Such as invoice.paid.")],
    source: Annotated[str | None, typer.Option(help="The source to send as; default: the only one.")] = None,
    url: Annotated[str | None, typer.Option(help="The receiver; default: where BILLHOOK_LISTEN says.")] = None,
    times: Annotated[int, typer.Option(min=1, help="Post the very same delivery so often.")] = 1,
    forged: Annotated[bool, typer.Option("--forged", help="Sign with a wrong secret.")] = False,
) -> None:
    """Post a signed sample of an event to the receiver.

    It is the one that the provider documents, made new, so that it is another event each time.

    Example: billhook send invoice.paid --source shop
    """
    import httpx

    configured = settings.load()
    name, chosen = _source(configured, source)
    provider = PROVIDERS[chosen.provider]
    if event_type not in provider.events:
        raise WrongUse(f"{event_type!r} has no sample; there is {', '.join(provider.events)}")
    # Sent as it stands, the sample would be the same event each time.
    body = provider.renewed(provider.sample(event_type), datetime.now(UTC))
    secret = _signing_secret(name, chosen)
    request = signed_request(provider, event_type, secret, body=body, forged=forged, options=chosen.options)
    target = shown = f"{url or f'http://{configured.listen}'}/webhooks/{name}"
    if not chosen.inbound().schemes:
        shown += "/…"  # the secret stands there
        target += f"/{'forged' if forged else secret}"
    refused = False
    for _ in range(times):
        try:
            answer = httpx.post(target, content=request.body, headers=request.headers, timeout=30, trust_env=False)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CommandError(f"{shown} does not answer: {error}; is `billhook serve` running?") from None
        print(json.dumps({"status": answer.status_code, **_object(answer.text)}))
        refused = refused or not answer.is_success
    if refused:
        raise typer.Exit(1)


def _signing_secret(name: str, source: Source) -> str:
    pairs = zip(source.secrets, source.keys(), strict=True)
    found = next((secret for secret, key in pairs if isinstance(key, bytes)), None)
    if found is None:
        raise CommandError(f"the source {name!r} has only public keys, which cannot sign; add a secret to send with")
    return found.get_secret_value()


def _object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"body": text[:200]}


def _source(configured: settings.Settings, name: str | None) -> tuple[str, Source]:
    if name is None:
        if len(configured.sources) != 1:
            names = ", ".join(sorted(configured.sources)) or "none"
            raise WrongUse(f"say which source with --source; configured: {names}")
        name = next(iter(configured.sources))
    if name not in configured.sources:
        raise no_source("--source", name, configured.sources)
    return name, configured.sources[name]


def demo() -> None:
    """Run everything here on sample deliveries, and check it."""
    try:
        from receiver.demo import story
    except ImportError as error:
        raise CommandError(f"the demo needs {error.name}: pip install 'billhook[demo]'") from None
    raise typer.Exit(story.run())
