"""The command that runs a handler without a server."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from receiver.bodies import escaped
from receiver.cli.output import CommandError, WrongUse
from receiver.cli.records import Json

if TYPE_CHECKING:
    from handlers.event import Event
    from handlers.registry import Handler
    from handlers.testing import Ran
    from handlers.testing.memory import Clients

_NO_CLIENTS = (
    "run-handler gives a handler no API clients by itself: with --live it gets those of the configured sources, "
    "whose api_url may be that of a `billhook sandbox`"
)


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    app.command("run-handler")(run_handler)


def run_handler(
    target: Annotated[str, typer.Argument(metavar="FILE[:NAME]", help="A file or module, and which handler of it.")],
    event_type: Annotated[
        str | None, typer.Option("--event", help="Such as invoice.paid; default: what the handler listens to.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="Whose sample of it; default: the first that has one.")] = None,
    data: Annotated[
        str | None, typer.Option(help="JSON, or @FILE with it: fields that overrule those of the sample.")
    ] = None,
    times: Annotated[int, typer.Option(min=1, help="Start the run so often; steps that returned are kept.")] = 1,
    live: Annotated[
        bool, typer.Option("--live", help="Give it the API clients of the configured sources, which really act.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a handler on a documented sample, and show what it does.

    No server and no database is needed.

    Example: billhook run-handler receipts.py --event invoice.paid --data '{"total": "1.00"}'
    """
    from handlers.testing import Store, run

    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        handler = _chosen(target)
    if event_type is not None:
        _check_type(event_type, handler)
    event = _event(handler, event_type, provider, _given(data))
    event, clients, hide = _live(event, handler) if live else (event, _no_client, str)
    store, now = Store(), None
    for number in range(1, times + 1):
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            ran = run(handler, event, clients=clients, now=now, store=store)
        if as_json:
            print(hide(json.dumps(_as_json(ran), default=_shown)), flush=True)
        else:
            _print(ran, f", start {number} of {times}" if times > 1 else "", hide)
        now = ran.paused_until or now  # the next start is that after the pause
    if ran.outcome in {"failed", "retry"}:
        raise typer.Exit(1)


def _chosen(target: str) -> Handler:
    from handlers import loading
    from handlers.registry import REGISTRY

    named, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    for error in loading.load_all([named], installed=False).errors:
        raise error
    found = list(REGISTRY)
    if name:
        found = [one for one in found if name in {one.name, getattr(one.function, "__name__", None)}]
    if len(found) == 1:
        return found[0]
    there = ", ".join(one.name for one in REGISTRY)
    if not there:
        raise CommandError(f'{named} has no handler: put @on("invoice.paid") above its function')
    if not found:
        raise CommandError(f"{named} has no handler {name!r}; it has {there}")
    raise CommandError(f"{named} has several handlers, so say which, as in {named}:{found[0].name}; it has {there}")


def _given(data: str | None) -> dict[str, Any] | None:
    if data is None:
        return None
    try:  # as strict as what reads a delivery: no NaN, and no half of a character
        found = orjson.loads(Path(data[1:]).read_bytes() if data.startswith("@") else data)
    except OSError as error:
        raise WrongUse(f"--data: cannot read {data[1:]}: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise WrongUse(f"--data: not JSON in UTF-8, or nested too deeply, from {where} on") from None
    if not isinstance(found, dict):
        raise WrongUse('--data: write a JSON object, such as {"total": "120.00"}')
    return found


def _check_type(event_type: str, handler: Handler) -> None:
    from handlers.providers import PROVIDERS
    from handlers.registry import matches, valid_pattern

    if valid_pattern(event_type) and event_type.endswith("*"):
        known = (one for provider in PROVIDERS.values() for one in provider.events if matches(event_type, one))
        example = next((one for one in known if handler.hears(one)), "invoice.paid")
        raise WrongUse(f"--event: {event_type} stands for many types, and an event has one: write {example}, say")
    if not event_type.isascii() or not event_type.isprintable() or not event_type.strip():
        raise WrongUse(f"--event: {event_type!r} is no event type: write it in ASCII, such as invoice.paid")


def _event(handler: Handler, event_type: str | None, provider: str | None, data: Mapping[str, Any] | None) -> Event:
    from handlers.testing import event

    whose, chosen = _sample(handler, event_type, provider, has_data=data is not None)
    fields: dict[str, Any] = {} if handler.source is None else {"source": handler.source}
    try:
        made = event(chosen, provider=whose, data=data, options=_options(whose, handler.source), **fields)
    except ValueError as error:
        raise CommandError(str(error)) from None
    if not handler.hears(made.type, provider=made.provider, source=made.source):
        listens = ", ".join(handler.patterns) + (f" of {handler.provider}" if handler.provider else "")
        said = f"a worker would not give {handler.name} this event: it listens to {listens}"
        print(f"billhook: {escaped(said)}", file=sys.stderr)
    return made


def _options(provider: str, source: str | None) -> Mapping[str, Any]:
    """Of a provider that has no format of its own: those of a configured source, which say where things stand."""
    from handlers.providers import PROVIDERS
    from workers import settings

    if provider not in PROVIDERS:
        return {}
    try:
        PROVIDERS[provider].inbound({})
    except ValueError:
        sources = settings.load().sources
        for name, configured in sources.items():
            if configured.provider == provider and source in (None, name):
                return configured.options
        raise CommandError(
            f"{provider} has no format of its own: configure a source of it, whose options say where things stand; "
            "see BILLHOOK_SOURCES"
        ) from None
    return {}


def _sample(handler: Handler, event_type: str | None, provider: str | None, *, has_data: bool) -> tuple[str, str]:
    """Of which provider and which type the event is."""
    from handlers.providers import PROVIDERS
    from handlers.testing.events import samples
    from handlers.vocabulary import INTERNAL

    everybody = [*PROVIDERS, INTERNAL]
    wanted = provider or handler.provider
    if wanted is not None and wanted not in everybody:
        raise WrongUse(f"--provider: there is no provider {wanted!r}; there is {', '.join(everybody)}")
    candidates = everybody if wanted is None else [wanted]
    for one in candidates:
        for sample in samples(one):
            if sample == event_type or (event_type is None and handler.hears(sample)):
                return one, sample
    exact = event_type or next((pattern for pattern in handler.patterns if not pattern.endswith("*")), None)
    if exact is None or not has_data:
        missing = event_type or ", ".join(handler.patterns)
        raise CommandError(
            f"there is no sample of {missing}: give the event's data, as in "
            f'--event {exact or "order.made"} --data \'{{"id": "1"}}\''
        )
    return candidates[0], exact


def _no_client(_: str | None) -> Any:
    from handlers.errors import ProviderUnavailable

    raise ProviderUnavailable("NO_CLIENT", _NO_CLIENTS)


def _live(event: Event, handler: Handler) -> tuple[Event, Clients, Callable[[str], str]]:
    """The event as one of a configured source, the clients of all, and what takes their secrets out of a text."""
    from workers import logs, settings
    from workers.clients import Clients

    configured = settings.load()
    of_provider = [name for name, source in configured.sources.items() if source.provider == event.provider]
    if handler.source is None and of_provider:
        event = replace(event, source=of_provider[0])
    made = Clients(configured)
    secrets = logs.hidden(configured)
    return event, lambda name: made.meant(name, event.source), lambda text: logs.masked(text, secrets)


def _print(ran: Ran, which: str, hide: Callable[[str], str]) -> None:
    for line in _lines(ran, which):
        print(escaped(hide(line)))
    sys.stdout.flush()


def _lines(ran: Ran, which: str) -> Iterator[str]:
    yield f"{ran.handler} on {ran.event.type} of {ran.event.provider}, {ran.event.id}{which}"
    for line in ran.log:
        rest = [f"{name}={value}" for name, value in line.items() if name not in _OF_EVERY_LINE]
        yield " ".join([f"  {line['log_level']:<8} {line['event']}", *rest])
    for name, value in ran.steps.items():
        yield f"  step     {name}: {json.dumps(value, default=_shown, ensure_ascii=False)}"
    for emitted in ran.emitted:
        yield f"  emitted  {emitted.type} {json.dumps(emitted.data, ensure_ascii=False)}"
    if ran.outcome == "failed":
        yield ran.trace.removesuffix("\n")
    yield _ending(ran)


_OF_EVERY_LINE = frozenset({"event", "log_level", "event_id", "handler"})


def _ending(ran: Ran) -> str:
    from handlers.errors import Retry

    if ran.outcome == "paused":
        return f"paused until {_shown(ran.paused_until)}; --times 2 goes on from there"
    # After a failure the traceback has said it.
    why = "" if ran.error is None or ran.outcome == "failed" else f": {_in_short(ran.error)}"
    if isinstance(ran.error, Retry):
        after = "" if ran.error.after is None else f" in {ran.error.after:g} s"
        return f"asks to be run again{after}{why}"
    return f"{ran.outcome} in {ran.seconds:.3f} s{why}"


def _in_short(error: BaseException) -> str:
    from handlers.errors import Discard, Retry

    text = " ".join(str(error).split())
    return text if isinstance(error, Discard | Retry) else f"{type(error).__name__}: {text}".removesuffix(": ")


def _as_json(ran: Ran) -> dict[str, Any]:
    return {
        "handler": ran.handler,
        "event": {"id": ran.event.id, "type": ran.event.type, "provider": ran.event.provider},
        "attempt": ran.attempt,
        "outcome": ran.outcome,
        "seconds": round(ran.seconds, 6),
        "error": None if ran.error is None else _in_short(ran.error),
        "trace": ran.trace if ran.outcome == "failed" else None,
        "retry_after": getattr(ran.error, "after", None),
        "paused_until": ran.paused_until,
        "emitted": [emitted._asdict() for emitted in ran.emitted],
        "steps": ran.steps,
        "log": ran.log,
    }


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return value.isoformat() if isinstance(value, datetime) else str(value)
